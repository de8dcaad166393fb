//! Encryption with the program `age`: for whom backups are encrypted, and what opens them again.
//!
//! age is a child process, so pgkeep never sees a secret key. age authenticates every chunk of 64 KiB, and the last
//! one says that it is the last. So a file that is damaged or cut off never ends with status 0.

mod envelope;
mod open;
mod recipients;
mod seal;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use log::Level;

pub use self::envelope::Envelope;
pub use self::open::{NotOpened, Opened};
pub use self::recipients::Recipients;
pub use self::seal::Sealed;
use crate::base::patience::Patience;
use crate::base::process::{self, is_broken_pipe, Process};
use crate::base::secret::Redactor;
use crate::base::shutdown::Shutdown;

const PROGRAM: &str = "age";
/// What age has to do besides its stream takes less than this: to ask a plugin, which may ask for a finger.
const QUICK: Duration = Duration::from_secs(120);
/// Nobody can read what was encrypted in a try.
const CANARY: &[u8] = b"a canary of pgkeep";

impl Recipients {
    /// Encrypts a short text.
    ///
    /// # Errors
    /// age cannot be started, or refuses a key.
    pub fn seal(&self, text: &[u8], shutdown: &Shutdown) -> Result<Vec<u8>> {
        pass(self.start(QUICK, shutdown)?, text)
    }

    /// Encrypts a few bytes and throws them away.
    ///
    /// # Errors
    /// age cannot be started, refuses a key, or does not encrypt.
    pub fn try_out(&self, shutdown: &Shutdown) -> Result<()> {
        let mut envelope = Envelope::default();
        envelope.push(&self.seal(CANARY, shutdown)?);
        let length = envelope.content().map_err(Error::msg);
        let held = length.and_then(|length| check_length(length, CANARY.len() as u64));
        held.context("what age made is not right")
    }

    fn start(&self, limit: Duration, shutdown: &Shutdown) -> Result<Process> {
        start(self.arguments().map(Path::new), limit, shutdown)
    }
}

/// The file with the secret keys. Only age reads it.
#[derive(Clone, Debug)]
pub struct Identity(pub PathBuf);

impl Identity {
    /// Decrypts a short text.
    ///
    /// # Errors
    /// age cannot be started, or cannot decrypt it.
    pub fn open(&self, sealed: &[u8], shutdown: &Shutdown) -> Result<Vec<u8>> {
        pass(self.start(QUICK, shutdown)?, sealed).map_err(|failure| self.explain(failure))
    }

    fn start(&self, limit: Duration, shutdown: &Shutdown) -> Result<Process> {
        // A file called - would be standard input, and has another name as ./-.
        let path = Path::new(".").join(&self.0);
        start([Path::new("-d"), Path::new("-i"), &path], limit, shutdown)
    }

    fn explain(&self, failure: Error) -> Error {
        let path = self.0.display();
        failure.context(format!("age cannot decrypt it with BACKUP_AGE_IDENTITY_FILE ({path})"))
    }
}

/// A failure of age's within an `io::Error`.
#[derive(Debug)]
pub struct Failed(pub Error);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Failed {}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        io::Error::other(failed)
    }
}

/// All its messages are in its error.
fn start<'a>(
    arguments: impl IntoIterator<Item = &'a Path>,
    limit: Duration,
    shutdown: &Shutdown,
) -> Result<Process> {
    let mut command = process::command(Path::new(PROGRAM));
    command.args(arguments);
    let (stdin, redactor, patience) = (Stdio::piped(), Redactor::default(), Patience::of(limit));
    process::start(PROGRAM, Level::Debug, command, stdin, redactor, shutdown, patience)
        .context("encryption needs the program age (the package is called so, too)")
}

/// Sends a short text through age.
fn pass(mut age: Process, text: &[u8]) -> Result<Vec<u8>> {
    let mut passed = Vec::new();
    let mut take = |bytes: &[u8]| {
        passed.extend_from_slice(bytes);
        Ok(())
    };
    match age.write_through(text, &mut take) {
        Ok(()) => age.finish_into(&mut take)?,
        Err(failure) => return Err(why(age, failure)),
    }
    Ok(passed)
}

/// The error of age if it has ended. If it has none, the failure that showed its end.
fn why(age: Process, failure: Error) -> Error {
    match is_broken_pipe(&failure) {
        true => age.finish().err().unwrap_or(failure),
        false => failure,
    }
}

/// Whether age encrypted all that it was given.
fn check_length(sealed: u64, given: u64) -> Result<()> {
    anyhow::ensure!(sealed == given, "age got {given} bytes and has encrypted {sealed}");
    Ok(())
}
