//! `pgkeep backup`: one backup, now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::warn;

use super::{no_options, Command, Outcome, Row};
use crate::config::Config;
use crate::daemon::{metrics, Status};
use crate::jobs::{backup, Job};

pub(super) const ROW: Row = Row {
    name: "backup",
    options: "",
    summary: "back up once, now, and prune",
    details: "
For a script or a Kubernetes CronJob. BACKUP_INTERVAL is not needed.
",
    parse: |parser| no_options(parser, Command::Backup),
};

pub(super) fn command(config: &Config, mut job: Job) -> Outcome {
    let status = Arc::new(Mutex::new(Status::default()));
    let hearing = Arc::clone(&status);
    job.listeners.push(Arc::new(move |_, event| lock(&hearing).hear(event)));
    let made = backup::run(&job).is_some();
    if let Some(path) = config.metrics_file() {
        // The backup is what it is.
        if let Err(problem) = metrics::write(path, &job.database, &lock(&status)) {
            warn!("cannot write the metrics to {}: {problem}", path.display());
        }
    }
    Outcome::of(made)
}

/// The status is whole after every statement, so a panic elsewhere does not damage it.
fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
