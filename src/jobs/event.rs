//! Something that has happened, with everything that there is to know about it.
//!
//! The log line and the status file come from the same event, so they cannot contradict each other.

use std::fmt;
use std::time::Duration;

use anyhow::Error;
use log::Level;
use serde_json::{Map, Value};

use super::prune::Pruning;
use super::server::Summary;
use super::step::Step;
use crate::base::logging::{self, chain};
use crate::base::progress::rate;
use crate::base::units;
use crate::postgres::Programs;
use crate::postgres::Server;
use crate::store::{Backup, Decision, Doubt};

/// At most this many databases of a run are named at its start.
const NAMED: usize = 20;

/// What has happened to one database's backups.
#[derive(Debug)]
pub enum Event {
    /// A backup begins: the server has answered, and the backup has a name.
    BackupStarted {
        /// The database's name.
        database: String,
        /// Whether it is the backup of the server's globals.
        globals: bool,
        /// The database's server.
        server: Server,
        /// The client that dumps it.
        client: Programs,
        /// Where the backup goes.
        place: String,
    },
    /// The backup is in the bucket, and whole.
    BackupSucceeded {
        /// The database's name.
        database: String,
        /// Whether it is the backup of the server's globals.
        globals: bool,
        /// The backup.
        backup: Backup,
        /// Where it is.
        place: String,
        /// The size of the dump, in bytes.
        dumped: u64,
        /// How long it took.
        took: Duration,
        /// What happened to older backups.
        pruning: Pruning,
        /// How to restore it without pgkeep.
        recovery: String,
    },
    /// The backup failed.
    BackupFailed {
        /// The step that failed.
        step: Step,
        /// What failed, and why.
        failure: Error,
    },
    /// A backup was deleted because the retention policy does not keep it.
    Deleted {
        /// Which backup, and why.
        decision: Decision,
        /// Where it was.
        place: String,
    },
    /// All old backups are still there.
    PruneFailed {
        /// Why.
        failure: Error,
    },
    /// All old backups are still there, because something is wrong.
    PruneHeldBack {
        /// What is wrong, and what to do.
        doubt: Doubt,
    },
    /// A drill begins.
    DrillStarted {
        /// The backup.
        backup: Backup,
        /// Where the backup is.
        place: String,
        /// The database that is made for the drill.
        into: String,
        /// The server on which that database is made.
        server: Server,
    },
    /// The backup was restored.
    DrillSucceeded {
        /// Where the backup is.
        place: String,
        /// The backup.
        backup: Backup,
        /// How long a recovery takes, from the bucket to the last index.
        took: Duration,
        /// The numbers of tables and rows.
        counted: String,
    },
    /// The backup cannot be restored.
    DrillFailed {
        /// Why.
        failure: Error,
    },
    /// A stop ended the drill. This says nothing about the backup.
    DrillStopped,
    /// A run over several databases begins: the server has said which ones there are.
    RunStarted {
        /// Their names.
        databases: Vec<String>,
    },
    /// A run over several databases has ended.
    RunEnded {
        /// What came of it.
        summary: Summary,
    },
    /// A run over several databases could not begin.
    RunFailed {
        /// The step that failed.
        step: Step,
        /// What failed, and why.
        failure: Error,
    },
}

impl Event {
    /// The level of its log line.
    fn level(&self) -> Level {
        match self {
            Event::BackupStarted { .. }
            | Event::BackupSucceeded { .. }
            | Event::Deleted { .. }
            | Event::DrillStarted { .. }
            | Event::DrillSucceeded { .. }
            | Event::RunStarted { .. } => Level::Info,
            Event::RunEnded { summary } if summary.is_success() => Level::Info,
            Event::PruneHeldBack { .. } | Event::DrillStopped => Level::Warn,
            Event::BackupFailed { .. }
            | Event::PruneFailed { .. }
            | Event::DrillFailed { .. }
            | Event::RunEnded { .. }
            | Event::RunFailed { .. } => Level::Error,
        }
    }

    /// Whether its line says what it is about in any case.
    fn names_its_subject(&self) -> bool {
        self.is_of_run() || matches!(self, Event::BackupStarted { .. } | Event::BackupSucceeded { .. })
    }

    /// Whether it is about a whole run over several databases.
    fn is_of_run(&self) -> bool {
        matches!(self, Event::RunStarted { .. } | Event::RunEnded { .. } | Event::RunFailed { .. })
    }

    /// What went wrong, if something did.
    fn failure(&self) -> Option<&Error> {
        match self {
            Event::BackupFailed { failure, .. }
            | Event::PruneFailed { failure }
            | Event::DrillFailed { failure }
            | Event::RunFailed { failure, .. } => Some(failure),
            Event::BackupStarted { .. }
            | Event::BackupSucceeded { .. }
            | Event::Deleted { .. }
            | Event::PruneHeldBack { .. }
            | Event::DrillStarted { .. }
            | Event::DrillSucceeded { .. }
            | Event::DrillStopped
            | Event::RunStarted { .. }
            | Event::RunEnded { .. } => None,
        }
    }

    /// Writes the event to the log, with a failure's stack trace. If there are several databases, the line
    /// begins with the one that it is `about`.
    pub fn log(&self, about: Option<&str>, database: &str) {
        let trace = self.failure().map(Error::backtrace);
        let message = match about.filter(|_| !self.names_its_subject()) {
            Some(about) => format!("{about}: {self}"),
            None => self.to_string(),
        };
        logging::record(self.level(), &message, self.fields(database), trace);
    }

