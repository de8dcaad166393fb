//! One backup, from the dump to the commit gate.
//!
//! pg_dump → gzip → spool → parts → S3. The object appears only when pg_dump ended with status 0, the
//! dump's own end marker was seen, gzip closed cleanly and every part was acknowledged with its checksum.
//! Anything else leaves no object at all.

use std::io::{self, IsTerminal, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use log::{debug, info, warn};

use crate::catalog::{Backup, Catalog, Format};
use crate::config::Config;
use crate::gzip::Gzip;
use crate::logging;
use crate::postgres::{self, Postgres, Process, Programs};
use crate::prune;
use crate::s3::multipart::{self, Upload};
use crate::s3::{Client, PendingUpload};
use crate::shutdown::Shutdown;
use crate::spool::{self, Part, Spool};
use crate::units;

/// So many times smaller than its database is a backup, or more; for the warning about the disk.
const USUAL_RATIO: u64 = 4;
/// How often a running backup says how far it is: in the log, and on a terminal.
const LIVE_INTERVAL: Duration = Duration::from_millis(500);
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);
/// An upload of ours that was neither completed nor aborted for so long is nobody's any more.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);
/// What pg_dump's plain format ends with, and what may follow: `\unrestrict` with its key.
const END_MARKER: &[u8] = b"\n-- PostgreSQL database dump complete\n";
const TAIL: usize = 1024;

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
    let key = catalog.key(time, Format::Plain);
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
    let reporter = report_progress(Arc::clone(&progress), started)?;
    let size =
        dump_and_upload(config, s3, shutdown, &postgres, &programs, server.database_size, &key, &progress)?;
    drop(reporter);
    compare_size(s3, &key, size)?;

    let took = started.elapsed();
    let dumped = progress.dumped.load(Ordering::Relaxed);
    let pruned = prune::after_backup(config, s3);
    info!(
        "backup succeeded: database \"{}\", {} dumped, {} compressed (ratio {:.1}), in {} ({}/s), at {}; {pruned}",
        config.database,
        units::bytes(dumped),
        units::bytes(size),
        dumped as f64 / size as f64,
        units::duration(took),
        units::bytes((dumped as f64 / took.as_secs_f64()) as u64),
        s3.place(&key),
    );
    Ok(Backup { key, time, format: Format::Plain, size })
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

/// Everything up to the object's appearance; answers with its size in bytes.
#[allow(clippy::too_many_arguments)]
fn dump_and_upload(
    config: &Config,
    s3: &Client,
    shutdown: &Shutdown,
    postgres: &Postgres<'_>,
    programs: &Programs,
    database_size: u64,
    key: &str,
    progress: &Progress,
) -> Result<u64> {
    let part_size = multipart::part_size(database_size);
    let upload = Upload::start(s3, key, config.upload_concurrency, Arc::clone(&progress.uploaded), shutdown)?;
    let spool = Spool::create(&config.temp_directory, part_size, upload.parts())?;
    let whole = postgres.dump(programs).and_then(|dump| fill_spool(dump, spool, config, progress)).and_then(
        |whole| match shutdown.forced() {
            Some(_) => bail!("stopped by a second signal"),
            None => Ok(whole),
        },
    );
    match whole {
        Ok((last, size)) => {
            upload.commit(last).context("cannot upload the backup")?;
            Ok(size)
        }
        Err(failure) => match (upload.abort(), shutdown.forced()) {
            // The dump failed because the upload had: that is the cause.
            (Some(cause), None) if is_broken_pipe(&failure) => Err(cause.context("cannot upload the backup")),
            _ => Err(failure),
        },
    }
}

