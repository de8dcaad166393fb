//! Compares the schedule with an evaluator that shares no code with it and goes through every minute.

use std::collections::{BTreeSet, HashSet};

use chrono::{Datelike, NaiveDate, Timelike};
use chrono_tz::Tz;

use super::*;

/// Zones with different clock changes: at 1, 2 and 3 o'clock, at midnight, by half an hour, at 02:45, in the
/// southern spring, in the evening, around Ramadan, and none at all.
const ZONES: [Tz; 9] = [
    Tz::Europe__Berlin,
    Tz::America__New_York,
    Tz::America__Havana,
    Tz::Australia__Lord_Howe,
    Tz::Pacific__Chatham,
    Tz::America__Santiago,
    Tz::America__Nuuk,
    Tz::Africa__Casablanca,
    Tz::Asia__Kolkata,
];

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

fn fires(expression: &str, zone: Tz, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(expression).expect(expression);
    let mut at = utc(after);
    (0..count)
        .map(|_| {
            let next = schedule.next(at, &zone).expect("a fire time");
            at = next.to_utc();
            next.format("%a %Y-%m-%d %H:%M %z").to_string()
        })
        .collect()
}

#[test]
fn fields_mean_what_crontab_says() {
    let monday = "2026-11-23T00:00:30Z";
    for (expression, first) in [
        ("0 3 * * *", "Mon 2026-11-23 03:00 +0000"),
        ("*/15 * * * *", "Mon 2026-11-23 00:15 +0000"),
        ("5-20/5 4 * * *", "Mon 2026-11-23 04:05 +0000"),
        ("0 3 * * 0", "Sun 2026-11-29 03:00 +0000"),
        ("0 3 * * 7", "Sun 2026-11-29 03:00 +0000"),
        ("0 3 * * sun", "Sun 2026-11-29 03:00 +0000"),
        ("0 3 * * FRI-SUN", "Fri 2026-11-27 03:00 +0000"),
        ("0 3 * * 1-5", "Mon 2026-11-23 03:00 +0000"),
        ("0 3 * * 6-7", "Sat 2026-11-28 03:00 +0000"),
        ("0 0 29 feb *", "Tue 2028-02-29 00:00 +0000"),
        // Either of two restricted days; both if one begins with a star.
        ("0 3 13 * FRI", "Fri 2026-11-27 03:00 +0000"),
        ("0 3 25 * FRI", "Wed 2026-11-25 03:00 +0000"),
        ("0 3 */2 * FRI", "Fri 2026-11-27 03:00 +0000"),
        ("0 3 28 * */2", "Sat 2026-11-28 03:00 +0000"),
        ("@hourly", "Mon 2026-11-23 01:00 +0000"),
        ("@daily", "Tue 2026-11-24 00:00 +0000"),
        ("@midnight", "Tue 2026-11-24 00:00 +0000"),
        ("@weekly", "Sun 2026-11-29 00:00 +0000"),
        ("@monthly", "Tue 2026-12-01 00:00 +0000"),
        ("@yearly", "Fri 2027-01-01 00:00 +0000"),
        ("@Annually", "Fri 2027-01-01 00:00 +0000"),
    ] {
        assert_eq!(fires(expression, Tz::UTC, monday, 1), [first], "{expression}");
    }
}

