//! The status file: what the daemon knows, for `pgkeep health`, which asks nobody else.
//!
//! It lies beside the spool, is written whole or not at all, and only its owner can read it.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use log::warn;
use serde_json::{json, Value};

use crate::base::logging::chain;
use crate::base::units;
use crate::jobs::Event;
use crate::store::{self, Backup};

/// The daemon gives a sign of life at least this often.
pub const BEAT: Duration = Duration::from_secs(60);

/// What the daemon knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When the daemon started.
    pub started: DateTime<Utc>,
    /// Its last sign of life.
    pub alive: DateTime<Utc>,
    /// The newest backup in the bucket.
    pub newest: Option<Newest>,
    /// The last failure, of a backup or of a look into the bucket.
    pub failure: Option<Failure>,
    /// When the backup began that is running.
    pub running_since: Option<DateTime<Utc>>,
    /// When the backup began that an earlier daemon died in, if none has ended since.
    pub broken_off: Option<DateTime<Utc>>,
    /// When the schedule fires next.
    pub next_fire: Option<DateTime<Utc>>,
    /// The last drill.
    pub drill: Option<Drill>,
}

/// How a drill ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drill {
    /// When.
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
    /// Noticed now.
    pub(super) fn now(failure: &anyhow::Error) -> Self {
        Failure { time: Utc::now(), reason: chain(failure) }
    }
}

impl Status {
    /// Where the status of a database's daemon is.
    pub fn path(directory: &Path, database: &str) -> PathBuf {
        directory.join(format!("pgkeep-{}.status.json", store::escape(database)))
    }

    /// Takes note of an event.
    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::BackupSucceeded { backup, .. } => {
                self.newest = Some(Newest::from(backup.clone()));
                (self.running_since, self.broken_off) = (None, None);
            }
            Event::BackupFailed { failure } => {
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
            | Event::DrillStarted { .. }
            | Event::DrillStopped => {}
        }
    }

    /// Reads the file; `None` where there is none, or none that makes sense.
    pub fn read(path: &Path) -> Option<Self> {
        let value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
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
        })
    }

    fn json(&self) -> Value {
        let show = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
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
        })
    }

    /// Through a second file and a rename, so that no reader sees half of it.
    fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        // Made anew, so that in a directory of everybody's nobody else's file or link is written to.
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        // A umask takes away, also from the owner.
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(format!("{:#}\n", self.json()).as_bytes())?;
        fs::rename(&new, path)
    }
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The daemon's own status and its file. Clones share them.
#[derive(Clone)]
pub struct StatusFile {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    status: Mutex<Status>,
}

impl StatusFile {
    /// Begins with `status`.
    ///
    /// # Errors
    /// Where the file cannot be written, which is where no spool could be made either.
    pub fn create(path: PathBuf, status: Status) -> anyhow::Result<Self> {
        status.write(&path).with_context(|| {
            format!("cannot write {}: does BACKUP_TEMP_DIR name a directory for pgkeep?", path.display())
        })?;
        Ok(StatusFile { shared: Arc::new(Shared { path, status: Mutex::new(status) }) })
    }

    /// When the newest backup in the bucket was made.
    pub fn newest(&self) -> Option<DateTime<Utc>> {
        self.lock().newest.as_ref().map(|newest| newest.time)
    }

    /// Changes the status, gives a sign of life, and writes the file. That it cannot be written is logged
    /// and goes no further: `pgkeep health` then misses the signs of life.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.lock();
        change(&mut status);
        status.alive = Utc::now();
        if let Err(problem) = status.write(&self.shared.path) {
            warn!("cannot write the status file {}: {problem}", self.shared.path.display());
        }
    }

    /// Gives signs of life until the answer is dropped, for the time that a backup keeps the loop busy.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn beat(&self) -> anyhow::Result<mpsc::Sender<()>> {
        let (busy, done) = mpsc::channel::<()>();
        let keeper = self.clone();
        thread::Builder::new().name("status".into()).spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = done.recv_timeout(BEAT) {
                keeper.update(|_| {});
            }
        })?;
        Ok(busy)
    }

    /// The status is whole after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Backup> for Newest {
    fn from(backup: Backup) -> Self {
        Newest { time: backup.time, key: backup.key }
    }
}

impl Drop for Shared {
    /// An orderly end: the daemon is not there any more.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        let at = |second: i64| DateTime::from_timestamp(1_795_000_000 + second, 0).unwrap();
        let full = Status {
            started: at(0),
            alive: at(1),
            newest: Some(Newest { time: at(2), key: "a/a_2026".into() }),
            failure: Some(Failure { time: at(3), reason: "psql failed:\n\"no\"".into() }),
            running_since: Some(at(4)),
            broken_off: Some(at(5)),
            next_fire: Some(at(6)),
            drill: Some(Drill { time: at(7), result: Ok("2 tables".into()) }),
        };
        let failed = Drill { time: at(8), result: Err("no".into()) };
        let drilled = Status { drill: Some(failed), ..full.clone() };
        for status in [full, drilled, Status::default()] {
            status.write(&path).unwrap();
            assert_eq!(Status::read(&path), Some(status));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "the second file is gone");
        fs::write(&path, "{").unwrap();
        assert_eq!(Status::read(&path), None);
    }

    #[test]
    fn an_orderly_end_takes_the_file_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.json");
        let keeper = StatusFile::create(path.clone(), Status::default()).unwrap();
        keeper.update(|status| status.next_fire = Some(Utc::now()));
        assert!(Status::read(&path).unwrap().alive > DateTime::UNIX_EPOCH);
        drop(keeper);
        assert!(!path.exists());
    }
}
