//! `pgkeep list`: what is in the bucket, and what the retention policy will do with it.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use lexopt::prelude::*;
use log::warn;
use serde_json::json;

use super::{growth, output, said, unexpected, Command, Outcome, Row};
use crate::base::units;
use crate::jobs::prune::{self, Plan};
use crate::jobs::server::{each, Source};
use crate::store::{self, Backup, Decision, Doubt, Fate, Keeper, GLOBALS};

pub(super) const ROW: Row = Row {
    name: "list",
    options: "[DATABASE]... [--all] [--runs] [--json]",
    summary: "list the backups, each database's oldest first, and when they expire",
    details: "
  --all    those of every database below S3_PATH
  --runs   show which run made each of them, if it made those of several databases
  --json   for a script
",
    parse,
};

/// The options of `pgkeep list`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The databases, if not all that the configuration means.
    pub databases: Vec<String>,
    /// Whether to list the backups of every database below the path.
    pub all: bool,
    /// Whether to show the run that made each backup.
    pub runs: bool,
    /// Whether to print JSON, for a script.
    pub json: bool,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("all") => options.all = true,
            Long("runs") => options.runs = true,
            Long("json") => options.json = true,
            Value(name) => options.databases.push(name.string().map_err(said)?),
            other => return Err(unexpected(other)),
        }
    }
    if options.all && !options.databases.is_empty() {
        return Err("list --all takes no database".into());
    }
    Ok(Command::List(options))
}

/// This many stores are asked at a time.
const AT_A_TIME: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// A backup of a database, and what happens to it. The pgkeep of another database has its own retention
/// policy, which is unknown here.
struct Line<'a> {
    database: &'a str,
    backup: &'a Backup,
    decision: Option<&'a Decision>,
    /// What stops the pruning.
    why: String,
    run: Option<&'a str>,
}

pub(super) fn command(source: &Source, options: &Options) -> Result<Outcome> {
    let store = &source.job.store;
    let found = find(source, options).context("cannot list the backups")?;
    let now = Utc::now();
    let several = options.all || found.len() > 1 || source.several.is_some();
    let plans = judge(source, &found);
    let runs = if options.runs { runs(source, &found)? } else { BTreeMap::new() };
    let mut lines = Vec::new();
    for (database, backups) in &found {
        let plan = plans.get(database);
        let why = plan.map(|plan| plan.doubts.iter().map(Doubt::to_string).collect::<Vec<_>>().join(". "));
        let decisions = plan.into_iter().flat_map(|plan| &plan.decisions);
        let decided: BTreeMap<&str, &Decision> =
            decisions.map(|decision| (decision.backup.key.as_str(), decision)).collect();
        lines.extend(backups.iter().map(|backup| Line {
            database,
            backup,
            decision: decided.get(backup.key.as_str()).copied(),
            why: why.clone().unwrap_or_default(),
            run: runs.get(&backup.key).map(String::as_str),
        }));
    }
    if options.runs {
        // Those of no known run first.
        lines.sort_by_key(|line| line.run);
    }
    if options.json {
        let lines = lines.iter().map(as_json).collect::<serde_json::Value>();
        output::line(format_args!("{lines:#}"))?;
        return Ok(Outcome::Done);
    }
    print_table(&lines, several, options.runs, now)?;
    let backups = units::count(lines.len(), "backup");
    let globals = found.contains_key(GLOBALS);
    let (whose, place) = match found.first_key_value() {
        Some((name, _)) if !several => (format!("database \"{name}\""), store.of(name).location()),
        _ => {
            let databases = units::count(found.len() - usize::from(globals), "database");
            let globals = if globals { " and of the globals" } else { "" };
            (format!("{databases}{globals}"), store.location_of_all())
        }
    };
    let total = lines.iter().map(|line| line.backup.size).sum();
    output::line(format_args!("{backups} of {whose} at {place}, {}", units::bytes(total)))?;
    // The sizes of different databases make no curve.
    let only = found.first_key_value().filter(|_| found.len() == 1);
    let picture = only.and_then(|(_, backups)| growth::picture(backups));
    if let Some(picture) = picture.filter(|_| io::stdout().is_terminal()) {
        output::line(format_args!("{picture}"))?;
    }
    for (database, plan) in &plans {
        let of = if several { format!("{}: ", units::printable(database)) } else { String::new() };
        output::doubts(&of, &plan.doubts, plan.warning.as_deref())?;
    }
    Ok(Outcome::Done)
}

