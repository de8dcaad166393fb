//! Why an expression is refused, and what to write instead.
//!
//! Expressions are copied from other schedulers, which have their own dialects. Each rule below knows one
//! thing that crontab(5) lacks, and how to write the expression without it. The rules are applied one after
//! the other: `CRON_TZ=UTC 0 0 3 ? * *` needs three of them. Users copy the text between backticks in a
//! refusal, so all of it can be parsed.

use crate::schedule::fields::{five, KINDS, MINUTE, WEEKDAY};
use crate::schedule::periods::{self, EVERY_DAY};
use crate::schedule::{Schedule, ALIASES};

/// The positions of fields that some rules are about.
const DAY_AT: usize = 2;
const WEEKDAY_AT: usize = 4;
/// What to write for Jenkins' `H`: a minute at which not everybody starts something, at night, on the first
/// day.
const CHOSEN: [&str; 5] = ["17", "3", "1", "1", "0"];

/// What one rule found.
struct Finding {
    /// What is wrong.
    wrong: String,
    /// The expression without it; `None` if `wrong` already says what to do.
    instead: Option<String>,
}

type Rule = fn(&str) -> Option<Finding>;

/// Every change removes what its rule looks for, so applying the rules ends.
const RULES: [Rule; 12] = [
    time_zone,
    reboot,
    every,
    alias_without_at,
    more_than_five_fields,
    question_mark,
    jenkins_hash,
    last_day,
    working_day,
    weekday_of_month,
    step_behind_a_number,
    step_too_large,
];

/// The sentence for an `expression` that [`Schedule::read`] refused with `problem`.
pub fn explain(expression: &str, problem: String) -> String {
    let mut text = expression.to_owned();
    let mut problem = problem;
    let mut wrongs = Vec::new();
    while let Some(found) = RULES.iter().find_map(|rule| rule(&text)) {
        wrongs.push(found.wrong);
        let Some(instead) = found.instead else { return wrongs.join("; ") };
        text = instead;
        match Schedule::read(&text) {
            Ok(_) => return format!("{}: write `{text}`", wrongs.join("; ")),
            Err(next) => problem = next,
        }
    }
    wrongs.push(problem);
    wrongs.join("; ")
}

fn rewrite(wrong: impl Into<String>, instead: String) -> Option<Finding> {
    Some(Finding { wrong: wrong.into(), instead: Some(instead) })
}

fn say(wrong: String) -> Option<Finding> {
    Some(Finding { wrong, instead: None })
}

/// `CRON_TZ=Europe/Berlin 0 3 * * *`: Go's cron library.
fn time_zone(text: &str) -> Option<Finding> {
    let rest = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="))?;
    let (zone, rest) = rest.split_once(|c: char| c.is_ascii_whitespace()).unwrap_or((rest, ""));
    rewrite(format!("a time zone belongs in the variable TZ, as TZ={zone}"), rest.trim().to_owned())
}

fn reboot(text: &str) -> Option<Finding> {
    let sentence =
        "@reboot is not a time; BACKUP_ON_START=true backs up at the start, beside a time such as `0 3 * * *`";
    text.eq_ignore_ascii_case("@reboot").then(|| Finding { wrong: sentence.to_owned(), instead: None })
}

/// `@every 6h`, as Go's cron library has it, or `6h` alone.
fn every(text: &str) -> Option<Finding> {
    let length = text.strip_prefix("@every").map(str::trim);
    match (length, periods::seconds(length.unwrap_or(text))) {
        (_, Some(seconds)) => {
            let offer = periods::nearest(length.unwrap_or(text), seconds, "0", EVERY_DAY);
            say(format!("crontab(5) names times, not lengths of time; {offer}"))
        }
        (Some(_), None) => {
            say("@every needs a length of time such as 6h, and `0 */6 * * *` fires every 6 hours".to_owned())
        }
        (None, None) => None,
    }
}

fn alias_without_at(text: &str) -> Option<Finding> {
    let (alias, _) = ALIASES.iter().find(|(alias, _)| alias[1..].eq_ignore_ascii_case(text))?;
    rewrite("a name begins with @", (*alias).to_owned())
}

/// Seconds in front (Quartz, Spring, the crate `cron`), a year at the end (AWS), or both (Quartz).
fn more_than_five_fields(text: &str) -> Option<Finding> {
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    let is_year = |field: &str| field.len() >= 4 && field.bytes().take(4).all(|byte| byte.is_ascii_digit());
    let (five, surplus) = match fields[..] {
        // Only a day may be `?`, so these are the days.
        [_, _, "?", _, _, _] | [_, _, _, _, "?", _] => (&fields[..5], "years"),
        [.., last] if fields.len() == 6 && is_year(last) => (&fields[..5], "years"),
        [_, _, _, _, _, _] => (&fields[1..], "seconds"),
        [_, _, _, _, _, _, _] => (&fields[1..6], "seconds or years"),
        _ => return None,
    };
    let mut five = five.to_vec();
    let weekday = five[WEEKDAY_AT];
    // The user or command in a line of a crontab is not a day of the week.
    if WEEKDAY.parse(weekday).is_err() && !weekday.contains(['?', 'L', '#', '/']) {
        return None;
    }
    let mut wrong = format!("crontab(5) has no field for {surplus}");
    if weekday.split(',').any(|item| item.starts_with(|c: char| c.is_ascii_digit())) {
        wrong += ", and counts days of the week from Sunday = 0 (Quartz from Sunday = 1)";
    }
    let restricted = |field: &str| !field.starts_with(['*', '?']);
    if restricted(five[DAY_AT]) && restricted(weekday) {
        // Schedulers with seconds want both to match.
        wrong += ", and fires if either day matches, so keep the day of week alone";
        five[DAY_AT] = "*";
    }
    rewrite(wrong, five.join(" "))
}