/// Reads the dump to its end and proves it whole; answers with the last part and the size of all.
fn fill_spool(mut dump: Process, spool: Spool, config: &Config, progress: &Progress) -> Result<(Part, u64)> {
    let written = |problem| explain_write(problem, config, progress);
    let mut gzip = Gzip::new(spool, config.compression_level, config.threads).map_err(written)?;
    let mut tail = Tail::default();
    loop {
        let space = gzip.space();
        let read = match dump.stdout.read(space) {
            Ok(0) => break,
            Ok(read) => read,
            Err(problem) if problem.kind() == io::ErrorKind::Interrupted => continue,
            Err(problem) => return Err(problem).context("cannot read from pg_dump"),
        };
        tail.push(&space[..read]);
        gzip.advance(read).map_err(written)?;
        progress.dumped.fetch_add(read as u64, Ordering::Relaxed);
        progress.compressed.store(gzip.output().written(), Ordering::Relaxed);
    }
    dump.finish().map_err(|failure| explain(failure, config))?;
    ensure!(
        tail.shows_a_whole_dump(),
        "the dump has no end marker although pg_dump reported success: it is not whole"
    );
    let spool = gzip.finish().map_err(written)?;
    let size = spool.written();
    progress.compressed.store(size, Ordering::Relaxed);
    Ok((spool.finish(), size))
}

/// The whole backup goes to the disk where S3 is slower than the dump.
fn warn_of_full_disk(config: &Config, database_size: u64) {
    let need = database_size / USUAL_RATIO;
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

fn is_broken_pipe(failure: &anyhow::Error) -> bool {
    let io = failure.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
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

/// Shows how far the backup is until the answer is dropped: on a terminal by one line that changes, else by a
/// line in the log every now and then.
fn report_progress(progress: Arc<Progress>, started: Instant) -> Result<mpsc::Sender<()>> {
    let (running, ended) = mpsc::channel::<()>();
    let live = io::stderr().is_terminal();
    let interval = if live { LIVE_INTERVAL } else { PROGRESS_INTERVAL };
    thread::Builder::new().name("progress".into()).spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
            let elapsed = started.elapsed();
            let show = |count: &AtomicU64| units::bytes(count.load(Ordering::Relaxed));
            let rate = |count: &AtomicU64| {
                units::bytes((count.load(Ordering::Relaxed) as f64 / elapsed.as_secs_f64()) as u64)
            };
            let line = format!(
                "backup running for {}: {} dumped ({}/s), {} compressed, {} uploaded ({}/s)",
                units::duration(elapsed),
                show(&progress.dumped),
                rate(&progress.dumped),
                show(&progress.compressed),
                show(&progress.uploaded),
                rate(&progress.uploaded)
            );
            if live {
                logging::show_live(&line);
            } else {
                info!("{line}");
            }
        }
        if live {
            logging::show_live("");
        }
    })?;
    Ok(running)
}

/// The end of what went by.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        self.0.drain(..self.0.len().saturating_sub(TAIL));
    }

    /// Whether the end marker is there, with nothing behind it but comments and `\unrestrict`: a dump that
    /// stopped within a table whose rows contain the marker's text does not pass.
    fn shows_a_whole_dump(&self) -> bool {
        let Some(at) = self.0.windows(END_MARKER.len()).rposition(|window| window == END_MARKER) else {
            return false;
        };
        let behind = String::from_utf8_lossy(&self.0[at + END_MARKER.len()..]);
        behind.ends_with('\n')
            && behind.lines().all(|line| line.is_empty() || line == "--" || line.starts_with("\\unrestrict "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, chunk: usize) -> bool {
        let mut tail = Tail::default();
        text.as_bytes().chunks(chunk).for_each(|bytes| tail.push(bytes));
        tail.shows_a_whole_dump()
    }

    #[test]
    fn only_a_dump_with_its_end_marker_is_whole() {
        let rows = "1\ttext\n".repeat(1000);
        let end = "--\n-- PostgreSQL database dump complete\n--\n\n";
        for chunk in [1, 7, 1000, 100_000] {
            assert!(whole(&format!("{rows}{end}"), chunk));
            assert!(whole(&format!("{rows}{end}\\unrestrict 4fNx\n\n"), chunk));
            for cut in 1..=end.len() {
                let cut_off = format!("{rows}{end}");
                let cut_off = &cut_off[..cut_off.len() - cut];
                // The marker itself and the line feed behind it are what counts.
                let complete = cut_off.ends_with("complete\n--\n");
                assert_eq!(whole(cut_off, chunk), complete, "{cut} bytes cut off");
            }
            assert!(!whole(&format!("{rows}{end}{rows}"), chunk));
            assert!(!whole(&rows, chunk));
            assert!(!whole("", chunk));
        }
    }
}
