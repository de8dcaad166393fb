//! The next fire time, and what happens to it when time passes or somebody sets the clock.

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use log::warn;

use crate::schedule::Schedule;

/// If a clock is set back by less than this, the repeated times are skipped: their backups exist. If it is
/// set back by more, it was wrong before, and its earlier times do not count. cron(8) uses the same limit.
const LARGE_JUMP: TimeDelta = TimeDelta::hours(3);

/// At most this many skipped fire times are listed. A host without a clock battery starts in 1970 and jumps
/// to today when it reaches a time server. Going through every minute in between would take minutes without a
/// sign of life.
const MOST_LISTED: usize = 1000;

/// Fire times that passed without a run.
#[derive(Debug, Default, PartialEq)]
pub struct Skipped {
    /// The first skipped times, in order.
    pub times: Vec<DateTime<Utc>>,
    /// Whether there were more than are listed.
    pub more: bool,
}

/// The next fire time, and the clock's time at the last look.
pub struct Agenda<'a, Z> {
    schedule: &'a Schedule,
    zone: &'a Z,
    next: DateTime<Utc>,
    /// All fire times up to this one are done.
    done: DateTime<Utc>,
}

impl<'a, Z: TimeZone> Agenda<'a, Z> {
    /// Begins at `now`.
    ///
    /// # Errors
    /// The schedule has no fire time left. The same holds for the methods below.
    pub fn new(schedule: &'a Schedule, zone: &'a Z, now: DateTime<Utc>) -> Result<Self> {
        let mut agenda = Agenda { schedule, zone, next: now, done: now };
        agenda.next = agenda.after(now)?;
        Ok(agenda)
    }

    /// The fire time to wait for.
    pub fn next(&self) -> DateTime<Utc> {
        self.next
    }

    /// Notices if the clock was set back far. The plan was made by the wrong time, so it is made again.
    pub fn check_clock(&mut self, now: DateTime<Utc>) -> Result<()> {
        if now < self.done - LARGE_JUMP {
            warn!("the clock went back from {} to {now}: planning anew", self.done);
            self.done = now;
            self.next = self.after(now)?;
        } else if now < self.next {
            self.done = self.done.max(now);
        }
        Ok(())
    }

    /// Goes on after the run for `next`. Returns the fire times that passed meanwhile. If the clock was set
    /// back a little during the run, `next` is not repeated.
    pub fn advance(&mut self, now: DateTime<Utc>) -> Result<Skipped> {
        self.done = self.next;
        self.next = self.after(self.done)?;
        self.pass(now)
    }

    /// Goes on to the first fire time in the future. Returns the times that passed.
    pub fn pass(&mut self, now: DateTime<Utc>) -> Result<Skipped> {
        let mut skipped = Skipped::default();
        while self.next <= now {
            if skipped.times.len() == MOST_LISTED {
                skipped.more = true;
                self.next = self.after(now)?;
                break;
            }
            skipped.times.push(self.next);
            self.next = self.after(self.next)?;
        }
        self.done = self.done.max(now);
        Ok(skipped)
    }

    fn after(&self, instant: DateTime<Utc>) -> Result<DateTime<Utc>> {
        let next = self.schedule.next(instant, self.zone);
        next.map(|next| next.to_utc())
            .with_context(|| format!("BACKUP_INTERVAL has no fire time after {instant}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

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
    fn times_that_pass_during_a_run_are_skipped_and_told() {
        let schedule = Schedule::parse("*/5 * * * *").unwrap();
        let mut agenda = agenda(&schedule, "23 02:58:00");
        assert_eq!(agenda.next, at("23 03:00:00"));
        let times = vec![at("23 03:05:00"), at("23 03:10:00")];
        assert_eq!(agenda.advance(at("23 03:11:00")).unwrap(), Skipped { times, more: false });
        assert_eq!(agenda.next, at("23 03:15:00"));
        assert_eq!(agenda.advance(at("23 03:15:01")).unwrap(), Skipped::default());
    }

    #[test]
    fn a_jump_forward_over_the_fire_time_runs_once() {
        let schedule = nightly();
        let mut agenda = agenda(&schedule, "23 02:00:00");
        agenda.check_clock(at("23 04:30:00")).unwrap();
        assert_eq!(agenda.next, at("23 03:00:00"), "the run is due");
        assert_eq!(agenda.advance(at("23 04:31:00")).unwrap(), Skipped::default());
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

    #[test]
    fn a_jump_over_decades_is_passed_at_once() {
        let schedule = Schedule::parse("* * * * *").unwrap();
        let mut agenda = Agenda::new(&schedule, &Utc, DateTime::UNIX_EPOCH).unwrap();
        let (started, now) = (Instant::now(), at("23 03:00:30"));
        let skipped = agenda.advance(now).unwrap();
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
        assert!(skipped.more);
        // 00:01 was the run.
        let first: Vec<_> =
            (2..1002).map(|minute| DateTime::UNIX_EPOCH + TimeDelta::minutes(minute)).collect();
        assert_eq!(skipped.times, first);
        assert_eq!(agenda.next, at("23 03:01:00"));
        assert_eq!(agenda.advance(at("23 03:01:02")).unwrap(), Skipped::default());
    }

    #[test]
    fn as_many_fire_times_as_can_be_listed_are_all() {
        let schedule = Schedule::parse("* * * * *").unwrap();
        for (passed, more) in [(999, false), (1000, false), (1001, true)] {
            let mut agenda = agenda(&schedule, "01 00:00:30");
            let skipped = agenda.pass(at("01 00:00:30") + TimeDelta::minutes(passed)).unwrap();
            assert_eq!((skipped.times.len(), skipped.more), (passed.min(1000) as usize, more));
            assert_eq!(agenda.next, at("01 00:01:00") + TimeDelta::minutes(passed));
        }
    }

    #[test]
    fn a_clock_beyond_the_last_fire_time_is_an_error_and_no_loop() {
        let schedule = Schedule::parse("* * * * *").unwrap();
        let mut agenda = agenda(&schedule, "23 02:59:00");
        let beyond = "2101-01-01T00:00:00Z".parse().unwrap();
        let started = Instant::now();
        assert!(agenda.advance(beyond).unwrap_err().to_string().contains("no fire time after 2101-01-01"));
        assert!(Agenda::new(&schedule, &Utc, beyond).is_err());
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
}
