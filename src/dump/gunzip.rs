//! Decompresses, and proves that the dump is whole: every byte, gzip's checksum and length, and the dump's
//! own end.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{anyhow, ensure, Error, Result};
use flate2::bufread::GzDecoder;
use log::warn;

use super::age::Failed;
use super::proof::Witness;
use crate::postgres::Format;
use crate::s3::S3Error;

/// The header without the fields that pgkeep does not write (RFC 1952).
const GZIP_HEADER: u64 = 10;
/// The last field of the trailer, which is the length of the dump.
pub const TRAILER_LENGTH: usize = 4;
/// The size of a decompressed piece.
const PIECE: usize = 128 * 1024;

/// Decompresses an object of `size` bytes. `fetched` gets the object's own bytes, `dump` the decompressed
/// bytes. The last piece of the dump is held back until everything is proven, so its reader cannot take a
/// damaged dump for a whole one. `counted` is the number of the object's bytes that are done. Returns the
/// dump's length in bytes.
///
/// # Errors
/// The object cannot be read, or it is not a whole backup (the error names the byte at which this shows).
/// Errors of `fetched` and `dump` are passed on.
pub fn unpack(
    source: impl BufRead,
    format: Format,
    size: u64,
    counted: &AtomicU64,
    fetched: impl FnMut(&[u8]) -> io::Result<()>,
    mut dump: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let mut gzip = GzDecoder::new(Tapped::new(source, fetched));
    let mut witness = Witness::new(format);
    let (mut piece, mut held) = (vec![0; PIECE], vec![0; PIECE]);
    let mut held_length = 0;
    loop {
        let read = match gzip.read(&mut piece) {
            Ok(read) => read,
            Err(problem) if problem.kind() == io::ErrorKind::Interrupted => continue,
            Err(problem) => return Err(explain(problem, gzip.get_ref().position, size)),
        };
        counted.store(gzip.get_ref().position, Ordering::Relaxed);
        if read == 0 {
            break;
        }
        witness.push(&piece[..read]);
        if held_length > 0 {
            dump(&held[..held_length])?;
        }
        std::mem::swap(&mut piece, &mut held);
        held_length = read;
    }
    let mut behind = gzip.into_inner();
    let end = behind.position;
    let surplus = io::copy(&mut behind, &mut io::sink()).map_err(|problem| explain(problem, end, size))?;
    ensure!(surplus == 0, "the gzip stream ends at byte {end} of {size}: {surplus} bytes are behind it");
    witness.check().map_err(Error::msg)?;
    if let Some(doubt) = witness.unproven() {
        warn!("{doubt}");
    }
    dump(&held[..held_length])?;
    Ok(witness.length)
}

/// The least length that a dump can have, by the last bytes of its object of `size` bytes. RFC 1952: they are the
/// length, modulo 2^32. So this is the length itself, unless the dump is larger than 4 GiB.
pub fn least_length(trailer: [u8; TRAILER_LENGTH], size: u64) -> u64 {
    let least = least_length_of_any(size);
    let low = u64::from(u32::from_le_bytes(trailer));
    low + least.saturating_sub(low).next_multiple_of(1 << 32)
}

/// The least length that a dump can have whose object has `size` bytes, encrypted or not: what cannot be compressed
/// becomes a little longer, by less than this.
pub fn least_length_of_any(size: u64) -> u64 {
    size.saturating_sub(size / 100 + 100)
}

/// A reader that shows each byte once to a tap.
pub struct Tapped<R, T> {
    source: R,
    /// Bytes that were consumed.
    position: u64,
    /// Bytes that the tap has received.
    seen: u64,
    tap: T,
}

impl<R: BufRead, T: FnMut(&[u8]) -> io::Result<()>> Tapped<R, T> {
    /// Shows the bytes of `source` to `tap`.
    pub fn new(source: R, tap: T) -> Self {
        Tapped { source, position: 0, seen: 0, tap }
    }
}

