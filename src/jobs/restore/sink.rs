//! The programs that a dump is poured into.

use anyhow::{Context, Error, Result};

use crate::base::process::{is_broken_pipe, Process};
use crate::postgres::{explain, Clients, Guard, Postgres};

/// What takes a dump. Dropped before its end, all of it is killed, so it never sees a clean end of its input.
pub enum Sink {
    /// psql takes a script.
    Script(Psql),
    /// pg_restore takes an archive, from a pipe or from a file.
    Archive(Process),
    /// pg_restore makes a script of an archive, and psql takes the script.
    Converted(Process, Psql),
}

/// psql on a script that is not trusted.
pub struct Psql {
    child: Process,
    guard: Guard,
    /// Whether it took no more.
    ended: bool,
}

impl Psql {
    /// Starts psql in a database.
    pub fn start(target: &Postgres, clients: &Clients) -> Result<Self> {
        let (child, guard) = Guard::start(target, clients)?;
        Ok(Psql { child, guard, ended: false })
    }

    fn send(&mut self, script: &[u8]) -> Result<()> {
        let sent = self.child.write_all(self.guard.pass(script));
        self.ended |= sent.is_err();
        sent
    }

    /// The whole script was sent, and is proven.
    fn end(mut self) -> Result<()> {
        match self.child.write_all(&self.guard.closing()) {
            Err(failure) if is_broken_pipe(&failure) => Err(why(self.child, failure)),
            sent => sent.and_then(|()| self.guard.finish(self.child)),
        }
        .map_err(explain)
    }
}

impl Sink {
    /// Sends the next bytes of the dump.
    ///
    /// # Errors
    /// A program has ended ([`is_broken_pipe`]): [`Sink::explain`] knows why. Or it takes nothing for too long.
    pub fn send(&mut self, dump: &[u8]) -> Result<()> {
        match self {
            Sink::Script(psql) => psql.send(dump),
            Sink::Archive(pg_restore) => pg_restore.write_all(dump),
            Sink::Converted(pg_restore, psql) => {
                pg_restore.write_through(dump, &mut |script| psql.send(script))
            }
        }
    }

    /// The whole dump was sent, and is proven. Waits until everything is restored.
    pub fn end(self) -> Result<()> {
        match self {
            Sink::Script(psql) => psql.end(),
            Sink::Archive(pg_restore) => pg_restore.finish(),
            Sink::Converted(pg_restore, mut psql) => {
                match pg_restore.finish_into(&mut |script| psql.send(script)) {
                    Err(failure) if psql.ended && is_broken_pipe(&failure) => {
                        Err(explain(why(psql.child, failure)))
                    }
                    Err(failure) if psql.ended => Err(failure),
                    Err(failure) => Err(failure).context("the archive cannot be read"),
                    Ok(()) => psql.end(),
                }
            }
        }
    }

    /// Why a program ended before it had all of the dump.
    pub fn explain(self, failure: Error) -> Error {
        match self {
            Sink::Archive(pg_restore) => why(pg_restore, failure),
            Sink::Converted(pg_restore, psql) if !psql.ended => why(pg_restore, failure),
            Sink::Script(psql) | Sink::Converted(_, psql) => explain(why(psql.child, failure)),
        }
    }
}

/// The error of a child that has ended. If it has none, the failure that showed its end.
fn why(child: Process, failure: Error) -> Error {
    child.finish().err().unwrap_or(failure)
}
