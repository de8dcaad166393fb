//! Finds the backup that a time means. This code is pure.

use anyhow::{bail, Context, Result};
use chrono::{DateTime, NaiveDateTime, Utc};

use super::clock::{split_future, warning};
use super::Backup;
use crate::base::units::{self, TIMESTAMP};

/// Completes a time of which only the beginning is given.
const EARLIEST: &str = "0000-01-01_00-00-00";
/// If no backup matches, this many near ones are named.
const NEAREST: usize = 3;

/// The one of `backups` (the oldest first) that `which` means: `latest`, a time in UTC, or the beginning of a
/// time. A backup of the future is chosen only if no other has that time.
///
/// # Errors
/// There is no such backup. The error names the nearest ones.
pub fn choose<'a>(which: &str, backups: &'a [Backup], now: DateTime<Utc>) -> Result<&'a Backup> {
    let (past, future) = split_future(backups, now);
    if which == "latest" {
        let warning = warning(future).unwrap_or_default();
        return past.last().with_context(|| format!("there is no backup up to now; {warning}"));
    }
    by_time(which, past).or_else(|_| by_time(which, backups))
}

/// The newest of `backups` (the oldest first) that is not younger than `time`, in UTC, which may be only the
/// beginning of a time: all of a day is on that day. Backups of the future do not count.
///
/// # Errors
/// This is no time.
pub fn up_to<'a>(time: &str, backups: &'a [Backup], now: DateTime<Utc>) -> Result<Option<&'a Backup>> {
    let (wanted, _) = wanted(time)?;
    let (past, _) = split_future(backups, now);
    Ok(past.iter().rev().find(|backup| units::timestamp(backup.time)[..wanted.len()] <= *wanted))
}

/// The newest of `backups` (the oldest first) whose time, in UTC, begins with `which`.
///
/// # Errors
/// There is no such backup. The error names the nearest ones.
fn by_time<'a>(which: &str, backups: &'a [Backup]) -> Result<&'a Backup> {
    let (wanted, time) = wanted(which)?;
    let name = |backup: &Backup| units::timestamp(backup.time);
    let matching = backups.iter().rev().find(|backup| name(backup).starts_with(&wanted));
    matching.with_context(|| {
        let nearest = nearest(backups, time).into_iter().map(name).collect::<Vec<_>>().join(", ");
        format!("there is no backup of {which} (UTC); the nearest: {nearest}")
    })
}

/// A time or its beginning as the names of backups have it, and the earliest time that it means.
fn wanted(which: &str) -> Result<(String, DateTime<Utc>)> {
    let wanted: String = which
        .trim_end_matches('Z')
        .chars()
        .map(|c| match c {
            ' ' | 'T' => '_',
            ':' => '-',
            c => c,
        })
        .collect();
    // `2026-11-2` is not a day, and it does not mean the 20th to the 29th.
    let rest = EARLIEST.get(wanted.len()..).filter(|rest| rest.is_empty() || rest.starts_with(['-', '_']));
    let time = rest.and_then(|rest| {
        let time = NaiveDateTime::parse_from_str(&format!("{wanted}{rest}"), TIMESTAMP).ok()?;
        // chrono also reads signs.
        time.format(TIMESTAMP).to_string().starts_with(&wanted).then_some(time)
    });
    match time.filter(|_| !wanted.is_empty()) {
        Some(time) => Ok((wanted, time.and_utc())),
        None => bail!(
            "\"{which}\" names no backup: it has to be latest, a key, or a time in UTC such as \
             2026-11-23_03-00-00 or its beginning (2026-11-23)"
        ),
    }
}

