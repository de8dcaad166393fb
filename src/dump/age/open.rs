//! A backup on its way out of the bucket, decrypted.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use anyhow::{Error, Result};

use super::{why, Failed, Identity, QUICK};
use crate::base::process::Process;
use crate::base::shutdown::Shutdown;

/// age gets at most this many bytes at a time.
const PIECE: usize = 128 * 1024;
/// What age says about a file that is damaged. Otherwise it is the key that does not fit, or its file.
const DAMAGED: [&str; 3] = ["header", "payload", "EOF"];

/// Reads what age decrypts. Its end comes only after age has ended well, and until then the last bytes are held
/// back. So a reader cannot take a damaged file for a whole one.
pub struct Opened<R> {
    source: R,
    identity: Identity,
    /// Until it has ended.
    age: Option<Process>,
    /// What was decrypted and is being read, and how much of it was read.
    piece: Vec<u8>,
    consumed: usize,
}

/// Says that age cannot decrypt a file, which may nevertheless be whole.
#[derive(Debug)]
pub struct NotOpened;

impl std::fmt::Display for NotOpened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the backup is encrypted and cannot be decrypted")
    }
}

impl<R: BufRead> Opened<R> {
    /// Decrypts `source`. age may do nothing for `limit`, and it has two minutes at most.
    ///
    /// # Errors
    /// age cannot be started.
    pub fn new(source: R, identity: &Identity, limit: Duration, shutdown: &Shutdown) -> Result<Self> {
        let age = Some(identity.start(limit.min(QUICK), shutdown)?);
        Ok(Opened { source, identity: identity.clone(), age, piece: Vec::new(), consumed: 0 })
    }

    /// Sends the next bytes to age, or the end. Takes what it has decrypted meanwhile.
    fn advance(&mut self, mut age: Process) -> io::Result<()> {
        self.piece.clear();
        self.consumed = 0;
        let piece = &mut self.piece;
        let mut take = |bytes: &[u8]| {
            piece.extend_from_slice(bytes);
            Ok(())
        };
        let sealed = self.source.fill_buf()?;
        let sealed = &sealed[..sealed.len().min(PIECE)];
        let done = if sealed.is_empty() {
            age.finish_into(&mut take)
        } else {
            match age.write_through(sealed, &mut take) {
                Ok(()) => {
                    let count = sealed.len();
                    self.source.consume(count);
                    self.age = Some(age);
                    Ok(())
                }
                Err(failure) => Err(why(age, failure)),
            }
        };
        done.map_err(|failure| {
            self.piece.clear();
            Failed(explain(failure, &self.identity)).into()
        })
    }
}

/// Whether the file or the key is to blame.
fn explain(failure: Error, identity: &Identity) -> Error {
    let said = failure.to_string();
    if DAMAGED.iter().any(|word| said.contains(word)) {
        return failure.context("the backup is damaged");
    }
    identity.explain(failure).context(NotOpened)
}

impl<R: BufRead> BufRead for Opened<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.consumed == self.piece.len() {
            let Some(age) = self.age.take() else { break };
            self.advance(age)?;
        }
        Ok(&self.piece[self.consumed..])
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count;
    }
}

impl<R: BufRead> Read for Opened<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}
