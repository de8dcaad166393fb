//! What an age file shows of itself without a key (<https://age-encryption.org/v1>): a header of lines, the last of
//! which begins with `---`, a nonce, and chunks, each with a tag behind it.

/// The first line.
const INTRO: &[u8] = b"age-encryption.org/v1";
/// What the header's last line begins with.
const LAST_LINE: &[u8] = b"---";
/// More than the most recipients need.
const LONGEST_HEADER: u64 = 1 << 20;
const NONCE: u64 = 16;
const TAG: u64 = 16;
/// The bytes of the content in each chunk but the last one.
const CHUNK: u64 = 64 * 1024;

/// Reads an age file as it passes.
#[derive(Default)]
pub struct Envelope {
    /// The header's line that is being read.
    line: Vec<u8>,
    /// Whether the first line was an age file's.
    begun: bool,
    /// Whether the header was read to its end.
    opened: bool,
    /// Something else than an age file.
    other: bool,
    header: u64,
    payload: u64,
}

impl Envelope {
    /// Takes the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.opened && !self.other && !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n');
            let (line, behind) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
            self.line.extend_from_slice(line);
            self.header += line.len() as u64;
            rest = behind;
            self.other = self.header > LONGEST_HEADER;
            if end.is_some() {
                self.end_line();
            }
        }
        self.payload += rest.len() as u64;
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if self.begun {
            self.opened = line.starts_with(LAST_LINE);
        } else {
            self.begun = line.strip_suffix(b"\n") == Some(INTRO);
            self.other = !self.begun;
        }
    }

    /// The length of the content, if the file ends here.
    ///
    /// # Errors
    /// Nothing has this length, or it is no age file: a sentence.
    pub fn content(&self) -> Result<u64, String> {
        let length = self.header + self.payload;
        if self.other || (!self.begun && !INTRO.starts_with(&self.line)) {
            return Err("it is not encrypted with age, whatever its name says".into());
        }
        if !self.opened {
            return Err(format!("it is cut off at byte {length}, within age's header"));
        }
        let chunks = self.payload.saturating_sub(NONCE);
        let (whole, last) = (chunks / (CHUNK + TAG), chunks % (CHUNK + TAG));
        // Only a file without content has a chunk of only a tag.
        let possible = match last {
            0 => whole > 0,
            TAG => whole == 0,
            last => last > TAG,
        };
        if possible {
            return Ok(chunks - TAG * chunks.div_ceil(CHUNK + TAG));
        }
        Err(format!("it is cut off at byte {length}, within a chunk of age's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "age-encryption.org/v1\n-> X25519 c\nabc\n--- mac\n";

    fn content(file: &[u8], piece: usize) -> Result<u64, String> {
        let mut envelope = Envelope::default();
        file.chunks(piece).for_each(|bytes| envelope.push(bytes));
        envelope.content()
    }

    #[test]
    fn the_length_of_the_content_is_that_of_the_chunks_without_their_tags() {
        for (length, chunks) in [(0, 1), (1, 1), (65_536, 1), (65_537, 2), (131_072, 2), (200_000, 4)] {
            let file = [HEADER.as_bytes(), &vec![b'\n'; 16 + length + 16 * chunks]].concat();
            for piece in [1, 7, 100_000] {
                assert_eq!(content(&file, piece), Ok(length as u64));
            }
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_told() {
        let says = |file: &[u8], part: &str| {
            for piece in [1, 100_000] {
                let problem = content(file, piece).unwrap_err();
                assert!(problem.contains(part), "{problem}");
            }
        };
        for end in 0..HEADER.len() {
            says(&HEADER.as_bytes()[..end], "within age's header");
        }
        for length in [0, 1, 16, 31, 16 + 65_552 + 1, 16 + 65_552 + 16] {
            says(&[HEADER.as_bytes(), &vec![0; length]].concat(), "within a chunk");
        }
        says(&[0x1f, 0x8b], "not encrypted with age");
        says(&[0x1f, 0x8b].repeat(100), "not encrypted with age");
        says(b"age-encryption.org/v2\n-> X\n--- mac\n", "not encrypted with age");
        says(&[b"age-encryption.org/v1\n", "->\n".repeat(400_000).as_bytes()].concat(), "not encrypted");
    }
}
