//! The bucket as a set of backups: this database's backups, by exact name.

mod clock;
mod doubt;
mod key;
mod retention;
mod select;

use std::collections::BTreeMap;

use anyhow::{bail, ensure, Context, Result};
use chrono::{DateTime, NaiveDate, SubsecRound, TimeDelta, Utc};
use log::{debug, info, warn};

pub use self::clock::{is_future, split_future, warning, MOST_SKEW};
pub use self::doubt::{doubts, Doubt, Seen};
pub use self::key::{escape, Backup, GLOBALS};
pub use self::retention::{plan, Decision, Fate, Keeper, Policy, Rule};
pub use self::select::up_to;
use crate::postgres::Format;
use crate::s3::{Client, Head, PendingUpload, S3Error};
use key::Keys;

/// The metadata name for the PostgreSQL cluster that a backup was made from.
pub const CLUSTER_ID: &str = "cluster-id";
/// The metadata name for the run that made a backup, if the run backed up several databases.
pub const RUN: &str = "backup-run";
/// An unfinished upload older than this was left by a crash.
const STALE_AFTER: TimeDelta = TimeDelta::days(1);

/// The backups of one database in the bucket.
#[derive(Clone)]
pub struct Store {
    /// The bucket itself.
    pub client: Client,
    database: String,
    path: String,
    keys: Keys,
    /// Whether there are other databases, so that each backup is asked for with its database.
    several: bool,
}

/// The times in the names of a day's backups.
pub struct Taken {
    day: NaiveDate,
    times: Vec<DateTime<Utc>>,
}

/// A backup and its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The database's name.
    pub database: String,
    /// The backup.
    pub backup: Backup,
}

impl Store {
    /// The backups of `database` below `path`, which is empty or has no slash at its end.
    pub fn new(client: Client, path: &str, database: &str) -> Self {
        let keys = Keys::new(path, database);
        Store { client, database: database.to_owned(), path: path.to_owned(), keys, several: false }
    }

    /// The backups of what a user calls so: a database, or the globals. (A database of that name can be reached
    /// by its keys.)
    pub fn named(&self, name: &str) -> Self {
        if name == GLOBALS {
            self.of_globals()
        } else {
            self.of(name)
        }
    }

    /// The same, for one who keeps several databases: see [`Store::find`].
    pub fn of_several(self) -> Self {
        Store { several: true, ..self }
    }

    /// The backups of another database below the same path.
    pub fn of(&self, database: &str) -> Self {
        let keys = Keys::new(&self.path, database);
        Store { database: database.to_owned(), keys, several: false, ..self.clone() }
    }

    /// The backups of the server's globals below the same path.
    pub fn of_globals(&self) -> Self {
        let keys = Keys::of_globals(&self.path);
        Store { database: GLOBALS.to_owned(), keys, several: false, ..self.clone() }
    }

    /// The same backups, through another client.
    pub fn with_client(&self, client: Client) -> Self {
        Store { client, ..self.clone() }
    }

    /// `s3://bucket/key` of a backup.
    pub fn place(&self, backup: &Backup) -> String {
        self.client.place(&backup.key)
    }

    /// What the places of all this database's backups begin with.
    pub fn location(&self) -> String {
        format!("{}…", self.client.place(self.keys.prefix()))
    }

    /// What the places of all databases' backups begin with.
    pub fn location_of_all(&self) -> String {
        format!("{}…", self.client.place(&key::folder(&self.path)))
    }

    /// The name of a backup with this time and format.
    pub fn key(&self, time: DateTime<Utc>, format: Format, encrypted: bool) -> String {
        self.keys.key(time, format, encrypted)
    }

    /// A key next to the backups that is not a backup's: for an object that is deleted at once.
    pub fn canary_key(&self) -> String {
        format!("{}check-{:016x}", self.keys.prefix(), fastrand::u64(..))
    }

    /// This database's backups, the oldest first.
    pub fn list(&self) -> Result<Vec<Backup>, S3Error> {
        Ok(self.keys.backups(self.client.list_objects(self.keys.prefix())?))
    }

    /// The backups of every database below the path, by the database's name, each database's oldest first.
    pub fn list_all(&self) -> Result<BTreeMap<String, Vec<Backup>>, S3Error> {
        let objects = self.client.list_objects(&key::folder(&self.path))?;
        Ok(key::by_database(&self.path, objects))
    }

    /// The names that backups of this day have taken. The listing also shows, before any dump begins, whether
    /// the bucket exists and can be read.
    pub fn taken(&self, day: DateTime<Utc>) -> Result<Taken, S3Error> {
        let backups = self.keys.backups(self.client.list_objects(&self.keys.day(day))?);
        Ok(Taken { day: day.date_naive(), times: backups.iter().map(|backup| backup.time).collect() })
    }

    /// `now`, or the next second that is not yet in a backup's name. If `taken` is of another day, S3 is asked.
    pub fn free_time(&self, now: DateTime<Utc>, taken: Option<Taken>) -> Result<DateTime<Utc>, S3Error> {
        let taken = taken.filter(|taken| taken.day == now.date_naive());
        let taken = taken.map_or_else(|| self.taken(now), Ok)?;
        let mut time = now.trunc_subsecs(0);
        while taken.times.contains(&time) {
            time += TimeDelta::seconds(1);
        }
        Ok(time)
    }

