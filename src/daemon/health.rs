//! Whether the daemon and its backups are well: for `pgkeep health` and `/healthz`.

use std::time::Duration;

use chrono::{DateTime, TimeZone, Utc};

use super::file::BEAT;
use super::status::{Drill, Status};
use crate::base::{logging, units};
use crate::schedule::Schedule;
use crate::store::{is_future, GLOBALS};

/// At most this many databases are named.
const NAMED: usize = 20;
/// A daemon that is silent for longer hangs or does not exist.
const LONGEST_SILENCE: Duration = BEAT.saturating_mul(3);

/// If there are several databases, the daemon is healthy if it would be with each of them alone. The sentence is
/// about the one that needs a backup most.
///
/// # Errors
/// A sentence about what is not well.
pub fn verdict<Z: TimeZone>(
    status: &Status,
    schedule: &Schedule,
    zone: &Z,
    now: DateTime<Utc>,
) -> Result<String, String> {
    let each = status.each();
    // A daemon that is silent says nothing about any of them.
    if each.is_empty() || age(status.alive, now) > LONGEST_SILENCE {
        return verdict_of_one(status, schedule, zone, now);
    }
    let all = units::count(each.len() - usize::from(each.contains_key(GLOBALS)), "database");
    let mut verdicts: Vec<_> = each
        .iter()
        .map(|(name, of)| {
            (of.newest.as_ref().map(|newest| newest.time), name, verdict_of_one(of, schedule, zone, now))
        })
        .collect();
    verdicts.sort_by_key(|(newest, ..)| *newest);
    let of = |name: &str, sentence: &str| format!("{}: {sentence}", units::printable(name));
    let bad: Vec<_> =
        verdicts.iter().filter_map(|(_, name, verdict)| Some((*name, verdict.as_ref().err()?))).collect();
    let Some((name, sentence)) = bad.first() else {
        let failing = |name: &&String| each[*name].has_failed();
        let (_, name, verdict) = verdicts.iter().find(|(_, name, _)| failing(name)).unwrap_or(&verdicts[0]);
        return verdict.clone().map(|sentence| format!("{all}; {}", of(name, &sentence)));
    };
    let others: Vec<String> = bad[1..].iter().take(NAMED).map(|(name, _)| units::printable(name)).collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!("; also not well: {}", units::first_few(&others, bad.len() - 1)),
    };
    let count = format!("{} of {}", bad.len(), each.len());
    Err(format!("{count} not well{others}; {}", of(name, sentence)))
}

/// A verdict in one line.
pub fn line(verdict: &Result<String, String>) -> String {
    let (word, sentence) = match verdict {
        Ok(sentence) => ("healthy", sentence),
        Err(sentence) => ("unhealthy", sentence),
    };
    format!("{word}: {}", logging::one_line(sentence))
}

/// A daemon is healthy if it gives signs of life and its newest backup is not older than the fire time before
/// last. The next backup can make up for one failed backup, but not for two.
fn verdict_of_one<Z: TimeZone>(
    status: &Status,
    schedule: &Schedule,
    zone: &Z,
    now: DateTime<Utc>,
) -> Result<String, String> {
    // A backup that cannot be restored is no backup, however young it is.
    if let Some(Drill { time, result: Err(reason) }) = &status.drill {
        return Err(format!("the drill of {} failed: {reason}", show(*time)));
    }
    let silent = age(status.alive, now);
    if silent > LONGEST_SILENCE {
        return Err(format!("the daemon gave its last sign of life {} ago", units::duration(silent)));
    }
    // A name that a wrong clock made says nothing about today.
    let newest = status.newest.as_ref().map(|newest| newest.time).filter(|time| !is_future(*time, now));
    let unmended =
        status.failure.as_ref().filter(|failure| newest.is_none_or(|newest| failure.time > newest));
    let why = match (unmended, status.running_since) {
        (Some(failure), _) => format!("; failed at {}: {}", show(failure.time), failure.reason),
        (None, Some(since)) => format!("; a backup has been running since {}", show(since)),
        (None, None) => String::new(),
    };
    let Some(newest) = newest else {
        if unmended.is_some() {
            return Err(format!("no backup is known to be in the bucket{why}"));
        }
        return match schedule.past(now, zone) {
            Some([_, before_last]) if before_last > status.started => Err(format!(
                "no backup is in the bucket since the daemon started at {}{why}",
                show(status.started)
            )),
            _ => Ok(format!("no backup yet{}{why}", next(status))),
        };
    };
    let told = format!("the newest backup is of {}, {} ago", show(newest), units::duration(age(newest, now)));
    match schedule.missed_twice(newest, now, zone) {
        Some(before_last) => {
            Err(format!("{told}, older than the fire time before last ({}){why}", show(before_last)))
        }
        None => Ok(format!("{told}{}{why}", next(status))),
    }
}

