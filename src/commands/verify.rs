//! `pgkeep verify`: proves that backups are whole, or that they can be restored.

use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use lexopt::prelude::*;
use log::{info, warn};

use super::{said, unexpected, Command, Outcome, Row, NO_KEY};
use crate::base::progress::rate;
use crate::base::{logging, units};
use crate::dump::age::NotOpened;
use crate::jobs::fetch::Proof;
use crate::jobs::server::{newest, Source};
use crate::jobs::{drill, fetch};
use crate::s3::S3Error;

pub(super) const ROW: Row = Row {
    name: "verify",
    options: "[WHICH | DATABASE | --all] [--drill]",
    summary: "read a backup (default: the newest) and prove it whole",
    details: "
With BACKUP_DATABASES, DATABASE is its newest backup, and the default is the newest of each database.

  --all     all backups of this database, or of all these databases
  --drill   restore it too, on the server of BACKUP_DRILL_CONNECTION_STRING, and drop what was made
",
    parse,
};

const LATEST: &str = "latest";

/// The options of `pgkeep verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which backup to verify.
    pub which: String,
    /// Whether to verify all of this database's backups instead.
    pub all: bool,
    /// Whether to restore them too.
    pub drill: bool,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("all") => options.all = true,
            Long("drill") => options.drill = true,
            Value(which) if options.which.is_empty() => options.which = which.string().map_err(said)?,
            other => return Err(unexpected(other)),
        }
    }
    if options.all && (!options.which.is_empty() || options.drill) {
        return Err("verify --all takes neither a backup nor --drill".into());
    }
    if options.which.is_empty() {
        options.which = LATEST.into();
    }
    Ok(Command::Verify(options))
}

pub(super) fn command(source: &Source, options: &Options) -> Result<Outcome> {
    if options.drill {
        return drill(source, &options.which);
    }
    let (job, store) = (&source.job, &source.job.store);
    let mut backups = Vec::new();
    if options.all || (source.several.is_some() && options.which == LATEST) {
        for job in source.jobs_of_bucket()? {
            if options.all {
                backups.extend(job.store.list().context("cannot list the backups")?);
            } else {
                backups.extend(newest(&job)?);
            }
        }
    } else {
        backups.push(store.find(&source.which(&options.which))?.backup);
    }
    ensure!(!backups.is_empty(), "there is no backup at {}", store.location_of_all());
    let (mut bad, mut sealed) = (0, 0);
    for backup in &backups {
        let started = Instant::now();
        match fetch::examine(job, backup, "verifying", |_| Ok(())) {
            Ok(Proof::Sealed) => {
                sealed += 1;
                warn!(
                    "{} is complete, as far as can be seen: {}; {NO_KEY}",
                    store.place(backup),
                    units::bytes(backup.size)
                );
            }
            Ok(Proof::Whole(dumped)) => info!(
                "{} is whole: {}, {} uncompressed; read in {} ({})",
                store.place(backup),
                units::bytes(backup.size),
                units::bytes(dumped),
                units::duration(started.elapsed()),
                rate(backup.size, started.elapsed())
            ),
            Err(failure) => {
                // If S3 does not return the object, or the key does not fit, that says nothing about the backup.
                let unread = failure.chain().any(|cause| cause.is::<S3Error>()) || failure.is::<NotOpened>();
                let verdict = if unread { "could not be read" } else { "is not a whole backup" };
                let verdict = format!("{} {verdict}", store.place(backup));
                if backups.len() == 1 {
                    return Err(failure.context(verdict));
                }
                bad += 1;
                logging::failure(&verdict, &failure);
            }
        }
    }
    match bad {
        0 if backups.len() > 1 && sealed == 0 => {
            info!("all {} are whole", units::count(backups.len(), "backup"));
        }
        0 if backups.len() > 1 => {
            let all = units::count(backups.len(), "backup");
            info!(
                "of {all}, {} are whole, and {sealed} are encrypted and were not decrypted",
                backups.len() - sealed
            );
        }
        0 => {}
        _ => bail!("{bad} of {} are not proven whole", units::count(backups.len(), "backup")),
    }
    Ok(Outcome::Done)
}

fn drill(source: &Source, which: &str) -> Result<Outcome> {
    if source.several.is_none() {
        return Ok(Outcome::of(drill::run(&source.job, which)));
    }
    if which == LATEST {
        return Ok(Outcome::of(source.drill()?));
    }
    let which = source.which(which);
    // A key names its database itself.
    let (job, which) = match which.rsplit_once('/').filter(|_| !which.ends_with(".gz")) {
        Some((database, which)) => (source.job.of(database), which),
        None => (source.job.clone(), which.as_str()),
    };
    Ok(Outcome::of(drill::run(&job, which)))
}