/// The backups of each database.
fn find(source: &Source, options: &Options) -> Result<BTreeMap<String, Vec<Backup>>> {
    let (job, store) = (&source.job, &source.job.store);
    let several = source.several.as_ref().filter(|_| options.databases.is_empty());
    if !options.all && several.is_none() {
        let own = [job.database.clone()];
        let names = if options.databases.is_empty() { &own[..] } else { &options.databases };
        return names.iter().map(|name| Ok((name.clone(), store.named(name).list()?))).collect();
    }
    let mut found = store.list_all()?;
    if !options.all {
        found.retain(|name, _| source.means(name));
    }
    let globals = store.of_globals().list()?;
    if !globals.is_empty() {
        found.insert(GLOBALS.to_owned(), globals);
    }
    Ok(found)
}

/// What happens to the backups of the databases that the configuration means.
fn judge(source: &Source, found: &BTreeMap<String, Vec<Backup>>) -> BTreeMap<String, Plan> {
    let own = found.keys().filter(|name| source.means(name)).map(|name| source.job_named(name)).collect();
    let plans = each(own, AT_A_TIME, |_, job| {
        let backups = &found[&job.database];
        prune::judge(job, backups).unwrap_or_else(|failure| {
            warn!("whether pruning is held back is not known: {failure:#}");
            prune::by_policy_alone(job, backups)
        })
    });
    plans.into_iter().map(|(job, plan)| (job.database, plan)).collect()
}

/// The run that made each backup, by the backup's key.
fn runs(source: &Source, found: &BTreeMap<String, Vec<Backup>>) -> Result<BTreeMap<String, String>> {
    let jobs = found.keys().map(|name| source.job_named(name)).collect();
    let known = each(jobs, AT_A_TIME, |_, job| {
        let of = |backup: &Backup| {
            let head = job.store.client.head_object(&backup.key)?;
            Ok(head.and_then(|head| Some((backup.key.clone(), head.metadata(store::RUN)?.to_owned()))))
        };
        found[&job.database].iter().filter_map(|backup| of(backup).transpose()).collect::<Result<Vec<_>>>()
    });
    let known = known.into_iter().map(|(_, runs)| runs).collect::<Result<Vec<_>>>();
    Ok(known.context("cannot look at the backups")?.into_iter().flatten().collect())
}

fn print_table(lines: &[Line<'_>], several: bool, runs: bool, now: DateTime<Utc>) -> Result<()> {
    let width =
        lines.iter().map(|line| line.database.chars().count()).max().unwrap_or(0).max("DATABASE".len());
    let verdict = |line: &Line<'_>| line.decision.map_or("-".into(), Decision::verdict);
    let retention = lines.iter().map(|line| verdict(line).len()).max().unwrap_or(0).max(25);
    let column = |name: &str| if several { format!("{name:<width$}  ") } else { String::new() };
    let run_column = |run: &str| if runs { format!("{run:<28}  ") } else { String::new() };
    let head = run_column("RUN") + &column("DATABASE");
    output::line(format_args!(
        "{head}{:<20} {:>10} {:>10}  {:<6}  {:<retention$}  KEY",
        "TIME (UTC)", "AGE", "SIZE", "FORMAT", "RETENTION"
    ))?;
    for line in lines {
        let Line { database, backup, run, .. } = line;
        let age = match store::is_future(backup.time, now) {
            true => "future".to_owned(),
            false => units::duration((now - backup.time).to_std().unwrap_or_default()),
        };
        output::line(format_args!(
            "{}{}{:<20} {:>10} {:>10}  {:<6}  {:<retention$}  {}",
            run_column(&units::printable(run.unwrap_or("-"))),
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

fn as_json(Line { database, backup, decision, why, run }: &Line<'_>) -> serde_json::Value {
    let rfc3339 = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    let rule = |keeper: &Keeper| json!({"rule": keeper.rule.name(), "until": keeper.until.map(rfc3339)});
    let mut json = json!({
        "key": backup.key,
        "database": database,
        "time": rfc3339(backup.time),
        "format": backup.format.to_string(),
        "encrypted": backup.encrypted,
        "size": backup.size,
        "keep": decision.map(|decision| decision.fate != Fate::Goes),
        "held_back": decision.filter(|decision| decision.fate == Fate::HeldBack).map(|_| why),
        "reason": decision.map(|decision| &decision.reason),
        "kept_by": decision.map(|decision| decision.kept_by.iter().map(rule).collect::<serde_json::Value>()),
        "expires": decision.and_then(|decision| decision.expires).map(rfc3339),
    });
    if let Some(run) = run {
        json["run"] = json!(run);
    }
    json
}
