//! Restores from the bucket into a database, and proves the backup on the way.
//!
//! S3 → gunzip → psql, or pg_restore for the custom format, into a new database, whose name says that it is
//! unfinished. It gets its final name only after the whole backup was restored and proven. If anything fails,
//! it is dropped. So even if pgkeep is killed, a name that somebody uses never belongs to half a database.

mod pour;
mod recorded;
pub(super) mod roles;
mod selection;
mod sink;

use std::time::Instant;

use anyhow::{anyhow, bail, ensure, Context, Result};
use chrono::Utc;
use log::{info, warn};

use super::Job;
use crate::base::units;
use crate::postgres::{identifier, name_with, Conninfo, Databases, Format, Table};
use crate::store::Selected;
pub(super) use pour::{Restore, Whole};
pub(super) use recorded::{record, Recorded};
pub use selection::Selection;

/// The options of `pgkeep restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `latest`, a time or a key.
    pub which: String,
    /// The database to restore into.
    pub database: Option<String>,
    /// The server to restore to, and perhaps the database. If it is not given, the configured server is used.
    pub to: Option<String>,
    /// Whether an existing database may be replaced.
    pub replace: bool,
    /// Which parts of the backup to restore.
    pub selection: Selection,
    /// Whether to make the roles that the backup needs and the server does not have.
    pub create_roles: bool,
    /// Whether the backup's own properties go before those of a database that it replaces.
    pub as_recorded: bool,
}

/// What already has the name that the restored database will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Nothing.
    New,
    /// An empty database. It is dropped when the restored one takes its name.
    Empty,
    /// A database that is kept under another name.
    Replaced,
}

/// The result of a restore.
pub struct Restored {
    /// The tables that are there now.
    pub tables: Vec<Table>,
    /// What was restored, where it is, and how to undo it: a sentence for the log.
    pub summary: String,
}

