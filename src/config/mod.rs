//! Turns the environment into jobs. Only this folder reads variables. It finds every problem before anything
//! starts, and reports all of them at once.

mod reader;
mod text;
mod values;
mod variables;

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Result};
use log::{warn, LevelFilter};
use rusty_s3::{Bucket, UrlStyle};
use ureq::tls::Certificate;
use url::Url;

use self::reader::Reader;
pub use self::variables::{Absent, Variable, VARIABLES};
use crate::base::secret::{Redactor, Secret};
use crate::base::shutdown::Shutdown;
use crate::daemon::{self, OnStart, Status};
use crate::jobs::server::{List, Names, Several, Source};
use crate::jobs::Job;
use crate::postgres::{refuse_hidden_password, Conninfo, Format};
use crate::s3::{Client, S3Config};
use crate::schedule::Interval;
use crate::store::{Policy, Store};

/// A server is asked for its databases from this one, which initdb makes, if the connection names no other.
const TO_ASK_FROM: &str = "postgres";

/// The values of the variables, one field for each.
struct Settings {
    connection: Option<Conninfo>,
    bucket: String,
    access_key: String,
    secret_key: Secret,
    interval: Option<Interval>,
    url: Option<Url>,
    path: String,
    region: String,
    style: Option<UrlStyle>,
    authorities: Option<Arc<Vec<Certificate<'static>>>>,
    upload_concurrency: NonZeroUsize,
    databases: Option<List>,
    exclude_databases: List,
    globals: Option<bool>,
    at_a_time: NonZeroUsize,
    on_start: OnStart,
    retention: Policy,
    shrink_guard: bool,
    format: Format,
    drill: Option<Conninfo>,
    drill_interval: Option<Interval>,
    lock_timeout: Duration,
    stall_timeout: Duration,
    client_directory: Option<PathBuf>,
    compression_level: u32,
    threads: NonZeroUsize,
    temp_directory: PathBuf,
    log_level: LevelFilter,
    time_zone: Option<String>,
}

/// The whole configuration.
pub struct Config {
    /// The variables, to read them again.
    from: Reader,
    settings: Settings,
    /// How to reach the database. It always names a database.
    connection: Conninfo,
    /// The database's name.
    pub database: String,
    s3: S3Config,
    /// The effective configuration, one line for each variable, with secrets masked.
    pub lines: Vec<String>,
    /// A sentence about each variable that looks like pgkeep's but is not, and about each value that is
    /// probably a mistake.
    pub warnings: Vec<String>,
}

impl Config {
    /// Takes pgkeep's variables out of the environment. `daemon` needs a schedule. Call this while there is
    /// only one thread.
    ///
    /// # Errors
    /// One sentence for each problem: the variable, what is wrong with it, and an example of a right value.
    pub fn load(daemon: bool) -> Result<Self, Vec<String>> {
        Self::read(Reader::take(), daemon)
    }

    fn read(mut from: Reader, daemon: bool) -> Result<Self, Vec<String>> {
        let mut settings = Settings::default();
        let mut lines = Vec::new();
        for variable in VARIABLES {
            let name = variable.name;
            lines.push(match (from.read(variable, daemon, &mut settings), &variable.absent) {
                (true, _) => format!("{name} = {}", (variable.show)(&settings)),
                (false, Absent::Off(meaning)) => format!("{name} = (not set: {meaning})"),
                (false, _) => format!("{name} = (not set)"),
            });
        }
        let mut warnings = from.unknown();
        warnings.append(&mut from.warnings);
        for (name, interval) in
            [("BACKUP_INTERVAL", &settings.interval), ("BACKUP_DRILL_INTERVAL", &settings.drill_interval)]
        {
            let warning = interval.as_ref().and_then(|interval| interval.schedule.warning());
            warnings.extend(warning.map(|warning| format!("{name}: {warning}")));
        }
        match settings.together(&mut from) {
            Some((connection, database, s3)) if from.problems.is_empty() => {
                lines.push(format!("the bucket is at {}", s3.bucket.base_url()));
                Ok(Config { from, settings, connection, database, s3, lines, warnings })
            }
            _ => Err([from.problems, warnings].concat()),
        }
    }

