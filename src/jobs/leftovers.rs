//! Databases that drills and restores left behind: finds them, reports them, and drops them if they certainly
//! are a drill's.

use chrono::Utc;
use log::{debug, info, warn};

use super::Job;
use crate::postgres::{Databases, Leftover};

/// Warns about leftovers on the server that is backed up, and on the server for drills. If a server cannot be
/// asked, the work goes on. The first signal ends this.
pub fn warn(job: &Job) {
    let job = job.impatient();
    let source = job.clients().and_then(|clients| Leftover::all(&job.postgres(&clients), Utc::now()));
    let drill = job.drill.as_ref().map(|drill| job.databases(drill, None).and_then(|of| of.leftovers()));
    let mut all = Vec::new();
    for found in [Some(source), drill].into_iter().flatten() {
        match found {
            Ok(found) => add(found, &mut all),
            Err(failure) => debug!("{failure:#}"),
        }
    }
    for leftover in all {
        warn!("{leftover}");
    }
}

/// Adds what was found. Both servers may be the same.
pub fn add(found: Vec<Leftover>, all: &mut Vec<Leftover>) {
    for leftover in found {
        if !all.contains(&leftover) {
            all.push(leftover);
        }
    }
}

/// Drops the databases of drills that were killed.
pub fn drop_dead_drills(databases: &Databases) {
    let found = databases.leftovers().unwrap_or_else(|failure| {
        debug!("{failure:#}");
        Vec::new()
    });
    for Leftover { name, .. } in found.iter().filter(|leftover| leftover.may_be_dropped) {
        match databases.drop_unused(name) {
            Ok(()) => info!("dropped the database \"{name}\", which a drill left behind"),
            Err(failure) => {
                warn!("the database \"{name}\", which a drill left behind, is still there: {failure:#}")
            }
        }
    }
}
