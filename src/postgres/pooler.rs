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
use std::time::Duration;

use anyhow::{bail, Context, Error, Result};
use log::debug;

use super::session::Session;
use super::Postgres;

/// Why pgkeep refuses it, and what to do.
pub const SHARED: &str = "the connection leads to a pooler that lends one server connection to many clients in turn \
     (transaction or statement mode): what pg_dump and restores set, above all an empty search_path, would stay there and break the \
     applications; connect to the server itself, whose port usually is 5432, or to a pool in session mode";
/// One statement, and so one transaction: harmless on a shared backend, and possible in statement mode. It
/// calls no function or operator of the database's users, whatever the search path is. Process ids are used
/// again, and servers behind one address may have the same ids, so times distinguish backends and servers.
const QUERY: &str = "SELECT pg_catalog.pg_backend_pid(), \
     (SELECT backend_start FROM pg_catalog.pg_stat_activity WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
     pg_catalog.pg_postmaster_start_time();";
/// Between the questions, other clients may borrow the backends.
const ROUNDS: usize = 4;
/// If a pool in session mode has only one backend, the second session waits until the first one ends.
const LIMIT: Duration = Duration::from_secs(10);

impl Postgres {
    /// Whether other clients use the same backends as this connection, in turn with it.
    ///
    /// # Errors
    /// This cannot be found out, because there cannot be two sessions.
    pub fn shares_backends(&self) -> Result<bool> {
        share_backends(self.session()?, self.session()?)
    }

    /// A session that can tell whether it shares a backend.
    pub(super) fn session(&self) -> Result<Session> {
        Session::start(self, LIMIT.min(self.quick()))
    }
}

/// Refuses a pooler that shares backends between these two sessions, and ends both. If this cannot be found out,
/// that is no reason to refuse a backup.
///
/// # Errors
/// [`SHARED`].
pub(super) fn refuse_shared_backends(one: Session, other: Result<Session>) -> Result<()> {
    match other.and_then(|other| share_backends(one, other)) {
        Ok(true) => bail!(SHARED),
        Ok(false) => Ok(()),
        Err(failure) => {
            debug!("whether a pooler shares backends is not known: {failure:#}");
            Ok(())
        }
    }
}

/// Whether two sessions share their backends, with each other or with other clients.
fn share_backends(mut one: Session, mut other: Session) -> Result<bool> {
    let asked = ask(&mut one, &mut other);
    if asked.is_err() && !one.has_ended() && !other.has_ended() {
        // If a pool in session mode has only one backend, the second session waits until the first one ends.
        return asked.map(|_| false);
    }
    let ended = one.end().and(other.end());
    let (ones, others) = asked.context("there cannot be two sessions at a time")?;
    ended?;
    debug!("two sessions were served by the backends {ones:?} and {others:?}");
    Ok(are_shared(&ones, &others))
}

/// In statement mode, PgBouncer refuses transactions, so pgkeep's first query already fails.
pub(super) fn explain(failure: Error) -> Error {
    match format!("{failure:#}").contains("statement pooling mode") {
        true => failure.context(SHARED),
        false => failure,
    }
}

/// Asks the second session twice in a row. Otherwise, if a pooler lends two backends in rotation, each
/// session would always get the same one.
fn ask(one: &mut Session, other: &mut Session) -> Result<(Vec<String>, Vec<String>)> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ones.push(one.ask(QUERY)?);
        others.push(other.ask(QUERY)?);
        others.push(other.ask(QUERY)?);
    }
    Ok((ones, others))
}

/// Whether backends are shared. The arguments say what served two sessions (separated by tabs: process, its start, its server's
/// start).
fn are_shared(ones: &[String], others: &[String]) -> bool {
    let ones: HashSet<&String> = ones.iter().collect();
    let others: HashSet<&String> = others.iter().collect();
    // A pooler may also send each query to another server, and still give each session its own backend there.
    let moved = |backends: &HashSet<&String>| {
        let servers: HashSet<Option<&str>> =
            backends.iter().map(|backend| backend.rsplit('\t').next()).collect();
        servers.len() < backends.len()
    };
    !ones.is_disjoint(&others) || moved(&ones) || moved(&others)
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
        let (a, b, c) = ("7\t10:00\t9:00", "8\t10:00\t9:00", "9\t11:00\t9:00");
        assert!(!shared(&[a, a], &[b, b, b]));
        assert!(shared(&[a, a], &[a, a]));
        assert!(shared(&[a, b], &[b, a]));
        assert!(shared(&[a, a], &[b, c]), "the other one moved");
        assert!(shared(&[a, b], &[c, c]));
        // A process id that was used again, and one of another server.
        assert!(!shared(&[a, a], &["7\t10:05\t9:00", "7\t10:05\t9:00"]));
        assert!(!shared(&[a, "7\t10:00\t8:00"], &[b, "8\t10:00\t8:00"]));
    }
}