    /// What a program wants to know about the event: its name (`event`), and what it has of `database`, `key`,
    /// `bytes`, `dumped_bytes`, `seconds`, `step`, `reason`, `error` and `causes`. A run over several databases
    /// has `databases` instead, and at its end `succeeded`, `failed`, `skipped` and `globals`.
    pub fn fields(&self, database: &str) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        add("event", self.name().into());
        if !self.is_of_run() {
            add("database", database.into());
        }
        match self {
            Event::BackupStarted { place, .. } => {
                add("place", place.as_str().into());
            }
            Event::BackupSucceeded { backup, place, dumped, took, .. } => {
                add("key", backup.key.as_str().into());
                add("place", place.as_str().into());
                add("bytes", backup.size.into());
                add("dumped_bytes", (*dumped).into());
                add("seconds", took.as_secs_f64().into());
            }
            Event::BackupFailed { step, .. } | Event::RunFailed { step, .. } => {
                add("step", step.name().into());
            }
            Event::Deleted { decision, place } => {
                add("key", decision.backup.key.as_str().into());
                add("place", place.as_str().into());
                add("bytes", decision.backup.size.into());
                add("reason", decision.reason.as_str().into());
            }
            Event::PruneHeldBack { doubt } => {
                add("reason", doubt.to_string().into());
            }
            Event::DrillStarted { backup, place, .. } => {
                add("key", backup.key.as_str().into());
                add("place", place.as_str().into());
                add("bytes", backup.size.into());
            }
            Event::DrillSucceeded { backup, place, took, .. } => {
                add("key", backup.key.as_str().into());
                add("place", place.as_str().into());
                add("bytes", backup.size.into());
                add("seconds", took.as_secs_f64().into());
            }
            Event::RunStarted { databases } => {
                add("databases", databases.clone().into());
            }
            Event::RunEnded { summary } => {
                add("succeeded", summary.succeeded.into());
                add("failed", summary.failed.clone().into());
                add("skipped", summary.skipped.into());
                add("globals", summary.globals.into());
                add("bytes", summary.size.into());
                add("seconds", summary.took.as_secs_f64().into());
            }
            Event::PruneFailed { .. } | Event::DrillFailed { .. } | Event::DrillStopped => {}
        }
        fields.extend(self.failure().map(logging::fields).unwrap_or_default());
        fields
    }

    /// The event's name, for programs.
    fn name(&self) -> &'static str {
        match self {
            Event::BackupStarted { .. } => "backup_started",
            Event::BackupSucceeded { .. } => "backup_succeeded",
            Event::BackupFailed { .. } => "backup_failed",
            Event::Deleted { .. } => "backup_deleted",
            Event::PruneFailed { .. } => "prune_failed",
            Event::PruneHeldBack { .. } => "prune_held_back",
            Event::DrillStarted { .. } => "drill_started",
            Event::DrillSucceeded { .. } => "drill_succeeded",
            Event::DrillFailed { .. } => "drill_failed",
            Event::DrillStopped => "drill_stopped",
            Event::RunStarted { .. } => "run_started",
            Event::RunEnded { .. } => "run_ended",
            Event::RunFailed { .. } => "run_failed",
        }
    }
}

/// The event's log line.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::BackupStarted { globals: true, server, client, place, .. } => write!(
                f,
                "backup started: the globals of PostgreSQL {} to {place}, with pg_dumpall {}",
                server.version, client.version
            ),
            Event::BackupStarted { database, server, client, place, .. } => write!(
                f,
                "backup started: database \"{database}\" ({} on PostgreSQL {}) to {place}, with pg_dump {}",
                units::bytes(server.database_size),
                server.version,
                client.version
            ),
            Event::BackupSucceeded { database, globals, backup, place, dumped, took, pruning, recovery } => {
                let subject = super::subject(database, *globals);
                write!(
                    f,
                    "backup succeeded: {subject}, {} dumped, {} compressed (ratio {:.1}), in {} ({}), at {place}; \
                     {pruning}; to restore it without pgkeep: {recovery}",
                    units::bytes(*dumped),
                    units::bytes(backup.size),
                    *dumped as f64 / backup.size as f64,
                    units::duration(*took),
                    rate(*dumped, *took)
                )
            }
            Event::BackupFailed { failure, .. } => write!(f, "backup failed: {}", chain(failure)),
            Event::Deleted { decision, place } => write!(f, "deleted {place} ({})", decision.reason),
            Event::PruneHeldBack { doubt } => write!(f, "pruning held back, nothing was deleted: {doubt}"),
            Event::PruneFailed { failure } => write!(f, "old backups were not pruned: {}", chain(failure)),
            Event::DrillStarted { backup, place, into, server } => write!(
                f,
                "drill started: {place} ({}) into the database \"{into}\" on PostgreSQL {}, to be dropped again",
                units::bytes(backup.size),
                server.version
            ),
            Event::DrillSucceeded { place, took, counted, .. } => write!(
                f,
                "drill succeeded: {place} restores to {counted}; a recovery takes {}",
                units::duration(*took)
            ),
            Event::DrillFailed { failure } => write!(f, "drill failed: {}", chain(failure)),
            Event::DrillStopped => f.write_str("the drill was broken off"),
            Event::RunStarted { databases } => {
                let named: Vec<String> = databases.iter().take(NAMED).cloned().collect();
                let count = units::count(databases.len(), "database");
                write!(f, "the server has {count} to back up: {}", units::first_few(&named, databases.len()))
            }
            Event::RunEnded { summary } => write!(f, "{summary}"),
            Event::RunFailed { failure, .. } => write!(f, "no database was backed up: {}", chain(failure)),
        }
    }
}
