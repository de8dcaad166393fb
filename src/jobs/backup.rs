//! One backup, from the dump to the commit gate.
//!
//! pg_dump → gzip → spool → parts → S3. The object appears only when pg_dump ended with status 0, the
//! dump itself showed that it is whole (`dump::proof`), gzip closed cleanly and every part was acknowledged with
//! its checksum. Anything else leaves no object at all.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context, Error, Result};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use log::{debug, info, warn};

use crate::base::progress::{self, rate};
use crate::base::shutdown::Shutdown;
use crate::base::units;
use crate::config::Config;
use crate::dump::gzip::Gzip;
use crate::dump::proof::Witness;
use crate::dump::spool::{self, Part, Spool};
use crate::jobs::prune;
use crate::jobs::recovery;
use crate::postgres::{self, is_broken_pipe, Postgres, Process, Programs, Server};
use crate::s3::upload::{self, Upload};
use crate::s3::{Client, Metadata, PendingUpload};
use crate::store::key::{self as catalog, Backup, Catalog};

/// So many times smaller than its database is a backup, or more; for the warning about the disk.
const USUAL_RATIO: u64 = 4;
/// An upload of ours that was neither completed nor aborted for so long is nobody's any more.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);

/// Bytes so far, for the progress lines.
#[derive(Default)]
struct Progress {
    dumped: AtomicU64,
    compressed: AtomicU64,
    uploaded: Arc<AtomicU64>,
}

/// Backs up once, then prunes; answers with the new backup.
///
/// # Errors
/// The step that failed and why. The bucket then holds nothing new under a backup's name, but
/// where S3 cannot be asked for the size of what it acknowledged: then a whole backup stays.
pub fn run(config: &Config, s3: &Client, shutdown: &Shutdown) -> Result<Backup> {
    let started = Instant::now();
    let catalog = config.catalog();
    let postgres = Postgres::new(config, shutdown);
    let installed = postgres::installed(config.client_directory.as_deref())?;
    let server = postgres.ask_server(&installed[0])?;
    let programs = postgres::choose(&installed, &server)?;
    let time = free_time(s3, &catalog, Utc::now())?;
    let format = config.format;
    let key = catalog.key(time, format);
    info!(
        "backup started: database \"{}\" ({} on PostgreSQL {}) to {}, with pg_dump {}",
        config.database,
        units::bytes(server.database_size),
        server.version,
        s3.place(&key),
        programs.version
    );
    sweep(s3, &catalog, Utc::now());
    warn_of_full_disk(config, server.database_size);

    let progress = Arc::new(Progress::default());
    let shown = Arc::clone(&progress);
    let reporter = progress::report(move |elapsed| shown.line(elapsed))?;
    let run = Run { config, s3, shutdown, postgres: &postgres, programs: &programs, progress: &progress };
    let size = run.dump_and_upload(&server, &key)?;
    drop(reporter);
    compare_size(s3, &key, size)?;

    let took = started.elapsed();
    let dumped = progress.dumped.load(Ordering::Relaxed);
    let pruned = prune::after_backup(config, s3);
    info!(
        "backup succeeded: database \"{}\", {} dumped, {} compressed (ratio {:.1}), in {} ({}), at {}; {pruned}; \
         to restore it without pgkeep: {}",
        config.database,
        units::bytes(dumped),
        units::bytes(size),
        dumped as f64 / size as f64,
        units::duration(took),
        rate(dumped, took),
        s3.place(&key),
        recovery::command(&config.s3, &config.database, &key, format),
    );
    Ok(Backup { key, time, format, size })
}

/// Now, or the next second that no backup is named by. The listing also shows before any dump
/// begins whether the bucket is there and may be read.
fn free_time(s3: &Client, catalog: &Catalog, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let day = format!("{}{}", catalog.prefix(), now.format("%Y-%m-%d"));
    let taken = catalog.backups(s3.list_objects(&day).context("cannot look into the bucket")?);
    let mut time = now.trunc_subsecs(0);
    while taken.iter().any(|backup| backup.time == time) {
        time += TimeDelta::seconds(1);
    }
    Ok(time)
}

/// This database's uploads that are neither completed nor aborted. Not every S3-compatible server can list
/// them; that is no reason not to back up.
pub fn pending_uploads(s3: &Client, catalog: &Catalog) -> Vec<PendingUpload> {
    match s3.list_multipart_uploads(catalog.prefix()) {
        Ok(uploads) => uploads.into_iter().filter(|upload| catalog.parse(&upload.key).is_some()).collect(),
        Err(error) => {
            debug!("unfinished uploads are not looked for: {error}");
            Vec::new()
        }
    }
}

/// Aborts the uploads that a crash left behind.
fn sweep(s3: &Client, catalog: &Catalog, now: DateTime<Utc>) {
    for upload in pending_uploads(s3, catalog) {
        if now - upload.initiated < STALE_AFTER {
            continue;
        }
        match s3.abort_multipart_upload(&upload.key, &upload.id) {
            Ok(()) => info!("aborted the upload {} of {}, begun {}", upload.id, upload.key, upload.initiated),
            Err(error) => warn!("the stale upload {} could not be aborted: {error}", upload.id),
        }
    }
}

