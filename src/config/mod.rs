//! Turns the environment into jobs. Only this folder reads variables. It finds every problem before anything
//! starts, and reports all of them at once.

mod age;
mod credentials;
mod mistakes;
mod notify;
mod objects;
mod proxy;
mod reader;
mod settings;
mod text;
mod together;
mod values;
mod variables;
mod watch;

use std::env;
use std::path::PathBuf;

use anyhow::{anyhow, ensure, Context, Error, Result};
use log::warn;

use self::reader::Reader;
use self::settings::Settings;
pub use self::variables::{Absent, Variable, VARIABLES};
pub use self::watch::Refused;
use crate::base::secret::{Redactor, Secret};
use crate::base::shutdown::Shutdown;
use crate::daemon::{self, Status};
use crate::jobs::server::{Names, Several, Source};
use crate::jobs::Job;
use crate::notify::{Notifier, Receiver, Times};
use crate::postgres::{refuse_hidden_password, Clients, Conninfo, Postgres};
use crate::s3::{Client, Credentials, S3Config};
use crate::schedule::Interval;
use crate::store::Store;

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
        settings.notify.choose_proxies(|endpoint| proxy::of(&mut from, endpoint));
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
            recipients: of.recipients.clone(),
            identity: of.identity.clone(),
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
            database: self.database.clone().filter(|_| self.settings.databases.is_none()),
            status_path: self.status_path(),
            several: self.settings.databases.is_some(),
            listen: self.settings.metrics_listen,
        })
    }

    /// If the name is not known, the connection stands for it: `pgkeep health` asks no server.
    fn status_path(&self) -> PathBuf {
        let bucket = &self.s3.bucket;
        let of = &self.settings;
        let mut path = of.path.clone();
        // Of several databases, the list says which daemon it is.
        let name = match (&of.databases, &self.database) {
            (Some(list), _) => {
                path += &format!("\n{list}\n{}", of.exclude_databases);
                "*"
            }
            (None, Some(database)) => database,
            (None, None) => {
                path += &format!("\n{}", self.connection.without_password());
                ""
            }
        };
        let place = [bucket.base_url().as_str(), bucket.name(), &path];
        Status::path(&of.temp_directory, name, place)
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

    /// Tells whoever wants to hear of events. Only the daemon keeps to the schedule, so only it knows what comes
    /// next.
    pub fn notifier(&self, daemon: bool, shutdown: &Shutdown) -> Notifier {
        let of = &self.settings;
        let schedule = |interval: &Option<Interval>| {
            interval.as_ref().filter(|_| daemon).map(|interval| interval.schedule.clone())
        };
        let times = Times { backups: schedule(&of.interval), drills: schedule(&of.drill_interval) };
        Notifier::start(self.receivers(), times, shutdown)
    }

    /// Whoever wants to hear of events.
    pub fn receivers(&self) -> Vec<Receiver> {
        self.settings.notify.receivers()
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

#[cfg(test)]
mod tests;
