//! What the daemon knows. It is for `pgkeep health`, which asks nobody else.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{json, Value};

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
            | Event::DrillStopped => {}
        }
    }

    /// The status in a file. `None` if the file makes no sense.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        let newest = &value["last_success"];
        let failure = &value["last_failure"];
        let drill = &value["last_drill"];
        Some(Status {
            started: time(&value["started"])?,
            alive: time(&value["alive"])?,
            newest: time(&newest["time"]).zip(text(&newest["key"])).map(|(time, key)| Newest { time, key }),
            failure: time(&failure["time"])
                .zip(text(&failure["reason"]))
                .map(|(time, reason)| Failure { time, reason }),
            running_since: time(&value["running_since"]),
            broken_off: time(&value["broken_off"]),
            next_fire: time(&value["next_fire"]),
            drill: time(&drill["time"]).map(|time| Drill {
                time,
                result: match text(&drill["failure"]) {
                    Some(failure) => Err(failure),
                    None => Ok(text(&drill["success"]).unwrap_or_default()),
                },
            }),
            record: Record::parse(&value["record"]),
        })
    }

    /// The status as JSON, for the file.
    pub fn json(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "started": show(self.started),
            "alive": show(self.alive),
            "last_success": self.newest.as_ref().map(|of| json!({ "time": show(of.time), "key": of.key })),
            "last_failure": self.failure.as_ref().map(|of| json!({ "time": show(of.time), "reason": of.reason })),
            "running_since": self.running_since.map(show),
            "broken_off": self.broken_off.map(show),
            "next_fire": self.next_fire.map(show),
            "last_drill": self.drill.as_ref().map(|of| json!({
                "time": show(of.time),
                "success": of.result.as_ref().ok(),
                "failure": of.result.as_ref().err(),
            })),
            "record": self.record.json(),
        })
    }
}

pub(super) fn show(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
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
