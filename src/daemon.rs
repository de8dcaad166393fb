//! The loop: sleep until the fire time or a signal, back up, go on, whatever happened.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use anyhow::{anyhow, Result};
use chrono::{DateTime, Local, TimeDelta, TimeZone, Utc};
use log::{error, info, warn};

use crate::backup;
use crate::config::{Config, Interval};
use crate::logging;
use crate::s3::Client;
use crate::schedule::Schedule;
use crate::shutdown::Shutdown;
use crate::units;

/// The wall clock can jump (NTP, a suspended host), so it is looked at at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// A clock that is set back by less repeats times whose backups were made; set back by more, it was wrong
/// before, and what it said does not count. cron(8) draws the line at the same place.
const LARGE_JUMP: TimeDelta = TimeDelta::hours(3);
/// So many skipped fire times are named; of more, the number is said.
const NAMED_SKIPS: usize = 3;

/// Runs until a signal.
///
/// # Errors
/// Where the schedule has no fire time left.
pub fn run(config: &Config, interval: &Interval, s3: &Client, shutdown: &Shutdown) -> Result<()> {
    announce(config, interval);
    let mut agenda = Agenda::new(&interval.schedule, &Local, Utc::now())?;
    info!("next backup at {}", both_times(agenda.next));
    loop {
        let now = Utc::now();
        agenda.check_clock(now)?;
        if agenda.next > now {
            let wait = (agenda.next - now).to_std().unwrap_or_default().min(LONGEST_SLEEP);
            if !shutdown.sleep(wait) {
                info!("stopped");
                return Ok(());
            }
            continue;
        }
        let late = (now - agenda.next).to_std().unwrap_or_default();
        info!("scheduled backup of {} starts{}", both_times(agenda.next), lateness(late));
        survive(|| backup::run(config, s3, shutdown));
        let skipped = agenda.advance(Utc::now())?;
        report_skipped(&skipped);
        if shutdown.requested() {
            info!("stopped");
            return Ok(());
        }
        info!("next backup at {}", both_times(agenda.next));
    }
}

/// One run; its failure, or a panic in it, is logged and ends here.
fn survive(run: impl FnOnce() -> Result<()>) {
    // The panic's message and trace were logged where it happened.
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let result = result.unwrap_or_else(|_| Err(anyhow!("a bug in pgkeep: see the panic above")));
    if let Err(failure) = result {
        logging::failure("backup failed", &failure);
    }
}

fn lateness(late: Duration) -> String {
    match late.as_secs() {
        0..2 => String::new(),
        _ => format!(", {} late", units::duration(late)),
    }
}

fn report_skipped(skipped: &[DateTime<Utc>]) {
    if skipped.is_empty() {
        return;
    }
    let named: Vec<String> = skipped.iter().take(NAMED_SKIPS).map(|fire| both_times(*fire)).collect();
    let more = skipped.len() - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let times = units::count(skipped.len(), "fire time");
    warn!("skipped {times} that passed while the backup ran: {}{more}", named.join(", "));
}

/// Logs the effective configuration and the next three fire times.
fn announce(config: &Config, interval: &Interval) {
    info!("pgkeep {} started", env!("CARGO_PKG_VERSION"));
    for line in config.lines() {
        info!("{line}");
    }
    let mut fires = Vec::new();
    let mut at = Utc::now();
    while let Some(fire) = interval.schedule.next(at, &Local).filter(|_| fires.len() < 4) {
        at = fire.to_utc();
        fires.push(at);
    }
    for (number, fire) in fires.iter().take(3).enumerate() {
        info!("fire time {}: {}", number + 1, both_times(*fire));
    }
    let distance = fires.windows(2).map(|pair| pair[1] - pair[0]).max();
    if let Some((days, distance)) = config.retention.days.zip(distance) {
        if TimeDelta::days(days.into()) < distance {
            warn!(
                "BACKUP_RETENTION_DAYS={days} is shorter than the {} between two backups: only the newest is ever kept",
                units::duration(distance.to_std().unwrap_or_default())
            );
        }
    }
}

/// `2026-11-23 03:00:00 +01:00 (02:00:00 UTC)`.
fn both_times(instant: DateTime<Utc>) -> String {
    let local = instant.with_timezone(&Local);
    format!("{} ({} UTC)", local.format("%Y-%m-%d %H:%M:%S %:z"), instant.format("%Y-%m-%d %H:%M:%S"))
}

/// The next fire time, and what the clock said when it was last looked at.
struct Agenda<'a, Z> {
    schedule: &'a Schedule,
    zone: &'a Z,
    next: DateTime<Utc>,
    /// No fire time up to this one is due any more.
    done: DateTime<Utc>,
}