impl<R: BufRead, T: FnMut(&[u8]) -> io::Result<()>> BufRead for Tapped<R, T> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.source.fill_buf()?;
        let known = usize::try_from(self.seen - self.position).unwrap_or(usize::MAX);
        if known < buffer.len() {
            (self.tap)(&buffer[known..])?;
            self.seen = self.position + buffer.len() as u64;
        }
        Ok(buffer)
    }

    fn consume(&mut self, count: usize) {
        self.position += count as u64;
        self.source.consume(count);
    }
}

impl<R: BufRead, T: FnMut(&[u8]) -> io::Result<()>> Read for Tapped<R, T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

/// The decoder's own messages are short and name no position.
fn explain(problem: io::Error, position: u64, size: u64) -> Error {
    match problem.kind() {
        io::ErrorKind::UnexpectedEof => {
            anyhow!("the backup is cut off: the object ends at byte {position}, within its gzip stream")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData if position <= GZIP_HEADER => {
            anyhow!("the object is no gzip file ({problem})")
        }
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            anyhow!("the backup is damaged: {problem}, at byte {position} of {size} or before")
        }
        _ => explain_source(problem),
    }
}

/// The error inside says more than the io::Error around it.
pub fn explain_source(problem: io::Error) -> Error {
    match problem.downcast::<S3Error>().map_err(io::Error::downcast::<Failed>) {
        Ok(error) => Error::from(error).context("cannot read the backup"),
        Err(Ok(Failed(failure))) => failure,
        Err(Err(problem)) => Error::from(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;
    use flate2::Compression;
    use std::io::Write;

    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";

    fn object(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    /// What is passed on of a plain dump and of its object, and how it ends.
    fn unpacked(object: &[u8], source: impl BufRead) -> (Vec<u8>, Vec<u8>, Result<u64>) {
        let size = object.len() as u64;
        let (mut raw, mut text) = (Vec::new(), Vec::new());
        let fetched = |bytes: &[u8]| raw.write_all(bytes);
        let dump = |bytes: &[u8]| Ok(text.write_all(bytes)?);
        let ended = unpack(source, Format::Plain, size, &AtomicU64::new(0), fetched, dump);
        (raw, text, ended)
    }

    #[test]
    fn the_end_of_an_object_tells_the_least_length_of_its_dump() {
        const GIB: u64 = 1 << 30;
        for (length, size) in
            [(0, 20), (5_000, 1_000), (1_000, 1_005), (4 * GIB - 1, GIB), (6 * GIB, 3 * GIB)]
        {
            let trailer = ((length % (4 * GIB)) as u32).to_le_bytes();
            let least = least_length(trailer, size);
            assert_eq!(least, length);
        }
        // Of 9 GiB that became 2, only that they are at least 5 GiB is certain.
        let least = least_length((GIB as u32).to_le_bytes(), 2 * GIB);
        assert_eq!(least, 5 * GIB);
    }

    #[test]
    fn a_whole_object_is_passed_on_to_its_last_byte() {
        for length in [0, 1, PIECE, 5 * PIECE + 7] {
            let text = "x".repeat(length) + "\n" + END;
            let object = object(&text);
            // In small buffers, as a slow network delivers them.
            let source = io::BufReader::with_capacity(100, object.as_slice());
            let (raw, dumped, ended) = unpacked(&object, source);
            assert_eq!(ended.unwrap(), text.len() as u64);
            assert!(raw == object && dumped == text.as_bytes());
        }
    }

    #[test]
    fn the_last_piece_is_passed_on_only_when_all_is_proven() {
        let text = "x".repeat(3 * PIECE) + "\n" + END;
        let object = object(&text);
        let but_trailer = &object[..object.len() - 8];
        let mut wrong = object.clone();
        wrong[but_trailer.len()] ^= 1;
        for source in [but_trailer, &wrong, &[object.clone(), vec![0]].concat()] {
            let (_, dumped, ended) = unpacked(&object, source);
            assert!(ended.is_err());
            assert!(!dumped.is_empty() && !String::from_utf8_lossy(&dumped).contains("complete"));
        }
    }
}
