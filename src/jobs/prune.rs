//! Deleting what the retention policy lets go: by exact name, never the newest, and nothing at all if there is a doubt.

use std::fmt;

use anyhow::{Context, Result};
use chrono::Utc;
use log::warn;

use super::{Event, Job};
use crate::base::units;
use crate::s3::S3Error;
use crate::store::{self, Backup, Decision, Doubt, Fate};

const UNSEEN: &str = "cannot look at the newest backups";

/// What is to become of the backups.
#[derive(Debug)]
pub struct Plan {
    /// A decision for each, the oldest first.
    pub decisions: Vec<Decision>,
    /// Why nothing is deleted, whatever the policy lets go.
    pub doubts: Vec<Doubt>,
    /// The warning about backups of the future, if there are any.
    pub warning: Option<String>,
}

/// How pruning ended.
#[derive(Debug)]
pub enum Pruning {
    /// What the policy let go is deleted.
    Done(Pruned),
    /// Nothing was deleted. An event told each doubt.
    HeldBack(Vec<Doubt>),
    /// The bucket could not be looked into. An event told why.
    Failed,
}

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

impl fmt::Display for Pruning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pruning::Done(pruned) => write!(f, "{pruned}"),
            Pruning::HeldBack(doubts) => {
                let what: Vec<String> = doubts.iter().map(Doubt::what).collect();
                write!(f, "pruning held back: {}", what.join(", and "))
            }
            Pruning::Failed => f.write_str("old backups not pruned"),
        }
    }
}

/// What is in the bucket, and what becomes of it.
///
/// # Errors
/// If the bucket cannot be looked into.
pub fn plan(job: &Job) -> Result<Plan> {
    let backups = job.store.list().context("cannot list the backups")?;
    judge(job, &backups).context(UNSEEN)
}

/// What becomes of `backups`, the oldest first: all of this database's.
///
/// # Errors
/// If S3 does not say what the doubts need.
pub fn judge(job: &Job, backups: &[Backup]) -> Result<Plan, S3Error> {
    let plan = by_policy_alone(job, backups);
    let (past, _) = store::split_future(backups, Utc::now());
    // Nothing is ever deleted then.
    if job.retention.days.is_none() || past.len() < 2 {
        return Ok(plan);
    }
    let seen = job.store.look_at_newest(past)?;
    let doubts = store::doubts(past, &seen, job.shrink_guard);
    let decisions = match doubts.is_empty() {
        true => plan.decisions,
        false => plan.decisions.into_iter().map(Decision::held_back).collect(),
    };
    Ok(Plan { decisions, doubts, ..plan })
}

/// What would become of them if there were no doubt.
pub fn by_policy_alone(job: &Job, backups: &[Backup]) -> Plan {
    let now = Utc::now();
    let (_, future) = store::split_future(backups, now);
    let decisions = store::plan(backups, job.retention, now);
    Plan { decisions, doubts: Vec::new(), warning: store::warning(future) }
}

/// Deletes what `plan` lets go. A deletion that fails is logged and passed over.
pub fn carry_out(plan: Plan, job: &Job) -> Pruning {
    if let Some(warning) = plan.warning {
        warn!("{warning}");
    }
    if !plan.doubts.is_empty() {
        for doubt in &plan.doubts {
            job.tell(&Event::PruneHeldBack { doubt: doubt.clone() });
        }
        return Pruning::HeldBack(plan.doubts);
    }
    let mut pruned = Pruned::default();
    for decision in plan.decisions {
        if decision.fate != Fate::Goes {
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
    Pruning::Done(pruned)
}

/// Prunes after `new` was made. It stays a success whatever happens here: the next one prunes again.
pub(super) fn after_backup(job: &Job, new: &Backup) -> Pruning {
    match list_with(job, new).and_then(|backups| judge(job, &backups).context(UNSEEN)) {
        Ok(plan) => carry_out(plan, job),
        Err(failure) => {
            job.tell(&Event::PruneFailed { failure });
            Pruning::Failed
        }
    }
}

/// The backups with `new`, which a store may list late: the doubts are about the newest.
fn list_with(job: &Job, new: &Backup) -> Result<Vec<Backup>> {
    let mut backups = job.store.list().context("cannot list the backups")?;
    if backups.iter().all(|backup| backup.key != new.key) {
        backups.push(new.clone());
        backups.sort_by_key(|backup| backup.time);
    }
    Ok(backups)
}
