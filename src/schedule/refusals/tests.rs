//! Users copy the text between backticks in a refusal into a configuration, so it must be valid.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Schedule;

fn refusal(expression: &str) -> String {
    Schedule::parse(expression).expect_err(expression)
}

/// The texts that a refusal offers to copy.
fn offers(refusal: &str) -> Vec<&str> {
    refusal.split('`').skip(1).step_by(2).collect()
}

/// Expressions of other schedulers, a word in their refusals, and everything that the refusals offer.
const DIALECTS: &[(&str, &str, &[&str])] = &[
    // Steps that do not fit.
    ("*/60 * * * *", "a step of 60 does not fit an hour, and only 0 would match", &["0 * * * *"]),
    ("*/90 * * * *", "no expression fires evenly every 90 minutes", &["0 * * * *", "0 */2 * * *"]),
    ("*/120 * * * *", "every 2 hours", &["0 */2 * * *"]),
    ("*/1440 * * * *", "every day", &["0 0 * * *"]),
    ("*/90 * * * 1-5", "90 minutes", &["0 * * * 1-5", "0 */2 * * 1-5"]),
    ("*/2880 * * * 1-5", "2880 minutes", &["0 0 * * 1-5"]),
    ("*/60 3 * * *", "an hour", &["0 3 * * *"]),
    ("10-20/30,50 3 * * *", "does not fit 10-20, and only 10 would match", &["10,50 3 * * *"]),
    ("0 */24 * * *", "a step of 24 does not fit a day", &["0 0 * * *"]),
    ("30 */24 * * *", "fires every day", &["30 0 * * *"]),
    ("0 */25 * * *", "no expression fires evenly every 25 hours", &["0 0 * * *", "0 0 * * 0"]),
    ("0 */24 * * 1-5", "only 0 would match", &["0 0 * * 1-5"]),
    ("*/90 */25 * * *", "an hour", &["0 0 * * *", "0 0 * * 0"]),
    ("0 3 */31 * *", "a month", &["0 3 1 * *"]),
    ("0 3 1 */12 *", "a year", &["0 3 1 1 *"]),
    ("0 3 * * */7", "a week", &["0 3 * * 0"]),
    ("0 3 * * 1-5/9", "1-5", &["0 3 * * 1"]),
    ("*/90 * * * foo", "\"foo\" is not a number", &[]),
    ("*/90 * 30 2 *", "never fires", &[]),
    // A time zone in front.
    ("CRON_TZ=Europe/Berlin 0 3 * * *", "in the variable TZ, as TZ=Europe/Berlin", &["0 3 * * *"]),
    ("TZ=UTC   @daily", "in the variable TZ, as TZ=UTC", &["@daily"]),
    ("CRON_TZ=Europe/Berlin 0 0 3 ? * *", "\"?\" is \"*\"", &["0 3 * * *"]),
    ("CRON_TZ=Europe/Berlin", "has 0 fields", &[]),
    ("TZ=Asia/Tokyo 0 3 * * foo", "\"foo\" is not a number", &[]),
    // Seconds, years.
    ("0 0 3 * * *", "no field for seconds", &["0 3 * * *"]),
    ("30 15 3 * * MON-FRI", "no field for seconds", &["15 3 * * MON-FRI"]),
    ("0 0 3 * * ?", "no field for seconds", &["0 3 * * *"]),
    ("0 0 3 ? * MON", "\"?\" is \"*\"", &["0 3 * * MON"]),
    ("0 0 3 ? * 2", "counts days of the week from Sunday = 0", &["0 3 * * 2"]),
    ("0 0 3 * * ? *", "no field for seconds or years", &["0 3 * * *"]),
    ("0 0 3 * * ? 2026-2030", "no field for seconds or years", &["0 3 * * *"]),
    ("0 0/15 * * * ?", "* or a range stands before a step", &["*/15 * * * *"]),
    ("0 5/15 8-18 ? * *", "a range stands before a step", &["5-59/15 8-18 * * *"]),
    ("0 0 3 1-7 * MON", "fires if either day matches", &["0 3 * * MON"]),
    ("0 3 * * ? *", "no field for years", &["0 3 * * *"]),
    ("0 3 ? * MON *", "no field for years", &["0 3 * * MON"]),
    ("0 3 * * * 2026", "no field for years", &["0 3 * * *"]),
    ("0 0 3 30 2 *", "never fires", &[]),
    ("0 3 ? * ?", "\"?\" is \"*\"", &["0 3 * * *"]),
    ("5/15 * * * *", "a range stands before a step", &["5-59/15 * * * *"]),
    ("50/15 * * * *", "a step of 15 does not fit 50-59", &["50 * * * *"]),
    ("0 3 * * mon/2", "a range stands before a step", &["0 3 * * mon-7/2"]),
    // Lengths of time.
    ("@every 6h", "fires every 6 hours", &["0 */6 * * *"]),
    ("@every 30m", "fires every 30 minutes", &["*/30 * * * *"]),
    ("@every 24h", "fires every day", &["0 0 * * *"]),
    ("@every 1h30m", "fires evenly every 1h30m", &["0 * * * *", "0 */2 * * *"]),
    ("@every 10s", "fires evenly every 10s", &["* * * * *"]),
    ("@every 8760h", "fires evenly every 8760h", &["0 0 1 * *"]),
    ("@every", "needs a length of time", &["0 */6 * * *"]),
    ("6h", "fires every 6 hours", &["0 */6 * * *"]),
    ("CRON_TZ=UTC @every 1d", "fires every day", &["0 0 * * *"]),
    ("daily", "begins with @", &["@daily"]),
    ("@reboot", "BACKUP_ON_START=true", &["0 3 * * *"]),
    // Jenkins.
    ("H 3 * * *", "Jenkins", &["17 3 * * *"]),
    ("H H * * *", "Jenkins", &["17 3 * * *"]),
    ("H/15 * * * *", "Jenkins", &["*/15 * * * *"]),
    ("H(0-29)/10 H(1-5) * * H", "Jenkins", &["0-29/10 1 * * 0"]),
    // Days that crontab(5) cannot name.
    ("0 3 L * *", "28 is the last that every month has", &["0 3 28 * *"]),
    ("0 3 1,15W * *", "no W for the nearest working day", &["0 3 1,15 * *"]),
    ("0 3 * * FRI#2", "every such weekday", &["0 3 * * FRI"]),
    ("0 0 3 ? * 6L", "every such weekday", &["0 3 * * 6"]),
];

