//! One backup, from the dump to the commit gate.
//!
//! pg_dump → gzip → perhaps age → spool → parts → S3. The object appears only if pg_dump ended with status 0,
//! the dump itself showed that it is whole (`dump::proof`), gzip ended cleanly, age ended with status 0, and
//! every part was acknowledged with its checksum. In all other cases there is no object at all.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Error, Result};
use chrono::{TimeDelta, Utc};
use log::warn;

use super::restore::record;
use super::{prune, recovery, survive, Event, Job, Step};
use crate::base::process::{is_broken_pipe, Process};
use crate::base::progress::{self, rate};
use crate::base::units;
use crate::dump::age::{Failed, Sealed};
use crate::dump::gzip::Gzip;
use crate::dump::proof::Witness;
use crate::dump::spool::{self, Spool};
use crate::postgres::{Interview, Postgres, Programs};
use crate::s3::{Claim, Made, Metadata, Part, Upload};
use crate::store::{self, Backup, Store, Taken};

/// A backup is usually at most a quarter of its database's size.
const USUAL_RATIO: u64 = 4;
/// If another pgkeep takes the backup's name, the backup gets a new name, at most this many times.
const MOST_NAMES: usize = 10;

const LOOKING: &str = "cannot look into the bucket";

/// The metadata that describes the database itself: encoding, locale, owner, grants, settings.
pub(super) const DATABASE_PROPERTIES: &str = "database-properties";
/// The metadata with the version of pg_dump.
pub(super) const CLIENT_VERSION: &str = "client-version";

/// The numbers of bytes so far, for the progress lines.
#[derive(Default)]
struct Progress {
    dumped: AtomicU64,
    compressed: AtomicU64,
    uploaded: Arc<AtomicU64>,
}

/// Makes one backup, then prunes. Returns the new backup, or `None` if there is none; an [`Event`] says why.
/// The bucket then holds nothing new under a backup's name. There is one exception: if S3 acknowledged the
/// backup but cannot be asked for its size or bytes afterwards, a whole backup stays.
pub fn run(job: &Job) -> Option<Backup> {
    carry_out(job, prepare(job), ())
}

/// What has to be known before the dump.
pub struct Prepared {
    postgres: Postgres,
    interview: Interview,
    programs: Programs,
    bucket: JoinHandle<Result<Taken>>,
    took: Duration,
}

/// Asks the server, and looks into the bucket meanwhile. This harms no dump of another database that runs at
/// the same time.
pub fn prepare(job: &Job) -> Result<Prepared> {
    let started = Instant::now();
    survive(|| {
        let (looking, sweeps) = (job.store.clone(), job.run.is_none());
        let bucket = thread::Builder::new()
            .name("bucket".into())
            .spawn(move || survive(|| look_into_bucket(&looking, sweeps)))?;
        let clients = job.clients()?;
        let postgres = job.postgres(&clients);
        let interview = postgres.interview((!job.globals).then_some(&job.database))?;
        let programs = clients.for_server(&interview.server)?.clone();
        Ok(Prepared { postgres, interview, programs, bucket, took: started.elapsed() })
    })
}

/// Lists what may be in the way. A run over several databases sweeps once, for all of them.
fn look_into_bucket(store: &Store, sweeps: bool) -> Result<Taken> {
    let taken = store.taken(Utc::now()).context(LOOKING)?;
    if sweeps {
        store.sweep(Utc::now());
    }
    Ok(taken)
}

/// Makes the backup, as [`run`] does. Drops `turn` as soon as the dump is done: what is left is the end of the
/// upload, and pruning.
pub fn carry_out<T>(job: &Job, prepared: Result<Prepared>, turn: T) -> Option<Backup> {
    let step = Cell::new(Step::Connect);
    match prepared.and_then(|prepared| survive(|| attempt(job, prepared, turn, &step))) {
        Ok(backup) => Some(backup),
        Err(failure) => {
            job.tell(&Event::BackupFailed { step: step.get(), failure });
            None
        }
    }
}

