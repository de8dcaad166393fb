//! Reading ahead: a thread of its own keeps a few buffers full, so that whoever decompresses need not wait
//! for the network, nor the network for him.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;

const BUFFER: usize = 256 * 1024;
/// Full buffers that wait, at most.
const WAITING: usize = 16;

/// What a source reads, at most 4 MB ahead of its reader.
pub struct ReadAhead {
    full: Receiver<io::Result<Vec<u8>>>,
    /// Where used buffers go back.
    used: Sender<Vec<u8>>,
    buffer: Vec<u8>,
    position: usize,
    ended: bool,
}

impl ReadAhead {
    /// Starts to read `source`. It is read on until it ends or fails, or until this is dropped.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn new(source: impl Read + Send + 'static) -> io::Result<Self> {
        let (filled, full) = mpsc::sync_channel(WAITING);
        let (used, spare) = mpsc::channel();
        thread::Builder::new().name("download".into()).spawn(move || fill(source, &filled, &spare))?;
        Ok(ReadAhead { full, used, buffer: Vec::new(), position: 0, ended: false })
    }
}

fn fill(mut source: impl Read, filled: &SyncSender<io::Result<Vec<u8>>>, spare: &Receiver<Vec<u8>>) {
    loop {
        let mut buffer: Vec<u8> = spare.try_recv().unwrap_or_default();
        buffer.resize(BUFFER, 0);
        let mut length = 0;
        let ended = loop {
            match source.read(&mut buffer[length..]) {
                Ok(0) => break Some(Ok(())),
                Ok(read) => length += read,
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => break Some(Err(problem)),
            }
            if length == BUFFER {
                break None;
            }
        };
        buffer.truncate(length);
        // Nobody listens any more where the reader was dropped.
        if length > 0 && filled.send(Ok(buffer)).is_err() {
            return;
        }
        match ended {
            None => {}
            // An empty buffer is the end; a channel that just closes is a thread that panicked.
            Some(end) => return drop(filled.send(end.map(|()| Vec::new()))),
        }
    }
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.buffer.len() && !self.ended {
            let next =
                self.full.recv().map_err(|_| io::Error::other("the reading thread has panicked"))??;
            self.ended = next.is_empty();
            self.position = 0;
            // The thread may have ended, and then needs none.
            let _ = self.used.send(std::mem::replace(&mut self.buffer, next));
        }
        Ok(&self.buffer[self.position..])
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for ReadAhead {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_and_an_error_behind_it() {
        struct Breaks;
        impl Read for Breaks {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let data: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut read = Vec::new();
        ReadAhead::new(io::Cursor::new(data.clone())).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == data);
        read.clear();
        let mut broken = ReadAhead::new(io::Cursor::new(data.clone()).chain(Breaks)).unwrap();
        let problem = broken.read_to_end(&mut read).unwrap_err();
        assert_eq!(problem.kind(), io::ErrorKind::ConnectionReset);
        assert!(read == data);
        assert!(broken.read(&mut [0; 10]).is_err(), "an error is no end");
    }
}
