//! The rules of a retention policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Datelike, Days, NaiveDate, Offset, TimeDelta, TimeZone, Timelike, Utc};

use crate::base::units;

/// Which backups are kept: each one that a rule keeps. Without a rule, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules, each with its number.
    pub rules: BTreeMap<Rule, u32>,
}

/// A rule of a policy. Its number says how many it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every backup, for so many days of 24 hours.
    Days,
    /// The newest so many.
    Last,
    /// The newest of each of the last so many hours that have a backup.
    Hourly,
    /// The same with days of the calendar.
    Daily,
    /// The same with weeks from Monday to Sunday (ISO 8601).
    Weekly,
    /// The same with months.
    Monthly,
    /// The same with years.
    Yearly,
}

/// An hour, a day, a week and so on: its first day, and for an hour the time and the offset from UTC. An hour
/// that comes twice, because the clock is set back, is two hours.
type Period = (NaiveDate, u32, i32);

impl Rule {
    /// The rule's name for people and scripts.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Days => "days",
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        }
    }

    /// Chooses the backups that the rule keeps, of `times` from the newest to the oldest. Periods without a
    /// backup do not count, as in restic and Borg: after a pause of a month, the last seven days that have
    /// backups are still there. `None` if the rule does not count.
    fn chosen<Z: TimeZone>(self, number: u32, times: &[DateTime<Utc>], zone: &Z) -> Option<Vec<bool>> {
        let period: fn(&DateTime<Z>) -> Period = match self {
            Rule::Days => return None,
            Rule::Last => return Some((0..times.len()).map(|at| at < number as usize).collect()),
            Rule::Hourly => |at| (at.date_naive(), at.hour(), at.offset().fix().local_minus_utc()),
            Rule::Daily => |at| (at.date_naive(), 0, 0),
            Rule::Weekly => |at| {
                let monday = Days::new(at.weekday().num_days_from_monday().into());
                (at.date_naive() - monday, 0, 0)
            },
            Rule::Monthly => |at| (at.date_naive() - Days::new(at.day0().into()), 0, 0),
            Rule::Yearly => |at| (at.date_naive() - Days::new(at.ordinal0().into()), 0, 0),
        };
        // A set, because a clock that is set back over midnight makes a day come twice.
        let mut seen = BTreeSet::new();
        let choose = |time: &DateTime<Utc>| {
            seen.len() < number as usize && seen.insert(period(&time.with_timezone(zone)))
        };
        Some(times.iter().map(choose).collect())
    }
}

impl Policy {
    /// The number of days, if the policy has one.
    pub fn days(&self) -> Option<u32> {
        self.rules.get(&Rule::Days).copied()
    }

    /// The rules that count backups.
    pub fn counts(&self) -> impl Iterator<Item = (Rule, u32)> + '_ {
        self.rules.iter().map(|(rule, number)| (*rule, *number)).filter(|(rule, _)| *rule != Rule::Days)
    }

    /// For each of `times`, from the newest to the oldest: the rules that count it among those to keep.
    pub fn counted<Z: TimeZone>(&self, times: &[DateTime<Utc>], zone: &Z) -> Vec<Vec<Rule>> {
        let mut keepers = vec![Vec::new(); times.len()];
        for (rule, number) in self.counts() {
            for (keepers, kept) in
                keepers.iter_mut().zip(rule.chosen(number, times, zone).unwrap_or_default())
            {
                keepers.extend(kept.then_some(rule));
            }
        }
        keepers
    }

    /// A warning, if the policy never keeps more than the newest backup. `fires` are the next fire times.
    pub fn warning(&self, fires: &[DateTime<Utc>]) -> Option<String> {
        if self.counts().any(|(_, number)| number > 1) {
            return None;
        }
        let Some(days) = self.days() else {
            let counts: Vec<String> = self
                .counts()
                .map(|(rule, _)| format!("BACKUP_KEEP_{}=1", rule.name().to_uppercase()))
                .collect();
            return (!counts.is_empty())
                .then(|| format!("{}: only the newest is ever kept", counts.join(" and ")));
        };
        let distance = fires.windows(2).map(|pair| pair[1] - pair[0]).max()?;
        (TimeDelta::days(days.into()) < distance).then(|| {
            format!(
                "BACKUP_RETENTION_DAYS={days} is shorter than the {} between two backups: only the newest is ever kept",
                units::duration(distance.to_std().unwrap_or_default())
            )
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self
            .counts()
            .map(|(rule, number)| match rule {
                Rule::Last => format!("the last {number}"),
                _ => format!("{number} {}", rule.name()),
            })
            .collect();
        match (self.days(), counts.is_empty()) {
            (None, true) => f.write_str("every backup is kept"),
            (Some(days), true) => write!(f, "backups are kept for {days} d"),
            (None, false) => write!(f, "backups that are kept: {}", counts.join(", ")),
            (Some(days), false) => {
                write!(f, "backups that are kept: all for {days} d, {}", counts.join(", "))
            }
        }
    }
}