fn question_mark(text: &str) -> Option<Finding> {
    let instead = change_items(text, |_, item| (item == "?").then(|| "*".to_owned()))?;
    rewrite("\"?\" is \"*\" in crontab(5)", instead)
}

/// Jenkins: `H`, `H/15`, `H(0-7)`, `H(0-29)/10`.
fn jenkins_hash(text: &str) -> Option<Finding> {
    let instead = change_items(text, |position, item| {
        let rest = item.strip_prefix('H')?;
        match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            Some((range, "")) => range.split_once('-').map(|(first, _)| first.to_owned()),
            Some((range, step)) => Some(format!("{range}{step}")),
            None if rest.is_empty() => Some(CHOSEN[position].to_owned()),
            None => rest.starts_with('/').then(|| format!("*{rest}")),
        }
    })?;
    rewrite("crontab(5) has no H, for which Jenkins chooses a number", instead)
}

/// Quartz: `L`, `LW` and `L-3` as the day of month.
fn last_day(text: &str) -> Option<Finding> {
    let instead = change_items(text, |position, item| {
        (position == DAY_AT && item.starts_with('L')).then(|| "28".to_owned())
    })?;
    rewrite(
        "crontab(5) has no L for the last day of a month, and 28 is the last that every month has",
        instead,
    )
}

/// Quartz: `15W` as the day of month.
fn working_day(text: &str) -> Option<Finding> {
    let instead = change_items(text, |position, item| {
        item.strip_suffix('W').filter(|_| position == DAY_AT).map(str::to_owned)
    })?;
    rewrite("crontab(5) has no W for the nearest working day, only the day itself", instead)
}

/// Quartz: `FRI#2` and `FRIL` as the day of week; `L` alone is Saturday.
fn weekday_of_month(text: &str) -> Option<Finding> {
    let instead = change_items(text, |position, item| {
        let day = item.split_once('#').map(|(day, _)| day).or_else(|| item.strip_suffix('L'))?;
        let day = if day.is_empty() { "SAT" } else { day };
        (position == WEEKDAY_AT).then(|| day.to_owned())
    })?;
    rewrite("crontab(5) has no # or L for one certain weekday of a month, only every such weekday", instead)
}

/// Quartz: `5/15` means every 15, beginning at 5.
fn step_behind_a_number(text: &str) -> Option<Finding> {
    let instead = change_items(text, |position, item| {
        let (first, step) = item.split_once('/')?;
        let kind = &KINDS[position];
        let number = kind.number(item, first).ok()?;
        let whole = number == kind.first;
        Some(if whole { format!("*/{step}") } else { format!("{first}-{}/{step}", kind.last) })
    })?;
    rewrite("in crontab(5), * or a range stands before a step", instead)
}

fn step_too_large(text: &str) -> Option<Finding> {
    let fields = five(text)?;
    let (at, wrong) = (0..5).find_map(|at| Some((at, KINDS[at].parse(fields[at]).err()?)))?;
    let (kind, field) = (&KINDS[at], fields[at]);
    // Each item alone can be read, so the list was refused because of a step.
    if field.split(',').any(|item| kind.item(field, item).is_err()) {
        return None;
    }
    let [minute, hour, days @ ..] = fields;
    let days = days.join(" ");
    let step = field.strip_prefix("*/").and_then(|step| step.parse::<u64>().ok());
    match (at, step) {
        (0, Some(step)) if hour == "*" && Schedule::read(&format!("0 0 {days}")).is_ok() => {
            let offer = periods::nearest(&format!("{step} minutes"), step * 60, "0", &days);
            say(format!("{wrong}; {offer}"))
        }
        (1, Some(step)) if days == EVERY_DAY => {
            let minute = if MINUTE.number(minute, minute).is_ok() { minute } else { "0" };
            let offer = periods::nearest(&format!("{step} hours"), step * 3600, minute, &days);
            say(format!("{wrong}; {offer}"))
        }
        _ => {
            let only_number = |position: usize, text: &str| {
                let item = kind.item(field, text).ok().filter(|item| item.step_is_too_large());
                item.filter(|_| position == at).map(|item| item.first.to_string())
            };
            rewrite(wrong, change_items(text, only_number)?)
        }
    }
}

/// The expression with `change(position, item)` in place of each item that has a change. `None` if no item
/// has one.
fn change_items(text: &str, change: impl Fn(usize, &str) -> Option<String>) -> Option<String> {
    let field = |(position, field): (usize, &str)| {
        let items = field.split(',').map(|item| change(position, item).unwrap_or_else(|| item.to_owned()));
        items.collect::<Vec<_>>().join(",")
    };
    let fields = five(text)?;
    let changed: Vec<String> = fields.into_iter().enumerate().map(field).collect();
    (changed != fields).then(|| changed.join(" "))
}

#[cfg(test)]
mod tests;
