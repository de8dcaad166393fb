//! `pgkeep list`: what is in the bucket, and what the retention will do with it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use crate::base::units;
use crate::config::Config;
use crate::s3::Client;
use crate::store::key::{self as catalog, Backup};
use crate::store::retention::{self, Decision};

/// A line: a backup, whose it is, and what becomes of it. Another database's pgkeep has a retention of its own,
/// which is unknown here.
struct Row<'a> {
    database: &'a str,
    backup: &'a Backup,
    decision: Option<&'a Decision>,
}

/// This database's backups, the oldest first.
///
/// # Errors
/// Where the bucket cannot be listed.
pub fn backups(config: &Config, s3: &Client) -> Result<Vec<Backup>> {
    let catalog = config.catalog();
    let objects = s3.list_objects(catalog.prefix()).context("cannot list the backups")?;
    Ok(catalog.backups(objects))
}

/// Prints this database's backups, the oldest first, or (`all`) those of every database below the path.
///
/// # Errors
/// Where the bucket cannot be listed.
pub fn command(config: &Config, s3: &Client, all: bool, json: bool) -> Result<()> {
    let (own, path) = (&config.database, &config.s3.path);
    let catalog = config.catalog();
    let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
    let prefix = if all { &folder } else { catalog.prefix() };
    let objects = s3.list_objects(prefix).context("cannot list the backups")?;
    let found: BTreeMap<String, Vec<Backup>> = match all {
        true => catalog::by_database(path, objects),
        false => [(own.clone(), catalog.backups(objects))].into(),
    };
    let now = Utc::now();
    let plan = retention::plan(found.get(own).map_or(&[], Vec::as_slice), config.retention, now);
    let decided: BTreeMap<&str, &Decision> =
        plan.iter().map(|decision| (decision.backup.key.as_str(), decision)).collect();
    let rows: Vec<Row<'_>> = found
        .iter()
        .flat_map(|(database, backups)| backups.iter().map(move |backup| (database, backup)))
        .map(|(database, backup)| Row {
            database,
            backup,
            decision: decided.get(backup.key.as_str()).copied(),
        })
        .collect();
    if json {
        println!("{:#}", rows.iter().map(as_json).collect::<serde_json::Value>());
        return Ok(());
    }
    print_table(&rows, all, now);
    let backups = units::count(rows.len(), "backup");
    let whose = match all {
        true => format!("{backups} of {}", units::count(found.len(), "database")),
        false => format!("{backups} of database \"{own}\""),
    };
    let total = rows.iter().map(|row| row.backup.size).sum();
    println!("{whose} at {}…, {}", s3.place(prefix), units::bytes(total));
    Ok(())
}

fn print_table(rows: &[Row<'_>], all: bool, now: DateTime<Utc>) {
    // A name may hold what a terminal obeys.
    let shown = |name: &str| name.replace(char::is_control, "\u{fffd}");
    let width = rows.iter().map(|row| row.database.chars().count()).max().unwrap_or(0).max("DATABASE".len());
    let column = |name: &str| if all { format!("{name:<width$}  ") } else { String::new() };
    let head = column("DATABASE");
    println!(
        "{head}{:<20} {:>10} {:>10}  {:<6}  {:<25}  KEY",
        "TIME (UTC)", "AGE", "SIZE", "FORMAT", "RETENTION"
    );
    for Row { database, backup, decision } in rows {
        let age: Duration = (now - backup.time).to_std().unwrap_or_default();
        println!(
            "{}{:<20} {:>10} {:>10}  {:<6}  {:<25}  {}",
            column(&shown(database)),
            backup.time.format("%Y-%m-%d %H:%M:%S").to_string(),
            units::duration(age),
            units::bytes(backup.size),
            backup.format.to_string(),
            decision.map_or("-".into(), Decision::verdict),
            backup.key
        );
    }
}

fn as_json(Row { database, backup, decision }: &Row<'_>) -> serde_json::Value {
    let rfc3339 = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    json!({
        "key": backup.key,
        "database": database,
        "time": rfc3339(backup.time),
        "format": backup.format.to_string(),
        "size": backup.size,
        "keep": decision.map(|decision| decision.keep),
        "reason": decision.map(|decision| &decision.reason),
        "expires": decision.and_then(|decision| decision.expires).map(rfc3339),
    })
}
