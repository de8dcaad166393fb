//! Restoring: from the bucket into a database, proven on the way.
//!
//! S3 → gunzip → psql, in one transaction that is committed only when the whole backup was proven, or pg_restore
//! for the custom format. If anything fails, what is new is dropped again. What was there before is
//! replaced by renaming, after the restore beside it has succeeded.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::Instant;

use anyhow::{anyhow, bail, ensure, Context, Result};
use chrono::Utc;
use log::{info, warn};

use super::{fetch, Job};
use crate::base::{logging, units};
use crate::dump::spool;
use crate::postgres::{identifier, is_broken_pipe, name_with, Conninfo, Databases, Format, Process, Table};
use crate::store::{Backup, Selected};

/// What `pgkeep restore` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `latest`, a time or a key.
    pub which: String,
    /// The database to restore into.
    pub database: Option<String>,
    /// The server to restore to, and perhaps the database; the configured one's server otherwise.
    pub to: Option<String>,
    /// Whether a database that is there may be replaced.
    pub replace: bool,
    /// What of the backup to restore.
    pub selection: Selection,
}

/// What pg_restore can do beyond psql.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These tables alone.
    pub tables: Vec<String>,
    /// These schemas alone.
    pub schemas: Vec<String>,
    /// So many tables side by side.
    pub jobs: Option<u16>,
}

impl Selection {
    fn is_any(&self) -> bool {
        *self != Selection::default()
    }

    fn arguments(&self, one_transaction: bool) -> Vec<String> {
        let tables = self.tables.iter().map(|name| format!("--table={name}"));
        let schemas = self.schemas.iter().map(|name| format!("--schema={name}"));
        let how = match self.jobs {
            Some(jobs) => Some(format!("--jobs={jobs}")),
            None => one_transaction.then(|| "--single-transaction".to_owned()),
        };
        tables.chain(schemas).chain(how).collect()
    }
}

/// Where the backup goes.
enum Target {
    /// A database that is made.
    New(String),
    /// One that is there, with nothing in it.
    Empty(String),
    /// One that is there and gives way once the new one beside it is whole.
    Replaced { name: String, beside: String },
}

/// What a restore has made.
pub struct Restored {
    /// The tables that are there now.
    pub tables: Vec<Table>,
    /// What was restored, where it is, and how to undo it: a sentence for the log.
    pub summary: String,
}

/// Restores.
///
/// # Errors
/// If nothing was restored. What was there before is as it was.
pub fn run(job: &Job, options: &Options) -> Result<Restored> {
    let started = Instant::now();
    let Selected { database: source, backup } = job.store.find(&options.which)?;
    let selection = &options.selection;
    if selection.is_any() {
        ensure!(
            backup.format == Format::Custom,
            "--table, --schema and --jobs need a backup in the custom format (BACKUP_FORMAT=custom), and {} is plain SQL",
            backup.key
        );
    }
    ensure!(
        !options.replace || (selection.tables.is_empty() && selection.schemas.is_empty()),
        "--replace with --table or --schema would replace the whole database by a part of it; restore the part into a new \
         database, and take from it what is needed"
    );
    let connection = match &options.to {
        Some(text) => Conninfo::parse(text).map_err(|problem| {
            anyhow!("--to cannot be read: {problem}; for example --to postgresql://user@host:5432")
        })?,
        None => job.connection.clone(),
    };
    let named = options.to.as_ref().and_then(|_| connection.get("dbname")).map(str::to_owned);
    let name = options.database.clone().or(named).or(options.replace.then(|| source.clone()));
    let name = name.unwrap_or_else(|| name_with(&source, "restored", backup.time));
    let databases = job.databases(&connection, Some(&name))?;
    let target = choose_target(&databases, name, options.replace, &backup)?;
    if let (Target::Empty(name), true) = (&target, selection.is_any()) {
        bail!("--table, --schema and --jobs restore into a new database, and \"{name}\" is there already");
    }
    let (Target::New(into) | Target::Empty(into) | Target::Replaced { beside: into, .. }) = &target;
    info!(
        "restore started: {} ({}) into the database \"{into}\" on PostgreSQL {}",
        job.store.place(&backup),
        units::bytes(backup.size),
        databases.server.version
    );
    let restore = Restore { job, databases: &databases, backup: &backup, selection };
    let tables = match target {
        Target::Empty(_) => {
            restore.pour(into, true).map_err(|failure| match lacks_locks(&failure) {
                true => failure.context("one transaction is too much for that server; into a new database pgkeep restores in many"),
                false => failure,
            })?;
            databases.tables(into)?
        }
        Target::New(_) | Target::Replaced { .. } => restore.new_database(into)?,
    };
    let (counted, took) = (summary(&tables), units::duration(started.elapsed()));
    let Target::Replaced { name, .. } = &target else {
        let summary = format!("restore succeeded: {counted} in the database \"{into}\", in {took}");
        return Ok(Restored { tables, summary });
    };
    let aside = databases.swap(into, name, Utc::now()).with_context(|| {
        format!("the backup is restored in \"{into}\" and whole, but \"{name}\" could not be replaced by it; it is as it was")
    })?;
    let summary = format!(
        "restore succeeded: {counted} in the database \"{name}\", in {took}; what it was before is now \"{aside}\" (drop it when it \
         is not needed any more); to undo: ALTER DATABASE {} RENAME TO {}; ALTER DATABASE {} RENAME TO {};",
        identifier(name),
        identifier(into),
        identifier(&aside),
        identifier(name)
    );
    Ok(Restored { tables, summary })
}