/// Sets `step` to the step that it is in.
fn attempt<T>(job: &Job, prepared: Prepared, turn: T, step: &Cell<Step>) -> Result<Backup> {
    let (started, prepared_in) = (Instant::now(), prepared.took);
    let Prepared { postgres, interview, programs, bucket, .. } = prepared;
    let server = &interview.server;
    let store = &job.store;
    step.set(Step::Bucket);
    let taken = bucket.join().unwrap_or_else(|_| unreachable!("its panics are failures"))?;
    let time = store.free_time(Utc::now(), Some(taken)).context(LOOKING)?;
    step.set(Step::Dump);
    let (format, encrypted) = (job.format, job.recipients.is_some());
    let begun = Backup { key: store.key(time, format, encrypted), time, format, encrypted, size: 0 };
    job.tell(&Event::BackupStarted {
        database: job.database.clone(),
        globals: job.globals,
        server: server.clone(),
        client: programs.clone(),
        place: store.place(&begun),
    });
    warn_of_full_disk(job, server.database_size);

    let progress = Arc::new(Progress::default());
    let shown = Arc::clone(&progress);
    let of = job.run.as_ref().map_or(String::new(), |_| format!(" of {}", job.subject()));
    let reporter = progress::report(move |elapsed| shown.line(&of, elapsed))?;
    let run = Run { job, postgres: &postgres, programs: &programs, progress: &progress, step };
    let backup = run.dump_and_upload(&interview, begun, turn)?;
    drop(reporter);

    let took = prepared_in + started.elapsed();
    job.tell(&Event::BackupSucceeded {
        database: job.database.clone(),
        globals: job.globals,
        place: store.place(&backup),
        dumped: progress.dumped.load(Ordering::Relaxed),
        took,
        pruning: prune::after_backup(job, &backup),
        recovery: match job.globals {
            true => recovery::command_of_globals(&store.client, &backup),
            false => {
                let cleaned = programs.set_what_lacks(server);
                recovery::command(&store.client, &job.database, &backup, cleaned)
            }
        },
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
    step: &'a Cell<Step>,
}

impl Run<'_> {
    /// Does everything until the object appears. Returns the backup with its size.
    fn dump_and_upload<T>(&self, interview: &Interview, mut backup: Backup, turn: T) -> Result<Backup> {
        let Run { job, progress, .. } = self;
        let (claim, metadata) = (Claim::new(&backup.key), self.metadata(interview)?);
        let acknowledged = Arc::clone(&progress.uploaded);
        let upload = Upload::start(
            &job.store.client,
            &claim,
            metadata.clone(),
            job.upload_concurrency,
            acknowledged,
            &job.shutdown,
        )?;
        let part_size = job.store.client.part_size.of(interview.server.database_size);
        let spool = Spool::create(&job.temp_directory, part_size, upload.parts())?;
        let whole =
            self.start_dump().and_then(|dump| self.fill_spool(dump, spool)).and_then(|whole| {
                match job.shutdown.forced() {
                    Some(_) => bail!("stopped by a second signal"),
                    None => Ok(whole),
                }
            });
        drop(turn);
        match whole {
            Ok((last, size)) => {
                backup.size = size;
                self.step.set(Step::Upload);
                let uploaded = if last.number == 1 {
                    // No upload has begun.
                    upload.abort();
                    self.put(&last, &claim, metadata, backup)
                } else {
                    upload.commit(last).and_then(|made| match made {
                        Made::Whole => Ok(backup),
                        Made::Taken => bail!("{}", is_taken(&job.store, &backup)),
                    })
                };
                uploaded.context("cannot upload the backup")
            }
            Err(failure) => match (upload.abort(), job.shutdown.forced()) {
                // The dump failed because the upload had failed. So the upload's failure is the cause.
                (Some(cause), None) if is_broken_pipe(&failure) => {
                    self.step.set(Step::Upload);
                    Err(cause.context("cannot upload the backup"))
                }
                _ => Err(failure),
            },
        }
    }

    /// Stores a backup of a single part. If another pgkeep has taken the name meanwhile, it uses the next
    /// free second.
    fn put(&self, part: &Part, claim: &Claim, mut metadata: Metadata, mut backup: Backup) -> Result<Backup> {
        let Run { job, progress, .. } = self;
        let store = &job.store;
        // S3 accepts metadata only when an upload begins, so a backup of several parts does not have this.
        metadata.push(("dumped-bytes", progress.dumped.load(Ordering::Relaxed).to_string()));
        for _ in 0..MOST_NAMES {
            match store.client.put_new(&claim.at(&backup.key), part, &metadata)? {
                Made::Whole => {
                    progress.uploaded.store(part.length, Ordering::Relaxed);
                    return Ok(backup);
                }
                Made::Taken => warn!("{}; this one gets the next free second", is_taken(store, &backup)),
            }
            backup.time = store.free_time(backup.time + TimeDelta::seconds(1), None).context(LOOKING)?;
            backup.key = store.key(backup.time, backup.format, backup.encrypted);
        }
        bail!(
            "{MOST_NAMES} names in a row were taken: another pgkeep backs up this database to the same place"
        )
    }

    fn start_dump(&self) -> Result<Process> {
        let Run { job, postgres, programs, .. } = self;
        match job.globals {
            true => postgres.dump_globals(programs, job.lock_timeout),
            false => postgres.dump(programs, job.format, job.lock_timeout, &job.dump_options),
        }
    }

    /// The object's metadata.
    fn metadata(&self, interview: &Interview) -> Result<Metadata> {
        let Run { job, programs, .. } = self;
        let mut metadata = vec![
            ("pgkeep-version", env!("CARGO_PKG_VERSION").to_owned()),
            ("server-version", interview.server.version.clone()),
            (CLIENT_VERSION, programs.version.clone()),
        ];
        if let Some(properties) = &interview.properties {
            metadata.push(("database", store::escape(&job.database)));
            metadata.push((DATABASE_PROPERTIES, record(job, properties)?));
        }
        metadata.extend(interview.cluster.clone().map(|id| (store::CLUSTER_ID, id)));
        metadata.extend(job.run.as_ref().map(|run| (store::RUN, run.id.clone())));
        Ok(metadata)
    }

    /// Reads the dump to its end and proves that it is whole. Returns the last part and the total size.
    fn fill_spool(&self, mut dump: Process, spool: Spool) -> Result<(Part, u64)> {
        let Run { job, progress, .. } = self;
        let written = |problem| explain_write(problem, job, progress);
        let sealed = Sealed::new(job.recipients.as_ref(), job.stall_timeout, &job.shutdown, spool)?;
        let mut gzip = Gzip::new(sealed, job.compression_level, job.threads).map_err(written)?;
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
        if let Some(doubt) = witness.unproven() {
            warn!("{doubt}");
        }
        let spool = gzip.finish().and_then(Sealed::finish).map_err(written)?;
        let size = spool.written();
        progress.compressed.store(size, Ordering::Relaxed);
        Ok((spool.finish(), size))
    }
}

impl Progress {
    fn line(&self, of: &str, elapsed: Duration) -> String {
        let [dumped, compressed, uploaded] =
            [&self.dumped, &self.compressed, &self.uploaded].map(|count| count.load(Ordering::Relaxed));
        format!(
            "backup{of} running for {}: {} dumped ({}), {} compressed, {} uploaded ({})",
            units::duration(elapsed),
            units::bytes(dumped),
            rate(dumped, elapsed),
            units::bytes(compressed),
            units::bytes(uploaded),
            rate(uploaded, elapsed)
        )
    }
}

/// Why a backup did not get its name.
fn is_taken(store: &Store, backup: &Backup) -> String {
    let place = store.place(backup);
    format!(
        "another pgkeep backs up this database to the same place: {place} is there, and is not of this run"
    )
}

/// The usual size of a backup of a database with this size, both in bytes.
pub fn usual_size(database_size: u64) -> u64 {
    database_size / USUAL_RATIO
}

/// If S3 is slower than the dump, the whole backup goes to the disk first.
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

/// Explains what a full disk would have needed.
fn explain_write(problem: io::Error, job: &Job, progress: &Progress) -> Error {
    let problem = match problem.downcast::<Failed>() {
        Ok(Failed(failure)) => return failure,
        Err(problem) => problem,
    };
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

/// Explains what pg_dump calls a statement timeout, in pgkeep's terms.
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
