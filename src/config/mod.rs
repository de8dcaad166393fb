//! Environment → [`Config`]. Every problem is found before anything starts, and all are reported at once.

mod reader;

use std::env;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use log::LevelFilter;
use rusty_s3::Bucket;
use ureq::tls::Certificate;
use url::Url;

use crate::base::secret::{Redactor, Secret, MASK};
use crate::base::units;
use crate::config::reader::Reader;
use crate::postgres::conninfo::Conninfo;
use crate::schedule::Schedule;
use crate::store::key::{Catalog, Format};
use crate::store::retention::Policy;

/// All variables, for the warning about others with pgkeep's own prefix.
pub const VARIABLES: [&str; 23] = [
    "POSTGRES_CONNECTION_STRING",
    "S3_URL",
    "S3_BUCKET",
    "S3_PATH",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_REGION",
    "S3_ADDRESSING_STYLE",
    "S3_CA",
    "S3_UPLOAD_CONCURRENCY",
    "BACKUP_INTERVAL",
    "BACKUP_ON_START",
    "BACKUP_RETENTION_DAYS",
    "BACKUP_FORMAT",
    "BACKUP_DRILL_INTERVAL",
    "BACKUP_DRILL_CONNECTION_STRING",
    "BACKUP_LOCK_TIMEOUT",
    "BACKUP_PG_BIN",
    "BACKUP_COMPRESSION_LEVEL",
    "BACKUP_THREADS",
    "BACKUP_TEMP_DIR",
    "BACKUP_LOG_LEVEL",
    "TZ",
];

/// The whole configuration. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach the database; always names one.
    pub connection: Conninfo,
    /// The database's name.
    pub database: String,
    /// Where backups go.
    pub s3: S3Config,
    /// When the daemon backs up.
    interval: Option<Interval>,
    /// Whether it does so at its start too.
    pub on_start: OnStart,
    /// How long backups are kept.
    pub retention: Policy,
    /// What backups are made in.
    pub format: Format,
    /// The server for drills, and when the daemon has one.
    pub drill: Option<Conninfo>,
    drill_interval: Option<Interval>,
    /// How long pg_dump waits for the lock of a table.
    pub lock_timeout: Duration,
    /// The one place to look for PostgreSQL's clients, where it was given.
    pub client_directory: Option<PathBuf>,
    /// gzip's level, from 1 (fast) to 9 (small).
    pub compression_level: u32,
    /// How many threads compress.
    pub threads: NonZeroUsize,
    /// How many parts are uploaded at a time.
    pub upload_concurrency: NonZeroUsize,
    /// Where the spool and the status file are made.
    pub temp_directory: PathBuf,
    /// What the log shows.
    pub log_level: LevelFilter,
    /// The `TZ` in force; the system's local time where it is absent.
    pub time_zone: Option<String>,
    /// Variables that look like pgkeep's and are not: probably misspelt.
    pub unknown: Vec<String>,
}

/// `BACKUP_ON_START`: whether the daemon backs up before its first fire time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStart {
    /// Never.
    #[default]
    No,
    /// Always, unless there is a backup from just now.
    Yes,
    /// If the newest backup is older than the last fire time.
    Missed,
}

/// `BACKUP_INTERVAL` as written, and what it means.
#[derive(Clone, Debug)]
pub struct Interval {
    /// The crontab(5) expression.
    pub expression: String,
    /// Its meaning.
    pub schedule: Schedule,
}

/// Where backups go, and the right to put them there.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The endpoint as it was given; AWS where it was not.
    pub url: Option<Url>,
    /// Endpoint, name, region and addressing style.
    pub bucket: Bucket,
    /// `S3_PATH` without slashes at its ends.
    pub path: String,
    /// The access key's id.
    pub access_key: String,
    /// The key that signs.
    pub secret_key: Secret,
    /// The authorities whose word on the endpoint's certificate counts; the system's where none are given.
    pub authorities: Option<Arc<Vec<Certificate<'static>>>>,
}

impl Config {
    /// Reads the environment; `daemon` needs a schedule.
    ///
    /// # Errors
    /// One sentence a problem: the variable, what is wrong with it, and an example of a right value.
    pub fn load(daemon: bool) -> Result<Self, Vec<String>> {
        let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        Self::read(&|name| env::var_os(name), names.collect(), daemon)
    }

