//! `pgkeep backup`: one backup, now.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::warn;

use super::{no_options, Command, Outcome, Row};
use crate::config::Config;
use crate::daemon::{metrics, Status};
use crate::jobs::server::Source;
use crate::store::GLOBALS;

pub(super) const ROW: Row = Row {
    name: "backup",
    options: "",
    summary: "back up once, now, and prune",
    details: "
For a script or a Kubernetes CronJob. BACKUP_INTERVAL is not needed.
",
    parse: |parser| no_options(parser, Command::Backup),
};

pub(super) fn command(config: &Config, mut source: Source) -> Outcome {
    let databases = source.several.as_ref().map(|several| {
        // The server's databases are known when the run begins.
        several.globals.then(|| (GLOBALS.to_owned(), Default::default())).into_iter().collect()
    });
    let status = Arc::new(Mutex::new(Status { databases, ..Status::default() }));
    let hearing = Arc::clone(&status);
    source.job.listeners.push(Arc::new(move |job, event| lock(&hearing).hear_of(job, event)));
    let made = source.run();
    if let Some(path) = config.metrics_file() {
        // The backup is what it is.
        if let Err(problem) = metrics::write(path, &source.job.database, &lock(&status)) {
            warn!("cannot write the metrics to {}: {problem}", path.display());
        }
    }
    Outcome::of(made)
}

/// The status is whole after every statement, so a panic elsewhere does not damage it.
fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
