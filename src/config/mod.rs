//! Turns the environment into jobs. Only this folder reads variables. It finds every problem before anything
//! starts, and reports all of them at once.

mod credentials;
mod mistakes;
mod objects;
mod proxy;
mod reader;
mod text;
mod values;
mod variables;
mod watch;

use std::env;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, ensure, Context, Error, Result};
use log::{warn, LevelFilter};
use rusty_s3::{Bucket, UrlStyle};
use ureq::tls::Certificate;
use url::Url;

use self::reader::Reader;
pub use self::variables::{Absent, Variable, VARIABLES};
pub use self::watch::Refused;
use crate::base::logging;
use crate::base::secret::{Redactor, Secret};
use crate::base::shutdown::Shutdown;
use crate::daemon::{self, OnStart, Status};
use crate::jobs::Job;
use crate::postgres::{refuse_hidden_password, Clients, Conninfo, DumpOptions, Format, Postgres};
use crate::s3::{Client, Credentials, PartSize, Properties, S3Config};
use crate::schedule::Interval;
use crate::store::{Policy, Rule, Store};

/// The values of the variables, one field for each.
struct Settings {
    connection: Option<Conninfo>,
    bucket: String,
    access_key: String,
    secret_key: Secret,
    session_token: Option<Secret>,
    role: bool,
    properties: Properties,
    part_size: PartSize,
    interval: Option<Interval>,
    url: Option<Url>,
    path: String,
    region: String,
    style: Option<UrlStyle>,
    authorities: Option<Arc<Vec<Certificate<'static>>>>,
    upload_concurrency: NonZeroUsize,
    on_start: OnStart,
    retention: Policy,
    shrink_guard: bool,
    format: Format,
    dump_options: DumpOptions,
    drill: Option<Conninfo>,
    drill_interval: Option<Interval>,
    lock_timeout: Duration,
    stall_timeout: Duration,
    client_directory: Option<PathBuf>,
    compression_level: u32,
    threads: NonZeroUsize,
    temp_directory: PathBuf,
    log_level: LevelFilter,
    log_format: logging::Format,
    metrics_listen: Option<SocketAddr>,
    metrics_file: Option<PathBuf>,
    time_zone: Option<String>,
}

/// The whole configuration.
pub struct Config {
    /// The variables, to read them again.
    from: Reader,
    settings: Settings,
    /// How to reach the database.
    connection: Conninfo,
    /// The database's name, if it is known without the server.
    database: Option<String>,
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
    /// All problems.
    pub fn load(daemon: bool) -> Result<Self, Refused> {
        let from = Reader::take();
        let log_format = watch::log_format(from.again());
        Self::read(from, daemon).map_err(|problems| Refused { problems, log_format })
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
        warnings.extend(settings.probable_mistakes());
        match settings.together(&mut from) {
            Some((connection, database, s3)) if from.problems.is_empty() => {
                lines.push(format!("the bucket is at {}", s3.bucket.base_url()));
                lines.extend(s3.proxy.iter().map(|proxy| format!("the bucket is reached through {proxy}")));
                if let Credentials::Role(role) = &s3.credentials {
                    lines.push(format!("the keys for S3 come from {role}"));
                }
                Ok(Config { from, settings, connection, database, s3, lines, warnings })
            }
            _ => Err([from.problems, warnings].concat()),
        }
    }

    /// The job for the database, with what the files hold now that `NAME_FILE` variables name. Secrets change
    /// while a daemon runs. The environment cannot.
    ///
    /// # Errors
    /// All problems of the configuration. Or it now means other backups than those that the daemon watches.
    pub fn job_of_now(&self, shutdown: &Shutdown) -> Result<Job> {
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
        now.job(shutdown)
    }

    /// The job for the database.
    ///
    /// # Errors
    /// Only the server knows the database's name, and it cannot be asked.
    pub fn job(&self, shutdown: &Shutdown) -> Result<Job> {
        let database = self.database.clone().map_or_else(|| self.ask_for_name(shutdown), Ok)?;
        let mut connection = self.connection.clone();
        connection.set("dbname", &database);
        let of = &self.settings;
        let client = Client::new(&self.s3, shutdown.clone());
        Ok(Job {
            connection,
            drill: of.drill.clone(),
            store: Store::new(client, &of.path, &database),
            database,
            format: of.format,
            dump_options: of.dump_options.clone(),
            retention: of.retention.clone(),
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
            database: self.database.clone(),
            status_path: self.status_path(),
            listen: self.settings.metrics_listen,
        })
    }

    /// If the name is not known, the connection stands for it: `pgkeep health` asks no server.
    fn status_path(&self) -> PathBuf {
        let bucket = &self.s3.bucket;
        let mut path = self.settings.path.clone();
        if self.database.is_none() {
            path += &format!("\n{}", self.connection.without_password());
        }
        let place = [bucket.base_url().as_str(), bucket.name(), &path];
        Status::path(&self.settings.temp_directory, self.database.as_deref().unwrap_or_default(), place)
    }

