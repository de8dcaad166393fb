//! What has happened so far, in numbers: for the metrics and for `pgkeep status`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{json, Value};

use super::status::{show, time};
use crate::jobs::server::Found;
use crate::jobs::{Event, Step};

/// What has happened to one database's backups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the last backup ended, and whether it succeeded.
    pub attempt: Option<(DateTime<Utc>, bool)>,
    /// How long the last success took.
    pub took: Option<Duration>,
    /// The size of its dump, in bytes.
    pub dumped: Option<u64>,
    /// The size of the newest backup, in bytes.
    pub size: Option<u64>,
    /// How many backups succeeded.
    pub succeeded: u64,
    /// How many backups failed, by the step's name.
    pub failed: BTreeMap<String, u64>,
    /// The number of backups in the bucket, and their bytes.
    pub kept: Option<(u64, u64)>,
    /// When the last drill succeeded, and how long it took.
    pub drilled: Option<(DateTime<Utc>, Duration)>,
}

impl Record {
    /// Updates the record after an event.
    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::BackupSucceeded { backup, dumped, took, .. } => {
                self.attempt = Some((Utc::now(), true));
                (self.took, self.dumped, self.size) = (Some(*took), Some(*dumped), Some(backup.size));
                self.succeeded += 1;
                self.kept = self.kept.map(|(count, bytes)| (count + 1, bytes + backup.size));
            }
            Event::BackupFailed { step, .. } | Event::RunFailed { step, .. } => {
                self.attempt = Some((Utc::now(), false));
                *self.failed.entry(step.name().to_owned()).or_default() += 1;
            }
            Event::Deleted { decision, .. } => {
                let size = decision.backup.size;
                self.kept =
                    self.kept.map(|(count, bytes)| (count.saturating_sub(1), bytes.saturating_sub(size)));
            }
            Event::DrillSucceeded { took, .. } => self.drilled = Some((Utc::now(), *took)),
            Event::BackupStarted { .. }
            | Event::PruneFailed { .. }
            | Event::PruneHeldBack { .. }
            | Event::DrillStarted { .. }
            | Event::DrillFailed { .. }
            | Event::DrillStopped
            | Event::RunStarted { .. }
            | Event::RunEnded { .. } => {}
        }
    }

    /// Updates the record after a look into the bucket.
    pub(super) fn see(&mut self, found: &Found) {
        self.kept = Some((found.number, found.size));
        self.size = found.newest.as_ref().map(|newest| newest.size);
    }

    /// How many backups failed at this step.
    pub(super) fn failures(&self, step: Step) -> u64 {
        self.failed.get(step.name()).copied().unwrap_or_default()
    }

    /// The record in a file. What is not there is not known.
    pub(super) fn parse(value: &Value) -> Self {
        let length = |value: &Value| Duration::try_from_secs_f64(value.as_f64()?).ok();
        let (attempt, kept, drilled) =
            (&value["last_attempt"], &value["backups"], &value["last_drill_success"]);
        let failed = value["failed"].as_object().into_iter().flatten();
        Record {
            attempt: time(&attempt["time"]).zip(attempt["success"].as_bool()),
            took: length(&value["seconds"]),
            dumped: value["dumped_bytes"].as_u64(),
            size: value["bytes"].as_u64(),
            succeeded: value["succeeded"].as_u64().unwrap_or_default(),
            failed: failed.filter_map(|(step, number)| Some((step.clone(), number.as_u64()?))).collect(),
            kept: kept["number"].as_u64().zip(kept["bytes"].as_u64()),
            drilled: time(&drilled["time"]).zip(length(&drilled["seconds"])),
        }
    }

    /// The record as JSON, for the file.
    pub(super) fn json(&self) -> Value {
        json!({
            "last_attempt": self.attempt.map(|(time, success)| json!({ "time": show(time), "success": success })),
            "seconds": self.took.map(|took| took.as_secs_f64()),
            "dumped_bytes": self.dumped,
            "bytes": self.size,
            "succeeded": self.succeeded,
            "failed": self.failed,
            "backups": self.kept.map(|(number, bytes)| json!({ "number": number, "bytes": bytes })),
            "last_drill_success": self
                .drilled
                .map(|(time, took)| json!({ "time": show(time), "seconds": took.as_secs_f64() })),
        })
    }
}
