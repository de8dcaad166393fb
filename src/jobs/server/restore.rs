//! Restores a whole server: the roles and tablespaces that are missing, then each database under its own name.
//! What is there already stays as it is. So if something failed, running it again goes on with what is missing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use chrono::Utc;
use log::{info, warn};

use super::Source;
use crate::base::{logging, units};
use crate::jobs::restore::{self, roles, Restored};
use crate::jobs::{survive, Job};
use crate::postgres::{restricting, Conninfo, Databases, Format, Globals, Properties, Table};
use crate::store::{self, Backup};

/// At most this many names in a line.
const NAMED: usize = 20;

/// The options of `pgkeep restore --all`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The server to restore to. If it is not given, the configured server is used.
    pub to: Option<String>,
    /// The newest backups up to this time are restored.
    pub at: Option<String>,
    /// Whether databases that are not empty are replaced.
    pub replace: bool,
    /// Whether to say only what would happen, and what lacks.
    pub dry_run: bool,
}

/// What will be done with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is made, or filled if it is empty.
    Restore,
    /// It is replaced, and kept under another name.
    Replace,
    /// It is there and not empty.
    PassOver,
}

/// A database of the plan.
pub struct Planned {
    /// Its name.
    pub database: String,
    /// The backup to restore.
    pub backup: Backup,
    /// What will be done.
    pub deed: Deed,
    /// What the backup recorded about the database.
    properties: Option<Properties>,
}

/// What will be done.
pub struct Plan {
    /// The databases, the smallest backup first: most of them are back soonest then.
    pub databases: Vec<Planned>,
    /// The roles to make.
    pub missing_roles: Vec<String>,
    /// Roles of the globals that are there, and stay as they are.
    pub present_roles: Vec<String>,
    /// What lacks, a sentence each.
    pub lacks: Vec<String>,
    /// The backup of the globals, if there is one.
    pub globals: Option<Backup>,
    script: Globals,
    server: Databases,
}

/// What became of a database.
pub enum Outcome {
    /// Restored, with these tables, in this time.
    Restored(Vec<Table>, Duration),
    /// It was there and not empty.
    PassedOver,
    /// Why not.
    Failed(String),
}

/// Finds out what there is to do.
///
/// # Errors
/// The bucket or the server cannot be asked, or there is no backup.
pub fn plan(source: &Source, options: &Options) -> Result<Plan> {
    let job = &source.job;
    let server = job.databases(&connection(job, options)?, None)?;
    let at = options.at.as_deref();
    let globals = roles::newest(job, at)?;
    let script = match &globals {
        Some(backup) => roles::read(job, backup)?,
        None => Globals::default(),
    };
    let there = server.names("SELECT coalesce(json_agg(datname), '[]') FROM pg_database;")?;
    let mut databases = Vec::new();
    for (database, backups) in job.store.list_all().context("cannot list the backups")? {
        if source.several.is_some() && !source.means(&database) {
            continue;
        }
        let Some(backup) = store::up_to(at.unwrap_or("9999"), &backups, Utc::now())?.cloned() else {
            continue;
        };
        let is_new = !there.contains(&database) || server.is_empty(&database)?;
        let deed = match (is_new, options.replace) {
            (true, _) => Deed::Restore,
            (false, true) => Deed::Replace,
            (false, false) => Deed::PassOver,
        };
        let properties = restore::Recorded::of(job, &backup)?.properties;
        databases.push(Planned { database, backup, deed, properties });
    }
    ensure!(!databases.is_empty(), "there is no backup to restore at {}", job.store.location_of_all());
    databases.sort_by_key(|planned| planned.backup.size);
    let to_do = databases.iter().filter(|planned| planned.deed != Deed::PassOver);
    let needed = to_do.clone().filter_map(|planned| planned.properties.as_ref()).flat_map(Properties::roles);
    let made = script.roles();
    let all: Vec<String> = made.iter().cloned().chain(needed).collect();
    let missing_roles = server.missing_roles(&all)?;
    let present_roles = made.into_iter().filter(|name| !missing_roles.contains(name)).collect();
    let lacks = lacks(&server, to_do)?;
    Ok(Plan { databases, missing_roles, present_roles, lacks, globals, script, server })
}

