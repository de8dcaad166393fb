//! The daemon's loop: sleep until the fire time or a signal, back up, and go on, whatever happened.

mod file;
mod health;
mod http;
mod listen;
pub mod metrics;
mod record;
mod start;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Local, Utc};
use log::{debug, info, warn};

use self::file::StatusFile;
use self::file::BEAT;
pub use self::health::verdict;
pub use self::start::OnStart;
pub use self::status::{Failure, Newest, Status};
use crate::base::logging;
use crate::base::shutdown::Shutdown;
use crate::base::units::{self, both_times};
use crate::jobs::{backup, drill, leftovers, Event, Job, Step};
use crate::schedule::{Agenda, Interval, Skipped};
use crate::store::{self, Store};

/// The wall clock can jump (NTP, a suspended host), so the loop checks it at least this often. Each check is
/// a sign of life.
const LONGEST_SLEEP: Duration = BEAT;
/// At most this many skipped fire times are named.
const NAMED_SKIPS: usize = 3;

/// The daemon's plan: when it does what.
pub struct Plan {
    /// When it backs up.
    pub interval: Interval,
    /// Whether it also backs up at its start.
    pub on_start: OnStart,
    /// When it tries to restore the newest backup, if at all.
    pub drill_interval: Option<Interval>,
    /// The database's name, if it is known without the server.
    pub database: Option<String>,
    /// Where the status file is.
    pub status_path: PathBuf,
    /// Where the metrics are served, if anywhere.
    pub listen: Option<SocketAddr>,
}

/// Runs until a signal comes. `make` makes the job anew for each run, because secrets may change.
///
/// # Errors
/// The schedule has no fire time left, or the status file cannot be written.
pub fn run(make: &dyn Fn() -> Result<Job>, plan: Plan, shutdown: &Shutdown) -> Result<()> {
    let started = Utc::now();
    // A daemon that ends in order removes its file. So the one that wrote this file died, perhaps during a
    // backup.
    let left = Status::read(&plan.status_path)
        .inspect_err(|problem| debug!("nothing of an earlier daemon: {problem:#}"));
    let broken_off = left.ok().and_then(|left| left.running_since.or(left.broken_off));
    let status = Status { started, alive: started, broken_off, ..Status::default() };
    let status = StatusFile::create(plan.status_path, status)?;

    let mut agenda = Agenda::new(&plan.interval.schedule, &Local, started)?;
    let mut drills =
        plan.drill_interval.as_ref().map(|of| Agenda::new(&of.schedule, &Local, started)).transpose()?;
    let database = plan.database.unwrap_or_default();
    if let Some(address) = plan.listen {
        let (look, database, schedule) = (status.look(), database.clone(), plan.interval.schedule.clone());
        listen::start(address, move |path| match path {
            "/metrics" => Some((200, metrics::render(&database, &look()))),
            "/healthz" => Some(match verdict(&look(), &schedule, &Local, Utc::now()) {
                Ok(sentence) => (200, format!("healthy: {}", logging::one_line(&sentence))),
                Err(sentence) => (503, format!("unhealthy: {}", logging::one_line(&sentence))),
            }),
            _ => None,
        })?;
        info!("metrics are at http://{address}/metrics");
    }
    let daemon = Daemon { make, database, on_start: plan.on_start, status, shutdown: shutdown.clone() };
    daemon.look_for_leftovers();
    daemon.announce(agenda.next());
    if let Some(drills) = &drills {
        info!("next drill at {}", both_times(drills.next()));
    }
    let (mut looked, mut ran) = (false, false);
    loop {
        let now = Utc::now();
        agenda.check_clock(now)?;
        daemon.status.update(|status| status.next_fire = Some(agenda.next()));
        if let Some(drills) = &mut drills {
            drills.check_clock(now)?;
        }
        let drill_is_due = drills.as_ref().is_some_and(|drills| drills.next() <= now);
        if agenda.next() <= now {
            let late = (now - agenda.next()).to_std().unwrap_or_default();
            info!("scheduled backup of {} starts{}", both_times(agenda.next()), lateness(late));
            daemon.back_up();
            ran = true;
            report_skipped(&agenda.advance(Utc::now())?);
            daemon.announce(agenda.next());
        } else if !looked && !shutdown.requested() {
            let bucket = daemon.look_into_bucket(ran);
            looked = bucket.is_some();
            let last = plan.interval.schedule.past(now, &Local).map(|[last, _]| last);
            if bucket.is_some_and(|bucket| daemon.backs_up_at_start(&bucket, last, broken_off, now)) {
                daemon.back_up();
                report_skipped(&agenda.pass(Utc::now())?);
                daemon.announce(agenda.next());
            }
        }
        // After a backup that is due too: it is the newest one then.
        if let Some(drills) = drills.as_mut().filter(|_| drill_is_due) {
            if !shutdown.requested() {
                info!("scheduled drill of {} starts", both_times(drills.next()));
                daemon.drill();
            }
            drills.advance(Utc::now())?;
            if !shutdown.requested() {
                info!("next drill at {}", both_times(drills.next()));
            }
        }
        let next = drills.as_ref().map_or(agenda.next(), |drills| agenda.next().min(drills.next()));
        let wait = (next - Utc::now()).to_std().unwrap_or_default().min(LONGEST_SLEEP);
        if !shutdown.sleep(wait) {
            info!("stopped");
            return Ok(());
        }
    }
}

