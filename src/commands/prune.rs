//! `pgkeep prune`: deletes what the retention policy does not keep, or shows it.

use anyhow::{ensure, Result};
use lexopt::prelude::*;
use log::info;

use super::{output, said, unexpected, Command, Outcome, Row};
use crate::base::units;
use crate::jobs::prune::{self, Plan, Pruning};
use crate::jobs::server::Source;
use crate::store::{Decision, Fate};

pub(super) const ROW: Row = Row {
    name: "prune",
    options: "[--dry-run]",
    summary: "delete the backups that no rule of the retention keeps",
    details: "
  --dry-run   only print what would happen, and why

Only backups of this database (of these databases) are deleted, by exact name, and never the newest one. Nothing is deleted, and
the exit status is 1, while something is wrong: the clock, a backup that has suddenly shrunk, or another
server that writes to the same place.
",
    parse,
};

/// The options of `pgkeep prune`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to show only what would happen.
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

pub(super) fn command(source: &Source, options: &Options) -> Result<Outcome> {
    let mut outcome = Outcome::Done;
    let mut undeleted = 0;
    for job in source.jobs_of_bucket()? {
        let plan = prune::plan(&job)?;
        let of = if source.several.is_some() { format!("{}: ", job.subject()) } else { String::new() };
        if options.dry_run {
            print(&of, &plan)?;
            continue;
        }
        match prune::carry_out(plan, &job) {
            Pruning::Done(pruned) => {
                info!("{of}pruned: {pruned}");
                undeleted += pruned.failed;
            }
            Pruning::HeldBack(_) | Pruning::Failed => outcome = Outcome::Failed,
        }
    }
    ensure!(undeleted == 0, "{} could not be deleted", units::count(undeleted, "expired backup"));
    Ok(outcome)
}

fn print(of: &str, Plan { decisions, doubts, warning }: &Plan) -> Result<()> {
    for Decision { backup, fate, reason, .. } in decisions {
        let word = match fate {
            Fate::Kept => "keep  ",
            Fate::HeldBack => "hold  ",
            Fate::Goes => "delete",
        };
        output::line(format_args!("{word}  {}  ({reason})", backup.key))?;
    }
    output::doubts(of, doubts, warning.as_deref())?;
    let deleted = decisions.iter().filter(|decision| decision.fate == Fate::Goes).count();
    let kept = units::count(decisions.len() - deleted, "backup");
    output::line(format_args!("{of}{kept} would be kept, {deleted} deleted; nothing was done"))?;
    Ok(())
}
