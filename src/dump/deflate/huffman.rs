//! Huffman codes as deflate has them: canonical, and of a limited length (RFC 1951, 3.2.2).

/// Codes of more bits are never asked for.
const LONGEST: usize = 15;

/// A code for each of `N` symbols.
pub struct Code<const N: usize> {
    /// The bits, in the order in which they are written: the first is the lowest.
    pub bits: [u16; N],
    /// Their number; 0 for a symbol that does not occur.
    pub lengths: [u8; N],
}

impl<const N: usize> Code<N> {
    /// The code for symbols that occur so often. No code is longer than `longest` bits, at most 15.
    pub fn new(counts: &[u32; N], longest: usize) -> Self {
        let lengths = lengths(counts, longest);
        Code { bits: canonical(&lengths), lengths }
    }

    /// The number of bits that these symbols take.
    pub fn cost(&self, counts: &[u32; N]) -> usize {
        self.lengths.iter().zip(counts).map(|(length, count)| usize::from(*length) * *count as usize).sum()
    }
}

fn lengths<const N: usize>(counts: &[u32; N], longest: usize) -> [u8; N] {
    let mut used: Vec<usize> = (0..N).filter(|symbol| counts[*symbol] > 0).collect();
    // A code of a single symbol is incomplete, and not every reader takes that.
    for symbol in [0, 1] {
        if used.len() < 2 && !used.contains(&symbol) {
            used.push(symbol);
        }
    }
    used.sort_by_key(|symbol| counts[*symbol]);
    let mut having = number_of_each_length(used.iter().map(|symbol| counts[*symbol]).collect(), longest);
    // The rarest symbols come first, and get the longest codes.
    let mut length = longest;
    let mut lengths = [0; N];
    for symbol in used {
        while having[length] == 0 {
            length -= 1;
        }
        having[length] -= 1;
        lengths[symbol] = length as u8;
    }
    lengths
}

/// How many codes have each length. The counts are sorted, the smallest first, and there are at least two.
///
/// A. Moffat and J. Katajainen, In-Place Calculation of Minimum-Redundancy Codes, 1995.
fn number_of_each_length(mut counts: Vec<u32>, longest: usize) -> [usize; LONGEST + 1] {
    let symbols = counts.len();
    // The tree's inner nodes, in the order in which they arise, take the places of the counts: first their weight, then
    // their parent.
    let (mut leaf, mut root) = (0, 0);
    for node in 0..symbols - 1 {
        let mut weight = 0;
        for _ in 0..2 {
            if leaf == symbols || (root < node && counts[root] < counts[leaf]) {
                weight += counts[root];
                counts[root] = node as u32;
                root += 1;
            } else {
                weight += counts[leaf];
                leaf += 1;
            }
        }
        counts[node] = weight;
    }
    // Then their depth.
    let mut depths = counts;
    depths[symbols - 2] = 0;
    for node in (0..symbols - 2).rev() {
        depths[node] = depths[depths[node] as usize] + 1;
    }
    // Each depth has twice as many nodes as the depth above has inner nodes.
    let mut having = [0; LONGEST + 1];
    let (mut nodes, mut depth, mut inner) = (1, 0, depths[..symbols - 1].iter().rev().peekable());
    while nodes > 0 {
        let mut parents = 0;
        while inner.next_if(|node| **node == depth).is_some() {
            parents += 1;
        }
        having[longest.min(depth as usize)] += nodes - parents;
        nodes = 2 * parents;
        depth += 1;
    }
    limit(&mut having, longest);
    having
}

/// Codes that were too long have got the longest length, and now there are too many codes: Kraft's sum, in units of the
/// longest code, is too large. Each step takes one of the longest, and puts it beside one that becomes a bit longer.
fn limit(having: &mut [usize; LONGEST + 1], longest: usize) {
    let sum: usize = (1..=longest).map(|length| having[length] << (longest - length)).sum();
    for _ in 1 << longest..sum {
        let length = (1..longest).rev().find(|length| having[*length] > 0).expect("a shorter code");
        having[longest] -= 1;
        having[length] -= 1;
        having[length + 1] += 2;
    }
}

/// RFC 1951, 3.2.2: codes of a length are in the order of their symbols, and behind the shorter ones.
fn canonical<const N: usize>(lengths: &[u8; N]) -> [u16; N] {
    let mut having = [0; LONGEST + 1];
    lengths.iter().for_each(|length| having[usize::from(*length)] += 1);
    having[0] = 0;
    let mut next = [0; LONGEST + 1];
    for length in 1..=LONGEST {
        next[length] = (next[length - 1] + having[length - 1]) << 1;
    }
    lengths.map(|length| match length {
        0 => 0,
        length => {
            let next = &mut next[usize::from(length)];
            *next += 1_u16;
            (*next - 1).reverse_bits() >> (16 - length)
        }
    })
}