    /// What S3 says about the newest of `past` (the oldest first) and a few before it, the newest first: the
    /// evidence for [`doubts`]. A backup that somebody has deleted meanwhile is left out.
    pub fn look_at_newest(&self, past: &[Backup]) -> Result<Vec<Seen>, S3Error> {
        let newest = past.iter().rev().take(1 + doubt::WATCHED);
        let seen = newest.map(|backup| {
            let head = self.client.head_object(&backup.key)?;
            let here = Utc::now();
            let there = head.as_ref().and_then(Head::date);
            let cluster = head.and_then(|head| head.metadata(CLUSTER_ID).map(str::to_owned));
            Ok(Seen { key: backup.key.clone(), cluster, here, there })
        });
        seen.collect()
    }

    /// Finds the backup that `which` means. It is `latest`, a time in UTC, or the beginning of a time (the
    /// newest match), all among this database's backups, or with a database and a slash before it among that
    /// one's; or the key of any database's backup below the path. A backup of the future is the newest only if
    /// no other has that time.
    ///
    /// # Errors
    /// There is no such backup. The error names the nearest ones. Or there are several databases, and `which`
    /// names none of them.
    pub fn find(&self, which: &str) -> Result<Selected> {
        if [".gz", ".age"].iter().any(|end| which.ends_with(end)) {
            return self.find_key(which);
        }
        if let Some((database, which)) = which.rsplit_once('/') {
            return self.named(database).find(which);
        }
        ensure!(
            !self.several,
            "\"{which}\" does not say of which database: for example shop/latest, shop/2026-11-23, or a key; pgkeep list \
             shows the backups of all of them"
        );
        let backups = self.list().context("cannot list the backups")?;
        if backups.is_empty() {
            bail!("there is no backup of database \"{}\" at {}", self.database, self.location());
        }
        let backup = select::choose(which, &backups, Utc::now())?;
        Ok(Selected { database: self.database.clone(), backup: backup.clone() })
    }

    /// Whether this is a backup of the server's globals and not of a database.
    pub fn is_of_globals(&self, backup: &Backup) -> bool {
        Keys::of_globals(&self.path).parse(&backup.key).is_some()
    }

    fn find_key(&self, which: &str) -> Result<Selected> {
        let key = which.strip_prefix(&self.client.place("")).unwrap_or(which);
        ensure!(!key.starts_with("s3://"), "{key} is in another bucket than S3_BUCKET");
        // A listing also returns the size, and says why if the bucket cannot be read.
        let mut objects = self.client.list_objects(key).context("cannot list the backups")?;
        objects.retain(|object| object.key == key);
        let globals = Keys::of_globals(&self.path).backups(objects.clone());
        if let Some(backup) = globals.into_iter().next() {
            return Ok(Selected { database: GLOBALS.to_owned(), backup });
        }
        let found = key::by_database(&self.path, objects).into_iter().next();
        match found.and_then(|(database, backups)| Some((database, backups.into_iter().next()?))) {
            Some((database, backup)) => Ok(Selected { database, backup }),
            None => bail!(
                "{} is no backup of pgkeep's: `pgkeep list --all` shows the keys of those below S3_PATH",
                self.client.place(key)
            ),
        }
    }

    /// This database's uploads that are neither completed nor aborted. Not every S3-compatible server can
    /// list them, but that is no reason to stop a backup.
    pub fn pending_uploads(&self) -> Vec<PendingUpload> {
        self.pending_below(self.keys.prefix(), |key| self.keys.parse(key).is_some())
    }

    /// The same for every database below the path.
    pub fn pending_uploads_of_all(&self) -> Vec<PendingUpload> {
        self.pending_below(&key::folder(&self.path), |key| key::is_a_backups(&self.path, key))
    }

    fn pending_below(&self, prefix: &str, is_ours: impl Fn(&str) -> bool) -> Vec<PendingUpload> {
        match self.client.list_multipart_uploads(prefix) {
            Ok(uploads) => uploads.into_iter().filter(|upload| is_ours(&upload.key)).collect(),
            Err(error) => {
                debug!("unfinished uploads are not looked for: {error}");
                Vec::new()
            }
        }
    }

    /// Aborts the uploads that a crash left behind. Their age is counted by S3's clock: if this host's clock
    /// is ahead, a running upload of another pgkeep would seem stale.
    pub fn sweep(&self, now: DateTime<Utc>) {
        self.sweep_some(self.pending_uploads(), now);
    }

    /// The same for every database below the path.
    pub fn sweep_all(&self, now: DateTime<Utc>) {
        self.sweep_some(self.pending_uploads_of_all(), now);
    }

    fn sweep_some(&self, mut stale: Vec<PendingUpload>, now: DateTime<Utc>) {
        let is_stale = |upload: &PendingUpload, now| now - upload.initiated >= STALE_AFTER;
        stale.retain(|upload| is_stale(upload, now));
        if stale.is_empty() {
            return;
        }
        match self.client.server_time() {
            Ok(there) => stale.retain(|upload| is_stale(upload, there.unwrap_or(now))),
            Err(error) => return warn!("stale uploads are left for the next time: {error}"),
        }
        for upload in stale {
            match self.client.abort_multipart_upload(&upload.key, &upload.id) {
                Ok(()) => {
                    info!("aborted the upload {} of {}, begun {}", upload.id, upload.key, upload.initiated);
                }
                Err(error) => warn!("the stale upload {} could not be aborted: {error}", upload.id),
            }
        }
    }
}