/// Nothing that is there is written to, unless it is empty or `replace` says so.
fn choose_target(databases: &Databases, name: String, replace: bool, backup: &Backup) -> Result<Target> {
    if !databases.exists(&name)? {
        return Ok(Target::New(name));
    }
    if databases.is_empty(&name)? {
        return Ok(Target::Empty(name));
    }
    ensure!(
        replace,
        "the database \"{name}\" is there and not empty: --database names another one, --replace puts the backup in its place \
         (and keeps it under another name)"
    );
    let beside = name_with(&name, "restored", backup.time);
    ensure!(
        !databases.exists(&beside)?,
        "the database \"{beside}\", where the backup would be restored before it takes the place of \"{name}\", is there already: \
         drop or rename it"
    );
    Ok(Target::Replaced { name, beside })
}

/// A backup on its way into databases of a server.
pub(super) struct Restore<'a> {
    /// Whose backup it is.
    pub job: &'a Job,
    /// Where it goes.
    pub databases: &'a Databases,
    /// What to restore.
    pub backup: &'a Backup,
    /// Which parts of it.
    pub selection: &'a Selection,
}

impl Restore<'_> {
    /// Makes a database and restores into it; returns its tables. If that fails, the database is
    /// dropped again.
    pub fn new_database(&self, name: &str) -> Result<Vec<Table>> {
        let failure = match self.attempt(name, true) {
            Err(failure) if lacks_locks(&failure) => failure,
            ended => return ended,
        };
        // A server that can be dumped may be unable to restore the same in one transaction: pg_dump locks each
        // table, and a restore also each index, sequence and constraint.
        warn!(
            "{failure:#}: restoring again in many transactions; max_locks_per_transaction is too small on that server for a single one"
        );
        // Its name says that it is not whole, should the machine go down meanwhile.
        let unfinished = name_with(name, "unfinished", Utc::now());
        let tables = self.attempt(&unfinished, false)?;
        self.databases.rename(&unfinished, name)?;
        Ok(tables)
    }

    fn attempt(&self, name: &str, one_transaction: bool) -> Result<Vec<Table>> {
        self.databases.create(name)?;
        // pg_restore makes what is in the schemas that it is asked for, but not the schemas.
        let prepared = self.databases.create_schemas(name, &self.selection.schemas);
        let restored = prepared
            .and_then(|()| self.pour(name, one_transaction))
            .and_then(|()| self.databases.tables(name));
        restored.inspect_err(|_| {
            // Also if a signal ended the restore.
            match self.databases.unstoppable().drop(name) {
                Ok(()) => info!("the database \"{name}\" was dropped again"),
                Err(failure) => {
                    logging::failure(
                        &format!("the half-restored database \"{name}\" is still there"),
                        &failure,
                    );
                }
            }
        })
    }

    /// From the bucket into a database that is there.
    fn pour(&self, name: &str, one_transaction: bool) -> Result<()> {
        let target = self.databases.connect(name);
        match self.backup.format {
            Format::Plain => {
                // A transaction of pgkeep's own: whatever ends psql or pgkeep before the last line is written, the
                // database stays as it was. psql's --single-transaction would commit what came until then.
                let frame: [&[u8]; 2] =
                    if one_transaction { [b"BEGIN;\n", b"\nCOMMIT;\n"] } else { [b""; 2] };
                self.pour_into(target.start_psql()?, frame, false)
            }
            Format::Custom => {
                let programs = self.databases.clients.for_server(&self.databases.server)?;
                let mut arguments = self.selection.arguments(one_transaction);
                if self.selection.jobs.is_none() {
                    let may_leave = self.selection.is_any();
                    let pg_restore = target.start_pg_restore(programs, &arguments)?;
                    return self.pour_into(pg_restore, [b""; 2], may_leave);
                }
                let archive = self.download()?;
                // Each of its processes opens the file for itself, which has no other name.
                arguments.push(format!("/proc/{}/fd/{}", std::process::id(), archive.as_raw_fd()));
                target.start_pg_restore(programs, &arguments)?.finish()
            }
        }
    }

    /// Sends `begin`, the dump, and `commit` when all of it is proven; the dump's last piece is held back until then
    /// too. A child that `may_leave` has what it was asked for, and the rest is proven all the same.
    fn pour_into(&self, mut child: Process, [begin, commit]: [&[u8]; 2], may_leave: bool) -> Result<()> {
        let mut left = false;
        let mut send = |bytes: &[u8]| {
            if left {
                return Ok(());
            }
            match child.write_all(bytes) {
                Err(failure) if may_leave && is_broken_pipe(&failure) => left = true,
                sent => sent?,
            }
            Ok(())
        };
        let poured = send(begin)
            .and_then(|()| fetch::stream(self.job, self.backup, "restoring", |_| Ok(()), &mut send))
            .and_then(|_| send(commit));
        match poured {
            Ok(()) => child.finish(),
            // It ended first, and knows why.
            Err(failure) if is_broken_pipe(&failure) => {
                // The rest was not read; a damaged archive makes pg_restore say anything, even "out of memory".
                let place = self.job.store.place(self.backup);
                warn!("whether the backup itself is whole is not known yet: pgkeep verify {place} tells");
                child.finish().and(Err(failure))
            }
            // Killed as it is dropped, so that it does not take this for the end.
            Err(failure) => Err(failure),
        }
    }

    /// The archive as a file without a name: for pg_restore's jobs, which read here and there.
    fn download(&self) -> Result<File> {
        let directory = &self.job.temp_directory;
        let place = || format!("cannot write the archive to {}", directory.display());
        let mut file = spool::unnamed_file(directory).with_context(place)?;
        let free = spool::free_space(directory).filter(|free| *free < self.backup.size);
        if let Some(free) = free {
            warn!(
                "--jobs needs the whole archive, uncompressed, in {}, where only {} are free",
                directory.display(),
                units::bytes(free)
            );
        }
        fetch::stream(
            self.job,
            self.backup,
            "fetching",
            |_| Ok(()),
            |bytes| file.write_all(bytes).with_context(place),
        )?;
        Ok(file)
    }
}

/// PostgreSQL's hint names its setting in every language.
fn lacks_locks(failure: &anyhow::Error) -> bool {
    format!("{failure:#}").contains("max_locks_per_transaction")
}

/// `12 tables with 3456 rows`.
pub(super) fn summary(tables: &[Table]) -> String {
    let rows: u64 = tables.iter().map(|table| table.rows).sum();
    format!("{} with {rows} rows", units::count(tables.len(), "table"))
}
