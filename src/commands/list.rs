//! `pgkeep list`: what is in the bucket, and what the retention policy will do with it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use lexopt::prelude::*;
use log::warn;
use serde_json::json;

use super::{growth, output, said, unexpected, Command, Outcome, Row};
use crate::base::units;
use crate::jobs::{prune, Job};
use crate::store::{self, Backup, Decision, Doubt, Fate, Keeper};

pub(super) const ROW: Row = Row {
    name: "list",
    options: "[--all] [--json]",
    summary: "list this database's backups, the oldest first, and when they expire",
    details: "
  --all    those of every database below S3_PATH
  --json   for a script
",
    parse,
};

/// The options of `pgkeep list`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to list the backups of every database below the path.
    pub all: bool,
    /// Whether to print JSON, for a script.
    pub json: bool,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("all") => options.all = true,
            Long("json") => options.json = true,
            other => return Err(unexpected(other)),
        }
    }
    Ok(Command::List(options))
}

/// A backup of a database, and what happens to it. The pgkeep of another database has its own retention
/// policy, which is unknown here.
struct Line<'a> {
    database: &'a str,
    backup: &'a Backup,
    decision: Option<&'a Decision>,
}

pub(super) fn command(job: &Job, options: &Options) -> Result<Outcome> {
    let (own, store) = (&job.database, &job.store);
    let found: BTreeMap<String, Vec<Backup>> = match options.all {
        true => store.list_all().context("cannot list the backups")?,
        false => [(own.clone(), store.list().context("cannot list the backups")?)].into(),
    };
    let now = Utc::now();
    let backups = found.get(own).map_or(&[] as &[Backup], Vec::as_slice);
    let plan = prune::judge(job, backups).unwrap_or_else(|failure| {
        warn!("whether pruning is held back is not known: {failure:#}");
        prune::by_policy_alone(job, backups)
    });
    let decided: BTreeMap<&str, &Decision> =
        plan.decisions.iter().map(|decision| (decision.backup.key.as_str(), decision)).collect();
    let lines: Vec<Line<'_>> = found
        .iter()
        .flat_map(|(database, backups)| backups.iter().map(move |backup| (database, backup)))
        .map(|(database, backup)| Line {
            database,
            backup,
            decision: decided.get(backup.key.as_str()).copied(),
        })
        .collect();
    if options.json {
        let why = plan.doubts.iter().map(Doubt::to_string).collect::<Vec<_>>().join(". ");
        let lines = lines.iter().map(|line| as_json(line, &why)).collect::<serde_json::Value>();
        output::line(format_args!("{lines:#}"))?;
        return Ok(Outcome::Done);
    }
    print_table(&lines, options.all, now)?;
    let number = units::count(lines.len(), "backup");
    let (whose, place) = match options.all {
        true => (units::count(found.len(), "database"), store.location_of_all()),
        false => (format!("database \"{own}\""), store.location()),
    };
    let total = lines.iter().map(|line| line.backup.size).sum();
    output::line(format_args!("{number} of {whose} at {place}, {}", units::bytes(total)))?;
    if let Some(picture) = growth::picture(backups).filter(|_| io::stdout().is_terminal()) {
        output::line(format_args!("{picture}"))?;
    }
    output::doubts(&plan.doubts, plan.warning.as_deref())?;
    Ok(Outcome::Done)
}

fn print_table(lines: &[Line<'_>], all: bool, now: DateTime<Utc>) -> Result<()> {
    let width =
        lines.iter().map(|line| line.database.chars().count()).max().unwrap_or(0).max("DATABASE".len());
    let verdict = |line: &Line<'_>| line.decision.map_or("-".into(), Decision::verdict);
    let retention = lines.iter().map(|line| verdict(line).len()).max().unwrap_or(0).max(25);
    let column = |name: &str| if all { format!("{name:<width$}  ") } else { String::new() };
    let head = column("DATABASE");
    output::line(format_args!(
        "{head}{:<20} {:>10} {:>10}  {:<6}  {:<retention$}  KEY",
        "TIME (UTC)", "AGE", "SIZE", "FORMAT", "RETENTION"
    ))?;
    for line in lines {
        let Line { database, backup, .. } = line;
        let age = match store::is_future(backup.time, now) {
            true => "future".to_owned(),
            false => units::duration((now - backup.time).to_std().unwrap_or_default()),
        };
        output::line(format_args!(
            "{}{:<20} {:>10} {:>10}  {:<6}  {:<retention$}  {}",
            column(&units::printable(database)),
            backup.time.format("%Y-%m-%d %H:%M:%S").to_string(),
            age,
            units::bytes(backup.size),
            backup.format.to_string(),
            verdict(line),
            backup.key
        ))?;
    }
    Ok(())
}

/// `why` says what stops the pruning.
fn as_json(Line { database, backup, decision }: &Line<'_>, why: &str) -> serde_json::Value {
    let rfc3339 = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let rule = |keeper: &Keeper| json!({"rule": keeper.rule.name(), "until": keeper.until.map(rfc3339)});
    json!({
        "key": backup.key,
        "database": database,
        "time": rfc3339(backup.time),
        "format": backup.format.to_string(),
        "size": backup.size,
        "keep": decision.map(|decision| decision.fate != Fate::Goes),
        "held_back": decision.filter(|decision| decision.fate == Fate::HeldBack).map(|_| why),
        "reason": decision.map(|decision| &decision.reason),
        "kept_by": decision.map(|decision| decision.kept_by.iter().map(rule).collect::<serde_json::Value>()),
        "expires": decision.and_then(|decision| decision.expires).map(rfc3339),
    })
}
