//! The daemon's loop: sleep until the fire time or a signal, back up, and go on, whatever happened.

mod each;
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

use anyhow::Result;
use chrono::{DateTime, Local, Utc};
use log::{debug, info, warn};

use self::file::StatusFile;
use self::file::BEAT;
pub use self::health::{line, verdict};
pub use self::start::OnStart;
pub use self::status::{Failure, Status};
#[cfg(test)]
pub use self::{each::databases_of, status::Newest};
use crate::base::logging;
use crate::base::shutdown::Shutdown;
use crate::base::units::{self, both_times};
use crate::jobs::server::{FoundOf, Source};
use crate::jobs::{leftovers, Event, Listener, Step};
use crate::schedule::{Agenda, Interval, Skipped};

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
    /// Whether several databases are backed up.
    pub several: bool,
    /// Where the metrics are served, if anywhere.
    pub listen: Option<SocketAddr>,
}

/// Runs until a signal comes. `make` says anew for each run what to back up, because secrets may change.
///
/// # Errors
/// The schedule has no fire time left, or the status file cannot be written.
pub fn run(
    make: &dyn Fn() -> Result<Source>,
    plan: Plan,
    shutdown: &Shutdown,
    notified: Option<Listener>,
) -> Result<()> {
    let started = Utc::now();
    // A daemon that ends in order removes its file. So the one that wrote this file died, perhaps during a
    // backup.
    let left = Status::read(&plan.status_path)
        .inspect_err(|problem| debug!("nothing of an earlier daemon: {problem:#}"));
    let broken_off = left.ok().and_then(|left| left.running_since.or(left.broken_off));
    let databases = plan.several.then(Default::default);
    let status = Status { started, alive: started, broken_off, databases, ..Status::default() };
    let status = StatusFile::create(plan.status_path, status)?;

    let mut agenda = Agenda::new(&plan.interval.schedule, &Local, started)?;
    let mut drills =
        plan.drill_interval.as_ref().map(|of| Agenda::new(&of.schedule, &Local, started)).transpose()?;
    let database = plan.database.unwrap_or_default();
    if let Some(address) = plan.listen {
        let (look, database, schedule) = (status.look(), database.clone(), plan.interval.schedule.clone());
        listen::start(address, move |path| match path {
            "/metrics" => Some((200, metrics::render(&database, &look()))),
            "/healthz" => {
                let verdict = verdict(&look(), &schedule, &Local, Utc::now());
                Some((if verdict.is_ok() { 200 } else { 503 }, line(&verdict)))
            }
            _ => None,
        })?;
        info!("metrics are at http://{address}/metrics");
    }
    let (on_start, several) = (plan.on_start, plan.several);
    let shutdown_of_all = shutdown.clone();
    let daemon = Daemon { make, database, on_start, status, several, notified, shutdown: shutdown_of_all };
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
            let source = daemon.look_into_bucket(ran);
            looked = source.is_some();
            let last = plan.interval.schedule.past(now, &Local).map(|[last, _]| last);
            if source.is_some_and(|source| daemon.backs_up_at_start(&source, last, broken_off, now)) {
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
    make: &'a dyn Fn() -> Result<Source>,
    /// Empty if there are several, or only the server knows its name.
    database: String,
    on_start: OnStart,
    status: StatusFile,
    several: bool,
    /// Who else hears of events.
    notified: Option<Listener>,
    shutdown: Shutdown,
}

impl Daemon<'_> {
    /// What a run backs up. Its events are passed to the status.
    fn source(&self) -> Result<Source> {
        let (mut source, hearing) = ((self.make)()?, self.status.clone());
        source.job.listeners.extend(self.notified.clone());
        let hear = move |job: Option<&_>, event: &_| hearing.update(|status| status.hear_of(job, event));
        source.job.listeners.push(Arc::new(hear));
        Ok(source)
    }

    /// Tells that a run has failed before it was known what it is about.
    fn tell(&self, event: &Event) {
        event.log(None, &self.database);
        if let Some(notified) = &self.notified {
            notified(None, event);
        }
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
        let looking = (self.make)().and_then(|Source { job, .. }| {
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
        self.with_beat(|| match self.source() {
            Ok(source) => {
                source.run();
            }
            Err(failure) if self.several => {
                self.tell(&Event::RunFailed { step: Step::Configuration, failure });
            }
            Err(failure) => self.tell(&Event::BackupFailed { step: Step::Configuration, failure }),
        });
    }

    /// Tries to restore the newest backups. Events pass the result to the status.
    fn drill(&self) {
        self.with_beat(|| {
            if let Err(failure) = self.source().and_then(|source| source.drill().map(drop)) {
                self.tell(&Event::DrillFailed { failure });
            }
        });
    }

    /// Runs long work, with signs of life meanwhile.
    fn with_beat<T>(&self, work: impl FnOnce() -> T) -> T {
        // Without a thread, health misses the signs of life. But that is no reason not to work.
        let _beat = self.status.beat().inspect_err(|problem| warn!("no signs of life meanwhile: {problem}"));
        work()
    }

    /// Finds the newest backups, so that they are known after a restart. Returns what is backed up if that was
    /// possible. A successful look clears earlier failures to look, but not the failure of a backup. `ran` says
    /// whether there was a backup.
    fn look_into_bucket(&self, ran: bool) -> Option<Source> {
        let look = || {
            let source = self.source()?;
            // The loop itself tries again, and handles signals meanwhile.
            Ok((source.find(source.job.store.client.without_retries())?, source))
        };
        match look() {
            Ok((found, source)) => {
                tell_newest(&source, &found);
                self.status.update(|status| {
                    status.know(found);
                    if !ran {
                        status.failure = None;
                    }
                });
                Some(source)
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
        source: &Source,
        last_fire: Option<DateTime<Utc>>,
        broken_off: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> bool {
        if self.on_start == OnStart::No {
            return false;
        }
        // A run that was killed leaves its upload, if it had already begun.
        let pending = source.pending_uploads();
        let broken_off = pending.iter().map(|upload| upload.initiated).chain(broken_off).max();
        let newest = self.status.newest_at_start(|time| start::is_recent(time, now));
        match self.on_start.reason_to_wait(newest, last_fire, broken_off, now) {
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

/// Logs what the bucket has.
fn tell_newest(source: &Source, found: &FoundOf) {
    let store = &source.job.store;
    let newest = || found.values().filter_map(|of| of.newest.as_ref());
    if source.several.is_none() {
        return match newest().next() {
            Some(newest) => info!("newest backup: {}", store.place(newest)),
            None => info!("no backup at {} yet", store.location()),
        };
    }
    let oldest = newest().min_by_key(|backup| backup.time);
    let (known, all) = (newest().count(), found.len());
    match oldest {
        Some(oldest) => {
            info!("newest backups: of {known} of {all}; the oldest of them is {}", store.place(oldest));
        }
        None => info!("no backup at {} yet", store.location_of_all()),
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
