//! One backup, from the dump to the commit gate.
//!
//! pg_dump → gzip → spool → parts → S3. The object appears only when pg_dump ended with status 0, the
//! dump's own end marker was seen, gzip closed cleanly and every part was acknowledged with its checksum.
//! Anything else leaves no object at all.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Error, Result};
use chrono::Utc;
use log::warn;

use super::{prune, recovery, survive, Event, Job};
use crate::base::progress::{self, rate};
use crate::base::units;
use crate::dump::gzip::Gzip;
use crate::dump::proof::Witness;
use crate::dump::spool::{self, Spool};
use crate::postgres::{is_broken_pipe, Postgres, Process, Programs, Server};
use crate::s3::{self, Client, Metadata, Part, Upload};
use crate::store::{self, Backup};

/// A backup is usually at most a quarter of its database's size.
const USUAL_RATIO: u64 = 4;

/// Bytes so far, for the progress lines.
#[derive(Default)]
struct Progress {
    dumped: AtomicU64,
    compressed: AtomicU64,
    uploaded: Arc<AtomicU64>,
}

/// Backs up once, then prunes. Returns the new backup, or `None` if there is none: an [`Event`] says why. The bucket
/// then holds nothing new under a backup's name. (One exception: if S3 acknowledged the backup and cannot be asked for
/// its size afterwards, a whole backup stays.)
pub fn run(job: &Job) -> Option<Backup> {
    match survive(|| attempt(job)) {
        Ok(backup) => Some(backup),
        Err(failure) => {
            job.tell(&Event::BackupFailed { failure });
            None
        }
    }
}

fn attempt(job: &Job) -> Result<Backup> {
    let started = Instant::now();
    let clients = job.clients()?;
    let postgres = job.postgres(&clients);
    let server = postgres.ask_server()?;
    let programs = clients.for_server(&server)?;
    let store = &job.store;
    let time = store.free_time(Utc::now()).context("cannot look into the bucket")?;
    let mut backup = Backup { key: store.key(time, job.format), time, format: job.format, size: 0 };
    let place = store.place(&backup);
    job.tell(&Event::BackupStarted {
        database: job.database.clone(),
        server: server.clone(),
        client: programs.clone(),
        place: place.clone(),
    });
    store.sweep(Utc::now());
    warn_of_full_disk(job, server.database_size);

    let progress = Arc::new(Progress::default());
    let shown = Arc::clone(&progress);
    let reporter = progress::report(move |elapsed| shown.line(elapsed))?;
    let run = Run { job, postgres: &postgres, programs, progress: &progress };
    backup.size = run.dump_and_upload(&server, &backup.key)?;
    drop(reporter);
    compare_size(&store.client, &backup)?;

    let took = started.elapsed();
    job.tell(&Event::BackupSucceeded {
        database: job.database.clone(),
        place,
        dumped: progress.dumped.load(Ordering::Relaxed),
        took,
        pruned: prune::after_backup(job),
        recovery: recovery::command(&store.client, &job.database, &backup),
        backup: backup.clone(),
    });
    Ok(backup)
}

/// What the steps of a backup share.
struct Run<'a> {
    job: &'a Job,
    postgres: &'a Postgres,
    programs: &'a Programs,
    progress: &'a Progress,
}

impl Run<'_> {
    /// Everything up to the object's appearance; returns its size in bytes.
    fn dump_and_upload(&self, server: &Server, key: &str) -> Result<u64> {
        let Run { job, progress, .. } = self;
        let metadata = self.metadata(server);
        let acknowledged = Arc::clone(&progress.uploaded);
        let upload = Upload::start(
            &job.store.client,
            key,
            metadata,
            job.upload_concurrency,
            acknowledged,
            &job.shutdown,
        )?;
        let part_size = s3::part_size(server.database_size);
        let spool = Spool::create(&job.temp_directory, part_size, upload.parts())?;
        let whole = self
            .postgres
            .dump(self.programs, job.format, job.lock_timeout)
            .and_then(|dump| self.fill_spool(dump, spool))
            .and_then(|whole| match job.shutdown.forced() {
                Some(_) => bail!("stopped by a second signal"),
                None => Ok(whole),
            });
        match whole {
            Ok((last, size)) => {
                let dumped = progress.dumped.load(Ordering::Relaxed);
                upload
                    .commit(last, ("dumped-bytes", dumped.to_string()))
                    .context("cannot upload the backup")?;
                Ok(size)
            }
            Err(failure) => match (upload.abort(), job.shutdown.forced()) {
                // The dump failed because the upload had: that is the cause.
                (Some(cause), None) if is_broken_pipe(&failure) => {
                    Err(cause.context("cannot upload the backup"))
                }
                _ => Err(failure),
            },
        }
    }

    /// What the object says about itself, beside its name.
    fn metadata(&self, server: &Server) -> Metadata {
        vec![
            ("pgkeep-version", env!("CARGO_PKG_VERSION").to_owned()),
            ("database", store::escape(&self.job.database)),
            ("server-version", server.version.clone()),
            ("client-version", self.programs.version.clone()),
        ]
    }

    /// Reads the dump to its end and proves it whole; answers with the last part and the size of all.
    fn fill_spool(&self, mut dump: Process, spool: Spool) -> Result<(Part, u64)> {
        let Run { job, progress, .. } = self;
        let written = |problem| explain_write(problem, job, progress);
        let mut gzip = Gzip::new(spool, job.compression_level, job.threads).map_err(written)?;
        let mut witness = Witness::new(job.format);
        loop {
            let space = gzip.space();
            let read = dump.read(space)?;
            if read == 0 {
                break;
            }
            witness.push(&space[..read]);
            gzip.advance(read).map_err(written)?;
            progress.dumped.store(witness.length, Ordering::Relaxed);
            progress.compressed.store(gzip.output().written(), Ordering::Relaxed);
        }
        dump.finish().map_err(|failure| explain_dump(failure, job))?;
        witness.check().map_err(Error::msg).context("pg_dump reported success, and yet")?;
        let spool = gzip.finish().map_err(written)?;
        let size = spool.written();
        progress.compressed.store(size, Ordering::Relaxed);
        Ok((spool.finish(), size))
    }
}

