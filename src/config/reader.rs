//! Single variables → values, and a sentence about each that is missing or wrong.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::LevelFilter;
use rusty_s3::{Bucket, UrlStyle};
use ureq::tls::{parse_pem, Certificate, PemItem};
use url::Url;

use crate::base::secret::Secret;
use crate::config::{Interval, OnStart, S3Config};
use crate::postgres::conninfo::Conninfo;
use crate::schedule::Schedule;
use crate::store::key::Format;
use crate::store::retention::Policy;

/// zlib-rs makes its level 3 as small as gzip makes its level 6, within 3 %, in a fraction of the time
/// (`make bench`).
const DEFAULT_COMPRESSION_LEVEL: usize = 3;
const EXAMPLE: &str = "postgresql://user:password@host:5432/database";
const DEFAULT_UPLOAD_CONCURRENCY: usize = 4;
/// More than any host needs, and few enough to keep memory small.
const MOST_THREADS: usize = 64;
const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// Where chrono looks for the zones of the tz database.
const ZONE_DIRECTORIES: [&str; 4] =
    ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo", "/usr/share/lib/zoneinfo"];

/// Reads variables, and gathers what is wrong with them.
pub(crate) struct Reader<'a> {
    /// The environment.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// What is wrong so far, a sentence each.
    pub problems: Vec<String>,
}

