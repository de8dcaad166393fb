//! Deleting what the retention policy lets go: by exact name, never the newest.

use std::fmt;

use anyhow::{bail, Result};
use chrono::Utc;
use log::{info, warn};

use crate::base::logging;
use crate::base::units;
use crate::commands::list;
use crate::config::Config;
use crate::s3::Client;
use crate::store::retention::{self, Decision};

/// How many backups were kept and deleted, and how many could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Still there by the policy's will.
    pub kept: usize,
    /// Gone.
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
pub fn plan(config: &Config, s3: &Client) -> Result<Vec<Decision>> {
    Ok(retention::plan(&list::backups(config, s3)?, config.retention, Utc::now()))
}

/// Deletes what `plan` lets go; a deletion that fails is logged and passed over.
pub fn carry_out(plan: &[Decision], s3: &Client) -> Pruned {
    let mut pruned = Pruned::default();
    for decision in plan {
        if decision.keep {
            pruned.kept += 1;
            continue;
        }
        match s3.delete_object(&decision.backup.key) {
            Ok(()) => {
                pruned.deleted += 1;
                info!("deleted {} ({})", s3.place(&decision.backup.key), decision.reason);
            }
            Err(error) => {
                pruned.failed += 1;
                warn!("could not delete an expired backup ({}): {error}", decision.reason);
            }
        }
    }
    pruned
}

/// Prunes after a backup that succeeded, and says how it went. The backup stays a success whatever
/// happens here: the next one prunes again.
pub fn after_backup(config: &Config, s3: &Client) -> String {
    match plan(config, s3) {
        Ok(plan) => carry_out(&plan, s3).to_string(),
        Err(failure) => {
            logging::failure("old backups were not pruned", &failure);
            "old backups not pruned".into()
        }
    }
}

/// The command: prints the plan (`dry_run`) or carries it out.
///
/// # Errors
/// Where the bucket cannot be listed, or a deletion failed.
pub fn command(config: &Config, s3: &Client, dry_run: bool) -> Result<()> {
    let plan = plan(config, s3)?;
    if !dry_run {
        let pruned = carry_out(&plan, s3);
        info!("pruned: {pruned}");
        if pruned.failed > 0 {
            bail!("{} could not be deleted", units::count(pruned.failed, "expired backup"));
        }
        return Ok(());
    }
    for Decision { backup, keep, reason, .. } in &plan {
        println!("{}  {}  ({reason})", if *keep { "keep  " } else { "delete" }, backup.key);
    }
    let deleted = plan.iter().filter(|decision| !decision.keep).count();
    println!(
        "{} would be kept, {deleted} deleted; nothing was done",
        units::count(plan.len() - deleted, "backup")
    );
    Ok(())
}
