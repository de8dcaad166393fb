//! The next fire time, and what becomes of it when time passes or the clock is set.

use anyhow::{Context, Result};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use log::warn;

use crate::schedule::Schedule;

/// A clock that is set back by less repeats times whose backups were made; set back by more, it was wrong
/// before, and what it said does not count. cron(8) draws the line at the same place.
const LARGE_JUMP: TimeDelta = TimeDelta::hours(3);

/// The next fire time, and what the clock said when it was last looked at.
pub struct Agenda<'a, Z> {
    schedule: &'a Schedule,
    zone: &'a Z,
    next: DateTime<Utc>,
    /// No fire time up to this one is due any more.
    done: DateTime<Utc>,
}

impl<'a, Z: TimeZone> Agenda<'a, Z> {
    /// Begins at `now`.
    ///
    /// # Errors
    /// Where the schedule has no fire time left, here and below.
    pub fn new(schedule: &'a Schedule, zone: &'a Z, now: DateTime<Utc>) -> Result<Self> {
        let mut agenda = Agenda { schedule, zone, next: now, done: now };
        agenda.next = agenda.after(now)?;
        Ok(agenda)
    }

    /// The fire time to wait for.
    pub fn next(&self) -> DateTime<Utc> {
        self.next
    }

    /// Notices a clock that was set far back: what was planned by the wrong time is planned anew.
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

    /// Goes on after the run for `next`; answers with the fire times that passed meanwhile. A clock that was
    /// set back a little during the run does not repeat `next`.
    pub fn advance(&mut self, now: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>> {
        self.done = self.next;
        self.next = self.after(self.done)?;
        self.pass(now)
    }

    /// Goes on to the first fire time that is still ahead; answers with those that passed.
    pub fn pass(&mut self, now: DateTime<Utc>) -> Result<Vec<DateTime<Utc>>> {
        let mut skipped = Vec::new();
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
        next.map(|next| next.to_utc())
            .with_context(|| format!("BACKUP_INTERVAL has no fire time after {instant}"))
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