/// Restores what `plan` says, and tells `each` what became of a database.
///
/// # Errors
/// The roles cannot be made.
pub fn run(
    source: &Source,
    options: &Options,
    plan: &Plan,
    mut each: impl FnMut(&Planned, Outcome) -> Result<()>,
) -> Result<()> {
    warn_of(&plan.script.unknown, "left out of the globals, as pg_dumpall writes no such statement");
    plan.server.create_roles(&plan.missing_roles, &plan.script)?;
    plan.server.create_tablespaces(&plan.script)?;
    if !plan.present_roles.is_empty() {
        let named: Vec<String> = plan.present_roles.iter().take(NAMED).cloned().collect();
        info!(
            "roles that are there stay as they are: {}",
            units::first_few(&named, plan.present_roles.len())
        );
    }
    for planned in &plan.databases {
        let outcome = match planned.deed {
            Deed::PassOver => Outcome::PassedOver,
            _ if source.job.shutdown.requested() => Outcome::Failed("stopped by a signal before it".into()),
            Deed::Restore | Deed::Replace => restore_one(&source.job, options, planned),
        };
        each(planned, outcome)?;
    }
    Ok(())
}

fn restore_one(job: &Job, options: &Options, planned: &Planned) -> Outcome {
    let started = Instant::now();
    let options = restore::Options {
        which: planned.backup.key.clone(),
        database: Some(planned.database.clone()),
        to: options.to.clone(),
        replace: options.replace,
        create_roles: true,
        as_recorded: true,
        ..restore::Options::default()
    };
    match survive(|| restore::run(job, &options)) {
        Ok(Restored { tables, summary }) => {
            info!("{summary}");
            Outcome::Restored(tables, started.elapsed())
        }
        Err(failure) => {
            logging::failure(&format!("database \"{}\" is not restored", planned.database), &failure);
            Outcome::Failed(logging::chain(&failure))
        }
    }
}

fn connection(job: &Job, options: &Options) -> Result<Conninfo> {
    match &options.to {
        Some(text) => Conninfo::parse(text).map_err(|problem| {
            anyhow!("--to cannot be read: {problem}; for example --to postgresql://user@host:5432")
        }),
        None => Ok(job.connection.clone()),
    }
}

/// What the server and this host do not have.
fn lacks<'a>(server: &Databases, to_do: impl Iterator<Item = &'a Planned> + Clone) -> Result<Vec<String>> {
    let mut lacks = Vec::new();
    let there =
        server.names("SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_available_extensions;")?;
    let needed =
        to_do.clone().filter_map(|planned| planned.properties.as_ref()).flat_map(Properties::extensions);
    for extension in needed.collect::<BTreeSet<_>>().into_iter().filter(|name| !there.contains(name)) {
        let has = |planned: &&Planned| {
            planned.properties.as_ref().is_some_and(|of| of.extensions().contains(&extension))
        };
        let databases: Vec<String> =
            to_do.clone().filter(has).map(|planned| planned.database.clone()).collect();
        let named: Vec<String> = databases.iter().take(NAMED).cloned().collect();
        lacks.push(format!(
            "the server does not have the extension {extension}, which is in {}; install it there",
            units::first_few(&named, databases.len())
        ));
    }
    let has = |format: Format| to_do.clone().any(|planned| planned.backup.format == format);
    if has(Format::Plain) {
        lacks.extend(restricting(&server.clients).err().map(|failure| format!("{failure:#}")));
    }
    if has(Format::Custom) {
        lacks.extend(server.clients.for_server(&server.server).err().map(|failure| format!("{failure:#}")));
    }
    Ok(lacks)
}

fn warn_of(names: &[String], what: &str) {
    if !names.is_empty() {
        let named: Vec<String> = names.iter().take(NAMED).map(|name| units::printable(name)).collect();
        warn!("{what}: {}", units::first_few(&named, names.len()));
    }
}
