//! Detects a connection that leads to a pooler which lends one server process (backend) to many clients in
//! turn, as PgBouncer does in transaction and statement mode.
//!
//! A backup through such a pooler does harm: pg_dump sets an empty search_path for its session, and the next
//! client of that backend finds no table any more. In session mode, or without a pooler, a backend serves one
//! client until that client leaves.
//!
//! The proof uses two sessions that are open at the same time. Backends are shared if one backend serves both
//! sessions, or if a session moves from one backend to another. A backend that is older than its session
//! would only be a sign: session mode shows it too, and a pool that has just started does not.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{bail, Context, Error, Result};
use log::{debug, Level};

use super::Postgres;
use crate::base::patience::Patience;
use crate::base::process::{is_broken_pipe, Process};

/// Why pgkeep refuses it, and what to do.
pub const SHARED: &str = "the connection leads to a pooler that lends one server connection to many clients in turn \
     (transaction or statement mode): what pg_dump and restores set, above all an empty search_path, would stay there and break the \
     applications; connect to the server itself, whose port usually is 5432, or to a pool in session mode";
/// One statement, and so one transaction: harmless on a shared backend, and possible in statement mode. It
/// calls no function or operator of the database's users, whatever the search path is. Process ids are used
/// again, and servers behind one address may have the same ids, so times distinguish backends and servers.
const QUERY: &[u8] = b"SELECT pg_catalog.pg_backend_pid(), \
     (SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
     pg_catalog.pg_postmaster_start_time();\n";
/// Between the questions, other clients may borrow the backends.
const ROUNDS: usize = 4;
/// If a pool in session mode has only one backend, the second session waits until the first one ends.
const LIMIT: Duration = Duration::from_secs(10);
/// The message for a session that ended.
const ENDED: &str = "psql does not say what serves it";
/// An answer is always shorter.
const LONGEST_ANSWER: usize = 1000;

impl Postgres {
    /// Whether other clients use the same backends as this connection, in turn with it.
    ///
    /// # Errors
    /// This cannot be found out, because there cannot be two sessions.
    pub fn shares_backends(&self) -> Result<bool> {
        let (mut one, mut other) = (self.session()?, self.session()?);
        let asked = ask(&mut one, &mut other);
        if asked.as_ref().is_err_and(|failure| !is_ended(failure)) {
            // If a pool in session mode has only one backend, the second session waits until the first one
            // ends.
            return asked.map(|_| false);
        }
        // An orderly end: a psql that is killed causes an error in the server's log. One that ended by itself
        // says why.
        let ended = one.0.finish().and(other.0.finish());
        ended.context("there cannot be two sessions at a time")?;
        let (ones, others) = asked?;
        debug!("two sessions were served by the backends {ones:?} and {others:?}");
        Ok(are_shared(&ones, &others))
    }

    fn session(&self) -> Result<Session> {
        let mut command = self.psql(&self.psql);
        command.args(["-A", "-t"]);
        let patience = Patience::of(LIMIT.min(self.quick()));
        Ok(Session(self.start("psql", Level::Debug, command, Stdio::piped(), patience)?))
    }

    /// Refuses a pooler that shares backends. If this cannot be found out, that is no reason to refuse a
    /// backup.
    ///
    /// # Errors
    /// [`SHARED`].
    pub fn refuse_shared_backends(&self) -> Result<()> {
        match self.shares_backends() {
            Ok(true) => bail!(SHARED),
            Ok(false) => Ok(()),
            Err(failure) => {
                debug!("whether a pooler shares backends is not known: {failure:#}");
                Ok(())
            }
        }
    }
}

/// In statement mode, PgBouncer refuses transactions, so pgkeep's first query already fails.
pub(super) fn explain(failure: Error) -> Error {
    match format!("{failure:#}").contains("statement pooling mode") {
        true => failure.context(SHARED),
        false => failure,
    }
}

/// A psql that stays connected between its statements, without a transaction.
struct Session(Process);

impl Session {
    /// What serves the session now: the process, its start, and the server's start.
    fn backend(&mut self) -> Result<String> {
        let mut answer = Vec::new();
        self.0.write_all(QUERY)?;
        while !answer.ends_with(b"\n") && answer.len() < LONGEST_ANSWER {
            let mut piece = [0; LONGEST_ANSWER];
            match self.0.read(&mut piece)? {
                0 => break,
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
        match String::from_utf8(answer) {
            Ok(answer) if answer.ends_with('\n') => Ok(answer.trim_end().to_owned()),
            _ => bail!(ENDED),
        }
    }
}

/// Asks the second session twice in a row. Otherwise, if a pooler lends two backends in rotation, each
/// session would always get the same one.
fn ask(one: &mut Session, other: &mut Session) -> Result<(Vec<String>, Vec<String>)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ones.push(one.backend()?);
        others.push(other.backend()?);
        others.push(other.backend()?);
    }
    Ok((ones, others))
}

/// Whether backends are shared. The arguments say what served two sessions (`process|its start|its server's
/// start`).
fn are_shared(ones: &[String], others: &[String]) -> bool {
    let ones: HashSet<&String> = ones.iter().collect();
    let others: HashSet<&String> = others.iter().collect();
    // A pooler may also send each query to another server, and still give each session its own backend there.
    let moved = |backends: &HashSet<&String>| {
        let servers: HashSet<Option<&str>> =
            backends.iter().map(|backend| backend.rsplit('|').next()).collect();
        servers.len() < backends.len()
    };
    !ones.is_disjoint(&others) || moved(&ones) || moved(&others)
}

/// Whether a session ended by itself.
fn is_ended(failure: &Error) -> bool {
    is_broken_pipe(failure) || failure.to_string() == ENDED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_backend_for_two_sessions_or_two_for_one_are_shared() {
        let shared = |ones: &[&str], others: &[&str]| {
            let [ones, others] =
                [ones, others].map(|of| of.iter().map(|of| (*of).to_owned()).collect::<Vec<_>>());
            are_shared(&ones, &others)
        };
        let (a, b, c) = ("7|10:00|9:00", "8|10:00|9:00", "9|11:00|9:00");
        assert!(!shared(&[a, a], &[b, b, b]));
        assert!(shared(&[a, a], &[a, a]));
        assert!(shared(&[a, b], &[b, a]));
        assert!(shared(&[a, a], &[b, c]), "the other one moved");
        assert!(shared(&[a, b], &[c, c]));
        // A process id that was used again, and one of another server.
        assert!(!shared(&[a, a], &["7|10:05|9:00", "7|10:05|9:00"]));
        assert!(!shared(&[a, "7|10:00|8:00"], &[b, "8|10:00|8:00"]));
    }
}
