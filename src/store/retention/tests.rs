//! What a policy keeps, and what it says about it.

use chrono_tz::Tz;

use super::*;
use crate::postgres::Format;

const NOW: &str = "2026-11-23T03:00:00Z";

fn backup(time: &str) -> Backup {
    Backup {
        key: time.to_owned(),
        time: time.parse().unwrap(),
        format: Format::Plain,
        encrypted: false,
        size: 1,
    }
}

fn policy(rules: &[(Rule, u32)]) -> Policy {
    Policy { rules: rules.iter().copied().collect() }
}

/// A policy of days alone, or none.
fn days(days: Option<u32>) -> Policy {
    Policy { rules: days.map(|days| (Rule::Days, days)).into_iter().collect() }
}

fn planned(policy: &Policy, zone: Tz, times: &[&str]) -> Vec<Decision> {
    let backups: Vec<Backup> = times.iter().map(|time| backup(time)).collect();
    plan(&backups, policy, &zone, NOW.parse().unwrap())
}

fn kept(days: Option<u32>, backups: &[&str]) -> Vec<bool> {
    let plan = planned(&self::days(days), Tz::UTC, backups);
    plan.iter().map(|decision| decision.fate == Fate::Kept).collect()
}

/// The times of what stays, the oldest first.
fn stays(rules: &[(Rule, u32)], zone: Tz, times: &[&str]) -> Vec<String> {
    let plan = planned(&policy(rules), zone, times).into_iter();
    plan.filter(|decision| decision.fate == Fate::Kept).map(|decision| decision.backup.key).collect()
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
    let plan = plan(&backups, &days(Some(7)), &Tz::UTC, NOW.parse().unwrap());
    assert_eq!(plan[0].reason, "22 d 3 h old, kept for 7 d");
    assert_eq!(plan[1].reason, "the newest");
}

