//! What the daemon knows of each of several databases.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{json, Value};

use super::record::Record;
use super::status::{self, Drill, Failure, Newest, Status};
use crate::base::units;
use crate::jobs::server::FoundOf;
use crate::jobs::{Event, Job};

/// A reason is not longer, so that the file stays small whatever the number of databases. The log has all.
const LONGEST_REASON: usize = 300;

/// What is known of each database, by its name.
pub type Databases = BTreeMap<String, One>;

/// What is known of one database: see the fields of [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct One {
    newest: Option<Newest>,
    failure: Option<Failure>,
    drill: Option<Drill>,
    record: Record,
}

impl Status {
    /// Updates the status after an event of a job, if there is one.
    pub fn hear_of(&mut self, job: Option<&Job>, event: &Event) {
        let Some((databases, job)) = self.databases.as_mut().zip(job) else { return self.hear(event) };
        match event {
            Event::RunStarted { databases: there } => {
                databases.retain(|name, _| there.contains(name) || !is_a_database(name));
                for name in there {
                    databases.entry(name.clone()).or_default();
                }
            }
            Event::RunEnded { .. } => {
                self.failure = None;
                (self.running_since, self.broken_off) = (None, None);
            }
            Event::RunFailed { .. } => self.hear(event),
            event => databases.entry(job.database.clone()).or_default().hear(event),
        }
    }

    /// A run could not begin: it has failed for each database.
    pub(super) fn fail(&mut self, event: &Event, failure: &anyhow::Error) {
        self.databases.iter_mut().flat_map(BTreeMap::values_mut).for_each(|one| one.record.hear(event));
        self.failure = Some(Failure::now(failure));
        (self.running_since, self.broken_off) = (None, None);
    }

    /// Whether the last thing that is known is a failure.
    pub fn has_failed(&self) -> bool {
        let newest = self.newest.as_ref().map(|newest| newest.time);
        self.failure.as_ref().is_some_and(|failure| newest.is_none_or(|newest| failure.time > newest))
    }

    /// Updates the status after a look into the bucket.
    pub(super) fn know(&mut self, found: FoundOf) {
        match &mut self.databases {
            None => {
                for of in found.into_values() {
                    self.record.see(&of);
                    self.newest = of.newest.map(Newest::from);
                }
            }
            Some(databases) => {
                databases.retain(|name, _| found.contains_key(name));
                for (name, of) in found {
                    let one = databases.entry(name).or_default();
                    one.record.see(&of);
                    one.newest = of.newest.map(Newest::from);
                }
            }
        }
    }

    /// The time that `BACKUP_ON_START` compares with. If there are several databases: of the one that needs a
    /// backup most, unless one was backed up so recently that even it has to wait.
    pub(super) fn newest_at_start(&self, is_recent: impl Fn(DateTime<Utc>) -> bool) -> Option<DateTime<Utc>> {
        let Some(databases) = &self.databases else { return self.newest.as_ref().map(|newest| newest.time) };
        let times = databases.values().map(|one| one.newest.as_ref().map(|newest| newest.time));
        let latest = times.clone().flatten().filter(|time| is_recent(*time)).max();
        latest.or_else(|| times.min().flatten())
    }

    /// The status of each database, as if it were the only one, with what is known of the whole.
    pub fn each(&self) -> BTreeMap<String, Status> {
        let of = |one: &One| Status {
            newest: one.newest.clone(),
            // A run that could not begin has failed for each of them.
            failure: [&self.failure, &one.failure]
                .into_iter()
                .flatten()
                .max_by_key(|failure| failure.time)
                .cloned(),
            drill: [&self.drill, &one.drill].into_iter().flatten().max_by_key(|drill| drill.time).cloned(),
            started: self.started,
            alive: self.alive,
            running_since: self.running_since,
            broken_off: self.broken_off,
            next_fire: self.next_fire,
            record: one.record.clone(),
            databases: None,
        };
        self.databases.iter().flatten().map(|(name, one)| (name.clone(), of(one))).collect()
    }
}

#[cfg(test)]
/// The databases of a test's status.
pub fn databases_of(value: &Value) -> Databases {
    parse(value).expect("databases")
}

/// Whether this is a database and not the globals.
fn is_a_database(name: &str) -> bool {
    name != crate::store::GLOBALS
}

impl One {
    fn hear(&mut self, event: &Event) {
        let mut whole = Status { failure: self.failure.take(), ..Status::default() };
        (whole.newest, whole.drill) = (self.newest.take(), self.drill.take());
        whole.record = std::mem::take(&mut self.record);
        whole.hear(event);
        self.record = whole.record;
        let short = |text: String| units::shortened(text, LONGEST_REASON);
        self.newest = whole.newest;
        self.failure = whole.failure.map(|Failure { time, reason }| Failure { time, reason: short(reason) });
        self.drill = whole
            .drill
            .map(|Drill { time, result }| Drill { time, result: result.map(short).map_err(short) });
    }
}

/// What a file says of each database.
pub(super) fn parse(value: &Value) -> Option<Databases> {
    let databases = value.as_object()?.iter();
    Some(
        databases
            .map(|(name, one)| {
                let newest = status::newest(&one["last_success"]);
                (
                    name.clone(),
                    One {
                        newest,
                        failure: status::failure(&one["last_failure"]),
                        drill: status::drill(&one["last_drill"]),
                        record: Record::parse(&one["record"]),
                    },
                )
            })
            .collect(),
    )
}

pub(super) fn json(databases: &Databases) -> Value {
    let of = |one: &One| {
        json!({
            "last_success": one.newest.as_ref().map(status::newest_json),
            "last_failure": one.failure.as_ref().map(status::failure_json),
            "last_drill": one.drill.as_ref().map(status::drill_json),
            "record": one.record.json(),
        })
    };
    databases.iter().map(|(name, one)| (name.clone(), of(one))).collect::<serde_json::Map<_, _>>().into()
}