#[test]
fn wrong_expressions_are_refused_with_a_sentence_that_teaches() {
    for (expression, teaches) in [
        ("", "has 0 fields instead of the five"),
        ("0 3 * *", "has 4 fields"),
        ("0 3 * * * root", "has 6 fields"),
        ("60 * * * *", "minute field \"60\": \"60\" is not a number from 0 to 59"),
        ("0 24 * * *", "from 0 to 23"),
        ("0 0 0 * *", "from 1 to 31"),
        ("0 0 * foo *", "from 1 to 12 or a name from jan to dec"),
        ("0 0 * * 8", "from 0 to 7 or a name from sun to sat"),
        ("0 0 * * 5-1", "from the smaller to the larger"),
        ("5/1 * * * *", "a range stands before a step"),
        ("foo/15 * * * *", "\"foo\" is not a number"),
        ("*/0 * * * *", "a step is a number from 1"),
        ("+5 * * * *", "\"+5\" is not a number"),
        ("1,,2 * * * *", "\"\" is not a number"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("@nightly", "is not one of @hourly"),
        ("0 3 */31 * *", "a step of 31 does not fit a month, and only 1 would match"),
        ("0 3 * * 1-5/9", "a step of 9 does not fit 1-5, and only 1 would match"),
    ] {
        let problem = Schedule::parse(expression).expect_err(expression);
        assert!(problem.contains(teaches), "{expression}: {problem}");
    }
}

#[test]
fn a_step_after_which_no_number_is_left_is_refused_and_every_other_is_not() {
    for (before, numbers, behind) in [
        ("", 60, " * * * *"),
        ("0 ", 24, " * * *"),
        ("0 0 ", 31, " * *"),
        ("0 0 1 ", 12, " *"),
        ("0 0 * * ", 7, ""),
    ] {
        for step in (1..=70).chain([1000, 1440, u32::MAX]) {
            let expression = format!("{before}*/{step}{behind}");
            let parsed = Schedule::parse(&expression);
            assert_eq!(parsed.is_ok(), step < numbers, "{expression}: {parsed:?}");
        }
    }
    // Somebody who writes no step, or a step of 1, may want one number.
    for expression in ["5-5 * * * *", "5-5/1 * * * *", "10-20/10 * * * *"] {
        assert!(Schedule::parse(expression).is_ok(), "{expression}");
    }
    assert!(Schedule::parse("10-20/11 * * * *").is_err());
}

#[test]
fn every_minute_of_some_hours_or_days_is_doubted() {
    for (expression, fires, meant) in [
        ("* */6 * * *", 240, "0 */6 * * *"),
        ("* 3 * * *", 60, "0 3 * * *"),
        ("*  8-18\t* * 1-5", 660, "0 8-18 * * 1-5"),
        ("*/1 3,15 * * *", 120, "0 3,15 * * *"),
        ("15-59 3 * * *", 45, "15 3 * * *"),
        // Every minute of the day.
        ("* * * * sun", 1440, "0 0 * * sun"),
        ("* * 1 * *", 1440, "0 0 1 * *"),
        ("* * * 6 *", 1440, "0 0 * 6 *"),
    ] {
        let schedule = Schedule::parse(expression).expect(expression);
        let warning = schedule.warning().expect(expression);
        assert!(
            warning.ends_with(&format!("fires {fires} times a day; did you mean `{meant}`?")),
            "{warning}"
        );
        assert_eq!(Schedule::parse(meant).expect(meant).warning(), None, "{meant}");
        // On its first day, from midnight on.
        let first = schedule.next(utc("2026-01-01T00:00:00Z") - TimeDelta::seconds(1), &Utc).unwrap();
        let midnight = first.with_time(chrono::NaiveTime::MIN).unwrap();
        let all = schedule.fires(midnight - TimeDelta::seconds(1), &Utc, 2000);
        assert_eq!(all.iter().filter(|fire| fire.date_naive() == first.date_naive()).count(), fires);
    }
    for meant in [
        "* * * * *",
        "*/1 */1 */1 */1 */1",
        "*/5 * * * *",
        "*/2 3 * * *",
        "0 */6 * * *",
        "0,15,30,45 8-18 * * 1-5",
        "0 * 1 * *",
        "@hourly",
        "@yearly",
    ] {
        assert_eq!(Schedule::parse(meant).expect(meant).warning(), None, "{meant}");
    }
}

#[test]
fn a_skipped_time_fires_later_and_a_repeated_one_once() {
    // Berlin skips 02:00-03:00 on 2026-03-29 and repeats it on 2026-10-25.
    assert_eq!(
        fires("30 2 * * *", Tz::Europe__Berlin, "2026-03-27T12:00:00Z", 3),
        ["Sat 2026-03-28 02:30 +0100", "Sun 2026-03-29 03:30 +0200", "Mon 2026-03-30 02:30 +0200"]
    );
    assert_eq!(
        fires("30 2 * * *", Tz::Europe__Berlin, "2026-10-24T12:00:00Z", 2),
        ["Sun 2026-10-25 02:30 +0200", "Mon 2026-10-26 02:30 +0100"]
    );
    // An expression that names every hour follows the passing of time.
    assert_eq!(
        fires("30 * * * *", Tz::Europe__Berlin, "2026-10-24T23:45:00Z", 3),
        ["Sun 2026-10-25 02:30 +0200", "Sun 2026-10-25 02:30 +0100", "Sun 2026-10-25 03:30 +0100"]
    );
}

#[test]
fn a_daily_job_runs_once_on_every_day_of_ten_years() {
    let start = NaiveDate::from_ymd_opt(2016, 1, 1).unwrap().and_hms_opt(12, 0, 0).unwrap();
    let end = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap().and_hms_opt(12, 0, 0).unwrap();
    for zone in ZONES {
        for time in ["0 0", "30 0", "15 1", "0 2", "30 2", "50 2", "0 3", "30 23", "59 23"] {
            let schedule = Schedule::parse(&format!("{time} * * *")).unwrap();
            let mut at = zone.from_local_datetime(&start).unwrap().to_utc();
            let end = zone.from_local_datetime(&end).unwrap().to_utc();
            let mut days = 0;
            while let Some(next) = schedule.next(at, &zone).map(|next| next.to_utc()) {
                if next > end {
                    break;
                }
                let hours = (next - at).num_hours();
                assert!(days == 0 || (22..=26).contains(&hours), "{zone} {time}: {hours} h before {next}");
                at = next;
                days += 1;
            }
            assert_eq!(days, 3653, "{zone} {time}");
        }
    }
}

/// A random field as text, and the numbers that it was made to mean.
fn random_field(random: &mut fastrand::Rng, first: u32, last: u32) -> (String, BTreeSet<u32>) {
    let (mut items, mut numbers) = (Vec::new(), BTreeSet::new());
    for _ in 0..random.u32(1..=3) {
        let (low, high) = (random.u32(first..=last), random.u32(first..=last));
        let (low, high) = (low.min(high), low.max(high));
        let kind = random.u32(0..4);
        // A larger step leaves the range at once and is refused.
        let mut step = |reach: u32| random.u32(1..=reach.clamp(1, 20));
        match kind {
            0 => {
                items.push(low.to_string());
                numbers.insert(low);
            }
            1 => {
                items.push(format!("{low}-{high}"));
                numbers.extend(low..=high);
            }
            2 => {
                let step = step(high - low);
                items.push(format!("{low}-{high}/{step}"));
                numbers.extend((low..=high).filter(|number| (number - low).is_multiple_of(step)));
            }
            _ => {
                // In days of the week, 7 is the same as 0.
                let step = step(last - first - 1);
                items.push(format!("*/{step}"));
                numbers.extend((first..=last).filter(|number| (number - first).is_multiple_of(step)));
            }
        }
    }
    (items.join(","), numbers)
}

struct Random {
    expression: String,
    matches: Box<dyn Fn(NaiveDateTime) -> bool>,
    every_hour: bool,
}

fn random_expression(random: &mut fastrand::Rng) -> Random {
    let mut field = |first, last, star: f32| {
        if random.f32() < star {
            ("*".to_owned(), (first..=last).collect())
        } else {
            random_field(random, first, last)
        }
    };
    let (minute, minutes) = field(0, 59, 0.1);
    let (hour, hours) = field(0, 23, 0.3);
    let (day, days) = field(1, 31, 0.5);
    let (month, months) = field(1, 12, 0.7);
    let (weekday, weekdays) = field(0, 7, 0.5);
    let star = day.starts_with('*') || weekday.starts_with('*');
    let every_hour = hours.len() == 24;
    let matches = move |wall: NaiveDateTime| {
        let day = days.contains(&wall.day());
        let weekday = wall.weekday().num_days_from_sunday();
        let weekday = weekdays.contains(&weekday) || weekday == 0 && weekdays.contains(&7);
        minutes.contains(&wall.minute())
            && hours.contains(&wall.hour())
            && months.contains(&wall.month())
            && if star { day && weekday } else { day || weekday }
    };
    Random {
        expression: format!("{minute} {hour} {day} {month} {weekday}"),
        matches: Box::new(matches),
        every_hour,
    }
}

/// Watches a wall clock for `minutes`, minute by minute, from `start` on.
fn brute_force(random: &Random, zone: Tz, start: DateTime<Utc>, minutes: i64) -> Vec<DateTime<Utc>> {
    let wall_at = |instant: DateTime<Utc>| instant.with_timezone(&zone).naive_local();
    // A time that was on the clock before `start` does not come for the first time any more.
    let mut instant = start - TimeDelta::days(1);
    let (mut seen, mut fires) = (HashSet::new(), BTreeSet::new());
    let mut before = wall_at(instant - TimeDelta::minutes(1));
    while instant <= start + TimeDelta::minutes(minutes) {
        let wall = wall_at(instant);
        let mut skipped = before + TimeDelta::minutes(1);
        while skipped < wall {
            if (random.matches)(skipped) {
                let shift = skipped - (before + TimeDelta::minutes(1));
                fires.insert(instant + shift);
            }
            skipped += TimeDelta::minutes(1);
        }
        if (random.matches)(wall) && (seen.insert(wall) || random.every_hour) {
            fires.insert(instant);
        }
        before = wall;
        instant += TimeDelta::minutes(1);
    }
    fires.into_iter().filter(|fire| *fire > start && *fire <= start + TimeDelta::minutes(minutes)).collect()
}

#[test]
fn random_expressions_fire_when_a_brute_force_clock_says() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut compared, mut around_a_change) = (0, 0);
    while compared < 12_000 {
        let expression = random_expression(&mut random);
        let schedule = match Schedule::parse(&expression.expression) {
            Ok(schedule) => schedule,
            Err(problem) => {
                assert!(problem.contains("never fires"), "seed {seed}: {}: {problem}", expression.expression);
                continue;
            }
        };
        let zone = ZONES[random.usize(..ZONES.len())];
        // Every second start is a few hours before a clock change.
        let mut start = utc("2020-01-01T00:00:00Z") + TimeDelta::minutes(random.i64(0..6 * 365 * 1440));
        if random.bool() {
            let offset_at = |instant: DateTime<Utc>| offset(&zone, instant.naive_utc());
            let change = (0..400)
                .map(|day| start + TimeDelta::days(day))
                .find(|day| offset_at(*day) != offset_at(start));
            start = change.unwrap_or(start) - TimeDelta::hours(26);
            around_a_change += usize::from(change.is_some());
        }
        let minutes = 4 * 1440;
        // A dense expression alone would use up the quota.
        let expected: Vec<_> = brute_force(&expression, zone, start, minutes).into_iter().take(300).collect();
        let mut at = start;
        for expected in &expected {
            let next = schedule.next(at, &zone).map(|next| next.to_utc());
            assert_eq!(next, Some(*expected), "seed {seed}: {} in {zone} after {at}", expression.expression);
            at = *expected;
            compared += 1;
        }
        if expected.len() < 300 {
            let next = schedule.next(at, &zone).map(|next| next.to_utc());
            let end = start + TimeDelta::minutes(minutes);
            assert!(
                next.is_none_or(|next| next > end),
                "seed {seed}: {} in {zone} after {at}",
                expression.expression
            );
        }
    }
    assert!(around_a_change > 20, "only {around_a_change} windows around a clock change");
}

