//! What a backup's object says about the backup, in its metadata. Copying an object may lose its metadata, and
//! somebody else may have written it. So all of it may be missing, and none of it is relied on.

use anyhow::{Context, Result};
use log::warn;

use crate::jobs::backup::{CLIENT_VERSION, DATABASE_PROPERTIES};
use crate::jobs::Job;
use crate::postgres::{major, Properties};
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
        let properties = value(DATABASE_PROPERTIES).filter(|record| !record.is_empty()).map(Properties::read);
        let properties = properties.transpose().unwrap_or_else(|problem| {
            warn!("how the database itself was made is not known: {problem:#}");
            None
        });
        let client_major = value(CLIENT_VERSION).and_then(major);
        Ok(Recorded { properties, client_major })
    }
}
