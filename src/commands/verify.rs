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
use crate::jobs::{drill, fetch, Job};
use crate::s3::S3Error;

pub(super) const ROW: Row = Row {
    name: "verify",
    options: "[WHICH | --all] [--drill]",
    summary: "read a backup (default: the newest) and prove it whole",
    details: "
  --all     all backups of this database
  --drill   restore it too, on the server of BACKUP_DRILL_CONNECTION_STRING, and drop what was made
",
    parse,
};

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
        options.which = "latest".into();
    }
    Ok(Command::Verify(options))
}

pub(super) fn command(job: &Job, options: &Options) -> Result<Outcome> {
    if options.drill {
        return Ok(Outcome::of(drill::run(job, &options.which)));
    }
    let store = &job.store;
    let backups = match options.all {
        true => store.list().context("cannot list the backups")?,
        false => vec![store.find(&options.which)?.backup],
    };
    ensure!(!backups.is_empty(), "there is no backup of database \"{}\"", job.database);
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
