//! Which backups to keep, and why. Pure: listing and deleting happen elsewhere.

use chrono::{DateTime, TimeDelta, Utc};

use crate::catalog::Backup;

/// How long backups are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Days of 24 hours; `None` keeps everything.
    pub days: Option<u32>,
}

/// What becomes of one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup decided about.
    pub backup: Backup,
    /// False: it is to be deleted.
    pub keep: bool,
    /// Why, for the log.
    pub reason: String,
}

/// Decides about `backups` (in any order); the answer goes from the oldest to the newest, so that where
/// deleting stops halfway the newer ones are still there. A backup's age counts from its name's time. The newest is kept whatever its age:
/// a database whose backups began to fail keeps its last good one.
pub fn plan(backups: &[Backup], policy: Policy, now: DateTime<Utc>) -> Vec<Decision> {
    let newest = backups.iter().map(|backup| backup.time).max();
    let decide = |backup: &Backup| {
        let age = now - backup.time;
        let (keep, reason) = match policy.days {
            _ if Some(backup.time) == newest => (true, "the newest".to_owned()),
            None => (true, "no retention is set".to_owned()),
            Some(days) if age > TimeDelta::days(days.into()) => {
                (false, format!("{} old, kept for {days} d", days_and_hours(age)))
            }
            Some(days) => (true, format!("{} old, kept for {days} d", days_and_hours(age))),
        };
        Decision { backup: backup.clone(), keep, reason }
    };
    let mut decisions: Vec<Decision> = backups.iter().map(decide).collect();
    decisions.sort_by_key(|decision| decision.backup.time);
    decisions
}

/// An age for people: `3 d 4 h`.
pub fn days_and_hours(age: TimeDelta) -> String {
    let hours = age.num_hours().max(0);
    format!("{} d {} h", hours / 24, hours % 24)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Format;

    fn backup(time: &str) -> Backup {
        Backup { key: time.to_owned(), time: time.parse().unwrap(), format: Format::Plain, size: 1 }
    }

    fn kept(days: Option<u32>, backups: &[&str]) -> Vec<bool> {
        let backups: Vec<Backup> = backups.iter().map(|time| backup(time)).collect();
        let now = "2026-11-23T03:00:00Z".parse().unwrap();
        plan(&backups, Policy { days }, now).iter().map(|decision| decision.keep).collect()
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
    fn a_backup_from_the_future_is_no_reason_to_delete_more() {
        // The clock was ahead once; what is young by today's clock stays.
        assert_eq!(kept(Some(7), &["2026-11-22T03:00:00Z", "2030-01-01T00:00:00Z"]), [true, true]);
    }

    #[test]
    fn the_oldest_comes_first_and_says_why() {
        let backups = [backup("2026-11-22T03:00:00Z"), backup("2026-11-01T00:00:00Z")];
        let plan = plan(&backups, Policy { days: Some(7) }, "2026-11-23T03:00:00Z".parse().unwrap());
        assert_eq!(plan[0].reason, "22 d 3 h old, kept for 7 d");
        assert_eq!(plan[1].reason, "the newest");
    }
}