impl<'a, Z: TimeZone> Agenda<'a, Z> {
    fn new(schedule: &'a Schedule, zone: &'a Z, now: DateTime<Utc>) -> Result<Self> {
        let mut agenda = Agenda { schedule, zone, next: now, done: now };
        agenda.next = agenda.after(now)?;
        Ok(agenda)
    }

    /// Notices a clock that was set far back: what was planned by the wrong time is planned anew.
    fn check_clock(&mut self, now: DateTime<Utc>) -> Result<()> {
        if now < self.done - LARGE_JUMP {
            warn!("the clock went back from {} to {now}: planning anew", self.done);
            self.done = now;
            self.next = self.after(now)?;
        } else if now < self.next {
            self.done = self.done.max(now);
        }
        Ok(())
    }

    /// Goes on to the first fire time that is still ahead, after the run for `next`; answers with those
    /// that passed meanwhile. A clock that was set back a little during the run does not repeat `next`.
    fn advance(&mut self, now: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>> {
        let mut skipped = Vec::new();
        self.done = self.next;
        self.next = self.after(self.done)?;
        while self.next <= now {
            skipped.push(self.next);
            self.done = self.next;
            self.next = self.after(self.done)?;
        }
        self.done = self.done.max(now);
        Ok(skipped)
    }

    fn after(&self, instant: DateTime<Utc>) -> Result<DateTime<Utc>> {
        let next = self.schedule.next(instant, self.zone);
        next.map(|next| next.to_utc()).ok_or_else(|| {
            error!("BACKUP_INTERVAL has no fire time after {instant}");
            anyhow!("no fire time is left")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-11-{}Z", time.replace(' ', "T")).parse().unwrap()
    }

    fn agenda<'a>(schedule: &'a Schedule, now: &str) -> Agenda<'a, Utc> {
        // A promoted constant: `&Utc` lives as long as the program.
        Agenda::new(schedule, &Utc, at(now)).unwrap()
    }

    fn nightly() -> Schedule {
        Schedule::parse("0 3 * * *").unwrap()
    }

    #[test]
    fn a_run_that_fails_or_panics_ends_alone() {
        survive(|| Err(anyhow!("a failure")));
        survive(|| panic!("a panic"));
    }

    #[test]
    fn times_that_pass_during_a_run_are_skipped_and_told() {
        let schedule = Schedule::parse("*/5 * * * *").unwrap();
        let mut agenda = agenda(&schedule, "23 02:58:00");
        assert_eq!(agenda.next, at("23 03:00:00"));
        assert_eq!(agenda.advance(at("23 03:11:00")).unwrap(), [at("23 03:05:00"), at("23 03:10:00")]);
        assert_eq!(agenda.next, at("23 03:15:00"));
        assert!(agenda.advance(at("23 03:15:01")).unwrap().is_empty());
    }

    #[test]
    fn a_jump_forward_over_the_fire_time_runs_once() {
        let schedule = nightly();
        let mut agenda = agenda(&schedule, "23 02:00:00");
        agenda.check_clock(at("23 04:30:00")).unwrap();
        assert_eq!(agenda.next, at("23 03:00:00"), "the run is due");
        assert!(agenda.advance(at("23 04:31:00")).unwrap().is_empty());
        assert_eq!(agenda.next, at("24 03:00:00"));
    }

    #[test]
    fn a_jump_back_over_the_fire_time_does_not_run_again() {
        let schedule = nightly();
        let mut agenda = agenda(&schedule, "23 02:59:00");
        agenda.advance(at("23 03:02:00")).unwrap();
        agenda.check_clock(at("23 02:02:00")).unwrap();
        assert_eq!(agenda.next, at("24 03:00:00"));
    }

    #[test]
    fn a_jump_back_during_the_run_does_not_run_again() {
        let schedule = nightly();
        let mut agenda = agenda(&schedule, "23 02:59:00");
        agenda.advance(at("23 02:10:00")).unwrap();
        agenda.check_clock(at("23 02:10:00")).unwrap();
        assert_eq!(agenda.next, at("24 03:00:00"));
    }

    #[test]
    fn a_clock_that_was_days_ahead_does_not_lose_the_days() {
        let schedule = nightly();
        let mut agenda = agenda(&schedule, "28 12:00:00");
        agenda.check_clock(at("23 12:00:00")).unwrap();
        assert_eq!(agenda.next, at("24 03:00:00"));
    }

    #[test]
    fn a_jump_back_while_waiting_neither_loses_nor_doubles() {
        let schedule = Schedule::parse("0 * * * *").unwrap();
        let mut agenda = agenda(&schedule, "23 02:59:00");
        agenda.advance(at("23 03:00:10")).unwrap();
        agenda.check_clock(at("23 03:59:00")).unwrap();
        agenda.check_clock(at("23 02:59:00")).unwrap();
        assert_eq!(agenda.next, at("23 04:00:00"));
    }
}
