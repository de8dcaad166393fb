//! What the daemon knows. It is for `pgkeep health`, which asks nobody else.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{json, Value};

use super::each::{self, Databases};
use super::record::Record;
use crate::base::logging::chain;
use crate::base::units;
use crate::jobs::Event;
use crate::store::Backup;

/// What the daemon knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When the daemon started.
    pub started: DateTime<Utc>,
    /// Its last sign of life.
    pub alive: DateTime<Utc>,
    /// The newest backup in the bucket.
    pub newest: Option<Newest>,
    /// The last failure of a backup, or of a look into the bucket.
    pub failure: Option<Failure>,
    /// When the running backup began.
    pub running_since: Option<DateTime<Utc>>,
    /// When the backup began during which an earlier daemon died, if no backup has ended since.
    pub broken_off: Option<DateTime<Utc>>,
    /// When the schedule fires next.
    pub next_fire: Option<DateTime<Utc>>,
    /// The last drill.
    pub drill: Option<Drill>,
    /// What has happened so far, in numbers.
    pub record: Record,
    /// What is known of each database, if there are several. Then the newest backup and the drill above are
    /// none, and the failure and the record are those of whole runs that could not begin.
    pub databases: Option<Databases>,
}

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// When it ended.
    pub time: DateTime<Utc>,
    /// What was restored, or why it could not be.
    pub result: Result<String, String>,
}

/// A backup that is in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newest {
    /// When its dump began.
    pub time: DateTime<Utc>,
    /// Its object's key.
    pub key: String,
}

/// What went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When it was noticed.
    pub time: DateTime<Utc>,
    /// The chain of causes.
    pub reason: String,
}

impl Failure {
    /// A failure that is noticed now.
    pub(super) fn now(failure: &anyhow::Error) -> Self {
        Failure { time: Utc::now(), reason: chain(failure) }
    }
}

impl Status {
    /// Updates the status after an event.
    pub fn hear(&mut self, event: &Event) {
        self.record.hear(event);
        match event {
            Event::BackupSucceeded { backup, .. } => {
                self.newest = Some(Newest::from(backup.clone()));
                (self.running_since, self.broken_off) = (None, None);
            }
            Event::BackupFailed { failure, .. } => {
                self.failure = Some(Failure::now(failure));
                (self.running_since, self.broken_off) = (None, None);
            }
            Event::DrillSucceeded { backup, took, counted, .. } => {
                let result = format!("{} restored in {}: {counted}", backup.key, units::duration(*took));
                self.drill = Some(Drill { time: Utc::now(), result: Ok(result) });
            }
            Event::DrillFailed { failure } => {
                self.drill = Some(Drill { time: Utc::now(), result: Err(chain(failure)) });
            }
            Event::BackupStarted { .. }
            | Event::Deleted { .. }
            | Event::PruneFailed { .. }
            | Event::PruneHeldBack { .. }
            | Event::DrillStarted { .. }
            | Event::DrillStopped
            | Event::RunStarted { .. }
            | Event::RunEnded { .. } => {}
            Event::RunFailed { failure, .. } => self.fail(event, failure),
        }
    }

    /// The status in a file. `None` if the file makes no sense.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        Some(Status {
            started: time(&value["started"])?,
            alive: time(&value["alive"])?,
            newest: newest(&value["last_success"]),
            failure: failure(&value["last_failure"]),
            running_since: time(&value["running_since"]),
            broken_off: time(&value["broken_off"]),
            next_fire: time(&value["next_fire"]),
            drill: drill(&value["last_drill"]),
            record: Record::parse(&value["record"]),
            databases: each::parse(&value["databases"]),
        })
    }

    /// The status as JSON, for the file.
    pub fn json(&self) -> Value {
        let mut json = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": show(self.started),
            "alive": show(self.alive),
            "last_success": self.newest.as_ref().map(newest_json),
            "last_failure": self.failure.as_ref().map(failure_json),
            "running_since": self.running_since.map(show),
            "broken_off": self.broken_off.map(show),
            "next_fire": self.next_fire.map(show),
            "last_drill": self.drill.as_ref().map(drill_json),
            "record": self.record.json(),
        });
        if let Some(databases) = &self.databases {
            json["databases"] = each::json(databases);
        }
        json
    }
}

pub(super) fn show(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn newest(value: &Value) -> Option<Newest> {
    Some(Newest { time: time(&value["time"])?, key: text(&value["key"])? })
}

pub(super) fn newest_json(of: &Newest) -> Value {
    json!({ "time": show(of.time), "key": of.key })
}

pub(super) fn failure(value: &Value) -> Option<Failure> {
    Some(Failure { time: time(&value["time"])?, reason: text(&value["reason"])? })
}

pub(super) fn failure_json(of: &Failure) -> Value {
    json!({ "time": show(of.time), "reason": of.reason })
}

pub(super) fn drill(value: &Value) -> Option<Drill> {
    let result = match text(&value["failure"]) {
        Some(failure) => Err(failure),
        None => Ok(text(&value["success"]).unwrap_or_default()),
    };
    Some(Drill { time: time(&value["time"])?, result })
}

pub(super) fn drill_json(of: &Drill) -> Value {
    json!({ "time": show(of.time), "success": of.result.as_ref().ok(), "failure": of.result.as_ref().err() })
}

pub(super) fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

impl From<Backup> for Newest {
    fn from(backup: Backup) -> Self {
        Newest { time: backup.time, key: backup.key }
    }
}