/// Restores a backup.
///
/// # Errors
/// Nothing was restored. Everything is as it was before.
pub fn run(job: &Job, options: &Options) -> Result<Restored> {
    let started = Instant::now();
    let Selected { database: source, backup } = job.store.find(&options.which)?;
    ensure!(
        !job.store.is_of_globals(&backup),
        "{} has roles and tablespaces, and no database: restore --all makes them, and restore --create-roles those that a \
         backup needs",
        backup.key
    );
    job.identity_for(&backup)?;
    let selection = &options.selection;
    if selection.is_any() && backup.format != Format::Custom {
        let roles = if selection.of_roles().next().is_some() {
            "; to restore it as another role, first make the roles that it names (CREATE ROLE …), and make that role a member \
             of them (GRANT … TO …)"
        } else {
            ""
        };
        bail!(
            "--table, --schema, --jobs, --no-owner and --no-privileges need a backup in the custom format \
             (BACKUP_FORMAT=custom), and {} is plain SQL{roles}",
            backup.key
        );
    }
    ensure!(
        !(options.replace && selection.is_part()),
        "--replace with --table or --schema would replace the whole database by a part of it; restore the part into a new \
         database, and take from it what is needed"
    );
    let connection = match &options.to {
        Some(text) => Conninfo::parse(text).map_err(|problem| {
            anyhow!("--to cannot be read: {problem}; for example --to postgresql://user@host:5432")
        })?,
        None => job.connection.clone(),
    };
    let named = options.to.as_ref().and_then(|_| connection.get("dbname")).map(str::to_owned);
    let name = options.database.clone().or(named).or(options.replace.then(|| source.clone()));
    let name = name.unwrap_or_else(|| name_with(&source, "restored", backup.time));
    let databases = job.databases(&connection, Some(&name))?;
    let target = choose_target(&databases, &name, options.replace)?;
    if target == Target::Empty && selection.is_part() {
        bail!("--table and --schema restore into a new database, and \"{name}\" is there already");
    }
    info!(
        "restore started: {} ({}) into the database \"{name}\" on PostgreSQL {}",
        job.store.place(&backup),
        units::bytes(backup.size),
        databases.server.version
    );
    let recorded = Recorded::of(job, &backup)?;
    // A part needs not all roles, and who leaves out owners or rights may need none.
    if !selection.is_part() && selection.of_roles().next().is_none() {
        roles::provide(job, &databases, recorded.properties.as_ref(), options.create_roles)?;
    }
    let properties = match target {
        Target::New => recorded
            .properties
            .clone()
            .map(|properties| properties.without(selection.no_owner, selection.no_privileges)),
        Target::Empty | Target::Replaced if options.as_recorded && recorded.properties.is_some() => {
            recorded.properties.clone()
        }
        // The properties of the database that it replaces are better than those in the backup.
        Target::Empty | Target::Replaced => Some(databases.properties(&name)?),
    };
    let restore = Restore { job, databases: &databases, backup: &backup, selection, recorded, properties };
    let whole = restore.whole(&name)?;
    databases.adopt(&whole.database, restore.properties.as_ref())?;
    let (counted, took) = (summary(&whole.tables), units::duration(started.elapsed()));
    let mut summary = format!("restore succeeded: {counted} in the database \"{name}\", in {took}");
    // From here on a signal ends nothing, because the rest takes little time.
    let databases = databases.unstoppable();
    match target {
        Target::New => databases.rename(&whole.database, &name)?,
        Target::Empty => take_empty_place(&databases, &whole.database, &name)?,
        Target::Replaced => {
            // A name that explains itself, in case the swap fails.
            let beside = free_name(&databases, name_with(&name, "restored", backup.time))?;
            databases.rename(&whole.database, &beside)?;
            let aside = databases.swap(&beside, &name, Utc::now()).with_context(|| {
                format!("the backup is restored in \"{beside}\" and whole, but \"{name}\" could not be replaced by it; it is as it was")
            })?;
            summary += &format!(
                "; what it was before is now \"{aside}\" (drop it when it is not needed any more); to undo: ALTER DATABASE {} \
                 RENAME TO {}; ALTER DATABASE {} RENAME TO {};",
                identifier(&name),
                identifier(&beside),
                identifier(&aside),
                identifier(&name)
            );
        }
    }
    Ok(Restored { tables: whole.tables, summary })
}

/// Nothing that exists is overwritten, unless it is empty or `replace` allows it.
fn choose_target(databases: &Databases, name: &str, replace: bool) -> Result<Target> {
    if !databases.exists(name)? {
        return Ok(Target::New);
    }
    if databases.is_empty(name)? {
        return Ok(Target::Empty);
    }
    ensure!(
        replace,
        "the database \"{name}\" is there and not empty: --database names another one, --replace puts the backup in its place \
         (and keeps it under another name)"
    );
    Ok(Target::Replaced)
}

/// `name`, or the next name that is free.
fn free_name(databases: &Databases, name: String) -> Result<String> {
    match databases.exists(&name)? {
        true => Ok(name_with(&name, "at", Utc::now())),
        false => Ok(name),
    }
}

/// Gives the restored database the name of an empty one, which is dropped. If somebody has put something into
/// the empty one meanwhile, nothing happens to it.
fn take_empty_place(databases: &Databases, fresh: &str, name: &str) -> Result<()> {
    let aside = databases.swap(fresh, name, Utc::now()).with_context(|| {
        format!("the backup is restored in \"{fresh}\" and whole, but could not take the place of \"{name}\"")
    })?;
    let dropped = match databases.is_empty(&aside) {
        Ok(true) => databases.drop(&aside),
        Ok(false) => Err(anyhow!("somebody has put something into it meanwhile")),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = dropped {
        warn!("\"{name}\" as it was before is still there as \"{aside}\": {failure:#}");
    }
    Ok(())
}

/// `12 tables with 3456 rows`.
pub(super) fn summary(tables: &[Table]) -> String {
    let rows: u64 = tables.iter().filter_map(|table| table.rows).sum();
    format!("{} with {rows} rows", units::count(tables.len(), "table"))
}
