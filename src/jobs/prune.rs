//! Deletes what the retention policy does not keep: by exact name, never the newest backup, and nothing at
//! all if there is a doubt.

use std::fmt;

use anyhow::{Context, Result};
use chrono::{Local, Utc};
use log::warn;

use super::{Event, Job};
use crate::base::units;
use crate::s3::S3Error;
use crate::store::{self, Backup, Decision, Doubt, Fate};

const UNSEEN: &str = "cannot look at the newest backups";

/// What will happen to the backups.
#[derive(Debug)]
pub struct Plan {
    /// One decision for each backup, the oldest first.
    pub decisions: Vec<Decision>,
    /// Reasons to delete nothing, whatever the policy says.
    pub doubts: Vec<Doubt>,
    /// The warning about backups of the future, if there are any.
    pub warning: Option<String>,
}

impl Plan {
    /// Whether anything will be deleted.
    pub fn deletes(&self) -> bool {
        self.doubts.is_empty() && self.decisions.iter().any(|decision| decision.fate == Fate::Goes)
    }
}

/// How pruning ended.
#[derive(Debug)]
pub enum Pruning {
    /// What the policy does not keep is deleted.
    Done(Pruned),
    /// Nothing was deleted. There was an event for each doubt.
    HeldBack(Vec<Doubt>),
    /// The bucket could not be read. An event said why.
    Failed,
}

/// How many backups were kept, how many were deleted, and how many could not be deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Kept because the policy keeps them.
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

/// What is in the bucket, and what will happen to it.
pub fn plan(job: &Job) -> Result<Plan> {
    let backups = job.store.list().context("cannot list the backups")?;
    judge(job, &backups).context(UNSEEN)
}

/// What will happen to `backups`: all of this database's, the oldest first.
///
/// # Errors
/// S3 does not return what is needed to judge the doubts.
pub fn judge(job: &Job, backups: &[Backup]) -> Result<Plan, S3Error> {
    let plan = by_policy_alone(job, backups);
    let (past, _) = store::split_future(backups, Utc::now());
    // In this case nothing is ever deleted.
    if job.retention.rules.is_empty() || past.len() < 2 {
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

/// What would happen if there were no doubt.
pub fn by_policy_alone(job: &Job, backups: &[Backup]) -> Plan {
    let now = Utc::now();
    let (_, future) = store::split_future(backups, now);
    let decisions = store::plan(backups, &job.retention, &Local, now);
    Plan { decisions, doubts: Vec::new(), warning: store::warning(future) }
}

/// Deletes what `plan` does not keep. If a deletion fails, that is logged and the next one follows.
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

/// Prunes after `new` was made. The backup stays a success whatever happens here: the next backup prunes
/// again.
pub(super) fn after_backup(job: &Job, new: &Backup) -> Pruning {
    match list_with(job, new).and_then(|backups| judge(job, &backups).context(UNSEEN)) {
        Ok(plan) => carry_out(plan, job),
        Err(failure) => {
            job.tell(&Event::PruneFailed { failure });
            Pruning::Failed
        }
    }
}

/// The backups including `new`, because a store may list it late, and the doubts are about the newest one.
fn list_with(job: &Job, new: &Backup) -> Result<Vec<Backup>> {
    let mut backups = job.store.list().context("cannot list the backups")?;
    if backups.iter().all(|backup| backup.key != new.key) {
        backups.push(new.clone());
        backups.sort_by_key(|backup| backup.time);
    }
    Ok(backups)
}