struct Daemon<'a> {
    make: &'a dyn Fn() -> Result<Job>,
    database: String,
    on_start: OnStart,
    status: StatusFile,
    shutdown: Shutdown,
}

impl Daemon<'_> {
    /// The job of a run. Its events are passed to the status.
    fn job(&self) -> Result<Job> {
        let (mut job, hearing) = ((self.make)()?, self.status.clone());
        job.listeners.push(Arc::new(move |_, event| hearing.update(|status| status.hear(event))));
        Ok(job)
    }

    /// Tells that a run has failed before it had a job.
    fn tell(&self, event: &Event) {
        event.log(&self.database);
        self.status.update(|status| status.hear(event));
    }

    fn announce(&self, next: DateTime<Utc>) {
        self.status.update(|status| status.next_fire = Some(next));
        if !self.shutdown.requested() {
            info!("next backup at {}", both_times(next));
        }
    }

    /// Runs on its own thread, so that a server that does not answer delays no backup.
    fn look_for_leftovers(&self) {
        // Without listeners: they hold the status file, which the daemon removes when it ends.
        let looking = (self.make)().and_then(|job| {
            let thread = thread::Builder::new().name("leftovers".into());
            Ok(thread.spawn(move || leftovers::warn(&job))?)
        });
        if let Err(problem) = looking {
            debug!("databases that were left behind are not looked for: {problem:#}");
        }
    }

    /// Backs up. Events pass the result to the status.
    fn back_up(&self) {
        self.status.update(|status| status.running_since = Some(Utc::now()));
        self.with_beat(|| match self.job() {
            Ok(job) => {
                backup::run(&job);
            }
            Err(failure) => self.tell(&Event::BackupFailed { step: Step::Configuration, failure }),
        });
    }

    /// Tries to restore the newest backup. Events pass the result to the status.
    fn drill(&self) {
        self.with_beat(|| match self.job() {
            Ok(job) => {
                drill::run(&job, "latest");
            }
            Err(failure) => self.tell(&Event::DrillFailed { failure }),
        });
    }

    /// Runs long work, with signs of life meanwhile.
    fn with_beat<T>(&self, work: impl FnOnce() -> T) -> T {
        // Without a thread, health misses the signs of life. But that is no reason not to work.
        let _beat = self.status.beat().inspect_err(|problem| warn!("no signs of life meanwhile: {problem}"));
        work()
    }

    /// Finds the newest backup, so that it is known after a restart. Returns the backups if that was possible.
    /// A successful look clears earlier failures to look, but not the failure of a backup. `ran` says whether
    /// there was a backup.
    fn look_into_bucket(&self, ran: bool) -> Option<Store> {
        let look = || {
            let bucket = self.job()?.store;
            // The loop itself tries again, and handles signals meanwhile.
            let listed = bucket.with_client(bucket.client.without_retries()).list();
            Ok((listed.context("cannot look into the bucket")?, bucket))
        };
        match look() {
            Ok((backups, bucket)) => {
                let (past, future) = store::split_future(&backups, Utc::now());
                if let Some(warning) = store::warning(future) {
                    warn!("{warning}");
                }
                let newest = past.last().cloned();
                match &newest {
                    Some(newest) => info!("newest backup: {}", bucket.place(newest)),
                    None => info!("no backup at {} yet", bucket.location()),
                }
                self.status.update(|status| {
                    status.record.see(&backups, newest.as_ref());
                    status.newest = newest.map(Newest::from);
                    if !ran {
                        status.failure = None;
                    }
                });
                Some(bucket)
            }
            Err(failure) => {
                logging::failure("the newest backup is not known", &failure);
                self.status.update(|status| status.failure = Some(Failure::now(&failure)));
                None
            }
        }
    }

    /// Applies `BACKUP_ON_START`, and decides whether a backup at the start is safe.
    fn backs_up_at_start(
        &self,
        bucket: &Store,
        last_fire: Option<DateTime<Utc>>,
        broken_off: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> bool {
        if self.on_start == OnStart::No {
            return false;
        }
        // A run that was killed leaves its upload, if it had already begun.
        let pending = bucket.pending_uploads();
        let broken_off = pending.iter().map(|upload| upload.initiated).chain(broken_off).max();
        match self.on_start.reason_to_wait(self.status.newest(), last_fire, broken_off, now) {
            Some(reason) => {
                info!("no backup at the start: {reason}");
                false
            }
            None => {
                info!("backup at the start");
                true
            }
        }
    }
}

fn lateness(late: Duration) -> String {
    match late.as_secs() {
        0..2 => String::new(),
        _ => format!(", {} late", units::duration(late)),
    }
}

fn report_skipped(skipped: &Skipped) {
    let Skipped { times, more } = skipped;
    if times.is_empty() {
        return;
    }
    let named: Vec<String> = times.iter().take(NAMED_SKIPS).map(|fire| both_times(*fire)).collect();
    let (more, named) = match more {
        true => ("more than ", named.join(", ") + " and so on"),
        false => ("", units::first_few(&named, times.len())),
    };
    let count = units::count(times.len(), "fire time");
    warn!("skipped {more}{count} that passed while the backup ran: {named}");
}
