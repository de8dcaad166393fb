//! The roles that a backup needs: things in it belong to them, or give them rights. They are the server's and not
//! the database's, so another server may lack them.

use anyhow::{ensure, Context, Result};
use chrono::Utc;

use crate::jobs::{fetch, Job};
use crate::postgres::{Databases, Globals, Properties};
use crate::store::{self, Backup};

/// Longer than any script of globals: a hundred thousand roles.
const LONGEST: usize = 64 << 20;

/// Makes the roles that the server does not have, if that is `allowed`.
///
/// # Errors
/// Roles are missing. The error names all of them.
pub fn provide(job: &Job, databases: &Databases, recorded: Option<&Properties>, allowed: bool) -> Result<()> {
    let missing = databases.missing_roles(&recorded.map(Properties::roles).unwrap_or_default())?;
    if missing.is_empty() {
        return Ok(());
    }
    ensure!(
        allowed,
        "the backup needs roles that the server does not have: {}; --create-roles makes them as the newest backup of the \
         globals says (BACKUP_GLOBALS), else without any right and password; of a backup in the custom format, --no-owner and \
         --no-privileges restore what needs none of them",
        missing.join(", ")
    );
    let globals = match newest(job, None)? {
        Some(backup) => read(job, &backup)?,
        None => Globals::default(),
    };
    databases.create_roles(&missing, &globals)
}

/// The newest backup of the server's globals, or the newest up to a time.
pub fn newest(job: &Job, at: Option<&str>) -> Result<Option<Backup>> {
    let globals = job.store.of_globals().list().context("cannot list the backups")?;
    let (now, always) = (Utc::now(), "9999");
    Ok(store::up_to(at.unwrap_or(always), &globals, now)?.cloned())
}

/// Reads a backup of the globals.
pub fn read(job: &Job, backup: &Backup) -> Result<Globals> {
    let mut script = Vec::new();
    let gather = |bytes: &[u8]| {
        ensure!(
            script.len() + bytes.len() <= LONGEST,
            "it is too long for a script of pg_dumpall --globals-only"
        );
        script.extend_from_slice(bytes);
        Ok(())
    };
    let what = || format!("cannot read the globals at {}", job.store.place(backup));
    fetch::stream(job, backup, "fetching", |_| Ok(()), gather).with_context(what)?;
    let script = String::from_utf8(script).context("it is not UTF-8").with_context(what)?;
    Ok(Globals::read(&script))
}
