//! The temporary file between compressor and upload: one end writes it, the other end reads it.
//!
//! It has no name, so a crash leaves nothing behind and nobody else can open it. The bytes are cut into parts
//! as they are written, and each part's checksum is computed at once. So a part is read only once: into the
//! socket. When a part is in the bucket, its place in the file becomes a hole. So the disk holds only what is
//! not yet uploaded.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::Arc;

use anyhow::{Context, Result};
use md5::{Digest, Md5};
use rustix::fs::statvfs;

use crate::s3::{Part, Source};

/// The free bytes in `directory`. None if the system does not say.
pub fn free_space(directory: &Path) -> Option<u64> {
    let system = statvfs(directory).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Makes a file without a name in `directory`. It disappears with its last descriptor.
pub fn unnamed_file(directory: &Path) -> io::Result<File> {
    let file = tempfile::tempfile_in(directory)?;
    // Others can find the file only through /proc, and there its mode counts. The umask may be anything.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// The writing end. Parts are sent to the channel as soon as they are full.
pub struct Spool {
    source: Arc<Source>,
    part_size: u64,
    full: Sender<Part>,
    part: u32,
    length: u64,
    md5: Md5,
}

impl Spool {
    /// Makes the file in `directory`. Every part but the last one has `part_size` bytes.
    ///
    /// # Errors
    /// The file cannot be made. The error names the directory.
    pub fn create(directory: &Path, part_size: u64, full: Sender<Part>) -> Result<Self> {
        let file = unnamed_file(directory)
            .with_context(|| format!("cannot make a temporary file in {}", directory.display()))?;
        let source = Source::new(file, directory.to_owned());
        Ok(Spool { source: Arc::new(source), part_size, full, part: 1, length: 0, md5: Md5::new() })
    }

    /// Ends the writing and returns the last part. It may be shorter than the others, or empty.
    pub fn finish(mut self) -> Part {
        self.cut()
    }

    /// The number of bytes written so far.
    pub fn written(&self) -> u64 {
        self.offset() + self.length
    }

    fn offset(&self) -> u64 {
        u64::from(self.part - 1) * self.part_size
    }

    fn cut(&mut self) -> Part {
        let part = Part {
            number: self.part,
            md5: std::mem::take(&mut self.md5).finalize().into(),
            length: self.length,
            offset: self.offset(),
            source: Arc::clone(&self.source),
        };
        self.part += 1;
        self.length = 0;
        part
    }
}

impl Write for Spool {
    /// Fails with `BrokenPipe` if nobody takes the parts any more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(self.part_size - self.length).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        self.source.file.write_all_at(bytes, self.written())?;
        self.md5.update(bytes);
        self.length += bytes.len() as u64;
        if self.length == self.part_size {
            let part = self.cut();
            self.full.send(part).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;

    #[test]
    fn parts_put_together_are_what_was_written() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for part_size in [1, 7, 333, 999, 1000, 1001] {
            let (full, parts) = mpsc::channel();
            let mut spool = Spool::create(&std::env::temp_dir(), part_size, full).unwrap();
            for chunk in data.chunks(90) {
                spool.write_all(chunk).unwrap();
            }
            assert_eq!(spool.written(), 1000);
            let last = spool.finish();
            let mut together = Vec::new();
            for (at, part) in parts.iter().chain([last]).enumerate() {
                assert_eq!(part.number as usize, at + 1);
                let start = together.len();
                part.reader().read_to_end(&mut together).unwrap();
                assert_eq!(part.md5, <[u8; 16]>::from(Md5::digest(&together[start..])));
            }
            assert_eq!(together, data, "part size {part_size}");
        }
    }

    #[test]
    fn a_spool_that_lost_its_end_is_an_error_and_no_short_body() {
        let (full, _parts) = mpsc::channel();
        let mut spool = Spool::create(&std::env::temp_dir(), 100, full).unwrap();
        spool.write_all(&[1; 50]).unwrap();
        let part = spool.finish();
        part.source.file.set_len(20).unwrap();
        let problem = part.reader().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(problem.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_part_that_is_released_takes_no_space() {
        let (full, parts) = mpsc::channel();
        let mut spool = Spool::create(&std::env::temp_dir(), 1 << 20, full).unwrap();
        spool.write_all(&[7; 3 << 20]).unwrap();
        let blocks = || spool.source.file.metadata().unwrap().blocks();
        let before = blocks();
        parts.try_iter().take(2).for_each(|part| part.release());
        if spool.source.only_grows.load(Ordering::Relaxed) {
            return;
        }
        assert!(blocks() <= before / 2, "{before} and then {}", blocks());
    }

    #[test]
    fn nobody_takes_the_parts_any_more() {
        let (full, parts) = mpsc::channel();
        drop(parts);
        let mut spool = Spool::create(&std::env::temp_dir(), 10, full).unwrap();
        assert_eq!(spool.write_all(&[0; 10]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