    /// What a run backs up, with what the files hold now that `NAME_FILE` variables name. Secrets change while
    /// a daemon runs. The environment cannot.
    ///
    /// # Errors
    /// All problems of the configuration. Or it now means other backups than those that the daemon watches.
    pub fn source_of_now(&self, shutdown: &Shutdown) -> Result<Source> {
        let now = Self::read(self.from.again(), false)
            .map_err(|problems| anyhow!("the configuration cannot be read again: {}", problems.join("; ")))?;
        ensure!(
            now.status_path() == self.status_path(),
            "the configuration has changed: the files name another database, another place in S3 or another \
             BACKUP_TEMP_DIR than at the start; start pgkeep anew for that"
        );
        for sentence in now.warnings.iter().filter(|sentence| !self.warnings.contains(sentence)) {
            warn!("{sentence}");
        }
        now.source(shutdown)
    }

    /// What a run backs up: one database, or several of a server.
    ///
    /// # Errors
    /// The same as for [`Config::job`].
    pub fn source(&self, shutdown: &Shutdown) -> Result<Source> {
        let several = self.several();
        let mut job = self.job(shutdown)?;
        if several.is_some() {
            job.store = job.store.of_several();
        }
        Ok(Source { job, several })
    }

    fn several(&self) -> Option<Several> {
        let of = &self.settings;
        let names = Names::new(of.databases.clone()?, of.exclude_databases.clone());
        Some(Several { names, globals: of.globals.unwrap_or(true), at_a_time: of.at_a_time })
    }

    /// The job for the database of the connection.
    ///
    /// # Errors
    /// None yet.
    pub fn job(&self, shutdown: &Shutdown) -> Result<Job> {
        let of = &self.settings;
        let client = Client::new(&self.s3, shutdown.clone());
        Ok(Job {
            database: self.database.clone(),
            connection: self.connection.clone(),
            drill: of.drill.clone(),
            store: Store::new(client, &of.path, &self.database),
            format: of.format,
            retention: of.retention,
            shrink_guard: of.shrink_guard,
            lock_timeout: of.lock_timeout,
            stall_timeout: of.stall_timeout,
            client_directory: of.client_directory.clone(),
            compression_level: of.compression_level,
            threads: of.threads,
            upload_concurrency: of.upload_concurrency,
            temp_directory: of.temp_directory.clone(),
            redactor: self.redactor(),
            shutdown: shutdown.clone(),
            listeners: Vec::new(),
            run: None,
            globals: false,
        })
    }

    /// The daemon's plan: when it does what.
    ///
    /// # Errors
    /// The configuration was loaded for a command that needs no schedule, and it has none.
    pub fn plan(&self) -> Result<daemon::Plan> {
        Ok(daemon::Plan {
            interval: self.interval().context("BACKUP_INTERVAL is missing")?.clone(),
            on_start: self.settings.on_start,
            drill_interval: self.settings.drill_interval.clone(),
            status_path: self.status_path(),
            several: self.settings.databases.is_some(),
        })
    }

    fn status_path(&self) -> PathBuf {
        let bucket = &self.s3.bucket;
        let of = &self.settings;
        // Of several databases, the list says which daemon it is.
        let list = of.databases.as_ref().map(|list| format!("\n{list}\n{}", of.exclude_databases));
        let database = if list.is_some() { "*" } else { &self.database };
        let path = format!("{}{}", of.path, list.unwrap_or_default());
        let place = [bucket.base_url().as_str(), bucket.name(), &path];
        Status::path(&of.temp_directory, database, place)
    }

    /// When the daemon backs up.
    pub fn interval(&self) -> Option<&Interval> {
        self.settings.interval.as_ref()
    }

    /// The level of the log.
    pub fn log_level(&self) -> LevelFilter {
        self.settings.log_level
    }

    /// The time zone of the schedule, if it is not the system's.
    pub fn time_zone(&self) -> Option<&str> {
        self.settings.time_zone.as_deref()
    }

    /// Masks the configured secrets in texts from outside.
    fn redactor(&self) -> Redactor {
        let inherited = env::var("PGPASSWORD").ok().map(Secret::new);
        let drill = self.settings.drill.as_ref().and_then(Conninfo::password).cloned();
        let secrets =
            [self.connection.password().cloned(), drill, Some(self.s3.secret_key.clone()), inherited];
        Redactor::new(secrets.into_iter().flatten())
    }
}