    /// The name of the database that libpq chooses.
    fn ask_for_name(&self, shutdown: &Shutdown) -> Result<String> {
        let of = &self.settings;
        let ask = || -> Result<String> {
            let clients = Clients::find(of.client_directory.as_deref(), of.stall_timeout)?;
            let redactor = self.redactor();
            let postgres = Postgres::new(&self.connection, &clients, &redactor, shutdown, of.stall_timeout);
            let name = postgres.query("SELECT pg_catalog.current_database();")?;
            ensure!(!name.contains(char::REPLACEMENT_CHARACTER), "the name is not UTF-8");
            refuse_hidden_password("dbname", &name).map_err(Error::msg)?;
            Ok(name)
        };
        ask().with_context(|| {
            format!(
                "POSTGRES_CONNECTION_STRING names no database, and the server cannot be asked for its name; for \
                 example {}",
                variables::CONNECTION
            )
        })
    }

    /// When the daemon backs up.
    pub fn interval(&self) -> Option<&Interval> {
        self.settings.interval.as_ref()
    }

    /// The time zone of the schedule, if it is not the system's.
    pub fn time_zone(&self) -> Option<&str> {
        self.settings.time_zone.as_deref()
    }

    /// Masks the configured secrets in texts from outside.
    fn redactor(&self) -> Redactor {
        let inherited = env::var("PGPASSWORD").ok().map(Secret::new);
        let drill = self.settings.drill.as_ref().and_then(Conninfo::password).cloned();
        let secrets = [self.connection.password().cloned(), drill, inherited];
        Redactor::new(secrets.into_iter().flatten().chain(self.s3.credentials.configured_secrets()))
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
            session_token: None,
            role: false,
            properties: Properties::default(),
            part_size: PartSize::default(),
            interval: None,
            url: None,
            path: String::new(),
            region: String::new(),
            style: None,
            authorities: None,
            upload_concurrency: NonZeroUsize::MIN,
            on_start: OnStart::No,
            retention: Policy::default(),
            shrink_guard: false,
            format: Format::Plain,
            dump_options: DumpOptions::default(),
            drill: None,
            drill_interval: None,
            lock_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
            client_directory: None,
            compression_level: 0,
            threads: NonZeroUsize::new(processors.min(values::MOST_THREADS)).expect("from 1"),
            temp_directory: env::temp_dir(),
            log_level: LevelFilter::Info,
            log_format: logging::Format::default(),
            metrics_listen: None,
            metrics_file: None,
            time_zone: None,
        }
    }
}

impl Settings {
    /// Adds a rule to the retention.
    fn keep(&mut self, rule: Rule, number: u32) {
        self.retention.rules.insert(rule, number);
    }

    /// The number of a rule of the retention.
    fn kept(&self, rule: Rule) -> String {
        self.retention.rules.get(&rule).map_or(String::new(), u32::to_string)
    }

    /// Checks what depends on several variables: the connection with its database, and the bucket.
    fn together(&self, from: &mut Reader) -> Option<(Conninfo, Option<String>, S3Config)> {
        if self.drill_interval.is_some() && !from.is_set("BACKUP_DRILL_CONNECTION_STRING") {
            let remedy = "name the server to restore to; the source server too has to be named";
            from.problem(
                "BACKUP_DRILL_INTERVAL",
                "is set, and BACKUP_DRILL_CONNECTION_STRING is not",
                remedy,
            );
        }
        self.check_encryption(from);
        let credentials = self.credentials(from);
        let (connection, s3) = (self.named_connection(from), self.s3(from, credentials));
        let (connection, database) = connection?;
        Some((connection, database, s3?))
    }

    /// The connection and the name of its database. Like libpq, this uses PGDATABASE if the connection names
    /// no database, and then the user's name. If there is a service, or no user, only libpq knows the name.
    fn named_connection(&self, from: &mut Reader) -> Option<(Conninfo, Option<String>)> {
        let connection = self.connection.clone()?;
        let given = |keyword: &str| connection.get(keyword).map(str::to_owned);
        let mut database = given("dbname");
        if given("service").or_else(|| from.inherited("PGSERVICE")).is_none() {
            database = database.or_else(|| from.inherited("PGDATABASE"));
            database = database.or_else(|| given("user")).or_else(|| from.inherited("PGUSER"));
        }
        // If the name came from the connection string, it was checked there.
        if let Some(Err(problem)) = database.as_deref().map(|name| refuse_hidden_password("dbname", name)) {
            from.problem("PGDATABASE", "cannot be used", &problem);
            return None;
        }
        Some((connection, database))
    }

    fn s3(&self, from: &mut Reader, credentials: Option<Credentials>) -> Option<S3Config> {
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
                proxy: proxy::choose(bucket.base_url(), |name| from.inherited(name)).unwrap_or_else(
                    |(name, what)| {
                        let example = format!("for example {name}=http://proxy.example.com:3128");
                        from.problem(name, &what, &example);
                        None
                    },
                ),
                bucket,
                credentials: credentials?,
                properties: self.properties.clone(),
                part_size: self.part_size,
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
