//! Deleting what the retention policy lets go: by exact name, never the newest.

use std::fmt;

use anyhow::{Context, Result};
use chrono::Utc;
use log::warn;

use super::{Event, Job};
use crate::base::units;
use crate::store::{self, Decision};

/// How many backups were kept and deleted, and how many could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Kept, as the policy wants it.
    pub kept: usize,
    /// Deleted.
    pub deleted: usize,
    /// Still there because S3 refused to delete them.
    pub failed: usize,
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kept, {} deleted", units::count(self.kept, "backup"), self.deleted)?;
        if self.failed > 0 {
            write!(f, ", {} could not be deleted", self.failed)?;
        }
        Ok(())
    }
}

/// What is in the bucket, and what becomes of it.
///
/// # Errors
/// Where the bucket cannot be listed.
pub fn plan(job: &Job) -> Result<Vec<Decision>> {
    let backups = job.store.list().context("cannot list the backups")?;
    Ok(store::plan(&backups, job.retention, Utc::now()))
}

/// Deletes what `plan` lets go. A deletion that fails is logged and passed over.
pub fn carry_out(plan: Vec<Decision>, job: &Job) -> Pruned {
    let mut pruned = Pruned::default();
    for decision in plan {
        if decision.keep {
            pruned.kept += 1;
            continue;
        }
        match job.store.client.delete_object(&decision.backup.key) {
            Ok(()) => {
                pruned.deleted += 1;
                let place = job.store.place(&decision.backup);
                job.tell(&Event::Deleted { decision, place });
            }
            Err(error) => {
                pruned.failed += 1;
                warn!("could not delete an expired backup ({}): {error}", decision.reason);
            }
        }
    }
    pruned
}

/// Prunes after a backup that succeeded; `None` if the bucket could not be listed. The backup stays a success whatever
/// happens here: the next one prunes again.
pub(super) fn after_backup(job: &Job) -> Option<Pruned> {
    match plan(job) {
        Ok(plan) => Some(carry_out(plan, job)),
        Err(failure) => {
            job.tell(&Event::PruneFailed { failure });
            None
        }
    }
}
