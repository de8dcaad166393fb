//! `pgkeep restore`: restores from the bucket into a database.

use anyhow::Result;
use lexopt::prelude::*;
use log::{info, warn};

use super::{output, restore_all, said, text, unexpected, Command, Outcome, Row, NEEDS_WHICH};
use crate::base::units;
use crate::jobs::{restore, Job};
use crate::postgres::Table;

pub use crate::jobs::restore::Options;

pub(super) const ROW: Row = Row {
    name: "restore",
    options: "WHICH [--database NAME] [--to CONNECTION] [--replace] [--create-roles]
                      [--table NAME]... [--schema NAME]... [--jobs N]
                      [--no-owner] [--no-privileges]
       pgkeep restore --all [--to CONNECTION] [--at TIME] [--replace] [--dry-run]",
    summary: "restore a backup into a database, or a whole server",
    details: "
  --database NAME   the database to restore into (default: a new one, of the backup's name and time).
                    One that is there already must be empty
  --replace         restore into a new database, and then give it the name of the one that is there,
                    which is kept under another name
  --create-roles    make the roles that the backup needs and the server does not have, as the newest backup
                    of the globals says
  --to CONNECTION   another server, such as postgresql://user@host:5432; give its password by PGPASSWORD

These need a backup in the custom format (BACKUP_FORMAT=custom):
  --table NAME      restore this table, view or sequence, into a new database: NAME is a table's name in any
                    schema, or SCHEMA.TABLE, as the catalogue has it: no quotes, and Orders is not orders.
                    With it come its partitions, rows, indexes, keys, triggers and grants, and the types,
                    functions and sequences that it needs. What needs another table is left out, and named
  --schema NAME     restore what is in this schema. Several --table and --schema add up
  --jobs N          restore N tables and indexes at a time
  --no-owner        everything belongs to the role that restores; no other role is needed for it
  --no-privileges   restore no grants

  --all             the roles that are missing, then the newest backup of each database under its own name.
                    What is there stays as it is: roles, and databases that are not empty (--replace
                    replaces these). If something failed, running it again goes on with what is missing
  --at TIME         with --all: the newest backups up to this time in UTC (2026-11-23: up to that day's end)
  --dry-run         with --all: only print what would happen, and what lacks

If anything fails, what was made is dropped again, and what was there before is as it was.
",
    parse,
};

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    let (mut all, mut whole) = (false, restore_all::Options::default());
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("database") => options.database = Some(text(parser)?),
            Long("to") => options.to = Some(text(parser)?),
            Long("replace") => options.replace = true,
            Long("create-roles") => options.create_roles = true,
            Long("all") => all = true,
            Long("at") => whole.at = Some(text(parser)?),
            Long("dry-run") => whole.dry_run = true,
            Long("table") => options.selection.tables.push(text(parser)?),
            Long("schema") => options.selection.schemas.push(text(parser)?),
            Long("no-owner") => options.selection.no_owner = true,
            Long("no-privileges") => options.selection.no_privileges = true,
            Short('j') | Long("jobs") => {
                let jobs = parser.value().and_then(|jobs| jobs.parse()).map_err(said)?;
                options.selection.jobs = Some(jobs);
            }
            Value(which) if options.which.is_empty() => options.which = which.string().map_err(said)?,
            other => return Err(unexpected(other)),
        }
    }
    if all {
        let Options { to, replace, .. } = options.clone();
        if options != (Options { to: to.clone(), replace, ..Options::default() }) {
            return Err("restore --all takes only --to, --at, --replace and --dry-run".into());
        }
        return Ok(Command::RestoreAll(restore_all::Options { to, replace, ..whole }));
    }
    if whole != restore_all::Options::default() {
        return Err("restore takes --at and --dry-run only with --all".into());
    }
    if options.which.is_empty() {
        return Err(format!("restore {NEEDS_WHICH}, or --all"));
    }
    if options.database.as_deref() == Some("") {
        return Err("--database is empty".into());
    }
    if options.selection.jobs == Some(0) {
        return Err("--jobs is 0; it has to be a number from 1".into());
    }
    Ok(Command::Restore(options))
}

pub(super) fn command(job: &Job, options: &Options) -> Result<Outcome> {
    let restored = restore::run(job, options)?;
    // Everything is done now, even if the result cannot be printed.
    if let Err(failure) = print_tables(&restored.tables) {
        warn!("the tables cannot be printed: {failure:#}");
    }
    info!("{}", restored.summary);
    Ok(Outcome::Done)
}

fn print_tables(tables: &[Table]) -> Result<()> {
    let width = tables.iter().map(|table| table.name.chars().count()).max().unwrap_or(0).max("TABLE".len());
    output::line(format_args!("{:<width$}  {:>12}", "TABLE", "ROWS"))?;
    for table in tables {
        let rows = table.rows.map_or("?".into(), |rows| rows.to_string());
        output::line(format_args!("{:<width$}  {rows:>12}", units::printable(&table.name)))?;
    }
    Ok(())
}
