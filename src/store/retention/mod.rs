//! Which backups to keep, and why. This code is pure: listing and deleting happen elsewhere.

mod policy;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

pub use self::policy::{Policy, Rule};
use super::clock::is_future;
use super::Backup;
use crate::base::units;

/// What happens to one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The backup that the decision is about.
    pub backup: Backup,
    /// What happens to it.
    pub fate: Fate,
    /// Why, for the log.
    pub reason: String,
    /// The rules that keep it.
    pub kept_by: Vec<Keeper>,
    /// After this time the policy does not keep it any more, unless it is the newest then. `None` if the time
    /// is not known: then it depends on the next backups.
    pub expires: Option<DateTime<Utc>>,
}

/// A rule that keeps a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The rule.
    pub rule: Rule,
    /// How long it keeps the backup, if that is known. What counts backups knows no time.
    pub until: Option<DateTime<Utc>>,
}

/// What happens to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The policy keeps it.
    Kept,
    /// The policy does not keep it, but a doubt does.
    HeldBack,
    /// It will be deleted.
    Goes,
}

impl Decision {
    /// What the policy will do with the backup, and when. `pgkeep list` shows this.
    pub fn verdict(&self) -> String {
        match (self.fate, self.expires) {
            (Fate::Goes, _) => "goes with the next backup".to_owned(),
            (Fate::HeldBack, _) => "expired, and held back".to_owned(),
            (Fate::Kept, Some(time)) => format!("expires {}", minute(time)),
            (Fate::Kept, None) => format!("kept: {}", self.reason),
        }
    }

    /// The same decision if nothing may be deleted.
    pub fn held_back(self) -> Self {
        let fate = if self.fate == Fate::Goes { Fate::HeldBack } else { self.fate };
        Decision { fate, ..self }
    }
}

/// Decides about `backups` (in any order); `zone` says when days and weeks begin. The result goes from the
/// oldest to the newest: if deleting stops halfway, the newer ones are still there.
///
/// A backup stays if any rule keeps it. Its age counts from the time in its name. The newest is kept however
/// old it is: if backups begin to fail, the last good one stays. A backup of the future is kept, but does not
/// count: neither as the newest nor among those that a rule keeps.
///
/// What no rule keeps now, no rule will keep later: newer backups only push it further back. So it does not
/// matter how often somebody prunes.
pub fn plan<Z: TimeZone>(backups: &[Backup], policy: &Policy, zone: &Z, now: DateTime<Utc>) -> Vec<Decision> {
    let mut sorted = backups.to_vec();
    sorted.sort_by(|a, b| (b.time, &b.key).cmp(&(a.time, &a.key)));
    let (future, past): (Vec<Backup>, Vec<Backup>) =
        sorted.into_iter().partition(|backup| is_future(backup.time, now));
    let times: Vec<DateTime<Utc>> = past.iter().map(|backup| backup.time).collect();
    let newest = times.first().copied();
    let counted = past.into_iter().zip(policy.counted(&times, zone));
    let decided = counted.map(|(backup, rules)| decide(backup, rules, policy, newest, now));
    let of_the_future = future.into_iter().map(|backup| {
        let reason = "named by a time in the future".to_owned();
        Decision { backup, fate: Fate::Kept, reason, kept_by: Vec::new(), expires: None }
    });
    let mut decisions: Vec<Decision> = of_the_future.chain(decided).collect();
    decisions.reverse();
    decisions
}

/// Decides about a backup that the rules `counts` keep by counting.
fn decide(
    backup: Backup,
    counts: Vec<Rule>,
    policy: &Policy,
    newest: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Decision {
    let age = units::duration((now - backup.time).to_std().unwrap_or_default());
    // None in the second place: this is later than any calendar goes.
    let days = policy.days().map(|days| (days, backup.time.checked_add_signed(TimeDelta::days(days.into()))));
    let young = days.filter(|(_, end)| end.is_none_or(|end| now <= end));
    let mut kept_by: Vec<Keeper> = counts.iter().map(|rule| Keeper { rule: *rule, until: None }).collect();
    kept_by.extend(young.map(|(_, until)| Keeper { rule: Rule::Days, until }));

    let is_newest = Some(backup.time) == newest;
    let mut words: Vec<String> = counts.iter().map(|rule| rule.name().to_owned()).collect();
    let reason = if is_newest {
        words.insert(0, "the newest".to_owned());
        words.join(", ")
    } else if !counts.is_empty() {
        words.extend(young.and_then(|(_, end)| end).map(|end| format!("days until {}", minute(end))));
        words.join(", ")
    } else if policy.rules.is_empty() {
        "no retention is set".to_owned()
    } else {
        match days {
            Some((days, _)) if young.is_some() || policy.counts().next().is_none() => {
                format!("{age} old, kept for {days} d")
            }
            _ => format!("{age} old, kept by no rule"),
        }
    };
    let kept = is_newest || policy.rules.is_empty() || !kept_by.is_empty();
    let expires = days.and_then(|(_, end)| end).filter(|_| !is_newest && counts.is_empty());
    let fate = if kept { Fate::Kept } else { Fate::Goes };
    Decision { backup, fate, reason, kept_by, expires }
}

fn minute(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d %H:%M")
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