impl Reader<'_> {
    /// The value of NAME, or of the file that NAME_FILE names. Empty is missing.
    fn get(&mut self, name: &str) -> Option<String> {
        let by_file = format!("{name}_FILE");
        let direct = (self.variable)(name).filter(|value| !value.is_empty());
        let file = (self.variable)(&by_file).filter(|value| !value.is_empty());
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.problem(name, &format!("is set and {by_file} too"), "set one of the two");
                None
            }
            (Some(value), None) => {
                let value = value.into_string().map_err(|_| self.problem(name, "is not UTF-8", "")).ok()?;
                let quoted =
                    |quote: char| value.len() > 1 && value.starts_with(quote) && value.ends_with(quote);
                if quoted('"') || quoted('\'') {
                    let remedy =
                        "take them away (docker run --env-file keeps them, where compose and shells do not)";
                    self.problem(name, "has quotes around its value", remedy);
                    return None;
                }
                Some(value)
            }
            (None, Some(path)) => match fs::read_to_string(&path) {
                // The newline that editors and `echo` add; a further one would be part of the value.
                Ok(text) => {
                    let value = text.strip_suffix('\n').unwrap_or(&text);
                    let value = value.strip_suffix('\r').unwrap_or(value);
                    if value.is_empty() {
                        self.problem(&by_file, &format!("names {}, which is empty", path.display()), "");
                    }
                    (!value.is_empty()).then(|| value.to_owned())
                }
                Err(problem) => {
                    let what = format!("names {}, which cannot be read: {problem}", path.display());
                    let user = match problem.kind() {
                        ErrorKind::PermissionDenied => {
                            format!("pgkeep runs as user {}", rustix::process::getuid().as_raw())
                        }
                        _ => String::new(),
                    };
                    self.problem(&by_file, &what, &user);
                    None
                }
            },
            (None, None) => None,
        }
    }

    /// Whether `get` would find the variable set; what is set wrongly is not missing as well.
    fn is_set(&self, name: &str) -> bool {
        let set = |name: &str| (self.variable)(name).is_some_and(|value| !value.is_empty());
        set(name) || set(&format!("{name}_FILE"))
    }

    fn required(&mut self, name: &str, what: &str, example: &str) -> Option<String> {
        if !self.is_set(name) {
            self.problem(name, &format!("is missing: {what}"), &format!("for example {name}={example}"));
            return None;
        }
        self.get(name)
    }

    fn problem(&mut self, name: &str, what: &str, remedy: &str) {
        let separator = if remedy.is_empty() { "" } else { "; " };
        self.problems.push(format!("{name} {what}{separator}{remedy}"));
    }

    pub fn connection(&mut self) -> Option<(Conninfo, String)> {
        const NAME: &str = "POSTGRES_CONNECTION_STRING";
        let text = self.required(NAME, "how to reach the database", EXAMPLE)?;
        let mut connection = self.conninfo(NAME, &text)?;
        // As libpq does: PGDATABASE, then the user's name.
        let inherited = |name: &str| (self.variable)(name).and_then(|value| value.into_string().ok());
        let database = connection.get("dbname").map(str::to_owned).or_else(|| inherited("PGDATABASE"));
        let database =
            database.or_else(|| connection.get("user").map(str::to_owned)).or_else(|| inherited("PGUSER"));
        let Some(database) = database.filter(|name| !name.is_empty()) else {
            self.problem(NAME, "names no database", &format!("for example {EXAMPLE}"));
            return None;
        };
        connection.set("dbname", &database);
        Some((connection, database))
    }

    fn conninfo(&mut self, name: &str, text: &str) -> Option<Conninfo> {
        let example = format!("for example {EXAMPLE}, or host=… user=… password=… dbname=…");
        Conninfo::parse(text)
            .map_err(|problem| self.problem(name, &format!("cannot be read: {problem}"), &example))
            .ok()
    }

    /// The server alone counts: a drill makes a database of its own.
    pub fn drill_connection(&mut self) -> Option<Conninfo> {
        let name = "BACKUP_DRILL_CONNECTION_STRING";
        let text = self.get(name)?;
        self.conninfo(name, &text)
    }

    pub fn drill_interval(&mut self, has_server: bool) -> Option<Interval> {
        let name = "BACKUP_DRILL_INTERVAL";
        let interval = self.crontab(name, "'0 6 * * SUN' (each Sunday at 6)")?;
        if !has_server && !self.is_set("BACKUP_DRILL_CONNECTION_STRING") {
            let remedy = "name the server to restore to; the source server too has to be named";
            self.problem(name, "is set, and BACKUP_DRILL_CONNECTION_STRING is not", remedy);
        }
        Some(interval)
    }

    pub fn format(&mut self) -> Format {
        let name = "BACKUP_FORMAT";
        let Some(text) = self.get(name) else { return Format::Plain };
        let known =
            [Format::Plain, Format::Custom].into_iter().find(|known| known.to_string() == text.trim());
        known.unwrap_or_else(|| {
            let remedy = "it has to be plain (SQL for psql) or custom (for pg_restore, table by table)";
            self.problem(name, &format!("is \"{text}\""), remedy);
            Format::Plain
        })
    }

    pub fn s3(&mut self) -> Option<S3Config> {
        let bucket = self.required("S3_BUCKET", "the bucket that backups go to", "my-backups");
        let access_key =
            self.required("S3_ACCESS_KEY", "the id of the key that signs requests", "AKIAIOSFODNN7EXAMPLE");
        let secret_key =
            self.required("S3_SECRET_KEY", "the key that signs requests", "(from your provider)");
        let path = self.path();
        let mut region = self.get("S3_REGION").unwrap_or_else(|| "us-east-1".into());
        let given = self.get("S3_URL");
        if !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            self.problem("S3_REGION", "is not the name of a region", "for example S3_REGION=eu-central-1");
            region = "us-east-1".into();
        }
        let url = match &given {
            Some(url) => self.endpoint(url),
            None => Url::parse(&format!("https://s3.{region}.amazonaws.com"))
                .map_err(|_| {
                    self.problem(
                        "S3_REGION",
                        "is not the name of a region",
                        "for example S3_REGION=eu-central-1",
                    )
                })
                .ok(),
        };
        let style = self.get("S3_ADDRESSING_STYLE");
        let authorities = self.authorities();
        let (url, bucket) = (url?, bucket?);
        let plain = bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        // https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; other stores are laxer.
        if !plain || !(3..=63).contains(&bucket.len()) {
            let example = "for example S3_BUCKET=my-backups; a folder within the bucket is S3_PATH";
            self.problem(
                "S3_BUCKET",
                "is not the name of a bucket (3 to 63 letters, digits, dots and hyphens)",
                example,
            );
            return None;
        }
        let style = match style.as_deref() {
            Some("path") => UrlStyle::Path,
            Some("virtual") => UrlStyle::VirtualHost,
            None => default_style(&url, &bucket),
            Some(_) => {
                self.problem(
                    "S3_ADDRESSING_STYLE",
                    "is neither path nor virtual",
                    "for example S3_ADDRESSING_STYLE=path",
                );
                return None;
            }
        };
        let given = given.map(|_| url.clone());
        let bucket = Bucket::new(url, style, bucket, region)
            .map_err(|problem| {
                let what = format!("and S3_BUCKET give no address: {problem}");
                self.problem("S3_URL", &what, "a host that is a number needs S3_ADDRESSING_STYLE=path");
            })
            .ok()?;
        Some(S3Config {
            url: given,
            bucket,
            path: path?,
            access_key: access_key?,
            secret_key: Secret::new(secret_key?),
            authorities,
        })
    }

    fn authorities(&mut self) -> Option<Arc<Vec<Certificate<'static>>>> {
        let name = "S3_CA";
        let text = self.get(name)?;
        let items: Result<Vec<PemItem<'_>>, _> = parse_pem(text.as_bytes()).collect();
        let certificates = items.map(|items| {
            let certificates = items.into_iter().filter_map(|item| match item {
                PemItem::Certificate(certificate) => Some(certificate),
                _ => None,
            });
            certificates.collect::<Vec<_>>()
        });
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Some(Arc::new(certificates)),
            _ => {
                let remedy =
                    "S3_CA_FILE names a file with the authority's -----BEGIN CERTIFICATE----- and what follows";
                self.problem(name, "holds no certificate (in PEM form)", remedy);
                None
            }
        }
    }

    fn endpoint(&mut self, text: &str) -> Option<Url> {
        let example = "for example S3_URL=https://s3.example.com:9000";
        // No Unicode tables are built in (Cargo.toml, idna_adapter).
        if !text.is_ascii() || text.contains('%') {
            self.problem("S3_URL", "is not all ASCII without %", "write such a host in its xn-- form");
            return None;
        }
        let url = match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
            Ok(_) => {
                self.problem("S3_URL", "does not begin with http:// or https:// and a host", example);
                return None;
            }
            Err(problem) => {
                self.problem("S3_URL", &format!("is not a URL ({problem})"), example);
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            self.problem(
                "S3_URL",
                "contains credentials",
                "they belong into S3_ACCESS_KEY and S3_SECRET_KEY",
            );
            return None;
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.problem("S3_URL", "has a ? or # part", example);
            return None;
        }
        Some(url)
    }

    fn path(&mut self) -> Option<String> {
        let path = self.get("S3_PATH").unwrap_or_default();
        let path = path.trim_matches('/');
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let segments = path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
        if !path.bytes().all(plain) || !(path.is_empty() || segments) || path.len() > 512 {
            let what = "may only have letters, digits, dots, underscores, hyphens and single slashes";
            self.problem("S3_PATH", what, "for example S3_PATH=backups/production");
            return None;
        }
        Some(path.to_owned())
    }

    pub fn interval(&mut self, required: bool) -> Option<Interval> {
        let name = "BACKUP_INTERVAL";
        if required {
            self.required(name, "when to back up, as five crontab fields", "'0 3 * * *' (each night at 3)")?;
        }
        self.crontab(name, "'0 3 * * *' (minute, hour, day, month, weekday: each night at 3)")
    }

    fn crontab(&mut self, name: &str, example: &str) -> Option<Interval> {
        let expression = self.get(name)?;
        match Schedule::parse(&expression) {
            Ok(schedule) => Some(Interval { expression, schedule }),
            Err(problem) => {
                let example = format!("for example {name}={example}");
                self.problem(name, &format!("is not a crontab expression: {problem}"), &example);
                None
            }
        }
    }

    pub fn on_start(&mut self) -> OnStart {
        let name = "BACKUP_ON_START";
        let Some(text) = self.get(name) else { return OnStart::default() };
        let known = OnStart::ALL.into_iter().find(|known| known.name().eq_ignore_ascii_case(text.trim()));
        known.unwrap_or_else(|| {
            let remedy =
                "it has to be false, true, or missed (only if a fire time was missed: the best choice)";
            self.problem(name, &format!("is \"{text}\""), remedy);
            OnStart::default()
        })
    }

    pub fn retention(&mut self) -> Policy {
        let days = self.get("BACKUP_RETENTION_DAYS").and_then(|text| {
            let days = text.trim().parse().ok().filter(|days| (1..=36_500).contains(days));
            if days.is_none() {
                let example = "for example BACKUP_RETENTION_DAYS=14; leave it away to keep every backup";
                self.problem(
                    "BACKUP_RETENTION_DAYS",
                    &format!("is \"{text}\" and not a whole number of days from 1"),
                    example,
                );
            }
            days
        });
        Policy { days }
    }

    pub fn lock_timeout(&mut self) -> Duration {
        let name = "BACKUP_LOCK_TIMEOUT";
        let Some(text) = self.get(name) else { return DEFAULT_LOCK_TIMEOUT };
        parse_duration(&text).unwrap_or_else(|| {
            let what = format!("is \"{text}\" and not a length of time from 1s to 24h");
            self.problem(name, &what, "for example BACKUP_LOCK_TIMEOUT=5min (units: s, min, h)");
            DEFAULT_LOCK_TIMEOUT
        })
    }

    pub fn client_directory(&mut self) -> Option<PathBuf> {
        let name = "BACKUP_PG_BIN";
        let directory = PathBuf::from(self.get(name)?);
        if !directory.join("pg_dump").is_file() {
            let what = format!("names {}, where there is no pg_dump", directory.display());
            self.problem(name, &what, "for example BACKUP_PG_BIN=/usr/lib/postgresql/17/bin");
        }
        Some(directory)
    }

    pub fn compression_level(&mut self) -> u32 {
        let level = self.number("BACKUP_COMPRESSION_LEVEL", DEFAULT_COMPRESSION_LEVEL, 9);
        u32::try_from(level.get()).expect("at most 9")
    }

    /// As many as the processors that this process may use, by its affinity and its control group's quota.
    pub fn threads(&mut self) -> NonZeroUsize {
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.number("BACKUP_THREADS", processors.min(MOST_THREADS), MOST_THREADS)
    }

    pub fn upload_concurrency(&mut self) -> NonZeroUsize {
        self.number("S3_UPLOAD_CONCURRENCY", DEFAULT_UPLOAD_CONCURRENCY, MOST_THREADS)
    }

    fn number(&mut self, name: &str, default: usize, most: usize) -> NonZeroUsize {
        let number = match self.get(name) {
            Some(text) => {
                text.trim().parse().ok().filter(|number| (1..=most).contains(number)).unwrap_or_else(|| {
                    let what = format!("is \"{text}\" and not a whole number from 1 to {most}");
                    self.problem(name, &what, &format!("for example {name}={default}"));
                    default
                })
            }
            None => default,
        };
        NonZeroUsize::new(number).expect("from 1")
    }

    pub fn temp_directory(&mut self) -> PathBuf {
        let name = "BACKUP_TEMP_DIR";
        let Some(directory) = self.get(name).map(PathBuf::from) else { return env::temp_dir() };
        if !directory.is_dir() {
            let what = format!("names {}, which is not a directory", directory.display());
            self.problem(name, &what, "for example BACKUP_TEMP_DIR=/var/tmp");
        }
        directory
    }

    pub fn log_level(&mut self) -> LevelFilter {
        let name = "BACKUP_LOG_LEVEL";
        let Some(text) = self.get(name) else { return LevelFilter::Info };
        text.trim().parse().ok().filter(|level| *level >= LevelFilter::Error).unwrap_or_else(|| {
            self.problem(name, &format!("is \"{text}\""), "it has to be error, warn, info or debug");
            LevelFilter::Info
        })
    }

    /// chrono silently takes UTC for a zone that it does not find, so the zone is looked for here.
    pub fn time_zone(&mut self) -> Option<String> {
        let name = self.get("TZ")?;
        let zone = name.strip_prefix(':').unwrap_or(&name);
        let found = ZONE_DIRECTORIES.iter().any(|directory| is_zone(&Path::new(directory).join(zone)));
        if zone.split('/').any(|segment| segment == "..") || !(found || matches!(zone, "UTC" | "UTC0")) {
            let what = format!("is \"{name}\", which is no time zone of this system");
            self.problem("TZ", &what, "for example TZ=Europe/Berlin (the package tzdata has the zones)");
        }
        Some(name)
    }
}

/// Whether a file holds time zone data (RFC 9636).
fn is_zone(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"TZif"))
}

/// AWS itself wants the bucket in the host name, except where its certificate would not cover it: a name
/// with dots. Everything else is reached by path.
fn default_style(url: &Url, bucket: &str) -> UrlStyle {
    let host = url.host_str().unwrap_or_default();
    let aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
    if aws && !bucket.contains('.') {
        UrlStyle::VirtualHost
    } else {
        UrlStyle::Path
    }
}

/// A whole number and a unit, from 1 second to 24 hours.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let seconds = match unit.trim() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (1..=86_400).contains(&seconds).then(|| Duration::from_secs(seconds))
}