#[test]
fn the_last_two_fire_times_are_those_that_next_goes_through() {
    let mut random = fastrand::Rng::with_seed(7);
    for expression in ["* * * * *", "*/7 1-3 * * *", "30 2 * * *", "0 3 * * 1", "15 0 1 */2 *", "0 0 29 2 *"]
    {
        let schedule = Schedule::parse(expression).expect(expression);
        for zone in ZONES {
            let now = utc("2020-01-01T00:00:00Z") + TimeDelta::seconds(random.i64(0..200_000_000));
            let [last, before] = schedule.past(now, &zone).expect(expression);
            let next = |at| schedule.next(at, &zone).expect("a fire time").to_utc();
            assert_eq!(next(before), last, "{expression} {zone} {now}");
            assert!(last <= now && now < next(last), "{expression} {zone} {now}: {last}");
        }
    }
    // The fire time itself counts as past.
    let [last, _] = Schedule::parse("0 3 * * *").unwrap().past(utc("2026-11-23T03:00:00Z"), &Utc).unwrap();
    assert_eq!(last, utc("2026-11-23T03:00:00Z"));
}

#[test]
fn the_list_of_fire_times_ends_with_the_year_2100() {
    let schedule = Schedule::parse("* * * * *").unwrap();
    assert_eq!(schedule.fires(utc("2100-12-31T23:50:30Z"), &Utc, 1000).len(), 9);
    assert!(schedule.fires(utc("2150-01-01T00:00:00Z"), &Utc, 1000).is_empty());
}

#[test]
fn whatever_expression_is_given_fires_in_the_future_or_is_refused() {
    let seeds = ["0 3 * * *", "*/5 0-23/2 1,15 JAN-DEC MON-FRI", "@daily", "0 0 29 2 0", "59 23 31 12 7"];
    let now: DateTime<Utc> = "2026-11-23T03:00:00Z".parse().unwrap();
    crate::base::fuzz::feed(&seeds, |expression| {
        if let Ok(schedule) = Schedule::parse(expression) {
            let next = schedule.next(now, &chrono_tz::Europe::Berlin);
            assert!(next.is_none_or(|next| next > now), "{expression}");
        }
    });
}
