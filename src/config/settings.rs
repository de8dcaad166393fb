//! What the variables say: one field for each.

use std::env;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::LevelFilter;
use rusty_s3::UrlStyle;
use ureq::tls::Certificate;
use url::Url;

use super::values;
use crate::base::logging;
use crate::base::secret::Secret;
use crate::daemon::OnStart;
use crate::dump::age::{Identity, Recipients};
use crate::jobs::server::List;
use crate::notify;
use crate::postgres::{Conninfo, DumpOptions, Format};
use crate::s3::{PartSize, Properties};
use crate::schedule::Interval;
use crate::store::{Policy, Rule};

/// The values of the variables, one field for each.
pub(super) struct Settings {
    pub connection: Option<Conninfo>,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: Secret,
    pub session_token: Option<Secret>,
    pub role: bool,
    pub properties: Properties,
    pub part_size: PartSize,
    pub interval: Option<Interval>,
    pub url: Option<Url>,
    pub path: String,
    pub region: String,
    pub style: Option<UrlStyle>,
    pub authorities: Option<Arc<Vec<Certificate<'static>>>>,
    pub upload_concurrency: NonZeroUsize,
    pub databases: Option<List>,
    pub exclude_databases: List,
    pub globals: Option<bool>,
    pub at_a_time: NonZeroUsize,
    pub on_start: OnStart,
    pub retention: Policy,
    pub shrink_guard: bool,
    pub format: Format,
    pub dump_options: DumpOptions,
    pub recipients: Option<Recipients>,
    pub identity: Option<Identity>,
    pub drill: Option<Conninfo>,
    pub drill_interval: Option<Interval>,
    pub notify: notify::Settings,
    pub lock_timeout: Duration,
    pub stall_timeout: Duration,
    pub client_directory: Option<PathBuf>,
    pub compression_level: u32,
    pub threads: NonZeroUsize,
    pub temp_directory: PathBuf,
    pub log_level: LevelFilter,
    pub log_format: logging::Format,
    pub metrics_listen: Option<SocketAddr>,
    pub metrics_file: Option<PathBuf>,
    pub time_zone: Option<String>,
}

impl Default for Settings {
    /// The values before any variable is read. Most defaults are in the table.
    fn default() -> Self {
        // As many as this process may use, given its affinity and its control group's quota.
        let processors = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
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
            databases: None,
            exclude_databases: List::default(),
            globals: None,
            at_a_time: NonZeroUsize::MIN,
            on_start: OnStart::No,
            retention: Policy::default(),
            shrink_guard: false,
            format: Format::Plain,
            dump_options: DumpOptions::default(),
            recipients: None,
            identity: None,
            drill: None,
            drill_interval: None,
            notify: notify::Settings::default(),
            lock_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
            client_directory: None,
            compression_level: 0,
            threads: values::usual_threads(processors),
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
    pub fn keep(&mut self, rule: Rule, number: u32) {
        self.retention.rules.insert(rule, number);
    }

    /// The number of a rule of the retention.
    pub fn kept(&self, rule: Rule) -> String {
        self.retention.rules.get(&rule).map_or(String::new(), u32::to_string)
    }
}
