//! `pgkeep prune`: delete what the retention lets go, or show it.

use anyhow::{bail, Result};
use lexopt::prelude::*;
use log::info;

use super::{output, said, unexpected, Command, Outcome, Row};
use crate::base::units;
use crate::jobs::{prune, Job};
use crate::store::Decision;

pub(super) const ROW: Row = Row {
    name: "prune",
    options: "[--dry-run]",
    summary: "delete the backups that BACKUP_RETENTION_DAYS lets go",
    details: "
  --dry-run   only print what would happen, and why

Only backups of this database are deleted, by exact name, and never the newest one.
",
    parse,
};

/// The options of `pgkeep prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only say what would happen.
    pub dry_run: bool,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("dry-run") => options.dry_run = true,
            other => return Err(unexpected(other)),
        }
    }
    Ok(Command::Prune(options))
}

pub(super) fn command(job: &Job, options: &Options) -> Result<Outcome> {
    let plan = prune::plan(job)?;
    if !options.dry_run {
        let pruned = prune::carry_out(plan, job);
        info!("pruned: {pruned}");
        if pruned.failed > 0 {
            bail!("{} could not be deleted", units::count(pruned.failed, "expired backup"));
        }
        return Ok(Outcome::Done);
    }
    for Decision { backup, keep, reason, .. } in &plan {
        output::line(format_args!(
            "{}  {}  ({reason})",
            if *keep { "keep  " } else { "delete" },
            backup.key
        ))?;
    }
    let deleted = plan.iter().filter(|decision| !decision.keep).count();
    let kept = units::count(plan.len() - deleted, "backup");
    output::line(format_args!("{kept} would be kept, {deleted} deleted; nothing was done"))?;
    Ok(Outcome::Done)
}
