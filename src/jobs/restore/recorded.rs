//! What a backup's object says about the backup, in its metadata. Copying an object may lose its metadata, and
//! somebody else may have written it. So all of it may be missing, and none of it is relied on.

use anyhow::{Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use log::warn;

use crate::jobs::backup::{CLIENT_VERSION, DATABASE_PROPERTIES};
use crate::jobs::Job;
use crate::postgres::{major, Properties, LONGEST_RECORD};
use crate::store::Backup;

/// What was recorded when the backup was made.
pub struct Recorded {
    /// The properties of the database itself.
    pub properties: Option<Properties>,
    /// The major version of the pg_dump that made the backup.
    pub client_major: Option<u32>,
}

impl Recorded {
    /// Asks S3 for the metadata of a backup.
    pub fn of(job: &Job, backup: &Backup) -> Result<Self> {
        let head = job.store.client.head_object(&backup.key).context("cannot look at the backup")?;
        let value = |name| head.as_ref().and_then(|head| head.metadata(name));
        let properties = value(DATABASE_PROPERTIES).filter(|record| !record.is_empty());
        let properties = properties.map(|record| read(job, backup, record));
        let properties = properties.transpose().unwrap_or_else(|problem| {
            warn!("how the database itself was made is not known: {problem:#}");
            None
        });
        let client_major = value(CLIENT_VERSION).and_then(major);
        Ok(Recorded { properties, client_major })
    }
}

/// The properties of the database itself as a text for the metadata. They have names, settings and a comment in
/// them, so they are encrypted if the backup is.
///
/// # Errors
/// age fails.
pub fn record(job: &Job, properties: &Properties) -> Result<String> {
    let Some(recipients) = &job.recipients else { return Ok(properties.record(LONGEST_RECORD)) };
    let mut room = LONGEST_RECORD;
    // Only the first try shows how much age adds.
    for _ in 0..2 {
        let record = properties.record(room);
        let sealed = recipients.seal(record.as_bytes(), &job.shutdown)?;
        let text = BASE64_STANDARD.encode(&sealed);
        if text.len() <= LONGEST_RECORD {
            return Ok(text);
        }
        let added = sealed.len() - record.len();
        // In base64, three bytes become four.
        room = (LONGEST_RECORD / 4 * 3).saturating_sub(added);
    }
    warn!(
        "there is no room in the metadata for how the database itself was made (owner, locale, grants, settings), because \
         BACKUP_AGE_RECIPIENTS has so many keys: a restore will use the server's defaults"
    );
    Ok(String::new())
}

fn read(job: &Job, backup: &Backup, record: &str) -> Result<Properties> {
    let Some(identity) = job.identity_for(backup)? else { return Properties::read(record) };
    let sealed = BASE64_STANDARD.decode(record).context("it is not base64")?;
    Properties::read(&String::from_utf8(identity.open(&sealed, &job.shutdown)?)?)
}
