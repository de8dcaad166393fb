//! Brings a backup from the bucket into a new database.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use chrono::Utc;
use log::{info, warn};

use super::Selection;
use crate::base::{logging, units};
use crate::dump::spool;
use crate::jobs::{fetch, Job};
use crate::postgres::{
    explain, is_broken_pipe, name_with, Databases, Format, Guard, Process, Properties, Table, COMMENT,
    UNFINISHED,
};
use crate::store::Backup;

/// The restore of a backup into databases of a server.
pub struct Restore<'a> {
    /// The job that the backup belongs to.
    pub job: &'a Job,
    /// The server's databases.
    pub databases: &'a Databases,
    /// The backup to restore.
    pub backup: &'a Backup,
    /// Which parts of it to restore.
    pub selection: &'a Selection,
    /// The properties for the new database. If they are not known, the server's defaults are used.
    pub properties: Option<Properties>,
}

/// A database that contains the whole backup. Its name still says that it is unfinished.
pub struct Whole {
    /// Its name.
    pub database: String,
    /// The tables in it.
    pub tables: Vec<Table>,
}

impl Restore<'_> {
    /// Makes a database that will later be called `name`, and restores into it. If that fails, the database
    /// is dropped.
    pub fn whole(&self, name: &str) -> Result<Whole> {
        // Until it is whole its name says so, in case the machine crashes.
        let database = name_with(name, UNFINISHED, Utc::now());
        let comment = format!("{COMMENT} {}", self.job.store.place(self.backup));
        let made = self.databases.create(&database, self.properties.as_ref(), &comment);
        let filled = made.and_then(|()| self.fill(&database));
        filled.inspect_err(|_| self.drop(&database)).map(|tables| Whole { database, tables })
    }

    fn fill(&self, database: &str) -> Result<Vec<Table>> {
        // pg_restore restores what is in the chosen schemas, but it does not make the schemas.
        self.databases.create_schemas(database, &self.selection.schemas)?;
        self.pour(database)?;
        self.databases.tables(database)
    }

    /// Drops the database, even if a signal ended the restore.
    fn drop(&self, database: &str) {
        let databases = self.databases.unstoppable();
        match databases
            .exists(database)
            .and_then(|exists| exists.then(|| databases.drop(database)).transpose())
        {
            Ok(None) => {}
            Ok(Some(())) => info!("the database \"{database}\" was dropped again"),
            Err(failure) => {
                logging::failure(
                    &format!("the half-restored database \"{database}\" is still there"),
                    &failure,
                );
            }
        }
    }

    /// Restores from the bucket into an existing database.
    fn pour(&self, database: &str) -> Result<()> {
        let target = self.databases.connect(database);
        match self.backup.format {
            Format::Plain => {
                let (psql, guard) = Guard::start(&target, &self.databases.clients)?;
                self.pour_into(psql, Some(guard), false).map_err(explain)
            }
            Format::Custom => {
                let programs = self.databases.clients.for_server(&self.databases.server)?;
                let mut arguments = self.selection.arguments();
                if self.selection.jobs.is_none() {
                    let may_leave = self.selection.is_any();
                    return self.pour_into(target.start_pg_restore(programs, &arguments)?, None, may_leave);
                }
                let archive = self.download()?;
                // Each process of pg_restore opens the file itself. The file has no other name.
                arguments.push(format!("/proc/{}/fd/{}", std::process::id(), archive.as_raw_fd()));
                target.start_pg_restore(programs, &arguments)?.finish()
            }
        }
    }

    /// Sends the dump. When all of it is proven, sends the dump's last piece, which is held back until then,
    /// and what the guard adds to a script. A child that `may_leave` may stop reading when it has what it
    /// needs. The rest is still proven.
    fn pour_into(&self, mut child: Process, mut guard: Option<Guard>, may_leave: bool) -> Result<()> {
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
        let dump = |bytes: &[u8]| match &mut guard {
            Some(guard) => send(guard.pass(bytes)),
            None => send(bytes),
        };
        let poured = fetch::stream(self.job, self.backup, "restoring", |_| Ok(()), dump)
            .and_then(|_| guard.as_mut().map_or(Ok(()), |guard| send(&guard.closing())));
        match (poured, guard) {
            (Ok(()), Some(guard)) => guard.finish(child),
            (Ok(()), None) => child.finish(),
            // The child ended first. Its error says why.
            (Err(failure), _) if is_broken_pipe(&failure) => {
                // The rest was not read. With a damaged archive, pg_restore may print any error, even "out of
                // memory".
                let place = self.job.store.place(self.backup);
                warn!("whether the backup itself is whole is not known yet: pgkeep verify {place} tells");
                child.finish().and(Err(failure))
            }
            // Dropping kills the child, so it never sees a clean end of its input.
            (Err(failure), _) => Err(failure),
        }
    }

    /// Downloads the archive to a file without a name. pg_restore's jobs need a file because they read at
    /// several positions.
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
