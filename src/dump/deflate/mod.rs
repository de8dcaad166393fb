//! A fast deflate encoder (RFC 1951) for blocks that are in memory as a whole.
//!
//! It passes over the bytes once. A table remembers where each sequence of five bytes was last, so there is only one
//! candidate for a match, and one more a byte later. What pg_dump writes repeats in long pieces: column after column,
//! row after row. Between them are values that repeat nothing. A longer search finds little more, and in such values it
//! finds only matches that take more bits than the bytes themselves.
//!
//! zlib's levels search longer. With what pg_dump writes, they take about three times as long for a larger result.
//! Prose and source code become up to 10 % larger here than with gzip -6.

mod bits;
mod block;
mod huffman;
mod matches;

use self::bits::Bits;
use self::matches::Finder;

/// Compresses block after block. It remembers nothing between them.
#[derive(Default)]
pub struct Encoder {
    finder: Finder,
}

impl Encoder {
    /// Compresses `bytes` from `start` on, and appends the result to `output`. Matches may refer to what is before
    /// `start`. The result ends at a byte's end: with the stream's end if it is the `last` block, otherwise with a sync
    /// flush (an empty stored block, which zlib writes too).
    pub fn compress(&mut self, bytes: &[u8], start: usize, last: bool, output: &mut Vec<u8>) {
        let mut bits = Bits::append(output);
        let mut at = start;
        self.finder.begin(bytes, start);
        loop {
            let (end, matches) = self.finder.next(bytes, at);
            let ended = end == bytes.len();
            block::write(&mut bits, &bytes[at..end], matches, last && ended);
            if ended {
                break;
            }
            at = end;
        }
        if !last {
            block::flush(&mut bits);
        }
        bits.finish();
    }
}

#[cfg(test)]
mod tests;
