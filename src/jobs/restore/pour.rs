//! Brings a backup from the bucket into a new database.

use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::os::fd::AsRawFd;

use anyhow::{anyhow, ensure, Context, Result};
use chrono::Utc;
use log::{info, warn};

use super::recorded::Recorded;
use super::selection::Selection;
use super::sink::{Psql, Sink};
use crate::base::process::is_broken_pipe;
use crate::base::{logging, units};
use crate::dump::archive::contents;
use crate::dump::gunzip::{least_length, least_length_of_any, TRAILER_LENGTH};
use crate::dump::spool;
use crate::jobs::{fetch, Job};
use crate::postgres::{
    name_with, restricting, Databases, Format, Postgres, Properties, Table, COMMENT, UNFINISHED,
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
    /// What was recorded with it.
    pub recorded: Recorded,
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
            Format::Plain => self.stream_into(Sink::Script(Psql::start(&target, &self.databases.clients)?)),
            Format::Custom => self.pour_archive(&target),
        }
    }

    /// A pg_restore that is newer than the server sends settings that the server may not have
    /// (transaction_timeout, since 17), and fails. So it makes a script instead, and psql gets this script as it
    /// gets a plain backup.
    fn pour_archive(&self, target: &Postgres) -> Result<()> {
        let Databases { server, clients, .. } = self.databases;
        let programs = clients.for_archive(self.recorded.client_major, server)?;
        let as_script = programs.major > server.major;
        if as_script {
            // Before anything is downloaded.
            restricting(clients)?;
        }
        let mut jobs = self.selection.jobs;
        if let Some(number) = jobs.take_if(|_| as_script) {
            warn!(
                "--jobs {number} is not possible here: only pg_restore {} can read this backup, and that is newer than the \
                 server, PostgreSQL {}; one table is restored after the other",
                programs.version, server.version
            );
        }
        let mut arguments: Vec<String> = jobs.iter().map(|jobs| format!("--jobs={jobs}")).collect();
        arguments.extend(self.selection.of_roles());
        // Both files are open until pg_restore has ended. They have no other names.
        let path = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let needs_file = jobs.is_some() || self.selection.is_part();
        let archive = needs_file.then(|| self.download()).transpose()?;
        let list = archive.as_ref().map(|archive| self.list(archive)).transpose()?.flatten();
        arguments.extend(list.iter().map(|list| format!("--use-list={}", path(list))));
        arguments.extend(archive.iter().map(path));
        let sink = match as_script {
            false => Sink::Archive(target.start_pg_restore(programs, &arguments)?),
            true => Sink::Converted(
                target.start_pg_restore_to_script(programs, &arguments)?,
                Psql::start(target, clients)?,
            ),
        };
        match archive {
            Some(_) => sink.end(),
            None => self.stream_into(sink),
        }
    }

    /// Sends the dump. When all of it is proven, sends the dump's last piece, which is held back until then.
    fn stream_into(&self, mut sink: Sink) -> Result<()> {
        match fetch::stream(self.job, self.backup, "restoring", |_| Ok(()), |bytes| sink.send(bytes)) {
            Ok(_) => sink.end(),
            // A program ended first. Its error says why.
            Err(failure) if is_broken_pipe(&failure) => {
                // The rest was not read. With a damaged archive, pg_restore may print any error, even "out of
                // memory".
                let place = self.job.store.place(self.backup);
                warn!("whether the backup itself is whole is not known yet: pgkeep verify {place} tells");
                Err(sink.explain(failure))
            }
            // Dropping kills the programs, so they never see a clean end of their input.
            Err(failure) => Err(failure),
        }
    }

    /// Downloads the archive to a file without a name. pg_restore's jobs need a file because they read at
    /// several positions, and a selection has to know the contents first.
    fn download(&self) -> Result<File> {
        let directory = &self.job.temp_directory;
        self.ensure_room()?;
        let place = || {
            format!(
                "cannot write the archive to {}; BACKUP_TEMP_DIR can name another directory",
                directory.display()
            )
        };
        let mut file = spool::unnamed_file(directory).with_context(place)?;
        fetch::stream(
            self.job,
            self.backup,
            "fetching",
            |_| Ok(()),
            |bytes| file.write_all(bytes).with_context(place),
        )?;
        Ok(file)
    }

    /// Looks whether the disk has room for the archive, before anything is downloaded.
    fn ensure_room(&self) -> Result<()> {
        let directory = &self.job.temp_directory;
        let Some(free) = spool::free_space(directory) else { return Ok(()) };
        let needed = match self.archive_length() {
            Ok(length) => length,
            Err(failure) => {
                warn!("how much room the archive needs is not known: {failure:#}");
                return Ok(());
            }
        };
        ensure!(
            needed <= free,
            "--jobs, --table and --schema need the whole archive, uncompressed, in {}: {} or more ({needed} bytes), and only \
             {} ({free} bytes) are free there; BACKUP_TEMP_DIR can name another directory",
            directory.display(),
            units::bytes(needed),
            units::bytes(free)
        );
        Ok(())
    }

    /// The least length of the archive. A backup of several parts does not have it in its metadata, but every gzip
    /// file ends with it. What is encrypted shows only its own size.
    fn archive_length(&self) -> Result<u64> {
        let (key, size) = (&self.backup.key, self.backup.size);
        if self.backup.encrypted {
            return Ok(least_length_of_any(size));
        }
        let end = self.job.store.client.last_bytes(key, size, TRAILER_LENGTH as u64)?;
        let trailer = end.try_into().map_err(|_| anyhow!("the object is too short"))?;
        Ok(least_length(trailer, size))
    }

    /// The list of entries that are selected. None means all.
    fn list(&self, archive: &File) -> Result<Option<File>> {
        if !self.selection.is_part() {
            return Ok(None);
        }
        let mut archive = BufReader::new(archive);
        archive.rewind().context("cannot read the archive")?;
        let entries = contents::read(archive).context("cannot read the archive's table of contents")?;
        let picked = self.selection.pick(&entries)?;
        if let Some(missing) = picked.missing() {
            warn!("{missing}");
        }
        let directory = &self.job.temp_directory;
        let written = spool::unnamed_file(directory).and_then(|mut list| {
            list.write_all(picked.list().as_bytes())?;
            Ok(list)
        });
        written.map(Some).with_context(|| format!("cannot write to {}", directory.display()))
    }
}
