//! `pgkeep restore --all`: restores a whole server.

use anyhow::Result;
use log::warn;

use super::{output, Outcome};
use crate::base::units;
use crate::jobs::server::restore::{self, Deed, Plan};
use crate::jobs::server::Source;
use crate::postgres::Table;

pub use crate::jobs::server::restore::Options;

pub(super) fn command(source: &Source, options: &Options) -> Result<Outcome> {
    let plan = restore::plan(source, options)?;
    if options.dry_run {
        return print_plan(&plan).map(|()| Outcome::of(plan.lacks.is_empty()));
    }
    for lack in &plan.lacks {
        warn!("{lack}");
    }
    let (mut rows, mut failed) = (Vec::new(), false);
    restore::run(source, options, &plan, |planned, outcome| {
        let name = units::printable(&planned.database);
        rows.push(match outcome {
            restore::Outcome::Restored(tables, took) => {
                let count: u64 = tables.iter().filter_map(|Table { rows, .. }| *rows).sum();
                [name, tables.len().to_string(), count.to_string(), units::duration(took), "ok".into()]
            }
            restore::Outcome::PassedOver => {
                let why = "passed over: it is there and not empty (--replace)";
                [name, "-".into(), "-".into(), "-".into(), why.into()]
            }
            restore::Outcome::Failed(why) => {
                failed = true;
                [name, "-".into(), "-".into(), "-".into(), units::printable(&format!("failed: {why}"))]
            }
        });
        Ok(())
    })?;
    // Everything is done now, even if the result cannot be printed.
    if let Err(failure) = print_rows(&rows) {
        warn!("the table cannot be printed: {failure:#}");
    }
    Ok(Outcome::of(!failed))
}

fn print_rows(rows: &[[String; 5]]) -> Result<()> {
    let head = ["DATABASE", "TABLES", "ROWS", "TIME", "RESULT"].map(str::to_owned);
    let width = rows.iter().chain([&head]).map(|row| row[0].chars().count()).max().unwrap_or_default();
    for [database, tables, count, took, result] in [&head].into_iter().chain(rows) {
        output::line(format_args!("{database:<width$}  {tables:>6}  {count:>12}  {took:>12}  {result}"))?;
    }
    Ok(())
}

fn print_plan(plan: &Plan) -> Result<()> {
    match &plan.globals {
        Some(backup) => output::line(format_args!("globals    {}", backup.key))?,
        None => {
            output::line(format_args!("globals    there is no backup of them: missing roles can do nothing"))?
        }
    }
    for name in &plan.missing_roles {
        output::line(format_args!("make role  {}", units::printable(name)))?;
    }
    for planned in &plan.databases {
        let word = match planned.deed {
            Deed::Restore => "restore",
            Deed::Replace => "replace",
            Deed::PassOver => "pass over",
        };
        let (name, backup) = (units::printable(&planned.database), &planned.backup);
        output::line(format_args!("{word:<9}  {name}  from {} ({})", backup.key, units::bytes(backup.size)))?;
    }
    for lack in &plan.lacks {
        output::line(format_args!("lacks      {}", units::printable(lack)))?;
    }
    let to_do = plan.databases.iter().filter(|planned| planned.deed != Deed::PassOver);
    let size = to_do.clone().map(|planned| planned.backup.size).sum();
    output::line(format_args!(
        "{} to restore, {} compressed; the server's disk needs several times as much; nothing was done",
        units::count(to_do.count(), "database"),
        units::bytes(size)
    ))?;
    Ok(())
}
