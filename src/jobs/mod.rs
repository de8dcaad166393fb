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
pub mod server;
mod step;

use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};

pub use self::event::Event;
pub use self::step::Step;
use crate::base::secret::Redactor;
use crate::base::shutdown::Shutdown;
use crate::dump::age::{Identity, Recipients};
use crate::postgres::{Clients, Conninfo, Databases, DumpOptions, Format, Postgres};
use crate::store::{Backup, Policy, Store, GLOBALS};

/// Gets every event with its job, on the thread on which it happens. There is no job if a run failed before it
/// had one.
pub type Listener = Arc<dyn Fn(Option<&Job>, &Event) + Send + Sync>;

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
    /// For whom new backups are encrypted. If nobody is named, they are not.
    pub recipients: Option<Recipients>,
    /// What opens encrypted backups.
    pub identity: Option<Identity>,
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
    /// The run that the job is a part of, if the run backs up several databases of a server.
    pub run: Option<Arc<server::Run>>,
    /// Whether this is about the server's globals and not about a database.
    pub globals: bool,
}

impl Job {
    /// The same for another database of the server.
    pub fn of(&self, database: &str) -> Self {
        let mut job = self.clone();
        job.connection.set("dbname", database);
        Job { database: database.to_owned(), store: self.store.of(database), ..job }
    }

    /// The same for the server's globals: roles and tablespaces.
    pub fn of_globals(&self) -> Self {
        let (database, store) = (GLOBALS.to_owned(), self.store.of_globals());
        Job { database, store, format: Format::Plain, globals: true, ..self.clone() }
    }

    /// The same job, but the first signal already ends the work: a restore can be started again.
    pub fn impatient(&self) -> Self {
        let shutdown = self.shutdown.impatient();
        let client = self.store.client.with_shutdown(shutdown.clone());
        Job { store: self.store.with_client(client), shutdown, ..self.clone() }
    }

    /// The PostgreSQL clients that are installed here.
    pub fn clients(&self) -> Result<Clients> {
        if let Some(run) = &self.run {
            return Ok(run.clients.clone());
        }
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

    /// What it is about, for people.
    pub fn subject(&self) -> String {
        subject(&self.database, self.globals)
    }

    /// What opens a backup, if it is encrypted.
    ///
    /// # Errors
    /// Nothing can open it.
    fn identity_for(&self, backup: &Backup) -> Result<Option<&Identity>> {
        if !backup.encrypted {
            return Ok(None);
        }
        let identity = self.identity.as_ref().with_context(|| {
            format!(
                "{} is encrypted, and BACKUP_AGE_IDENTITY_FILE is missing: the path of the file with the secret key, for \
                 example BACKUP_AGE_IDENTITY_FILE=/run/secrets/pgkeep-key.txt; or fetch it with pgkeep get and decrypt it with \
                 age -d -i KEY, where the key is",
                self.store.place(backup)
            )
        });
        identity.map(Some)
    }

    /// Logs an event and passes it to all listeners.
    fn tell(&self, event: &Event) {
        let about = self.run.as_ref().map(|_| self.subject());
        event.log(about.as_deref(), &self.database);
        for listener in &self.listeners {
            listener(Some(self), event);
        }
    }
}

fn subject(database: &str, globals: bool) -> String {
    match globals {
        true => "the server's globals".to_owned(),
        false => format!("database \"{database}\""),
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
