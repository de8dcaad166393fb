//! The way back out of the bucket, proven on the way: every byte, gzip's checksum and length, the dump's own
//! end.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Error, Result};
use flate2::bufread::GzDecoder;
use log::{info, warn};

use crate::base::logging;
use crate::base::progress::{self, rate};
use crate::base::units;
use crate::commands::list;
use crate::config::Config;
use crate::dump::ahead::ReadAhead;
use crate::dump::proof::Witness;
use crate::s3::{Client, S3Error};
use crate::store::key::Backup;
use crate::store::select;

/// Without the fields that pgkeep does not write (RFC 1952).
const GZIP_HEADER: u64 = 10;
/// What is decompressed in one piece.
const PIECE: usize = 128 * 1024;

/// Streams a backup out of the bucket: `fetched` gets the object's own bytes, `dump` the decompressed ones. The
/// last piece of the dump is held back until all is proven, so that whoever reads it cannot take a damaged
/// dump for a whole one. Answers with the dump's length in bytes.
///
/// # Errors
/// Where the object cannot be read, where it is not a whole backup (with the byte at which that shows), and
/// what `fetched` and `dump` answer.
pub fn stream(
    s3: &Client,
    backup: &Backup,
    what: &'static str,
    fetched: impl FnMut(&[u8]) -> io::Result<()>,
    dump: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let object = s3.download(&backup.key)?;
    let size = object.size;
    ensure!(size == backup.size, "the object has {size} bytes, and was listed with {}", backup.size);
    let counted = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&counted);
    let _reporter =
        progress::report(move |elapsed| line(what, shown.load(Ordering::Relaxed), size, elapsed))?;
    unpack(ReadAhead::new(object)?, backup, &counted, fetched, dump)
}

/// The same from any source of the object's bytes; `counted` is how many of them are done.
fn unpack(
    source: impl BufRead,
    backup: &Backup,
    counted: &AtomicU64,
    fetched: impl FnMut(&[u8]) -> io::Result<()>,
    mut dump: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let size = backup.size;
    let tapped = Tapped { source, position: 0, seen: 0, tap: fetched };
    let mut gzip = GzDecoder::new(tapped);
    let mut witness = Witness::new(backup.format);
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

/// A reader that shows everything once to somebody else.
struct Tapped<R, T> {
    source: R,
    /// Bytes that were consumed.
    position: u64,
    /// Bytes that the tap has got.
    seen: u64,
    tap: T,
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

/// The decoder's own words are terse, and say no place.
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
        // The S3 error within says more than the io::Error around it.
        _ => match problem.downcast::<S3Error>() {
            Ok(error) => Error::from(error).context("cannot read the backup"),
            Err(problem) => Error::from(problem),
        },
    }
}

fn line(what: &str, done: u64, size: u64, elapsed: Duration) -> String {
    let share = done as f64 / size.max(1) as f64;
    let left = match share > 0.0 {
        true => {
            let left = Duration::from_secs_f64(elapsed.as_secs_f64() * (1.0 - share) / share);
            format!("about {} left", units::duration(left))
        }
        false => "waiting".into(),
    };
    format!(
        "{what} for {}: {} of {} ({:.0} %, {}), {left}",
        units::duration(elapsed),
        units::bytes(done),
        units::bytes(size),
        100.0 * share,
        rate(done, elapsed)
    )
}

/// `pgkeep verify`: proves a backup, or all of this database's; each is a line of the log.
///
/// # Errors
/// Where one is not whole.
pub fn command(config: &Config, s3: &Client, which: Option<&str>) -> Result<()> {
    let backups = match which {
        Some(which) => vec![select::find(config, s3, which)?.backup],
        None => list::backups(config, s3)?,
    };
    ensure!(!backups.is_empty(), "there is no backup of database \"{}\"", config.database);
    let mut bad = 0;
    for backup in &backups {
        let started = Instant::now();
        match stream(s3, backup, "verifying", |_| Ok(()), |_| Ok(())) {
            Ok(dumped) => info!(
                "{} is whole: {}, {} uncompressed; read in {} ({})",
                s3.place(&backup.key),
                units::bytes(backup.size),
                units::bytes(dumped),
                units::duration(started.elapsed()),
                rate(backup.size, started.elapsed())
            ),
            Err(failure) => {
                // What S3 does not give says nothing about the backup.
                let unread = failure.chain().any(|cause| cause.is::<S3Error>());
                let verdict = if unread { "could not be read" } else { "is not a whole backup" };
                let verdict = format!("{} {verdict}", s3.place(&backup.key));
                if backups.len() == 1 {
                    return Err(failure.context(verdict));
                }
                bad += 1;
                logging::failure(&verdict, &failure);
            }
        }
    }
    match bad {
        0 if backups.len() > 1 => info!("all {} are whole", units::count(backups.len(), "backup")),
        0 => {}
        _ => bail!("{bad} of {} are not proven whole", units::count(backups.len(), "backup")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::key::Format;
    use flate2::write::GzEncoder;
    use flate2::Compression;
    use std::io::Write;

    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";

    fn object(text: &str) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    /// What of a plain dump is passed on, of its object, and how it ends.
    fn unpacked(object: &[u8], source: impl BufRead) -> (Vec<u8>, Vec<u8>, Result<u64>) {
        let size = object.len() as u64;
        let backup =
            Backup { key: "k".into(), time: chrono::DateTime::UNIX_EPOCH, format: Format::Plain, size };
        let (mut raw, mut text) = (Vec::new(), Vec::new());
        let fetched = |bytes: &[u8]| raw.write_all(bytes);
        let dump = |bytes: &[u8]| Ok(text.write_all(bytes)?);
        let ended = unpack(source, &backup, &AtomicU64::new(0), fetched, dump);
        (raw, text, ended)
    }

    #[test]
    fn a_whole_object_is_passed_on_to_its_last_byte() {
        for length in [0, 1, PIECE, 5 * PIECE + 7] {
            let text = "x".repeat(length) + "\n" + END;
            let object = object(&text);
            // In small buffers, as a slow network's.
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
