//! `pgkeep list`: what is in the bucket.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{SecondsFormat, Utc};
use serde_json::json;

use crate::catalog::Backup;
use crate::config::Config;
use crate::s3::Client;
use crate::units;

/// Prints this database's backups, the oldest first.
///
/// # Errors
/// Where the bucket cannot be listed.
pub fn command(config: &Config, s3: &Client, json: bool) -> Result<()> {
    let catalog = config.catalog();
    let backups = catalog.backups(s3.list_objects(catalog.prefix()).context("cannot list the backups")?);
    if json {
        println!(
            "{:#}",
            backups.iter().map(|backup| as_json(backup, &config.database)).collect::<serde_json::Value>()
        );
        return Ok(());
    }
    let now = Utc::now();
    println!("{:<20} {:>10} {:>10}  {:<6}  KEY", "TIME (UTC)", "AGE", "SIZE", "FORMAT");
    for backup in &backups {
        let age: Duration = (now - backup.time).to_std().unwrap_or_default();
        println!(
            "{:<20} {:>10} {:>10}  {:<6}  {}",
            backup.time.format("%Y-%m-%d %H:%M:%S").to_string(),
            units::duration(age),
            units::bytes(backup.size),
            backup.format.to_string(),
            backup.key
        );
    }
    let total = backups.iter().map(|backup| backup.size).sum();
    println!(
        "{} of database \"{}\" at {}…, {}",
        units::count(backups.len(), "backup"),
        config.database,
        s3.place(catalog.prefix()),
        units::bytes(total)
    );
    Ok(())
}

fn as_json(backup: &Backup, database: &str) -> serde_json::Value {
    json!({
        "key": backup.key,
        "database": database,
        "time": backup.time.to_rfc3339_opts(SecondsFormat::Secs, true),
        "format": backup.format.to_string(),
        "size": backup.size,
    })
}
