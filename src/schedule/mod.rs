//! crontab(5) in a time zone → the next instant. Pure: the clock is an argument.
//!
//! The `cron` crate finds matching wall-clock times. This folder translates crontab(5) for it, and wall-clock
//! times into instants. Schedulers often lose or double a night at a clock change, so the rule is explicit.
//! If the clock skips a wall-clock time, it fires later by the length of the gap (02:30 becomes 03:30). If a
//! time comes twice, it fires the first time. Only an expression that names every hour follows the passing of
//! time instead, and fires in both passes of a repeated hour, as cron(8) does.

mod agenda;
mod fields;
mod periods;
mod refusals;

use std::str::FromStr;

use chrono::{DateTime, Days, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};

pub use self::agenda::{Agenda, Skipped};
use self::fields::{DAY, HOUR, MINUTE, MONTH, WEEKDAY};
use crate::base::units;

/// A schedule as it was written, and its meaning.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The crontab(5) expression.
    pub expression: String,
    /// Its meaning.
    pub schedule: Schedule,
}

/// A crontab(5) expression: five fields or one of the `@` names.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// One schedule of wall-clock times, or two that are ORed: see [`Schedule::parse`].
    clocks: Vec<cron::Schedule>,
    every_hour: bool,
    warning: Option<String>,
}

const ALIASES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Schedule {
    /// Reads an expression.
    ///
    /// If day of month and day of week are both restricted (neither begins with `*`), a day that matches
    /// either of them fires: crontab(5). The `cron` crate ANDs them, so the OR needs two schedules.
    ///
    /// # Errors
    /// A sentence that says what is wrong, and what to write instead if there is something.
    pub fn parse(expression: &str) -> Result<Self, String> {
        let expression = expression.trim();
        Self::read(expression).map_err(|problem| refusals::explain(expression, problem))
    }

    /// A question to the user, if the expression is valid but probably not what was meant.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Reads only crontab(5). The error does not know other dialects.
    fn read(expression: &str) -> Result<Self, String> {
        let expression = if expression.starts_with('@') {
            let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(expression));
            alias.map(|(_, meaning)| *meaning).ok_or_else(|| {
                let known = ALIASES.map(|(alias, _)| alias).join(" ");
                format!("\"{expression}\" is not one of {known}")
            })?
        } else {
            expression
        };
        let fields = fields::five(expression).ok_or_else(|| {
            let count = expression.split_ascii_whitespace().count();
            let five = "the five minute, hour, day of month, month, day of week";
            format!("\"{expression}\" has {} instead of {five}", units::count(count, "field"))
        })?;
        let [minute, hour, day, month, weekday] = fields;
        let minutes = MINUTE.parse(minute)?;
        let hours = HOUR.parse(hour)?;
        let days = DAY.parse(day)?;
        let months = MONTH.parse(month)?;
        // The crate counts from 1 = Sunday.
        let mut weekdays: Vec<u32> = WEEKDAY.parse(weekday)?.iter().map(|day| day % 7 + 1).collect();
        weekdays.sort_unstable();
        weekdays.dedup();

        let clock = |days: &str, weekdays: &str| {
            let text = format!("0 {} {} {days} {} {weekdays}", list(&minutes), list(&hours), list(&months));
            cron::Schedule::from_str(&text).map_err(|problem| format!("\"{expression}\": {problem}"))
        };
        let clocks = if day.starts_with('*') || weekday.starts_with('*') {
            vec![clock(&list(&days), &list(&weekdays))?]
        } else {
            vec![clock(&list(&days), "*")?, clock("*", &list(&weekdays))?]
        };
        let every_hour = hours.len() == 24;
        let always = every_hour && days.len() == 31 && months.len() == 12 && weekdays.len() == 7;
        let warning = if always { None } else { warning(fields, &minutes, &hours) };
        let schedule = Schedule { clocks, every_hour, warning };
        match schedule.next(DateTime::UNIX_EPOCH, &Utc) {
            Some(_) => Ok(schedule),
            None => Err(format!("\"{expression}\" never fires: no month that it names has such a day")),
        }
    }

    /// The first instant after `after` at which the schedule fires in `zone`. `None` if there is none until
    /// the end of the year 2100, where the `cron` crate ends.
    pub fn next<Z: TimeZone>(&self, after: DateTime<Utc>, zone: &Z) -> Option<DateTime<Z>> {
        let after = after.naive_utc();
        // The smallest offset near this time: earlier wall-clock times cannot fire any more.
        let around = [after - Days::new(1), after, after + Days::new(1)];
        let mut wall = after + around.map(|instant| offset(zone, instant)).into_iter().min()?;
        // `wall` itself may fire.
        wall -= TimeDelta::nanoseconds(1);
        let mut best: Option<NaiveDateTime> = None;
        while let Some(next) = self.next_wall(wall) {
            wall = next;
            let (before, behind) = (offset(zone, wall - Days::new(1)), offset(zone, wall + Days::new(1)));
            if best.is_some_and(|best| wall - before.max(behind) >= best) {
                break;
            }
            let (first, second) = instants(zone, wall, before, behind);
            let fires = [Some(first), second.filter(|_| self.every_hour)];
            let soonest = fires.into_iter().flatten().filter(|instant| *instant > after).min();
            best = best.into_iter().chain(soonest).min();
        }
        best.map(|instant| zone.from_utc_datetime(&instant))
    }

    /// The next `count` instants after `after`, or fewer if there are no more.
    pub fn fires<Z: TimeZone>(&self, after: DateTime<Utc>, zone: &Z, count: usize) -> Vec<DateTime<Utc>> {
        let next = |after: DateTime<Utc>| self.next(after, zone).map(|fire| fire.to_utc());
        std::iter::successors(next(after), |fire| next(*fire)).take(count).collect()
    }

    /// The last fire time up to `now`, and the one before it. `None` if there were not two in the last sixty
    /// years.
    pub fn past<Z: TimeZone>(&self, now: DateTime<Utc>, zone: &Z) -> Option<[DateTime<Utc>; 2]> {
        // Goes forward from earlier and earlier starts, so that only one function has to handle clock
        // changes.
        let mut reach = TimeDelta::hours(1);
        while reach < TimeDelta::days(60 * 366) {
            let mut at = now - reach;
            let mut found = [None, None];
            while let Some(fire) = self.next(at, zone).map(|fire| fire.to_utc()).filter(|fire| *fire <= now) {
                found = [Some(fire), found[0]];
                at = fire;
            }
            if let [Some(last), Some(before)] = found {
                return Some([last, before]);
            }
            reach = reach * 4;
        }
        None
    }

    /// The fire time before last, if `newest` is older. If only one backup is missing, the next one can still
    /// make up for it.
    pub fn missed_twice<Z: TimeZone>(
        &self,
        newest: DateTime<Utc>,
        now: DateTime<Utc>,
        zone: &Z,
    ) -> Option<DateTime<Utc>> {
        self.past(now, zone).map(|[_, before_last]| before_last).filter(|before_last| newest < *before_last)
    }

    fn next_wall(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        // The crate is asked in UTC, which has no clock changes.
        let next = |clock: &cron::Schedule| clock.after(&after.and_utc()).next();
        self.clocks.iter().filter_map(next).min().map(|instant| instant.naive_utc())
    }
}

