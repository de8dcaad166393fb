//! The drill: the newest backup is restored into a database of its own on a server for that, counted, and
//! dropped. Nothing else shows that the day of need would go well, and how long it would take.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use log::{info, warn};

use crate::base::logging;
use crate::base::shutdown::Shutdown;
use crate::base::units;
use crate::config::Config;
use crate::jobs::restore::{summary, Restore, Selection};
use crate::postgres::databases::{name_with, Databases};
use crate::s3::Client;
use crate::store::select;

/// What a drill has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// When it ended.
    pub time: DateTime<Utc>,
    /// The backup's key.
    pub key: String,
    /// How long a recovery takes, from the bucket to the last index.
    pub took: Duration,
    /// What was restored: tables and rows.
    pub counted: String,
}

/// `pgkeep verify --drill`.
///
/// # Errors
/// Where the backup could not be restored.
pub fn command(config: &Config, s3: &Client, shutdown: &Shutdown, which: &str) -> Result<()> {
    run(config, s3, shutdown, which).map(drop)
}

/// Restores the backup that `which` means and drops it again; the result is logged.
///
/// # Errors
/// Where it could not be restored, or not be dropped.
pub fn run(config: &Config, s3: &Client, shutdown: &Shutdown, which: &str) -> Result<Outcome> {
    let connection = config.drill.as_ref().context(
        "BACKUP_DRILL_CONNECTION_STRING is missing: the server to restore to, for example \
         postgresql://user:password@host:5432 (the source server too has to be named)",
    )?;
    let started = Instant::now();
    let backup = select::find(config, s3, which)?.backup;
    let databases = Databases::of(connection, None, config, shutdown)?;
    let name = name_with("pgkeep_drill", &fastrand::u32(..).to_string(), Utc::now());
    info!(
        "drill started: {} ({}) into the database \"{name}\" on PostgreSQL {}, to be dropped again",
        s3.place(&backup.key),
        units::bytes(backup.size),
        databases.server.version
    );
    let (selection, cleaner) = (Selection::default(), Shutdown::default());
    let restore = Restore { config, s3, databases: &databases, backup: &backup, selection: &selection };
    let tables = restore.into_new(&name).context("the backup does not restore")?;
    let took = started.elapsed();
    // What cannot be dropped says nothing about the backup.
    if let Err(failure) = databases.unstoppable(&cleaner).drop(&name) {
        logging::failure(&format!("the drill's database \"{name}\" is still there"), &failure);
    }
    let counted = summary(&tables);
    if tables.is_empty() {
        warn!("the drill restored no table: is \"{}\" the right database?", config.database);
    }
    info!(
        "drill succeeded: {} restores to {counted}; a recovery takes {}",
        s3.place(&backup.key),
        units::duration(took)
    );
    Ok(Outcome { time: Utc::now(), key: backup.key, took, counted })
}
