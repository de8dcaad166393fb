//! A backup's way from the bucket into a database of its own.

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

/// A backup on its way into databases of a server.
pub struct Restore<'a> {
    /// Whose backup it is.
    pub job: &'a Job,
    /// Where it goes.
    pub databases: &'a Databases,
    /// What to restore.
    pub backup: &'a Backup,
    /// Which parts of it.
    pub selection: &'a Selection,
    /// What the database itself is to be like; if that is not known, as this server makes them.
    pub properties: Option<Properties>,
}

/// A database that holds the whole backup, under a name that says it is unfinished.
pub struct Whole {
    /// Its name.
    pub database: String,
    /// What is in it.
    pub tables: Vec<Table>,
}

impl Restore<'_> {
    /// Makes a database that is to be `name` one day, and restores into it. If that fails, it is dropped again.
    pub fn whole(&self, name: &str) -> Result<Whole> {
        // Its name says that it is not whole, should the machine go down meanwhile.
        let database = name_with(name, UNFINISHED, Utc::now());
        let comment = format!("{COMMENT} {}", self.job.store.place(self.backup));
        let made = self.databases.create(&database, self.properties.as_ref(), &comment);
        let filled = made.and_then(|()| self.fill(&database));
        filled.inspect_err(|_| self.drop(&database)).map(|tables| Whole { database, tables })
    }

    fn fill(&self, database: &str) -> Result<Vec<Table>> {
        // pg_restore makes what is in the schemas that it is asked for, but not the schemas.
        self.databases.create_schemas(database, &self.selection.schemas)?;
        self.pour(database)?;
        self.databases.tables(database)
    }

    /// Also if a signal ended the restore.
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

    /// From the bucket into a database that is there.
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
                // Each of its processes opens the file for itself, which has no other name.
                arguments.push(format!("/proc/{}/fd/{}", std::process::id(), archive.as_raw_fd()));
                target.start_pg_restore(programs, &arguments)?.finish()
            }
        }
    }

    /// Sends the dump, and what the guard of a script has to add when all of it is proven; the dump's last piece is held
    /// back until then too. A child that `may_leave` has what it was asked for, and the rest is proven all the same.
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
            // It ended first, and knows why.
            (Err(failure), _) if is_broken_pipe(&failure) => {
                // The rest was not read; a damaged archive makes pg_restore say anything, even "out of memory".
                let place = self.job.store.place(self.backup);
                warn!("whether the backup itself is whole is not known yet: pgkeep verify {place} tells");
                child.finish().and(Err(failure))
            }
            // Killed as it is dropped, so that it does not take this for the end.
            (Err(failure), _) => Err(failure),
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