/// The nearest backups, in the order of their times.
fn nearest(backups: &[Backup], time: DateTime<Utc>) -> Vec<&Backup> {
    let mut nearest: Vec<&Backup> = backups.iter().collect();
    nearest.sort_by_key(|backup| (backup.time - time).abs());
    nearest.truncate(NEAREST);
    nearest.sort_by_key(|backup| backup.time);
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Format;
    use crate::store::key::Keys;

    fn backups() -> Vec<Backup> {
        let keys = Keys::new("", "a");
        let times =
            ["2025-12-31_03-00-00", "2026-11-22_03-00-00", "2026-11-23_03-00-00", "2026-11-23_03-00-01"];
        let time = |text| NaiveDateTime::parse_from_str(text, TIMESTAMP).unwrap().and_utc();
        times
            .map(|text| Backup {
                key: keys.key(time(text), Format::Plain, false),
                time: time(text),
                format: Format::Plain,
                encrypted: false,
                size: 1,
            })
            .to_vec()
    }

    #[test]
    fn a_time_or_its_beginning_is_the_newest_that_begins_so() {
        for (which, time) in [
            ("2026-11-23_03-00-00", "2026-11-23T03:00:00Z"),
            ("2026-11-23T03:00:00Z", "2026-11-23T03:00:00Z"),
            ("2026-11-23 03:00", "2026-11-23T03:00:01Z"),
            ("2026-11-23", "2026-11-23T03:00:01Z"),
            ("2026-11", "2026-11-23T03:00:01Z"),
            ("2025", "2025-12-31T03:00:00Z"),
        ] {
            let backups = backups();
            assert_eq!(
                by_time(which, &backups).unwrap().time,
                time.parse::<DateTime<Utc>>().unwrap(),
                "{which}"
            );
        }
    }

    #[test]
    fn a_time_without_a_backup_lists_the_nearest() {
        let problem = by_time("2026-11-21", &backups()).unwrap_err().to_string();
        assert!(
            problem.ends_with("the nearest: 2026-11-22_03-00-00, 2026-11-23_03-00-00, 2026-11-23_03-00-01"),
            "{problem}"
        );
        let problem = by_time("2025", &backups()[1..]).unwrap_err().to_string();
        assert!(problem.contains("2026-11-22_03-00-00"), "{problem}");
    }

    #[test]
    fn one_of_the_future_is_meant_only_if_no_other_is() {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        for (which, time) in [
            ("latest", "2026-11-22T03:00:00Z"),
            ("2026-11", "2026-11-22T03:00:00Z"),
            ("2026-11-23", "2026-11-23T03:00:01Z"),
            ("2026-11-23_03-00-00", "2026-11-23T03:00:00Z"),
        ] {
            let backups = backups();
            let chosen = choose(which, &backups, now).unwrap();
            assert_eq!(chosen.time, time.parse::<DateTime<Utc>>().unwrap(), "{which}");
        }
        let problem = choose("latest", &backups()[2..], now).unwrap_err().to_string();
        assert!(problem.contains("2 backups named by a time in the future"), "{problem}");
    }

    #[test]
    fn up_to_a_time_is_the_newest_that_is_not_younger() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        for (time, found) in [
            ("2026-11-23", Some("2026-11-23T03:00:01Z")),
            ("2026-11-23T03:00:00", Some("2026-11-23T03:00:00Z")),
            ("2026-11-22 12:00", Some("2026-11-22T03:00:00Z")),
            ("2026-11-21", Some("2025-12-31T03:00:00Z")),
            ("2030", Some("2026-11-23T03:00:01Z")),
            ("2025-12-30", None),
        ] {
            let backups = backups();
            let chosen = up_to(time, &backups, now).unwrap().map(|backup| backup.time);
            assert_eq!(chosen, found.map(|time| time.parse::<DateTime<Utc>>().unwrap()), "{time}");
        }
        assert!(up_to("yesterday", &backups(), now).is_err());
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for which in [
            "",
            "yesterday",
            "202",
            "2026-1",
            "2026-11-2",
            "2026-13",
            "2026-11-23_",
            "2026-02-30",
            "+026",
            "2026-11-23_03-00-00x",
        ] {
            let problem = by_time(which, &backups()).unwrap_err().to_string();
            assert!(problem.contains("names no backup"), "{which}: {problem}");
        }
    }

    #[test]
    fn whatever_time_is_asked_for_is_found_or_refused() {
        let backups = backups();
        crate::base::fuzz::feed(&["2026-11-23_03-00-00", "2026-11-23T03:00:00Z", "2025"], |which| {
            if let Ok(backup) = by_time(which, &backups) {
                assert!(which.len() >= 4 && backup.key.contains(&which[..4]), "{which}");
            }
        });
    }
}