impl Progress {
    fn line(&self, elapsed: Duration) -> String {
        let [dumped, compressed, uploaded] =
            [&self.dumped, &self.compressed, &self.uploaded].map(|count| count.load(Ordering::Relaxed));
        format!(
            "backup running for {}: {} dumped ({}), {} compressed, {} uploaded ({})",
            units::duration(elapsed),
            units::bytes(dumped),
            rate(dumped, elapsed),
            units::bytes(compressed),
            units::bytes(uploaded),
            rate(uploaded, elapsed)
        )
    }
}

/// What a backup of a database of this size may take, both in bytes.
pub fn usual_size(database_size: u64) -> u64 {
    database_size / USUAL_RATIO
}

/// The whole backup goes to the disk where S3 is slower than the dump.
fn warn_of_full_disk(job: &Job, database_size: u64) {
    let need = usual_size(database_size);
    if let Some(free) = spool::free_space(&job.temp_directory).filter(|free| *free < need) {
        warn!(
            "the backup may need {} of temporary space, and only {} are free in {}: it will fail there unless S3 \
             is faster than the dump; BACKUP_TEMP_DIR can name another directory",
            units::bytes(need),
            units::bytes(free),
            job.temp_directory.display()
        );
    }
}

/// Says what a full disk lacked.
fn explain_write(problem: io::Error, job: &Job, progress: &Progress) -> Error {
    let directory = job.temp_directory.display();
    let full = matches!(problem.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let failure = Error::from(problem);
    if !full {
        return failure.context(format!("cannot write to the temporary file in {directory}"));
    }
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let waiting = count(&progress.compressed).saturating_sub(count(&progress.uploaded));
    let free = spool::free_space(&job.temp_directory).map_or("no".into(), units::bytes);
    failure.context(format!(
        "the temporary file in {directory} finds no room: it holds {}, which are not uploaded yet, needs more, and {free} \
         are free; BACKUP_TEMP_DIR can name another directory",
        units::bytes(waiting)
    ))
}

/// Says in pgkeep's terms what pg_dump calls a statement timeout.
fn explain_dump(failure: Error, job: &Job) -> Error {
    let said = failure.to_string();
    if said.contains("LOCK TABLE") && said.contains("timeout") {
        let waited = units::duration(job.lock_timeout);
        return failure.context(format!(
            "somebody holds a lock on a table for longer than BACKUP_LOCK_TIMEOUT ({waited})"
        ));
    }
    failure
}

/// What the bucket holds now must have the size that was sent. Otherwise it does not deserve its name.
fn compare_size(client: &Client, backup: &Backup) -> Result<()> {
    let (key, sent) = (&backup.key, backup.size);
    match client.head_object(key).context("cannot look at the uploaded backup")? {
        Some(found) if found == sent => Ok(()),
        Some(found) => {
            let wrong = anyhow!("S3 stored {found} bytes of {} instead of {sent}", client.place(key));
            match client.delete_object(key) {
                Ok(()) => Err(wrong.context("the upload went wrong, and was deleted again")),
                Err(error) => {
                    Err(wrong.context(format!("the upload went wrong and could not be deleted ({error})")))
                }
            }
        }
        None => bail!("S3 acknowledged the upload of {}, but does not have it", client.place(key)),
    }
}
