//! Which backups to keep, and why. This code is pure: listing and deleting happen elsewhere.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::clock::is_future;
use super::Backup;
use crate::base::units;

/// How long backups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Days of 24 hours; `None` keeps everything.
    pub days: Option<u32>,
}

impl Policy {
    /// A warning, if the policy is shorter than the distance between two of these fire times.
    pub fn shorter_than(self, fires: &[DateTime<Utc>]) -> Option<String> {
        let days = self.days?;
        let distance = fires.windows(2).map(|pair| pair[1] - pair[0]).max()?;
        (TimeDelta::days(days.into()) < distance).then(|| {
            format!(
                "BACKUP_RETENTION_DAYS={days} is shorter than the {} between two backups: only the newest is ever kept",
                units::duration(distance.to_std().unwrap_or_default())
            )
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            Some(days) => write!(f, "backups are kept for {days} d"),
            None => f.write_str("every backup is kept"),
        }
    }
}

/// What happens to one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup that the decision is about.
    pub backup: Backup,
    /// What happens to it.
    pub fate: Fate,
    /// Why, for the log.
    pub reason: String,
    /// After this time the policy does not keep it any more, unless it is the newest then.
    pub expires: Option<DateTime<Utc>>,
}

/// What happens to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The policy keeps it.
    Kept,
    /// The policy does not keep it, but a doubt does.
    HeldBack,
    /// It will be deleted.
    Goes,
}

impl Decision {
    /// What the policy will do with the backup, and when. `pgkeep list` shows this.
    pub fn verdict(&self) -> String {
        match (self.fate, self.expires) {
            (Fate::Goes, _) => "goes with the next backup".to_owned(),
            (Fate::HeldBack, _) => "expired, and held back".to_owned(),
            (Fate::Kept, Some(time)) => format!("expires {}", time.format("%Y-%m-%d %H:%M")),
            (Fate::Kept, None) => format!("kept: {}", self.reason),
        }
    }

    /// The same decision if nothing may be deleted.
    pub fn held_back(self) -> Self {
        let fate = if self.fate == Fate::Goes { Fate::HeldBack } else { self.fate };
        Decision { fate, ..self }
    }
}

/// Decides about `backups` (in any order). The result goes from the oldest to the newest: if deleting stops
/// halfway, the newer ones are still there. A backup's age counts from the time in its name. The newest is
/// kept however old it is: if backups begin to fail, the last good one stays. A backup of the future is kept,
/// but does not count as the newest.
pub fn plan(backups: &[Backup], policy: Policy, now: DateTime<Utc>) -> Vec<Decision> {
    let newest = backups.iter().map(|backup| backup.time).filter(|time| !is_future(*time, now)).max();
    let decide = |backup: &Backup| {
        let (reason, expires) = match policy.days {
            _ if is_future(backup.time, now) => ("named by a time in the future".to_owned(), None),
            _ if Some(backup.time) == newest => ("the newest".to_owned(), None),
            None => ("no retention is set".to_owned(), None),
            Some(days) => (
                format!(
                    "{} old, kept for {days} d",
                    units::duration((now - backup.time).to_std().unwrap_or_default())
                ),
                // None: this is later than any calendar goes.
                backup.time.checked_add_signed(TimeDelta::days(days.into())),
            ),
        };
        let fate = if expires.is_none_or(|expires| now <= expires) { Fate::Kept } else { Fate::Goes };
        Decision { backup: backup.clone(), fate, reason, expires }
    };
    let mut decisions: Vec<Decision> = backups.iter().map(decide).collect();
    decisions.sort_by_key(|decision| decision.backup.time);
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Format;

    fn backup(time: &str) -> Backup {
        Backup { key: time.to_owned(), time: time.parse().unwrap(), format: Format::Plain, size: 1 }
    }

    fn kept(days: Option<u32>, backups: &[&str]) -> Vec<bool> {
        let backups: Vec<Backup> = backups.iter().map(|time| backup(time)).collect();
        let now = "2026-11-23T03:00:00Z".parse().unwrap();
        plan(&backups, Policy { days }, now).iter().map(|decision| decision.fate == Fate::Kept).collect()
    }

    #[test]
    fn what_is_older_than_the_policy_goes_to_the_second() {
        let times = ["2026-11-16T02:59:59Z", "2026-11-16T03:00:00Z", "2026-11-22T03:00:00Z"];
        assert_eq!(kept(Some(7), &times), [false, true, true]);
        assert_eq!(kept(Some(1), &times), [false, false, true]);
    }

    #[test]
    fn the_newest_is_kept_whatever_its_age() {
        assert_eq!(kept(Some(1), &["2020-01-01T00:00:00Z", "2019-01-01T00:00:00Z"]), [false, true]);
        assert_eq!(kept(Some(1), &["2020-01-01T00:00:00Z"]), [true]);
        assert_eq!(kept(Some(1), &[]), [] as [bool; 0]);
    }

    #[test]
    fn without_a_policy_everything_stays() {
        assert_eq!(kept(None, &["2001-01-01T00:00:00Z", "2026-11-22T03:00:00Z"]), [true, true]);
    }

    #[test]
    fn a_backup_of_the_future_stays_and_is_not_the_newest() {
        // The clock was ahead once.
        let times = ["2026-10-01T00:00:00Z", "2026-10-02T00:00:00Z", "2030-01-01T00:00:00Z"];
        assert_eq!(kept(Some(7), &times), [false, true, true]);
        assert_eq!(kept(Some(7), &["2026-10-01T00:00:00Z", "2026-11-23T03:15:00Z"]), [false, true]);
        // The clock is behind.
        assert_eq!(kept(Some(7), &times[2..]), [true]);
    }

    #[test]
    fn the_oldest_comes_first_and_says_why() {
        let backups = [backup("2026-11-22T03:00:00Z"), backup("2026-11-01T00:00:00Z")];
        let plan = plan(&backups, Policy { days: Some(7) }, "2026-11-23T03:00:00Z".parse().unwrap());
        assert_eq!(plan[0].reason, "22 d 3 h old, kept for 7 d");
        assert_eq!(plan[1].reason, "the newest");
    }

    #[test]
    fn a_verdict_says_what_happens_and_when() {
        let times = ["2026-11-16T02:59:59Z", "2026-11-16T03:00:00Z", "2026-11-22T03:00:00Z"];
        let verdicts = |days| -> Vec<String> {
            let now = "2026-11-23T03:00:00Z".parse().unwrap();
            plan(&times.map(backup), Policy { days }, now).iter().map(Decision::verdict).collect()
        };
        assert_eq!(
            verdicts(Some(7)),
            ["goes with the next backup", "expires 2026-11-23 03:00", "kept: the newest"]
        );
        let kept = "kept: no retention is set";
        assert_eq!(verdicts(None), [kept, kept, "kept: the newest"]);
        assert!(verdicts(Some(u32::MAX))[0].starts_with("kept: "));
    }

    #[test]
    fn only_what_would_go_is_held_back() {
        let times = ["2026-11-16T02:59:59Z", "2026-11-16T03:00:00Z", "2026-11-22T03:00:00Z"];
        let plan =
            plan(&times.map(backup), Policy { days: Some(7) }, "2026-11-23T03:00:00Z".parse().unwrap());
        let held: Vec<Decision> = plan.iter().cloned().map(Decision::held_back).collect();
        assert_eq!(held[0].fate, Fate::HeldBack);
        assert_eq!(held[0].verdict(), "expired, and held back");
        assert_eq!(held[1..], plan[1..]);
    }
}