impl Default for Settings {
    /// The values before any variable is read. Most defaults are in the table.
    fn default() -> Self {
        // As many as this process may use, given its affinity and its control group's quota.
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Settings {
            connection: None,
            bucket: String::new(),
            access_key: String::new(),
            secret_key: Secret::new(""),
            interval: None,
            url: None,
            path: String::new(),
            region: String::new(),
            style: None,
            authorities: None,
            upload_concurrency: NonZeroUsize::MIN,
            databases: None,
            exclude_databases: List::default(),
            globals: None,
            at_a_time: NonZeroUsize::MIN,
            on_start: OnStart::No,
            retention: Policy { days: None },
            shrink_guard: false,
            format: Format::Plain,
            drill: None,
            drill_interval: None,
            lock_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
            client_directory: None,
            compression_level: 0,
            threads: NonZeroUsize::new(processors.min(values::MOST_THREADS)).expect("from 1"),
            temp_directory: env::temp_dir(),
            log_level: LevelFilter::Info,
            time_zone: None,
        }
    }
}

impl Settings {
    /// Checks what depends on several variables: the connection with its database, and the bucket.
    fn together(&self, from: &mut Reader) -> Option<(Conninfo, String, S3Config)> {
        if self.drill_interval.is_some() && !from.is_set("BACKUP_DRILL_CONNECTION_STRING") {
            let remedy = "name the server to restore to; the source server too has to be named";
            from.problem(
                "BACKUP_DRILL_INTERVAL",
                "is set, and BACKUP_DRILL_CONNECTION_STRING is not",
                remedy,
            );
        }
        let excluded = self.exclude_databases != List::default();
        for (name, is_set) in
            [("BACKUP_EXCLUDE_DATABASES", excluded), ("BACKUP_GLOBALS", self.globals.is_some())]
        {
            if is_set && !from.is_set("BACKUP_DATABASES") {
                let remedy = "for example BACKUP_DATABASES='*'";
                from.problem(name, "is set, and BACKUP_DATABASES is not", remedy);
            }
        }
        let (connection, s3) = (self.named_connection(from), self.s3(from));
        let (connection, database) = connection?;
        Some((connection, database, s3?))
    }

    /// The connection and the name of its database. Like libpq, this uses PGDATABASE if the connection names
    /// no database, and then the user's name; or, of several databases, `postgres`.
    fn named_connection(&self, from: &mut Reader) -> Option<(Conninfo, String)> {
        let mut connection = self.connection.clone()?;
        let given = |keyword: &str| connection.get(keyword).map(str::to_owned);
        let database = given("dbname").or_else(|| from.inherited("PGDATABASE"));
        let database = database.or_else(|| self.databases.as_ref().map(|_| TO_ASK_FROM.to_owned()));
        let database = database.or_else(|| given("user")).or_else(|| from.inherited("PGUSER"));
        let Some(database) = database else {
            let example = format!("for example {}", variables::CONNECTION);
            from.problem("POSTGRES_CONNECTION_STRING", "names no database", &example);
            return None;
        };
        // If the name came from the connection string, it was checked there.
        if let Err(problem) = refuse_hidden_password("dbname", &database) {
            from.problem("PGDATABASE", "cannot be used", &problem);
            return None;
        }
        connection.set("dbname", &database);
        Some((connection, database))
    }

    fn s3(&self, from: &mut Reader) -> Option<S3Config> {
        if self.bucket.is_empty() || self.region.is_empty() {
            // Already reported.
            return None;
        }
        let region = &self.region;
        let aws = || Url::parse(&format!("https://s3.{region}.amazonaws.com"));
        let Ok(url) = self.url.clone().map_or_else(aws, Ok) else {
            from.problem("S3_REGION", "is not the name of a region", "for example S3_REGION=eu-central-1");
            return None;
        };
        let style = self.style.unwrap_or_else(|| default_style(&url, &self.bucket));
        match Bucket::new(url, style, self.bucket.clone(), region.clone()) {
            Ok(bucket) => Some(S3Config {
                url: self.url.clone(),
                bucket,
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
                authorities: self.authorities.clone(),
            }),
            Err(problem) => {
                let what = format!("and S3_BUCKET give no address: {problem}");
                from.problem("S3_URL", &what, "a host that is a number needs S3_ADDRESSING_STYLE=path");
                None
            }
        }
    }
}

/// AWS wants the bucket in the host name. The exception is a bucket with dots in its name, because AWS's
/// certificate would not cover it. All other stores get the bucket in the path.
fn default_style(url: &Url, bucket: &str) -> UrlStyle {
    let host = url.host_str().unwrap_or_default();
    let aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    if aws && !bucket.contains('.') {
        UrlStyle::VirtualHost
    } else {
        UrlStyle::Path
    }
}

#[cfg(test)]
mod tests;
