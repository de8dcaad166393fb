//! Environment → [`Config`]. Every problem is found before anything starts, and all are reported at once.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use rusty_s3::{Bucket, UrlStyle};
use url::Url;

use crate::catalog::Catalog;
use crate::conninfo::Conninfo;
use crate::retention::Policy;
use crate::schedule::Schedule;
use crate::secret::{Redactor, Secret, MASK};
use crate::units;

/// All variables, for the warning about others with pgkeep's own prefix.
pub const VARIABLES: [&str; 14] = [
    "POSTGRES_CONNECTION_STRING",
    "S3_URL",
    "S3_BUCKET",
    "S3_PATH",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "S3_REGION",
    "S3_ADDRESSING_STYLE",
    "BACKUP_INTERVAL",
    "BACKUP_RETENTION_DAYS",
    "BACKUP_LOCK_TIMEOUT",
    "BACKUP_PG_BIN",
    "BACKUP_LOG_LEVEL",
    "TZ",
];

const DEFAULT_LOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// Where chrono looks for the zones of the tz database.
const ZONE_DIRECTORIES: [&str; 4] =
    ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo", "/usr/share/lib/zoneinfo"];

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
    pub interval: Option<Interval>,
    /// How long backups are kept.
    pub retention: Policy,
    /// How long pg_dump waits for the lock of a table.
    pub lock_timeout: Duration,
    /// The one place to look for PostgreSQL's clients, where it was given.
    pub client_directory: Option<PathBuf>,
    /// Where the spool is made: `TMPDIR`, or /tmp.
    pub temp_directory: PathBuf,
    /// What the log shows.
    pub log_level: LevelFilter,
    /// The `TZ` in force; the system's local time where it is absent.
    pub time_zone: Option<String>,
    /// Variables that look like pgkeep's and are not: probably misspelt.
    pub unknown: Vec<String>,
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
    /// Endpoint, name, region and addressing style.
    pub bucket: Bucket,
    /// `S3_PATH` without slashes at its ends.
    pub path: String,
    /// The access key's id.
    pub access_key: String,
    /// The key that signs.
    pub secret_key: Secret,
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
        let retention = from.retention();
        let lock_timeout = from.lock_timeout();
        let client_directory = from.client_directory();
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
            retention,
            lock_timeout,
            client_directory,
            temp_directory: env::temp_dir(),
            log_level,
            time_zone,
            unknown,
        })
    }

    /// The names of this database's backups.
    pub fn catalog(&self) -> Catalog {
        Catalog::new(&self.s3.path, &self.database)
    }

    /// Masks the configured secrets in texts from outside.
    pub fn redactor(&self) -> Redactor {
        let inherited = env::var("PGPASSWORD").ok().map(Secret::new);
        let secrets = [self.connection.password().cloned(), Some(self.s3.secret_key.clone()), inherited];
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
        let clients = self.client_directory.as_deref().map_or("(searched)".into(), Path::to_string_lossy);
        vec![
            format!("POSTGRES_CONNECTION_STRING = {}", self.connection.masked()),
            format!("S3_URL = {} (bucket at {})", self.s3.endpoint(), self.s3.bucket.base_url()),
            format!("S3_BUCKET = {}", self.s3.bucket.name()),
            format!("S3_PATH = {} (backups at {}…)", self.s3.path, self.catalog().prefix()),
            format!("S3_ACCESS_KEY = {MASK}, S3_SECRET_KEY = {MASK}"),
            format!("S3_REGION = {}, S3_ADDRESSING_STYLE = {style}", self.s3.bucket.region()),
            format!("BACKUP_INTERVAL = {interval}"),
            match self.retention.days {
                Some(days) => format!("BACKUP_RETENTION_DAYS = {days}"),
                None => "BACKUP_RETENTION_DAYS = (not set: every backup is kept)".into(),
            },
            format!("BACKUP_LOCK_TIMEOUT = {}", units::duration(self.lock_timeout)),
            format!("BACKUP_PG_BIN = {clients}"),
            format!("BACKUP_LOG_LEVEL = {}", self.log_level.as_str().to_lowercase()),
            format!("TZ = {}", self.time_zone.as_deref().unwrap_or("(not set: the system's local time)")),
            format!("spool directory = {}", self.temp_directory.display()),
        ]
    }
}

impl S3Config {
    /// Scheme, host and port of the endpoint.
    fn endpoint(&self) -> String {
        self.bucket.base_url().origin().ascii_serialization()
    }
}

