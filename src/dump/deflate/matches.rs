//! Finds what repeats earlier bytes.

/// Deflate looks back this far.
const WINDOW: usize = 32 * 1024;
/// The longest match that deflate has a code for.
pub const LONGEST: usize = 258;
/// Bytes of a word. A match is at least as long. Deflate allows shorter ones, but few of them take fewer bits than
/// the bytes themselves; in hexadecimal digits they take more.
const WORD: u32 = 5;
/// If a match is at least as long, a better one is not looked for.
const LONG: usize = 32;
/// Of the places inside of a match, and of those before the block, one in so many is remembered.
const SPARSE: usize = 4;
/// The table has a place for so many bits of a word's hash: as many places as a window has bytes.
const HASH: u32 = 15;
/// At most so many matches are found at a time. They take 128 kB.
const MOST: usize = 16 * 1024;
/// The first time only so many: they decide about the patience.
const FIRST: usize = 1024;
/// After 2^patience bytes without a match, the search steps two bytes at a time, then three, and so on.
const PATIENT: u32 = 5;
/// But it never steps further than this, so that it notices where something begins to repeat.
const LONGEST_STEP: usize = 32;
/// For bytes of which most repeat nothing: the matches are long, and are found all the same.
const IMPATIENT: u32 = 2;
/// From so many bytes between two matches on.
const RARE: usize = 5;
/// The search ends so many bytes before the end, where it cannot read two words any more.
const END: usize = 16;

/// Bytes that repeat nothing (literals), and a match behind them.
#[derive(Clone, Copy)]
pub struct Match {
    /// The number of bytes before the match.
    pub literals: u32,
    /// The bytes of the match; 0 if there is none.
    pub length: u16,
    /// How far the same bytes are before the match: at most 32768.
    pub distance: u16,
}

/// Searches a block.
pub struct Finder {
    /// Where a word was last, by its hash. It is the position modulo 2^16, which is enough to look back.
    places: Box<[u16; 1 << HASH]>,
    found: Vec<Match>,
    most: usize,
    patience: u32,
}

impl Default for Finder {
    fn default() -> Self {
        let places = vec![0; 1 << HASH].into_boxed_slice().try_into().expect("the length is the same");
        Finder { places, found: Vec::new(), most: FIRST, patience: PATIENT }
    }
}

impl Finder {
    /// Forgets everything else, and remembers what is before `start`.
    pub fn begin(&mut self, bytes: &[u8], start: usize) {
        (self.most, self.patience) = (FIRST, PATIENT);
        self.places.fill(0);
        for at in (0..start.saturating_sub(8)).step_by(SPARSE) {
            self.remember(word_at(bytes, at), at);
        }
    }

    /// Searches from `start` on. Returns how far it came, and the literals and matches up to there.
    pub fn next(&mut self, bytes: &[u8], start: usize) -> (usize, &[Match]) {
        self.found.clear();
        let stop = bytes.len().saturating_sub(END);
        let (mut at, mut literals) = (start, start);
        let mut all_literals = 0;
        while at < stop && self.found.len() < self.most {
            let Some((mut length, mut distance)) = self.find(bytes, at) else {
                at += LONGEST_STEP.min(1 + ((at - literals) >> self.patience));
                continue;
            };
            let mut first = at;
            if length < LONG {
                // Is there a longer one a byte later?
                if let Some((longer, its)) = self.find(bytes, at + 1).filter(|(other, _)| *other > length) {
                    (first, length, distance) = (at + 1, longer, its);
                }
            }
            let end = first + length;
            while first > literals && first > distance && bytes[first - 1] == bytes[first - 1 - distance] {
                first -= 1;
            }
            // What is too long at the front stays literal.
            first = first.max(end.saturating_sub(LONGEST));
            self.found.push(Match {
                literals: (first - literals) as u32,
                length: (end - first) as u16,
                distance: distance as u16,
            });
            all_literals += first - literals;
            for inside in (at + 2..end.min(stop)).step_by(SPARSE) {
                self.remember(word_at(bytes, inside), inside);
            }
            (at, literals) = (end, end);
        }
        if self.found.len() < self.most {
            at = bytes.len();
            self.found.push(Match { literals: (at - literals) as u32, length: 0, distance: 0 });
        } else if self.most == FIRST {
            self.most = MOST;
            self.patience = if all_literals / FIRST < RARE { PATIENT } else { IMPATIENT };
        }
        (at, &self.found)
    }

    /// The length and distance of the match at `at`. Remembers the place.
    #[inline(always)]
    fn find(&mut self, bytes: &[u8], at: usize) -> Option<(usize, usize)> {
        let word = word_at(bytes, at);
        let distance = usize::from((at as u16).wrapping_sub(self.remember(word, at)));
        if distance == 0 || distance > WINDOW.min(at) {
            return None;
        }
        let differ = word ^ word_at(bytes, at - distance);
        match differ.trailing_zeros() / 8 {
            8 => Some((length(bytes, at, distance), distance)),
            length @ WORD.. => Some((length as usize, distance)),
            _ => None,
        }
    }

    /// Returns the place where the word was before, or the place of another word.
    #[inline(always)]
    fn remember(&mut self, word: u64, at: usize) -> u16 {
        // A product's upper bits depend on all bits of the word.
        let hash = (word << (64 - 8 * WORD)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH);
        std::mem::replace(&mut self.places[hash as usize], at as u16)
    }
}

#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The length of a match of at least eight bytes.
fn length(bytes: &[u8], at: usize, distance: usize) -> usize {
    let most = LONGEST.min(bytes.len() - at);
    let mut length = 8;
    while length + 8 <= most {
        let differ = word_at(bytes, at + length) ^ word_at(bytes, at + length - distance);
        if differ != 0 {
            return length + differ.trailing_zeros() as usize / 8;
        }
        length += 8;
    }
    while length < most && bytes[at + length] == bytes[at + length - distance] {
        length += 1;
    }
    length
}
