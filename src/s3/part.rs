//! A part of an upload: a range of a file, with the checksum of its bytes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use log::info;
use rustix::fs::{fallocate, FallocateFlags};

/// A range of a file that will not change any more.
#[derive(Clone, Debug)]
pub struct Part {
    /// S3's part number, from 1.
    pub number: u32,
    /// The checksum of its bytes.
    pub md5: [u8; 16],
    /// The length in bytes.
    pub length: u64,
    /// Where the part begins in the file.
    pub offset: u64,
    /// The file that contains the part.
    pub source: Arc<Source>,
}

/// The file that parts are cut from.
#[derive(Debug)]
pub struct Source {
    /// The file.
    pub file: File,
    /// The file's directory, for messages.
    directory: PathBuf,
    /// Set after the log says that space cannot be freed.
    pub(crate) only_grows: AtomicBool,
}

impl Source {
    /// Wraps a file in `directory`.
    pub fn new(file: File, directory: PathBuf) -> Self {
        Source { file, directory, only_grows: AtomicBool::new(false) }
    }
}

impl Part {
    /// Reads the part from its beginning. Each call makes a new reader.
    pub fn reader(&self) -> impl Read + '_ {
        PartReader { part: self, position: 0 }
    }

    /// Frees the part's space on the disk. The part cannot be read any more. Not every file system supports
    /// this; if it does not, the file just grows.
    pub fn release(&self) {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(problem) = fallocate(&self.source.file, hole, self.offset, self.length) {
            if !self.source.only_grows.swap(true, Ordering::Relaxed) {
                info!(
                    "the temporary file grows to the size of the backup: {} gives no space back ({problem})",
                    self.source.directory.display()
                );
            }
        }
    }
}

/// Reads exactly one part. A spool that is too short is an error. If the body just ended early, the HTTP
/// client would wait for the rest.
struct PartReader<'a> {
    part: &'a Part,
    position: u64,
}

impl Read for PartReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.part.length - self.position;
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.part.source.file.read_at(&mut buffer[..wanted], self.part.offset + self.position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += read as u64;
        Ok(read)
    }
}