    fn read(
        variable: &dyn Fn(&str) -> Option<OsString>,
        names: Vec<String>,
        daemon: bool,
    ) -> Result<Self, Vec<String>> {
        let mut from = Reader { variable, problems: Vec::new() };
        let log_level = from.log_level();
        let time_zone = from.time_zone();
        let connection = from.connection();
        let s3 = from.s3();
        let interval = from.interval(daemon);
        let on_start = from.on_start();
        let retention = from.retention();
        let format = from.format();
        let drill = from.drill_connection();
        let drill_interval = from.drill_interval(drill.is_some());
        let lock_timeout = from.lock_timeout();
        let client_directory = from.client_directory();
        let temp_directory = from.temp_directory();
        let compression_level = from.compression_level();
        let threads = from.threads();
        let upload_concurrency = from.upload_concurrency();
        let (Some((connection, database)), Some(s3), true) = (connection, s3, from.problems.is_empty())
        else {
            return Err(from.problems);
        };
        let known = |name: &str| VARIABLES.contains(&name.strip_suffix("_FILE").unwrap_or(name));
        let unknown = names.into_iter().filter(|name| name.starts_with("BACKUP_") && !known(name)).collect();
        Ok(Config {
            connection,
            database,
            s3,
            interval,
            on_start,
            retention,
            format,
            drill,
            drill_interval,
            lock_timeout,
            client_directory,
            compression_level,
            threads,
            upload_concurrency,
            temp_directory,
            log_level,
            time_zone,
            unknown,
        })
    }

    /// When to back up.
    ///
    /// # Errors
    /// Where the command that it was loaded for needs no schedule.
    pub fn interval(&self) -> anyhow::Result<&Interval> {
        self.interval.as_ref().context("BACKUP_INTERVAL is missing")
    }

    /// When the daemon is to have a drill, if ever.
    pub fn drill_interval(&self) -> Option<&Interval> {
        self.drill_interval.as_ref()
    }

    /// The names of this database's backups.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(&self.s3.path, &self.database)
    }

    /// Masks the configured secrets in texts from outside.
    pub fn redactor(&self) -> Redactor {
        let inherited = env::var("PGPASSWORD").ok().map(Secret::new);
        let drill = self.drill.as_ref().and_then(Conninfo::password).cloned();
        let secrets =
            [self.connection.password().cloned(), drill, Some(self.s3.secret_key.clone()), inherited];
        Redactor::new(secrets.into_iter().flatten())
    }

    /// The effective configuration, a line a variable, secrets masked.
    pub fn lines(&self) -> Vec<String> {
        let style = match self.s3.bucket.base_url().path().trim_matches('/').ends_with(self.s3.bucket.name())
        {
            true => "path",
            false => "virtual",
        };
        let interval = self.interval.as_ref().map_or("(not set)", |interval| &interval.expression);
        let url = self.s3.url.as_ref().map_or("(not set: AWS)", Url::as_str);
        let authorities = match &self.s3.authorities {
            Some(given) => units::count(given.len(), "certificate"),
            None => "(not set: the system's)".into(),
        };
        let drill = match (&self.drill, &self.drill_interval) {
            (Some(drill), Some(interval)) => format!("{} on {}", interval.expression, drill.masked()),
            (Some(drill), None) => format!("(only by hand) on {}", drill.masked()),
            (None, _) => "(not set)".into(),
        };
        let clients = self.client_directory.as_deref().map_or("(searched)".into(), Path::to_string_lossy);
        vec![
            format!("POSTGRES_CONNECTION_STRING = {}", self.connection.masked()),
            format!("S3_URL = {url} (bucket at {})", self.s3.bucket.base_url()),
            format!("S3_BUCKET = {}", self.s3.bucket.name()),
            format!("S3_PATH = {} (backups at {}…)", self.s3.path, self.catalog().prefix()),
            format!("S3_ACCESS_KEY = {MASK}, S3_SECRET_KEY = {MASK}"),
            format!("S3_REGION = {}, S3_ADDRESSING_STYLE = {style}", self.s3.bucket.region()),
            format!("S3_CA = {authorities}"),
            format!("BACKUP_INTERVAL = {interval}"),
            format!("BACKUP_ON_START = {}", self.on_start.name()),
            match self.retention.days {
                Some(days) => format!("BACKUP_RETENTION_DAYS = {days}"),
                None => "BACKUP_RETENTION_DAYS = (not set: every backup is kept)".into(),
            },
            format!("BACKUP_FORMAT = {}", self.format),
            format!("BACKUP_DRILL_INTERVAL = {drill}"),
            format!("BACKUP_LOCK_TIMEOUT = {}", units::duration(self.lock_timeout)),
            format!("BACKUP_PG_BIN = {clients}"),
            format!(
                "BACKUP_COMPRESSION_LEVEL = {}, BACKUP_THREADS = {}",
                self.compression_level, self.threads
            ),
            format!("S3_UPLOAD_CONCURRENCY = {}", self.upload_concurrency),
            format!("BACKUP_TEMP_DIR = {}", self.temp_directory.display()),
            format!("BACKUP_LOG_LEVEL = {}", self.log_level.as_str().to_lowercase()),
            format!("TZ = {}", self.time_zone.as_deref().unwrap_or("(not set: the system's local time)")),
        ]
    }
}

impl OnStart {
    pub(crate) const ALL: [OnStart; 3] = [OnStart::No, OnStart::Yes, OnStart::Missed];

    /// The variable's value.
    pub fn name(self) -> &'static str {
        match self {
            OnStart::No => "false",
            OnStart::Yes => "true",
            OnStart::Missed => "missed",
        }
    }
}

#[cfg(test)]
mod tests;
