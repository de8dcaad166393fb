//! The loop: sleep until the fire time or a signal, back up, go on, whatever happened.

pub mod status;

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use anyhow::{anyhow, Error, Result};
use chrono::{DateTime, Local, TimeDelta, Utc};
use log::{info, warn};

use crate::base::logging;
use crate::base::shutdown::Shutdown;
use crate::base::units;
use crate::config::{Config, Interval, OnStart};
use crate::daemon::status::{Drill, Failure, Keeper, Newest, Status, BEAT};
use crate::jobs::backup;
use crate::jobs::drill;
use crate::s3::Client;
use crate::schedule::agenda::{Agenda, Skipped};

/// The wall clock can jump (NTP, a suspended host), so it is looked at at least this often; each look is a
/// sign of life.
const LONGEST_SLEEP: Duration = BEAT;
/// A daemon that is started over and over makes no backup at its start more often than this.
const START_DISTANCE: TimeDelta = TimeDelta::hours(1);
/// So many skipped fire times are named; of more, the number is said.
const NAMED_SKIPS: usize = 3;

/// Runs until a signal.
///
/// # Errors
/// Where the schedule has no fire time left, or the status file cannot be written.
pub fn run(config: &Config, s3: &Client, shutdown: &Shutdown) -> Result<()> {
    let interval = config.interval()?;
    announce(config, interval);
    let started = Utc::now();
    let path = Status::path(config);
    // A daemon that ended in order took its file away: this one died, perhaps in a backup.
    let broken_off = Status::read(&path).and_then(|left| left.running_since.or(left.broken_off));
    let status = Status { started, alive: started, broken_off, ..Status::default() };
    let status = Keeper::create(path, status)?;
    let mut agenda = Agenda::new(&interval.schedule, &Local, started)?;
    let mut drills =
        config.drill_interval().map(|of| Agenda::new(&of.schedule, &Local, started)).transpose()?;
    let daemon = Daemon { config, s3, shutdown, status };
    daemon.tell(agenda.next());
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
            daemon.tell(agenda.next());
        } else if !looked && !shutdown.requested() {
            looked = daemon.look_into_bucket(ran);
            let past = interval.schedule.past(now, &Local);
            if looked && daemon.backs_up_at_start(past.map(|[last, _]| last), broken_off, now) {
                daemon.back_up();
                report_skipped(&agenda.pass(Utc::now())?);
                daemon.tell(agenda.next());
            }
        }
        // Behind a backup that is due as well: it is the newest then.
        if let Some(drills) = drills.as_mut().filter(|_| drill_is_due) {
            if !shutdown.requested() {
                daemon.have_drill(drills.next());
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
    config: &'a Config,
    s3: &'a Client,
    shutdown: &'a Shutdown,
    status: Keeper,
}

impl Daemon<'_> {
    fn tell(&self, next: DateTime<Utc>) {
        self.status.update(|status| status.next_fire = Some(next));
        if !self.shutdown.requested() {
            info!("next backup at {}", both_times(next));
        }
    }

    /// Backs up; whatever happens is logged, noted in the status, and ends here.
    fn back_up(&self) {
        self.status.update(|status| status.running_since = Some(Utc::now()));
        let run = || {
            let _beat = self.status.beat()?;
            backup::run(self.config, self.s3, self.shutdown)
        };
        match survive(run) {
            Ok(backup) => self.status.update(|status| status.newest = Some(backup.into())),
            Err(failure) => {
                logging::failure("backup failed", &failure);
                self.note(&failure);
            }
        }
        self.status.update(|status| {
            status.running_since = None;
            status.broken_off = None;
        });
    }

    /// Restores the newest backup and drops it again; a stop breaks it off.
    fn have_drill(&self, planned: DateTime<Utc>) {
        info!("scheduled drill of {} starts", both_times(planned));
        let run = || {
            let _beat = self.status.beat()?;
            drill::run(self.config, self.s3, &self.shutdown.impatient(), "latest")
        };
        let result = match survive(run) {
            Ok(outcome) => Ok(format!(
                "{} restored in {}: {}",
                outcome.key,
                units::duration(outcome.took),
                outcome.counted
            )),
            Err(_) if self.shutdown.requested() => return warn!("the drill was broken off"),
            Err(failure) => {
                logging::failure("drill failed", &failure);
                Err(format!("{failure:#}"))
            }
        };
        self.status.update(|status| status.drill = Some(Drill { time: Utc::now(), result }));
    }

    /// Finds the newest backup, so that a restart does not forget; answers whether it could. A look that
    /// succeeds makes good earlier ones that failed, but no backup: `ran` tells whether there was one.
    fn look_into_bucket(&self, ran: bool) -> bool {
        let catalog = self.config.catalog();
        // The loop itself tries again, and meanwhile hears signals.
        match self.s3.without_retries().list_objects(catalog.prefix()) {
            Ok(objects) => {
                let newest = catalog.backups(objects).pop();
                match &newest {
                    Some(newest) => info!("newest backup: {}", self.s3.place(&newest.key)),
                    None => info!("no backup at {}… yet", self.s3.place(catalog.prefix())),
                }
                self.status.update(|status| {
                    status.newest = newest.map(Newest::from);
                    if !ran {
                        status.failure = None;
                    }
                });
                true
            }
            Err(error) => {
                let failure = Error::from(error).context("cannot look into the bucket");
                logging::failure("the newest backup is not known", &failure);
                self.note(&failure);
                false
            }
        }
    }

    /// `BACKUP_ON_START`, and whether it is safe to do as it says.
    fn backs_up_at_start(
        &self,
        last_fire: Option<DateTime<Utc>>,
        broken_off: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> bool {
        if self.config.on_start == OnStart::No {
            return false;
        }
        // A run that was killed leaves its upload, where it had begun one.
        let pending = backup::pending_uploads(self.s3, &self.config.catalog());
        let broken_off = pending.iter().map(|upload| upload.initiated).chain(broken_off).max();
        let newest = self.status.newest();
        match reason_to_wait(self.config.on_start, newest, last_fire, broken_off, now) {
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

    fn note(&self, failure: &Error) {
        let reason = format!("{failure:#}");
        self.status.update(|status| status.failure = Some(Failure { time: Utc::now(), reason }));
    }
}

/// Why there is to be no backup at the start, if there is a reason. A container that is started over and
/// over fills neither bucket nor disk.
fn reason_to_wait(
    on_start: OnStart,
    newest: Option<DateTime<Utc>>,
    last_fire: Option<DateTime<Utc>>,
    broken_off: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<String> {
    let recent = |time: &DateTime<Utc>| now - *time < START_DISTANCE;
    let distance = units::duration(START_DISTANCE.to_std().unwrap_or_default());
    if let Some(since) = broken_off.filter(recent) {
        let since = both_times(since);
        return Some(format!(
            "one that began at {since}, less than {distance} ago, was broken off or still runs"
        ));
    }
    let newest = newest?;
    match on_start {
        OnStart::Missed if last_fire.is_some_and(|last| newest < last) => None,
        OnStart::Yes if !recent(&newest) => None,
        OnStart::Yes => Some(format!("the newest is of {}, less than {distance} ago", both_times(newest))),
        _ => Some(format!("no fire time was missed since the newest, of {}", both_times(newest))),
    }
}

/// One run; a panic in it becomes a failure.
fn survive<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    // The panic's message and trace were logged where it happened.
    panic::catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(anyhow!("a bug in pgkeep: see the panic above")))
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
    let (more_than, unnamed) = match (more, times.len() - named.len()) {
        (true, _) => ("more than ", " and so on".to_owned()),
        (false, 0) => ("", String::new()),
        (false, count) => ("", format!(" and {count} more")),
    };
    let count = units::count(times.len(), "fire time");
    warn!("skipped {more_than}{count} that passed while the backup ran: {}{unnamed}", named.join(", "));
}

/// Logs the effective configuration and the next three fire times.
fn announce(config: &Config, interval: &Interval) {
    info!("pgkeep {} started", env!("CARGO_PKG_VERSION"));
    for line in config.lines() {
        info!("{line}");
    }
    let fires = interval.schedule.fires(Utc::now(), &Local, 4);
    for (number, fire) in fires.iter().take(3).enumerate() {
        info!("fire time {}: {}", number + 1, both_times(*fire));
    }
    if let Some(text) = config.retention.shorter_than(&fires) {
        warn!("{text}");
    }
}

/// `2026-11-23 03:00:00 +01:00 (02:00:00 UTC)`.
pub(crate) fn both_times(instant: DateTime<Utc>) -> String {
    let local = instant.with_timezone(&Local);
    format!("{} ({} UTC)", local.format("%Y-%m-%d %H:%M:%S %:z"), instant.format("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-11-{}Z", time.replace(' ', "T")).parse().unwrap()
    }

    #[test]
    fn a_run_that_panics_is_a_failure() {
        assert!(survive::<()>(|| panic!("a panic")).unwrap_err().to_string().contains("a bug in pgkeep"));
        assert!(survive::<()>(|| Err(anyhow!("a failure"))).is_err());
    }

    #[test]
    fn a_backup_at_the_start_is_made_where_it_is_wanted_and_safe() {
        let (now, last_fire) = (at("23 12:00:00"), Some(at("23 03:00:00")));
        let waits = |on_start, newest: &str, broken_off: &str| {
            let time = |text: &str| (!text.is_empty()).then(|| at(text));
            reason_to_wait(on_start, time(newest), last_fire, time(broken_off), now)
        };
        // Missed: the newest backup is older than the last fire time, or there is none.
        assert_eq!(waits(OnStart::Missed, "22 03:00:00", ""), None);
        assert_eq!(waits(OnStart::Missed, "", ""), None);
        assert!(waits(OnStart::Missed, "23 03:00:00", "").unwrap().contains("no fire time was missed"));
        // Always, but not one after the other.
        assert_eq!(waits(OnStart::Yes, "23 11:00:00", ""), None);
        assert_eq!(waits(OnStart::Yes, "", ""), None);
        assert!(waits(OnStart::Yes, "23 11:00:01", "").unwrap().contains("less than 1 h 0 min ago"));
        // A crash in the midst of a backup leaves none behind, and still does not repeat at once.
        for on_start in [OnStart::Missed, OnStart::Yes] {
            assert!(waits(on_start, "", "23 11:30:00").unwrap().contains("broken off"));
            assert_eq!(waits(on_start, "", "23 11:00:00"), None);
        }
    }
}
