//! Times that cannot be right. This code is pure.

use chrono::{DateTime, TimeDelta, Utc};

use super::Backup;
use crate::base::units;

/// Clocks that differ by more than this are not trusted. S3 refuses the signatures of such a clock too
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, RequestTimeTooSkewed).
pub const MOST_SKEW: TimeDelta = TimeDelta::minutes(15);
/// A warning names at most this many backups of the future.
const NAMED: usize = 3;

/// Whether `time` is so far in the future that a wrong clock must be the reason.
pub fn is_future(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    time - now > MOST_SKEW
}

/// Splits `backups` (the oldest first) into those up to now and those of the future. The latter got their
/// names from a wrong clock. None of them counts as the newest, however long it stays: the newest is what the
/// next backup is compared with, what a restore uses first, and what is never deleted.
pub fn split_future(backups: &[Backup], now: DateTime<Utc>) -> (&[Backup], &[Backup]) {
    backups.split_at(backups.partition_point(|backup| !is_future(backup.time, now)))
}

/// The warning about backups of the future, if there are any.
pub fn warning(future: &[Backup]) -> Option<String> {
    let names: Vec<String> = future.iter().take(NAMED).map(|backup| backup.key.clone()).collect();
    (!future.is_empty()).then(|| {
        format!(
            "{} named by a time in the future, so a clock is or was wrong: {}; pgkeep neither counts nor deletes what is \
             so named; set this host's clock if it is wrong, else delete the objects or give them the right time",
            units::count(future.len(), "backup"),
            units::first_few(&names, future.len())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Format;

    fn backups(times: &[&str]) -> Vec<Backup> {
        let backup = |time: &&str| Backup {
            key: format!("a/{time}"),
            time: format!("2026-11-{}Z", time.replace(' ', "T")).parse().unwrap(),
            format: Format::Plain,
            encrypted: false,
            size: 1,
        };
        times.iter().map(backup).collect()
    }

    #[test]
    fn the_future_begins_a_quarter_of_an_hour_from_now() {
        let now = "2026-11-23T03:00:00Z".parse().unwrap();
        for (times, past) in [
            (&[] as &[&str], 0),
            (&["22 03:00:00", "23 03:00:00"], 2),
            (&["22 03:00:00", "23 03:15:00", "23 03:15:01"], 2),
            (&["24 03:00:00"], 0),
        ] {
            let backups = backups(times);
            assert_eq!(split_future(&backups, now).0.len(), past, "{times:?}");
        }
    }

    #[test]
    fn the_warning_names_the_first_few() {
        assert_eq!(warning(&[]), None);
        let told = warning(&backups(&["24 03:00:00", "25 03:00:00", "26 03:00:00", "27 03:00:00"])).unwrap();
        assert!(told.starts_with("4 backups named by a time in the future"), "{told}");
        assert!(told.contains(": a/24 03:00:00, a/25 03:00:00, a/26 03:00:00 and 1 more;"), "{told}");
    }
}