#[test]
fn the_dialects_of_other_schedulers_are_translated() {
    for &(expression, teaches, offered) in DIALECTS {
        let refusal = refusal(expression);
        assert!(refusal.contains(teaches), "{expression}: {refusal}");
        assert_eq!(offers(&refusal), offered, "{expression}: {refusal}");
    }
}

#[test]
fn whatever_a_refusal_offers_parses() {
    let seeds: Vec<&str> = DIALECTS.iter().map(|(expression, ..)| *expression).collect();
    crate::base::fuzz::feed(&seeds, |expression| {
        // Backticks in the expression would look like an offer.
        let Err(refusal) = Schedule::parse(&expression.replace('`', "")) else { return };
        for offer in offers(&refusal) {
            assert!(Schedule::parse(offer).is_ok(), "{expression}: {refusal}");
        }
    });
}

#[test]
fn what_is_offered_for_a_length_of_time_keeps_it_or_surrounds_it() {
    let mut known = HashMap::new();
    for minutes in 1..=9 * 24 * 60 {
        let (asked, refusal) = (TimeDelta::minutes(minutes), refusal(&format!("@every {minutes}m")));
        // A month has no fixed length.
        let offers = offers(&refusal).into_iter().filter(|offer| *offer != "0 0 1 * *");
        let gaps: Vec<TimeDelta> =
            offers.map(|offer| *known.entry(offer.to_owned()).or_insert_with(|| gap(offer))).collect();
        let hours = minutes / 60;
        let of_an_hour = minutes < 60 && 60 % minutes == 0;
        let of_a_day = minutes % 60 == 0 && hours > 0 && 24 % hours == 0;
        let even = of_an_hour || of_a_day || minutes == 7 * 24 * 60;
        assert_eq!(refusal.contains("no expression fires evenly"), !even, "{refusal}");
        if !even {
            assert!(gaps[0] < asked, "{refusal}");
            assert!(gaps.get(1).is_none_or(|longer| *longer > asked), "{refusal}");
        } else {
            assert_eq!(gaps, [asked], "{refusal}");
        }
    }
}

/// The constant distance between fire times over more than a day.
fn gap(expression: &str) -> TimeDelta {
    let fires = Schedule::parse(expression).unwrap().fires(DateTime::UNIX_EPOCH, &Utc, 1500);
    let gaps: Vec<TimeDelta> = fires.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap == gaps[0]), "{expression}: {gaps:?}");
    gaps[0]
}