/// Reads variables, and gathers what is wrong with them.
struct Reader<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    problems: Vec<String>,
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
                value.into_string().map_err(|_| self.problem(name, "is not UTF-8", "")).ok()
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
                    self.problem(&by_file, &what, "");
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

    fn connection(&mut self) -> Option<(Conninfo, String)> {
        const NAME: &str = "POSTGRES_CONNECTION_STRING";
        const EXAMPLE: &str = "postgresql://user:password@host:5432/database";
        let text = self.required(NAME, "how to reach the database", EXAMPLE)?;
        let mut connection = match Conninfo::parse(&text) {
            Ok(connection) => connection,
            Err(problem) => {
                let example = format!("for example {EXAMPLE}, or host=… user=… password=… dbname=…");
                self.problem(NAME, &format!("cannot be read: {problem}"), &example);
                return None;
            }
        };
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

    fn s3(&mut self) -> Option<S3Config> {
        let bucket = self.required("S3_BUCKET", "the bucket that backups go to", "my-backups");
        let access_key =
            self.required("S3_ACCESS_KEY", "the id of the key that signs requests", "AKIAIOSFODNN7EXAMPLE");
        let secret_key =
            self.required("S3_SECRET_KEY", "the key that signs requests", "(from your provider)");
        let path = self.path();
        let region = self.get("S3_REGION").unwrap_or_else(|| "us-east-1".into());
        let url = match self.get("S3_URL") {
            Some(url) => self.endpoint(&url),
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
        let (url, bucket) = (url?, bucket?);
        if !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)) {
            let example = "for example S3_BUCKET=my-backups; a folder within the bucket is S3_PATH";
            self.problem(
                "S3_BUCKET",
                "is not the name of a bucket (letters, digits, dots and hyphens)",
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
        let bucket = Bucket::new(url, style, bucket, region)
            .map_err(|problem| {
                let what = format!("and S3_BUCKET give no address: {problem}");
                self.problem("S3_URL", &what, "a host that is a number needs S3_ADDRESSING_STYLE=path");
            })
            .ok()?;
        Some(S3Config { bucket, path: path?, access_key: access_key?, secret_key: Secret::new(secret_key?) })
    }

    fn endpoint(&mut self, text: &str) -> Option<Url> {
        let example = "for example S3_URL=https://s3.example.com:9000";
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

    fn interval(&mut self, required: bool) -> Option<Interval> {
        let name = "BACKUP_INTERVAL";
        let expression = if required {
            self.required(name, "when to back up, as five crontab fields", "'0 3 * * *' (each night at 3)")?
        } else {
            self.get(name)?
        };
        match Schedule::parse(&expression) {
            Ok(schedule) => Some(Interval { expression, schedule }),
            Err(problem) => {
                let example = "for example BACKUP_INTERVAL='0 3 * * *' (minute, hour, day, month, weekday: each night at 3)";
                self.problem(name, &format!("is not a crontab expression: {problem}"), example);
                None
            }
        }
    }

    fn retention(&mut self) -> Policy {
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

    fn lock_timeout(&mut self) -> Duration {
        let name = "BACKUP_LOCK_TIMEOUT";
        let Some(text) = self.get(name) else { return DEFAULT_LOCK_TIMEOUT };
        parse_duration(&text).unwrap_or_else(|| {
            let what = format!("is \"{text}\" and not a length of time from 1s to 24h");
            self.problem(name, &what, "for example BACKUP_LOCK_TIMEOUT=5min (units: s, min, h)");
            DEFAULT_LOCK_TIMEOUT
        })
    }

    fn client_directory(&mut self) -> Option<PathBuf> {
        let name = "BACKUP_PG_BIN";
        let directory = PathBuf::from(self.get(name)?);
        if !directory.join("pg_dump").is_file() {
            let what = format!("names {}, where there is no pg_dump", directory.display());
            self.problem(name, &what, "for example BACKUP_PG_BIN=/usr/lib/postgresql/17/bin");
        }
        Some(directory)
    }

    fn log_level(&mut self) -> LevelFilter {
        let name = "BACKUP_LOG_LEVEL";
        let Some(text) = self.get(name) else { return LevelFilter::Info };
        text.trim().parse().ok().filter(|level| *level >= LevelFilter::Error).unwrap_or_else(|| {
            self.problem(name, &format!("is \"{text}\""), "it has to be error, warn, info or debug");
            LevelFilter::Info
        })
    }

    /// chrono silently takes UTC for a zone that it does not find, so the zone is looked for here.
    fn time_zone(&mut self) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const GOOD: [(&str, &str); 5] = [
        ("POSTGRES_CONNECTION_STRING", "postgresql://app:hush@db/shop"),
        ("S3_BUCKET", "backups"),
        ("S3_ACCESS_KEY", "key"),
        ("S3_SECRET_KEY", "hushhush"),
        ("BACKUP_INTERVAL", "0 3 * * *"),
    ];

    /// Reads the good configuration with some variables changed; an empty value takes one away.
    fn read(changes: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let all: Vec<(&str, &str)> = changes.iter().chain(&GOOD).copied().collect();
        let variable = |name: &str| {
            let (_, value) = all.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from(value))
        };
        let names = all.iter().map(|(name, _)| (*name).to_owned()).collect();
        Config::read(&variable, names, true)
    }

    fn only_problem(changes: &[(&str, &str)]) -> String {
        let problems = read(changes).expect_err("a problem");
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.into_iter().next().unwrap()
    }

    #[test]
    fn all_that_is_missing_is_reported_at_once() {
        let problems = read(&GOOD.map(|(name, _)| (name, ""))).unwrap_err();
        assert_eq!(problems.len(), 5);
        for (name, _) in GOOD {
            let said = problems.iter().find(|problem| problem.starts_with(name)).expect(name);
            assert!(said.contains("is missing") && said.contains(&format!("for example {name}=")), "{said}");
        }
    }

    #[test]
    fn each_problem_names_its_variable_and_a_right_value() {
        for (name, value, says) in [
            ("S3_URL", "minio:9000", "http://"),
            ("S3_URL", "https://key:hush@host", "contains credentials"),
            ("S3_URL", "nonsense", "is not a URL"),
            ("S3_URL", "http://host/?x", "? or #"),
            ("S3_BUCKET", "my/bucket", "S3_PATH"),
            ("S3_PATH", "a b", "S3_PATH=backups"),
            ("S3_PATH", "a/../b", "single slashes"),
            ("S3_PATH", "a//b", "single slashes"),
            ("S3_ADDRESSING_STYLE", "dns", "path nor virtual"),
            ("S3_REGION", "a b", "for example S3_REGION="),
            ("BACKUP_INTERVAL", "0 0 3 * * *", "no field for seconds"),
            ("BACKUP_RETENTION_DAYS", "0", "from 1"),
            ("BACKUP_RETENTION_DAYS", "7d", "\"7d\""),
            ("BACKUP_RETENTION_DAYS", "-1", "from 1"),
            ("BACKUP_LOCK_TIMEOUT", "5", "BACKUP_LOCK_TIMEOUT=5min"),
            ("BACKUP_LOCK_TIMEOUT", "25h", "24h"),
            ("BACKUP_PG_BIN", "/nowhere", "no pg_dump"),
            ("BACKUP_LOG_LEVEL", "loud", "error, warn, info or debug"),
            ("TZ", "Europe/Berlinn", "TZ=Europe/Berlin"),
            ("TZ", "../../etc/passwd", "no time zone"),
            ("POSTGRES_CONNECTION_STRING", "postgresql://host", "names no database"),
            ("POSTGRES_CONNECTION_STRING", "hush", "postgresql://user:password@host"),
        ] {
            let problem = only_problem(&[(name, value)]);
            assert!(problem.starts_with(name) && problem.contains(says), "{name}={value}: {problem}");
            assert!(!problem.contains("hush"), "{problem}");
        }
    }

    #[test]
    fn a_value_can_come_from_a_file_but_not_from_both() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"from the file\r\n").unwrap();
        let path = file.path().to_str().unwrap();
        let config = read(&[("S3_SECRET_KEY", ""), ("S3_SECRET_KEY_FILE", path)]).unwrap();
        assert_eq!(config.s3.secret_key.expose(), "from the file");
        assert!(only_problem(&[("S3_SECRET_KEY_FILE", path)]).contains("S3_SECRET_KEY_FILE too"));
        let missing = only_problem(&[("S3_SECRET_KEY", ""), ("S3_SECRET_KEY_FILE", "/nowhere")]);
        assert!(missing.starts_with("S3_SECRET_KEY_FILE names /nowhere, which cannot be read"), "{missing}");
    }

    #[test]
    fn every_variable_can_come_from_a_file() {
        for name in VARIABLES {
            let by_file = format!("{name}_FILE");
            let problem = only_problem(&[(name, ""), (&by_file, "/nowhere")]);
            assert!(problem.starts_with(&by_file), "{problem}");
        }
    }

    #[test]
    fn aws_is_reached_by_host_and_others_by_path() {
        let address = |changes: &[(&str, &str)]| read(changes).unwrap().s3.bucket.base_url().to_string();
        assert_eq!(address(&[]), "https://backups.s3.us-east-1.amazonaws.com/");
        assert_eq!(address(&[("S3_REGION", "eu-west-1")]), "https://backups.s3.eu-west-1.amazonaws.com/");
        assert_eq!(address(&[("S3_BUCKET", "a.b")]), "https://s3.us-east-1.amazonaws.com/a.b/");
        assert_eq!(address(&[("S3_URL", "http://minio:9000")]), "http://minio:9000/backups/");
        let style = ("S3_ADDRESSING_STYLE", "virtual");
        assert_eq!(address(&[("S3_URL", "http://minio:9000"), style]), "http://backups.minio:9000/");
        assert!(
            only_problem(&[("S3_URL", "http://127.0.0.1:9000"), style]).contains("S3_ADDRESSING_STYLE=path")
        );
    }

    #[test]
    fn the_effective_configuration_shows_no_secret() {
        let config = read(&[("BACKUP_RETENTION", "7")]).unwrap();
        let shown = config.lines().join("\n") + &format!("{config:?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("password=***") && shown.contains("dbname='shop'"), "{shown}");
        assert_eq!(config.unknown, ["BACKUP_RETENTION"]);
    }

    #[test]
    fn a_database_has_a_name_as_libpq_finds_it() {
        let name = |text: &str| read(&[("POSTGRES_CONNECTION_STRING", text)]).unwrap().database;
        assert_eq!(name("postgresql://app@db"), "app");
        assert_eq!(name("host=db user=app dbname=shop"), "shop");
    }
}
