//! A backup on its way into the spool, encrypted or as it is.

use std::io::{self, Write};
use std::mem;
use std::time::Duration;

use anyhow::{Context, Error, Result};

use super::{check_length, why, Envelope, Failed, Recipients};
use crate::base::process::Process;
use crate::base::shutdown::Shutdown;
use crate::dump::spool::Spool;

/// Writes into the spool. If there are recipients, only what age has encrypted gets there.
pub struct Sealed {
    way: Way,
    /// The bytes that age got.
    given: u64,
    end: End,
}

/// The way into the spool.
enum Way {
    Plain,
    ThroughAge(Process),
    /// age has failed. Whatever follows is not written.
    Closed,
}

/// What comes out of age.
struct End {
    spool: Spool,
    envelope: Envelope,
    /// Why the spool takes no more.
    problem: Option<io::Error>,
}

impl Sealed {
    /// Encrypts for these recipients, if there are any. age may do nothing for `limit`.
    ///
    /// # Errors
    /// age cannot be started.
    pub fn new(
        recipients: Option<&Recipients>,
        limit: Duration,
        shutdown: &Shutdown,
        spool: Spool,
    ) -> Result<Self> {
        let age = recipients.map(|recipients| recipients.start(limit, shutdown)).transpose()?;
        let end = End { spool, envelope: Envelope::default(), problem: None };
        Ok(Sealed { way: age.map_or(Way::Plain, Way::ThroughAge), given: 0, end })
    }

    /// The number of bytes in the spool so far.
    pub fn written(&self) -> u64 {
        self.end.spool.written()
    }

    /// Everything was written. Returns the spool when age has ended well and all of it is there.
    ///
    /// # Errors
    /// age failed ([`Failed`]), or the spool takes no more.
    pub fn finish(self) -> io::Result<Spool> {
        let Sealed { way, given, mut end } = self;
        match way {
            Way::Plain => {}
            Way::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
            Way::ThroughAge(age) => {
                age.finish_into(&mut |sealed| end.take(sealed)).map_err(|failure| end.explain(failure))?;
                let sealed = end.envelope.content().map_err(Error::msg);
                let whole = sealed.and_then(|sealed| check_length(sealed, given));
                let whole = whole.context("age reported success, and yet");
                whole.map_err(|failure| end.explain(failure))?;
            }
        }
        Ok(end.spool)
    }
}

impl Write for Sealed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match mem::replace(&mut self.way, Way::Closed) {
            Way::Plain => {
                self.way = Way::Plain;
                self.end.spool.write(bytes)
            }
            Way::Closed => Err(io::ErrorKind::BrokenPipe.into()),
            Way::ThroughAge(mut age) => match age.write_through(bytes, &mut |sealed| self.end.take(sealed)) {
                Ok(()) => {
                    self.way = Way::ThroughAge(age);
                    self.given += bytes.len() as u64;
                    Ok(bytes.len())
                }
                Err(failure) if self.end.problem.is_some() => Err(self.end.explain(failure)),
                Err(failure) => Err(self.end.explain(why(age, failure))),
            },
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl End {
    fn take(&mut self, sealed: &[u8]) -> Result<()> {
        self.envelope.push(sealed);
        self.spool.write_all(sealed).map_err(|problem| {
            let kind = problem.kind();
            self.problem = Some(problem);
            io::Error::from(kind).into()
        })
    }

    /// The spool's own problem, if that is the cause. Otherwise age's.
    fn explain(&mut self, failure: Error) -> io::Error {
        let of_age = || Failed(failure.context("cannot encrypt the backup")).into();
        self.problem.take().unwrap_or_else(of_age)
    }
}
