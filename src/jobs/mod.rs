//! What pgkeep does for one database: backup, prune, restore, drill. From here down, no code knows of
//! environment variables.

pub mod backup;
pub mod drill;
mod event;
pub mod fetch;
pub mod leftovers;
pub mod prune;
mod recovery;
pub mod restore;
mod step;

use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, Result};

pub use self::event::Event;
pub use self::step::Step;
use crate::base::secret::Redactor;
use crate::base::shutdown::Shutdown;
use crate::postgres::{Clients, Conninfo, Databases, DumpOptions, Format, Postgres};
use crate::store::{Policy, Store};

/// Gets every event with its job, on the thread on which it happens.
type Listener = Arc<dyn Fn(&Job, &Event) + Send + Sync>;

/// What the backups of one database need.
#[derive(Clone)]
pub struct Job {
    /// The database's name.
    pub database: String,
    /// How to reach the database. It always names a database.
    pub connection: Conninfo,
    /// The server for drills, if there is one.
    pub drill: Option<Conninfo>,
    /// Where the backups are.
    pub store: Store,
    /// The format of new backups.
    pub format: Format,
    /// How long backups are kept.
    pub retention: Policy,
    /// Whether nothing is deleted if the backups have suddenly shrunk.
    pub shrink_guard: bool,
    /// More options for pg_dump.
    pub dump_options: DumpOptions,
    /// How long pg_dump waits for a table's lock.
    pub lock_timeout: Duration,
    /// How long one of PostgreSQL's clients may do nothing while its server process does not work either.
    pub stall_timeout: Duration,
    /// The only place to look for PostgreSQL's clients, if it was given.
    pub client_directory: Option<PathBuf>,
    /// gzip's level, from 1 (fast) to 9 (small).
    pub compression_level: u32,
    /// How many threads compress.
    pub threads: NonZeroUsize,
    /// How many parts are uploaded at a time.
    pub upload_concurrency: NonZeroUsize,
    /// Where the spool is made.
    pub temp_directory: PathBuf,
    /// Masks the secrets in texts from outside.
    pub redactor: Redactor,
    /// Stops waits, retries and children.
    pub shutdown: Shutdown,
    /// Who gets the events, besides the log.
    pub listeners: Vec<Listener>,
}

impl Job {
    /// The same job, but the first signal already ends the work: a restore can be started again.
    pub fn impatient(&self) -> Self {
        let shutdown = self.shutdown.impatient();
        let client = self.store.client.with_shutdown(shutdown.clone());
        Job { store: self.store.with_client(client), shutdown, ..self.clone() }
    }

    /// The PostgreSQL clients that are installed here.
    pub fn clients(&self) -> Result<Clients> {
        Clients::find(self.client_directory.as_deref(), self.stall_timeout)
    }

    /// The database.
    pub fn postgres(&self, clients: &Clients) -> Postgres {
        Postgres::new(&self.connection, clients, &self.redactor, &self.shutdown, self.stall_timeout)
    }

    /// The databases of a server. This never connects to `but`: see [`Databases::of`].
    pub fn databases(&self, server: &Conninfo, but: Option<&str>) -> Result<Databases> {
        Databases::of(server, but, self.clients()?, &self.redactor, &self.shutdown, self.stall_timeout)
    }

    /// Logs an event and passes it to all listeners.
    fn tell(&self, event: &Event) {
        event.log(&self.database);
        for listener in &self.listeners {
            listener(self, event);
        }
    }
}

/// Runs `work`. A panic in it becomes a failure.
fn survive<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // The panic's message and trace were already logged.
    panic::catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow!("a bug in pgkeep: see the panic above")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_panics_is_a_failure() {
        assert!(survive::<()>(|| panic!("a panic")).unwrap_err().to_string().contains("a bug in pgkeep"));
        assert!(survive::<()>(|| Err(anyhow!("a failure"))).is_err());
    }
}