fn next(status: &Status) -> String {
    status.next_fire.map_or(String::new(), |next| format!("; next at {}", show(next)))
}

fn age(time: DateTime<Utc>, now: DateTime<Utc>) -> Duration {
    (now - time).to_std().unwrap_or_default()
}

fn show(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{databases_of, Failure, Newest};

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-11-{}Z", time.replace(' ', "T")).parse().unwrap()
    }

    fn nightly(status: &Status, now: &str) -> Result<String, String> {
        let schedule = Schedule::parse("0 3 * * *").unwrap();
        let status = Status { alive: at(now), ..status.clone() };
        verdict(&status, &schedule, &Utc, at(now))
    }

    fn newest(time: &str) -> Option<Newest> {
        Some(Newest { time: at(time), key: "k".into() })
    }

    fn failed(time: &str) -> Option<Failure> {
        Some(Failure { time: at(time), reason: "S3 said no".into() })
    }

    #[test]
    fn one_missed_backup_is_forgiven_and_two_are_not() {
        let status = Status { newest: newest("20 03:00:00"), ..Status::default() };
        for now in ["20 03:00:01", "21 02:59:59", "21 03:00:00", "22 02:59:59", "21 04:00:00"] {
            assert!(nightly(&status, now).is_ok(), "{now}");
        }
        let problem = nightly(&status, "22 03:00:00").unwrap_err();
        assert!(problem.contains("2026-11-20 03:00:00 UTC, 2 d"), "{problem}");
        assert!(problem.contains("before last (2026-11-21 03:00:00 UTC)"), "{problem}");
        let failing = Status { failure: failed("21 03:00:07"), ..status };
        let problem = nightly(&failing, "22 03:00:00").unwrap_err();
        assert!(problem.ends_with("; failed at 2026-11-21 03:00:07 UTC: S3 said no"), "{problem}");
        // Tolerated, but still reported, until a later backup succeeds.
        assert!(nightly(&failing, "21 04:00:00").unwrap().contains("S3 said no"));
        let mended = Status { newest: newest("21 03:01:00"), ..failing };
        assert!(!nightly(&mended, "21 04:00:00").unwrap().contains("S3 said no"));
    }

    #[test]
    fn before_the_first_backup_a_failure_counts_at_once() {
        let fresh = Status { started: at("20 12:00:00"), ..Status::default() };
        assert!(nightly(&fresh, "20 12:00:01").is_ok());
        assert!(nightly(&fresh, "21 03:10:00").is_ok(), "it may still be running");
        assert!(nightly(&fresh, "22 03:00:00").unwrap_err().contains("started at 2026-11-20"));
        let failing = Status { failure: failed("20 12:00:05"), ..fresh };
        assert!(nightly(&failing, "20 12:00:10").unwrap_err().contains("S3 said no"));
    }

    #[test]
    fn a_newest_of_the_future_is_none() {
        let status =
            Status { newest: newest("25 03:00:00"), started: at("20 12:00:00"), ..Status::default() };
        assert!(nightly(&status, "21 03:10:00").unwrap().starts_with("no backup yet"));
        assert!(nightly(&status, "22 03:00:00").unwrap_err().starts_with("no backup is in the bucket since"));
        let failing = Status { failure: failed("21 03:00:07"), ..status };
        assert!(nightly(&failing, "21 03:10:00").unwrap_err().contains("S3 said no"));
    }

    #[test]
    fn a_drill_that_failed_counts_until_one_succeeds() {
        let drill = |result| Some(Drill { time: at("20 06:00:00"), result });
        let status = Status { newest: newest("20 03:00:00"), ..Status::default() };
        let failed = Status { drill: drill(Err("no role".into())), ..status.clone() };
        let problem = nightly(&failed, "20 07:00:00").unwrap_err();
        assert_eq!(problem, "the drill of 2026-11-20 06:00:00 UTC failed: no role");
        let succeeded = Status { drill: drill(Ok("2 tables".into())), ..status };
        assert!(nightly(&succeeded, "20 07:00:00").is_ok());
    }

    #[test]
    fn of_several_databases_each_has_to_be_well() {
        let schedule = Schedule::parse("0 3 * * *").unwrap();
        let of = |databases: &str, now: &str| {
            let databases = serde_json::from_str(databases).unwrap();
            let status =
                Status { alive: at(now), databases: Some(databases_of(&databases)), ..Status::default() };
            verdict(&status, &schedule, &Utc, at(now))
        };
        let made =
            |time: &str| format!(r#"{{"last_success": {{"time": "2026-11-{time}:00:00Z", "key": "k"}}}}"#);
        let failed = |time: &str| {
            format!(
                r#"{{"last_failure": {{"time": "2026-11-{time}:00:00Z", "reason": "no"}}, "last_success": {{"time": "2026-11-20T03:00:00Z", "key": "k"}}}}"#
            )
        };
        let two =
            format!(r#"{{"a": {}, "b": {}, ".globals": {}}}"#, made("21T03"), made("20T03"), made("21T03"));
        let sentence = of(&two, "21 04:00:00").unwrap();
        assert!(sentence.starts_with("2 databases; b: the newest backup is of 2026-11-20"), "{sentence}");
        let problem = of(&two, "22 03:00:00").unwrap_err();
        assert!(problem.starts_with("1 of 3 not well; b: the newest backup is of"), "{problem}");
        let problem = of(&two, "29 03:00:00").unwrap_err();
        assert!(problem.starts_with("3 of 3 not well; also not well: .globals, a; b: "), "{problem}");
        // A failure that is forgiven is told of.
        let one = format!(r#"{{"a": {}, "b": {}}}"#, failed("21T03"), made("19T04"));
        let sentence = of(&one, "21 02:00:00").unwrap();
        assert!(sentence.contains("; a: ") && sentence.contains("no"), "{sentence}");
        // One of which there is no backup, and that failed.
        let none = format!(
            r#"{{"a": {}, "b": {{"last_failure": {{"time": "2026-11-21T03:00:00Z", "reason": "gone"}}}}}}"#,
            made("21T03")
        );
        let problem = of(&none, "21 04:00:00").unwrap_err();
        assert!(problem.contains("; b: no backup is known") && problem.ends_with(": gone"), "{problem}");
        assert!(of("{}", "21 04:00:00").unwrap_err().starts_with("no backup is in the bucket"));
    }

    #[test]
    fn a_silent_daemon_is_not_well() {
        let schedule = Schedule::parse("0 3 * * *").unwrap();
        let status = Status { newest: newest("20 03:00:00"), alive: at("20 10:00:00"), ..Status::default() };
        let verdict = |now| verdict(&status, &schedule, &Utc, at(now));
        assert!(verdict("20 10:02:59").is_ok());
        assert!(verdict("20 10:03:01").unwrap_err().contains("sign of life 3 min"));
        // A clock that was set back says nothing about the daemon.
        assert!(verdict("20 09:00:00").is_ok());
    }
}