#[test]
fn a_verdict_says_what_happens_and_when() {
    let times = ["2026-11-16T02:59:59Z", "2026-11-16T03:00:00Z", "2026-11-22T03:00:00Z"];
    let verdicts = |number| -> Vec<String> {
        planned(&days(number), Tz::UTC, &times).iter().map(Decision::verdict).collect()
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
    let plan = planned(&days(Some(7)), Tz::UTC, &times);
    let held: Vec<Decision> = plan.iter().cloned().map(Decision::held_back).collect();
    assert_eq!(held[0].fate, Fate::HeldBack);
    assert_eq!(held[0].verdict(), "expired, and held back");
    assert_eq!(held[1..], plan[1..]);
}

#[test]
fn the_newest_of_each_of_the_last_days_that_have_backups_stays() {
    let times = [
        "2026-06-01T03:00:00Z",
        "2026-07-01T03:00:00Z",
        "2026-07-01T15:00:00Z",
        "2026-11-22T03:00:00Z",
        "2026-11-22T04:00:00Z",
        "2026-11-23T02:00:00Z",
    ];
    assert_eq!(stays(&[(Rule::Daily, 3)], Tz::UTC, &times), [times[2], times[4], times[5]]);
    assert_eq!(stays(&[(Rule::Daily, 4)], Tz::UTC, &times), [times[0], times[2], times[4], times[5]]);
    assert_eq!(stays(&[(Rule::Last, 2)], Tz::UTC, &times), times[4..]);
    assert_eq!(stays(&[(Rule::Last, 9)], Tz::UTC, &times), times);
    assert_eq!(stays(&[(Rule::Hourly, 2)], Tz::UTC, &times), times[4..]);
    assert_eq!(stays(&[(Rule::Monthly, 2)], Tz::UTC, &times), [times[2], times[5]]);
    assert_eq!(stays(&[(Rule::Yearly, 9)], Tz::UTC, &times), [times[5]]);
}

#[test]
fn a_day_begins_in_the_time_zone_and_a_week_on_monday() {
    // The third is Sunday in New York, and Monday in Berlin.
    let times =
        ["2026-11-15T12:00:00Z", "2026-11-22T12:00:00Z", "2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"];
    let zones = [Tz::America__New_York, Tz::Europe__Berlin];
    for rule in [Rule::Daily, Rule::Weekly] {
        let stays = zones.map(|zone| stays(&[(rule, 2)], zone, &times));
        assert_eq!(stays, [[times[0], times[3]], [times[1], times[3]]], "{rule:?}");
    }
    // The first of January 2021 was a Friday of the last week of 2020.
    let times =
        ["2020-12-31T12:00:00Z", "2021-01-01T12:00:00Z", "2021-01-03T12:00:00Z", "2021-01-04T12:00:00Z"];
    assert_eq!(stays(&[(Rule::Weekly, 9)], Tz::UTC, &times), times[2..]);
}

#[test]
fn an_hour_that_comes_twice_is_two_hours() {
    let times =
        ["2026-10-25T00:10:00Z", "2026-10-25T00:20:00Z", "2026-10-25T01:10:00Z", "2026-10-25T01:20:00Z"];
    assert_eq!(stays(&[(Rule::Hourly, 9)], Tz::Europe__Berlin, &times), [times[1], times[3]]);
}

#[test]
fn a_backup_stays_if_any_rule_keeps_it_and_the_future_displaces_nothing() {
    let times = [
        "2026-01-05T03:00:00Z",
        "2026-11-20T03:00:00Z",
        "2026-11-20T04:00:00Z",
        "2026-11-22T03:00:00Z",
        "2199-01-01T00:00:00Z",
        "2199-01-02T00:00:00Z",
    ];
    let rules = [(Rule::Days, 2), (Rule::Daily, 2), (Rule::Monthly, 2)];
    let plan = planned(&policy(&rules), Tz::UTC, &times);
    let said: Vec<String> = plan.iter().map(Decision::verdict).collect();
    let future = "kept: named by a time in the future";
    assert_eq!(
        said,
        [
            "kept: monthly",
            "goes with the next backup",
            "kept: daily",
            "kept: the newest, daily, monthly",
            future,
            future
        ]
    );
    assert_eq!(plan[1].reason, "3 d 0 h old, kept by no rule");
    let plan = planned(&policy(&[(Rule::Days, 4), (Rule::Daily, 2)]), Tz::UTC, &times);
    let said: Vec<String> = plan[1..3].iter().map(Decision::verdict).collect();
    assert_eq!(said, ["expires 2026-11-24 03:00", "kept: daily, days until 2026-11-24 04:00"]);
    let rules: Vec<Rule> = plan[2].kept_by.iter().map(|keeper| keeper.rule).collect();
    assert_eq!((rules, plan[2].expires), (vec![Rule::Daily, Rule::Days], None));
}

#[test]
fn a_policy_says_what_it_keeps_and_that_it_keeps_only_the_newest() {
    let text = |rules: &[(Rule, u32)]| policy(rules).to_string();
    assert_eq!(text(&[]), "every backup is kept");
    assert_eq!(text(&[(Rule::Days, 7)]), "backups are kept for 7 d");
    assert_eq!(
        text(&[(Rule::Weekly, 4), (Rule::Days, 7), (Rule::Last, 3)]),
        "backups that are kept: all for 7 d, the last 3, 4 weekly"
    );
    let monthly = ["2026-11-01T03:00:00Z", "2026-12-01T03:00:00Z"].map(|time| time.parse().unwrap());
    let warns = |rules: &[(Rule, u32)]| policy(rules).warning(&monthly).is_some();
    assert!(warns(&[(Rule::Days, 7)]) && !warns(&[(Rule::Days, 31)]) && !warns(&[]));
    assert!(warns(&[(Rule::Last, 1)]) && warns(&[(Rule::Daily, 1), (Rule::Yearly, 1)]));
    assert!(warns(&[(Rule::Days, 7), (Rule::Last, 1)]) && !warns(&[(Rule::Days, 7), (Rule::Hourly, 2)]));
    assert!(!warns(&[(Rule::Days, 31), (Rule::Last, 1)]));
}