/// What the steps of a backup share.
struct Run<'a> {
    config: &'a Config,
    s3: &'a Client,
    shutdown: &'a Shutdown,
    postgres: &'a Postgres<'a>,
    programs: &'a Programs,
    progress: &'a Progress,
}

impl Run<'_> {
    /// Everything up to the object's appearance; answers with its size in bytes.
    fn dump_and_upload(&self, server: &Server, key: &str) -> Result<u64> {
        let Run { config, shutdown, progress, .. } = self;
        let metadata = self.metadata(server);
        let acknowledged = Arc::clone(&progress.uploaded);
        let upload =
            Upload::start(self.s3, key, metadata, config.upload_concurrency, acknowledged, shutdown)?;
        let part_size = upload::part_size(server.database_size);
        let spool = Spool::create(&config.temp_directory, part_size, upload.parts())?;
        let dump = self.postgres.dump(self.programs, config.format);
        let whole =
            dump.and_then(|dump| self.fill_spool(dump, spool)).and_then(|whole| match shutdown.forced() {
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
            Err(failure) => match (upload.abort(), shutdown.forced()) {
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
            ("database", catalog::escape(&self.config.database)),
            ("server-version", server.version.clone()),
            ("client-version", self.programs.version.clone()),
        ]
    }

    /// Reads the dump to its end and proves it whole; answers with the last part and the size of all.
    fn fill_spool(&self, mut dump: Process, spool: Spool) -> Result<(Part, u64)> {
        let Run { config, progress, .. } = self;
        let written = |problem| explain_write(problem, config, progress);
        let mut gzip = Gzip::new(spool, config.compression_level, config.threads).map_err(written)?;
        let mut witness = Witness::new(config.format);
        let output = dump.output();
        loop {
            let space = gzip.space();
            let read = match output.read(space) {
                Ok(0) => break,
                Ok(read) => read,
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => continue,
                Err(problem) => return Err(problem).context("cannot read from pg_dump"),
            };
            witness.push(&space[..read]);
            gzip.advance(read).map_err(written)?;
            progress.dumped.store(witness.length, Ordering::Relaxed);
            progress.compressed.store(gzip.output().written(), Ordering::Relaxed);
        }
        dump.finish().map_err(|failure| explain(failure, config))?;
        witness.check().map_err(Error::msg).context("pg_dump reported success, and yet")?;
        if let Some(doubt) = witness.unproven() {
            warn!("{doubt}");
        }
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
fn warn_of_full_disk(config: &Config, database_size: u64) {
    let need = usual_size(database_size);
    if let Some(free) = spool::free_space(&config.temp_directory).filter(|free| *free < need) {
        warn!(
            "the backup may need {} of temporary space, and only {} are free in {}: it will fail there unless S3 \
             is faster than the dump; BACKUP_TEMP_DIR can name another directory",
            units::bytes(need),
            units::bytes(free),
            config.temp_directory.display()
        );
    }
}

/// Says what a full disk lacked.
fn explain_write(problem: io::Error, config: &Config, progress: &Progress) -> anyhow::Error {
    let directory = config.temp_directory.display();
    let full = matches!(problem.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let failure = anyhow::Error::from(problem);
    if !full {
        return failure.context(format!("cannot write to the temporary file in {directory}"));
    }
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let waiting = count(&progress.compressed).saturating_sub(count(&progress.uploaded));
    let free = spool::free_space(&config.temp_directory).map_or("no".into(), units::bytes);
    failure.context(format!(
        "the temporary file in {directory} finds no room: it holds {}, which are not uploaded yet, needs more, and {free} \
         are free; BACKUP_TEMP_DIR can name another directory",
        units::bytes(waiting)
    ))
}

/// Says in pgkeep's terms what pg_dump calls a statement timeout.
fn explain(failure: anyhow::Error, config: &Config) -> anyhow::Error {
    let said = failure.to_string();
    if said.contains("LOCK TABLE") && said.contains("timeout") {
        let waited = units::duration(config.lock_timeout);
        return failure.context(format!(
            "somebody holds a lock on a table for longer than BACKUP_LOCK_TIMEOUT ({waited})"
        ));
    }
    failure
}

/// What the bucket holds now has to have the size that was sent; otherwise it does not deserve its name.
fn compare_size(s3: &Client, key: &str, sent: u64) -> Result<()> {
    match s3.head_object(key).context("cannot look at the uploaded backup")? {
        Some(found) if found == sent => Ok(()),
        Some(found) => {
            let wrong = anyhow!("S3 stored {found} bytes of {} instead of {sent}", s3.place(key));
            match s3.delete_object(key) {
                Ok(()) => Err(wrong.context("the upload went wrong, and was deleted again")),
                Err(error) => {
                    Err(wrong.context(format!("the upload went wrong and could not be deleted ({error})")))
                }
            }
        }
        None => bail!("S3 acknowledged the upload of {}, but does not have it", s3.place(key)),
    }
}
