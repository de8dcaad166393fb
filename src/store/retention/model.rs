//! Compares the retention with a slow model that shares no code with it, over ten years of random backups.
//! A failing test shows its seed; set `PGKEEP_FUZZ_SEED` to repeat it.

use std::collections::{BTreeMap, BTreeSet};
use std::env;

use chrono::Offset;
use chrono_tz::Tz;
use fastrand::Rng;

use super::*;
use crate::postgres::Format;

/// Zones whose clocks change at one, two and three o'clock, at midnight and a minute later, by half an hour,
/// and by a whole day.
const ZONES: [Tz; 9] = [
    Tz::UTC,
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::America__Havana,
    Tz::America__St_Johns,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Apia,
    Tz::Africa__Casablanca,
    Tz::Asia__Kolkata,
];
const RULES: [(Rule, &str); 6] = [
    (Rule::Last, "%s %f"),
    (Rule::Hourly, "%F %H %z"),
    (Rule::Daily, "%F"),
    (Rule::Weekly, "%G-W%V"),
    (Rule::Monthly, "%Y-%m"),
    (Rule::Yearly, "%Y"),
];

/// Gives `check` a few random cases, and shows the seed of the one that fails.
fn rounds(count: u64, check: impl Fn(&mut Rng)) {
    let seed = env::var("PGKEEP_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    for seed in seed.map_or(1..=count, |seed| seed..=seed) {
        println!("PGKEEP_FUZZ_SEED={seed}");
        check(&mut Rng::with_seed(seed));
    }
}

fn random_policy(random: &mut Rng) -> Policy {
    let mut rules = BTreeMap::new();
    for (rule, _) in RULES {
        let most = [4, 40, 400][random.usize(..3)];
        if random.u8(..3) == 0 {
            rules.insert(rule, random.u32(1..most));
        }
    }
    if random.u8(..3) == 0 {
        rules.insert(Rule::Days, random.u32(1..60));
    }
    Policy { rules }
}

/// Backups of ten years before `now`, and a few of the future: bursts of some in an hour, a day or a month.
/// Every second burst is on a day on which the clocks of `zone` change.
fn random_backups(random: &mut Rng, zone: Tz, now: DateTime<Utc>) -> Vec<Backup> {
    let offset = |day: i64| zone.offset_from_utc_datetime(&(now + TimeDelta::days(day)).naive_utc()).fix();
    let changes: Vec<i64> = (-3_650..0).filter(|day| offset(*day) != offset(day + 1)).collect();
    let mut seconds = BTreeSet::new();
    for _ in 0..40 {
        let day = match random.choice(&changes) {
            Some(day) if random.bool() => *day,
            _ => random.i64(-3_650..30),
        };
        let mut at = day * 86_400 + random.i64(0..86_400);
        let step = [600, 3_600, 20_000, 86_400, 604_800][random.usize(..5)];
        for _ in 0..random.usize(1..8) {
            seconds.insert(at);
            at += random.i64(1..=step);
        }
    }
    let mut backups: Vec<Backup> = seconds
        .into_iter()
        .map(|second| {
            let time = now + TimeDelta::seconds(second);
            Backup { key: time.to_rfc3339(), time, format: Format::Plain, encrypted: false, size: 1 }
        })
        .collect();
    random.shuffle(&mut backups);
    backups
}

fn random_now(random: &mut Rng) -> DateTime<Utc> {
    let first: DateTime<Utc> = "2010-01-01T00:00:00Z".parse().expect("a time");
    first + TimeDelta::seconds(random.i64(0..15 * 365 * 86_400))
}

/// What stays: judged for each backup alone, by the names of the periods of all that are newer.
fn model(backups: &[Backup], policy: &Policy, zone: Tz, now: DateTime<Utc>) -> BTreeSet<String> {
    let named = |backup: &Backup| {
        let local = backup.time.with_timezone(&zone);
        (backup.time, RULES.map(|(_, name)| local.format(name).to_string()))
    };
    let past = |backup: &&Backup| backup.time <= now + TimeDelta::minutes(15);
    let counting: Vec<(DateTime<Utc>, [String; 6])> = backups.iter().filter(past).map(named).collect();
    let limits = RULES.map(|(rule, _)| policy.rules.get(&rule).copied().unwrap_or(0) as usize);
    let days = policy.rules.get(&Rule::Days).map_or(TimeDelta::MIN, |days| TimeDelta::days((*days).into()));
    let stays = |backup: &&Backup| {
        let (_, own) = named(backup);
        let newer: Vec<_> = counting.iter().filter(|(time, _)| *time > backup.time).collect();
        let chosen = (0..RULES.len()).any(|rule| {
            let later: BTreeSet<&String> = newer.iter().map(|(_, names)| &names[rule]).collect();
            !later.contains(&own[rule]) && later.len() < limits[rule]
        });
        let special = newer.is_empty() || policy.rules.is_empty() || !past(backup);
        special || now - backup.time <= days || chosen
    };
    backups.iter().filter(stays).map(|backup| backup.key.clone()).collect()
}

fn kept(backups: &[Backup], policy: &Policy, zone: Tz, now: DateTime<Utc>) -> Vec<Backup> {
    let stays = plan(backups, policy, &zone, now).into_iter();
    stays.filter(|decision| decision.fate == Fate::Kept).map(|decision| decision.backup).collect()
}

fn keys(backups: &[Backup]) -> BTreeSet<String> {
    backups.iter().map(|backup| backup.key.clone()).collect()
}

#[test]
fn ten_years_of_backups_are_kept_as_a_slow_model_keeps_them() {
    rounds(100, |random| {
        let now = random_now(random);
        let (policy, zone) = (random_policy(random), ZONES[random.usize(..ZONES.len())]);
        let backups = random_backups(random, zone, now);
        let (kept, modelled) =
            (keys(&kept(&backups, &policy, zone, now)), model(&backups, &policy, zone, now));
        assert_eq!(kept, modelled, "{policy:?} in {zone} at {now}");
    });
}

#[test]
fn who_prunes_after_each_backup_keeps_the_same_as_who_prunes_once() {
    rounds(60, |random| {
        let now = random_now(random);
        let (policy, zone) = (random_policy(random), ZONES[random.usize(..ZONES.len())]);
        let mut backups = random_backups(random, zone, now);
        backups.retain(|backup| backup.time <= now);
        backups.sort_by_key(|backup| backup.time);
        let mut left: Vec<Backup> = Vec::new();
        for backup in &backups {
            left.push(backup.clone());
            left = kept(&left, &policy, zone, backup.time);
        }
        let left = kept(&left, &policy, zone, now);
        assert_eq!(keys(&left), keys(&kept(&backups, &policy, zone, now)), "{policy:?} in {zone} at {now}");
    });
}
