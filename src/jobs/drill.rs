//! The drill: restores the newest backup into a new database on a server for drills, counts its rows, and
//! drops it. Nothing else shows whether a restore will work when it is needed, and how long it takes.

use std::time::Instant;

use anyhow::{Context, Result};
use log::warn;

use super::restore::{roles, summary, Recorded, Restore, Selection, Whole};
use super::{leftovers, survive, Event, Job};
use crate::base::logging;
use crate::postgres::DRILL;

/// Restores the backup that `which` means, and drops the database again. Returns whether that was possible;
/// if not, an [`Event`] says why. A stop ends the drill.
pub fn run(job: &Job, which: &str) -> bool {
    let job = job.impatient();
    match survive(|| attempt(&job, which)) {
        Ok(()) => true,
        Err(_) if job.shutdown.requested() => {
            job.tell(&Event::DrillStopped);
            false
        }
        Err(failure) => {
            job.tell(&Event::DrillFailed { failure });
            false
        }
    }
}

fn attempt(job: &Job, which: &str) -> Result<()> {
    let connection = job.drill.as_ref().context(
        "BACKUP_DRILL_CONNECTION_STRING is missing: the server to restore to, for example \
         postgresql://user:password@host:5432 (the source server too has to be named)",
    )?;
    let started = Instant::now();
    let backup = job.store.find(which)?.backup;
    job.identity_for(&backup)?;
    let databases = job.databases(connection, None)?;
    leftovers::drop_dead_drills(&databases);
    let name = format!("{DRILL}_{:08x}", fastrand::u32(..));
    let place = job.store.place(&backup);
    job.tell(&Event::DrillStarted {
        backup: backup.clone(),
        place: place.clone(),
        into: name.clone(),
        server: databases.server.clone(),
    });
    let selection = Selection::default();
    let recorded = Recorded::of(job, &backup)?;
    let properties = recorded.properties.clone();
    roles::provide(job, &databases, properties.as_ref(), false).context("the backup does not restore")?;
    let (databases, selection) = (&databases, &selection);
    let restore = Restore { job, databases, backup: &backup, selection, recorded, properties };
    let Whole { database, tables } = restore.whole(&name).context("the backup does not restore")?;
    let took = started.elapsed();
    // If the database cannot be dropped, that says nothing about the backup.
    if let Err(failure) = databases.unstoppable().drop(&database) {
        logging::failure(&format!("the drill's database \"{database}\" is still there"), &failure);
    }
    if tables.is_empty() {
        warn!("the drill restored no table: is \"{}\" the right database?", job.database);
    }
    job.tell(&Event::DrillSucceeded { place, backup, took, counted: summary(&tables) });
    Ok(())
}