/// A question, if an expression leaves out hours or days but fires in most minutes of the others. `* 3 * * *`
/// fires in each minute from 3 to 4, and most people who write it mean "at 3". Nobody writes `*/2` by
/// mistake.
fn warning(fields: [&str; 5], minutes: &[u32], hours: &[u32]) -> Option<String> {
    if minutes.len() <= 30 {
        return None;
    }
    let [_, hour, days @ ..] = fields;
    let hour = if hours.len() == 24 { "0" } else { hour };
    let meant = format!("{} {hour} {}", minutes[0], days.join(" "));
    let fires = minutes.len() * hours.len();
    Some(format!("\"{}\" fires {fires} times a day; did you mean `{meant}`?", fields.join(" ")))
}

fn offset<Z: TimeZone>(zone: &Z, instant: NaiveDateTime) -> TimeDelta {
    let offset = zone.offset_from_utc_datetime(&instant).fix();
    TimeDelta::seconds(offset.local_minus_utc().into())
}

/// When a wall-clock time happens: once, or twice if the clock was set back. `before` and `behind` are the
/// offsets one day before and one day after it. In a gap, which has no such time, the offset before the gap
/// still counts.
fn instants<Z: TimeZone>(
    zone: &Z,
    wall: NaiveDateTime,
    before: TimeDelta,
    behind: TimeDelta,
) -> (NaiveDateTime, Option<NaiveDateTime>) {
    let holds = |assumed: TimeDelta| offset(zone, wall - assumed) == assumed;
    match (holds(before), holds(behind)) {
        (true, true) if before != behind => (wall - before.max(behind), Some(wall - before.min(behind))),
        (false, true) => (wall - behind, None),
        _ => (wall - before, None),
    }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
