//! THE TABLE of variables: one row each. `--help-variables`, the problems, the defaults and the lines at the
//! start are made from it. A test compares README's table and `.env.example` with it (`tests/it/tidy.rs`).

mod age;
mod credentials;
mod keep;
mod objects;
mod server;
mod watch;

pub(super) use self::watch::LOG_FORMAT;
use super::{notify, values, Settings};
use crate::base::secret::{Secret, MASK};
use crate::base::units;
use crate::daemon::OnStart;
use crate::postgres::{DumpOptions, Format};
use crate::store::Rule;

/// One of pgkeep's variables. Its value can also come from the file that NAME_FILE names.
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What happens if it is not set.
    pub absent: Absent,
    /// An example of a right value.
    pub example: &'static str,
    /// What it means, in one line.
    pub doc: &'static str,
    /// Names that people write by mistake.
    pub(super) aliases: &'static [&'static str],
    /// Reads a value. An error says what is wrong with the value and never shows a secret.
    pub(super) set: fn(&mut Settings, &str) -> Result<(), String>,
    /// Shows the value in the log, with secrets masked.
    pub(super) show: fn(&Settings) -> String,
}

/// What happens if a variable is not set.
pub enum Absent {
    /// pgkeep does not work without it.
    Required,
    /// pgkeep does not work without it, unless another variable has this value.
    RequiredUnless(&'static str),
    /// Only the daemon needs it.
    RequiredToRun,
    /// There is no value. The text says what that means.
    Off(&'static str),
    /// The default.
    Value(&'static str),
}

impl Variable {
    /// Its name in the documents. Nobody should write a certificate into a variable, so there the file's
    /// variable is named.
    pub fn documented(&self) -> String {
        let name = self.name;
        if name == "S3_CA" {
            format!("{name}_FILE")
        } else {
            name.to_owned()
        }
    }
}

/// An example for people who know connection strings.
pub(super) const CONNECTION: &str = "postgresql://user:password@host:5432/database";

/// All variables, the required ones first.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "POSTGRES_CONNECTION_STRING",
        absent: Absent::Required,
        example: CONNECTION,
        doc: "the database: a URI or a keyword/value string, as psql takes it. In a URI, write @ : / % within user or \
              password as %40 %3A %2F %25. With BACKUP_DATABASES: the server, and the database to ask it from (postgres \
              if it names none)",
        aliases: &["POSTGRES_URL", "POSTGRES_URI", "POSTGRES_DSN", "POSTGRES_DATABASE_URL"],
        set: |to, text| values::conninfo(text).map(|it| to.connection = Some(it)),
        show: |of| of.connection.as_ref().map_or(String::new(), |connection| connection.masked()),
    },
    Variable {
        name: "S3_BUCKET",
        absent: Absent::Required,
        example: "my-backups",
        doc: "the bucket that backups go to; it has to exist",
        aliases: &["S3_BUCKET_NAME"],
        set: |to, text| values::bucket(text).map(|it| to.bucket = it),
        show: |of| of.bucket.clone(),
    },
    Variable {
        name: "S3_ACCESS_KEY",
        absent: Absent::RequiredUnless("S3_CREDENTIALS=role"),
        example: "AKIAIOSFODNN7EXAMPLE",
        doc: "the id of the key that signs requests; it needs to put, get, list and delete objects in the bucket",
        aliases: &["S3_ACCESS_KEY_ID", "S3_KEY", "S3_USER"],
        set: |to, text| {
            text.clone_into(&mut to.access_key);
            Ok(())
        },
        show: |_| MASK.to_owned(),
    },
    Variable {
        name: "S3_SECRET_KEY",
        absent: Absent::RequiredUnless("S3_CREDENTIALS=role"),
        example: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        doc: "the key that signs requests",
        aliases: &["S3_SECRET_ACCESS_KEY", "S3_SECRET", "S3_PASSWORD"],
        set: |to, text| {
            to.secret_key = Secret::new(text);
            Ok(())
        },
        show: |_| MASK.to_owned(),
    },
    Variable {
        name: "BACKUP_INTERVAL",
        absent: Absent::RequiredToRun,
        example: "'0 3 * * *'",
        doc: "when to back up: crontab(5) (minute, hour, day of month, month, day of week), or one of @hourly @daily \
              @midnight @weekly @monthly @yearly @annually",
        aliases: &["BACKUP_SCHEDULE", "BACKUP_CRON", "BACKUP_CRON_EXPRESSION", "BACKUP_TIME"],
        set: |to, text| values::interval(text).map(|it| to.interval = Some(it)),
        show: |of| of.interval.as_ref().map_or(String::new(), |interval| interval.expression.clone()),
    },
    credentials::CREDENTIALS,
    credentials::SESSION_TOKEN,
    Variable {
        name: "S3_URL",
        absent: Absent::Off("AWS, by region"),
        example: "https://s3.example.com:9000",
        doc: "the endpoint of an S3-compatible store",
        aliases: &["S3_ENDPOINT", "S3_ENDPOINT_URL", "S3_HOST", "S3_SERVER"],
        set: |to, text| values::endpoint(text).map(|it| to.url = Some(it)),
        show: |of| of.url.as_ref().map_or(String::new(), |url| url.to_string()),
    },
    Variable {
        name: "S3_PATH",
        absent: Absent::Off("the bucket's top"),
        example: "production",
        doc: "a prefix within the bucket: letters, digits, . _ - and single slashes",
        aliases: &["S3_PREFIX", "S3_FOLDER", "S3_DIRECTORY", "S3_BUCKET_PATH"],
        set: |to, text| values::path(text).map(|it| to.path = it),
        show: |of| of.path.clone(),
    },
    Variable {
        name: "S3_REGION",
        absent: Absent::Value("us-east-1"),
        example: "eu-central-1",
        doc: "the region, as the store calls it",
        aliases: &["S3_DEFAULT_REGION"],
        set: |to, text| values::region(text).map(|it| to.region = it),
        show: |of| of.region.clone(),
    },
    Variable {
        name: "S3_ADDRESSING_STYLE",
        absent: Absent::Off("path; for AWS virtual"),
        example: "path",
        doc: "path (https://host/bucket) or virtual (https://bucket.host)",
        aliases: &["S3_FORCE_PATH_STYLE", "S3_USE_PATH_STYLE", "S3_PATH_STYLE"],
        set: |to, text| values::style(text).map(|it| to.style = Some(it)),
        show: |of| of.style.map_or("", values::style_name).to_owned(),
    },
    Variable {
        name: "S3_CA",
        absent: Absent::Off("the system's"),
        example: "/run/secrets/ca.pem",
        doc: "a file with the certificates (PEM) of the authorities that vouch for the endpoint. They replace the \
              system's, as SSL_CERT_FILE does too. Checking cannot be turned off",
        aliases: &["S3_CA_CERT", "S3_CA_BUNDLE", "S3_CERT"],
        set: |to, text| values::certificates(text).map(|it| to.authorities = Some(it)),
        show: |of| units::count(of.authorities.as_ref().map_or(0, |of| of.len()), "certificate"),
    },
    Variable {
        name: "S3_UPLOAD_CONCURRENCY",
        absent: Absent::Value("4"),
        example: "4",
        doc: "how many parts are uploaded at a time",
        aliases: &[],
        set: |to, text| values::count(text).map(|it| to.upload_concurrency = it),
        show: |of| of.upload_concurrency.to_string(),
    },
    objects::PART_SIZE,
    objects::MAX_PARTS,
    objects::STORAGE_CLASS,
    objects::SSE,
    objects::SSE_KMS_KEY_ID,
    objects::TAGS,
    server::DATABASES,
    server::EXCLUDE_DATABASES,
    server::GLOBALS,
    server::JOBS,
    Variable {
        name: "BACKUP_ON_START",
        absent: Absent::Value("false"),
        example: "missed",
        doc: "whether to back up at the start too: false; true (not again within an hour); or missed (only if the newest \
              backup is older than the last fire time: the best choice if the host is not always on)",
        aliases: &["BACKUP_RUN_ON_START", "BACKUP_AT_START", "BACKUP_ON_STARTUP"],
        set: |to, text| {
            to.on_start =
                values::one_of(text, &OnStart::ALL.map(|known| (known.name(), known)), "false, true, or missed")?;
            Ok(())
        },
        show: |of| of.on_start.name().to_owned(),
    },
    Variable {
        name: "BACKUP_RETENTION_DAYS",
        absent: Absent::Off("no such rule; without any, every backup is kept"),
        example: "14",
        doc: "keep every backup for this many days. After each successful backup, what no rule keeps is deleted, never the newest",
        aliases: &["BACKUP_KEEP_DAYS", "BACKUP_RETENTION", "BACKUP_DAYS"],
        set: |to, text| values::days(text).map(|it| to.keep(Rule::Days, it)),
        show: |of| of.kept(Rule::Days),
    },
    keep::LAST,
    keep::HOURLY,
    keep::DAILY,
    keep::WEEKLY,
    keep::MONTHLY,
    keep::YEARLY,
    Variable {
        name: "BACKUP_SHRINK_GUARD",
        absent: Absent::Value("true"),
        example: "false",
        doc: "whether nothing is deleted for a week after the backups have suddenly become less than half of their usual \
              size (true or false): the database may have lost what the older ones have",
        aliases: &[],
        set: |to, text| {
            to.shrink_guard = values::one_of(text, &[("true", true), ("false", false)], "true or false")?;
            Ok(())
        },
        show: |of| of.shrink_guard.to_string(),
    },
    Variable {
        name: "BACKUP_FORMAT",
        absent: Absent::Value("plain"),
        example: "custom",
        doc: "plain (SQL for psql) or custom (for pg_restore, which can restore single tables, and on several processors)",
        aliases: &[],
        set: |to, text| {
            to.format = values::one_of(
                text,
                &Format::ALL.map(|known| (known.name(), known)),
                "plain (SQL for psql) or custom (for pg_restore)",
            )?;
            Ok(())
        },
        show: |of| of.format.name().to_owned(),
    },
    Variable {
        name: "BACKUP_PG_DUMP_ARGS",
        absent: Absent::Off("none"),
        example: "'--exclude-table-data=sessions --no-owner'",
        doc: "more options for pg_dump, split into words as a shell does it. What would break a backup is refused",
        aliases: &["BACKUP_PG_DUMP_OPTIONS", "BACKUP_DUMP_ARGS", "POSTGRES_EXTRA_OPTS", "BACKUP_EXTRA_ARGS"],
        set: |to, text| DumpOptions::parse(text).map(|it| to.dump_options = it),
        show: |of| of.dump_options.to_string(),
    },
    age::RECIPIENTS,
    age::IDENTITY_FILE,
    Variable {
        name: "BACKUP_DRILL_CONNECTION_STRING",
        absent: Absent::Off("no drills"),
        example: "postgresql://user:password@host:5432",
        doc: "the server on which restores are tried, by pgkeep verify --drill and on a schedule. Each drill makes a \
              database and drops it again; the role needs CREATEDB. The source server only if it is named here",
        aliases: &["BACKUP_DRILL_URL"],
        set: |to, text| values::conninfo(text).map(|it| to.drill = Some(it)),
        show: |of| of.drill.as_ref().map_or(String::new(), |drill| drill.masked()),
    },
    Variable {
        name: "BACKUP_DRILL_INTERVAL",
        absent: Absent::Off("never"),
        example: "'0 6 * * SUN'",
        doc: "when the daemon tries to restore the newest backup there, as BACKUP_INTERVAL",
        aliases: &["BACKUP_DRILL_SCHEDULE"],
        set: |to, text| values::interval(text).map(|it| to.drill_interval = Some(it)),
        show: |of| of.drill_interval.as_ref().map_or(String::new(), |interval| interval.expression.clone()),
    },
    notify::HEARTBEAT_URL,
    notify::DRILL_HEARTBEAT_URL,
    notify::WEBHOOK_URL,
    notify::WEBHOOK_EVENTS,
    notify::WEBHOOK_FORMAT,
    notify::WEBHOOK_HEADERS,
    Variable {
        name: "BACKUP_LOCK_TIMEOUT",
        absent: Absent::Value("5min"),
        example: "5min",
        doc: "how long pg_dump waits for a locked table before the backup fails (s, min or h)",
        aliases: &[],
        set: |to, text| values::duration(text).map(|it| to.lock_timeout = it),
        show: |of| units::duration(of.lock_timeout),
    },
    Variable {
        name: "BACKUP_STALL_TIMEOUT",
        absent: Absent::Value("1h"),
        example: "1h",
        doc: "how long pg_dump, or psql or pg_restore in a restore, may do nothing before it is ended (s, min or h). It \
              may take longer while the server works for it",
        aliases: &["BACKUP_TIMEOUT"],
        set: |to, text| values::duration(text).map(|it| to.stall_timeout = it),
        show: |of| units::duration(of.stall_timeout),
    },
    Variable {
        name: "BACKUP_PG_BIN",
        absent: Absent::Off("searched"),
        example: "/usr/lib/postgresql/17/bin",
        doc: "the directory of pg_dump and psql. Without it they are looked for where Alpine, Debian and Red Hat put \
              them and on PATH, and the client of the server's own major version is taken",
        aliases: &["BACKUP_PG_DUMP"],
        set: |to, text| values::client_directory(text).map(|it| to.client_directory = Some(it)),
        show: |of| of.client_directory.as_ref().map_or(String::new(), |path| path.display().to_string()),
    },
    Variable {
        name: "BACKUP_COMPRESSION_LEVEL",
        // Level 1 is pgkeep's own encoder. With rows as applications have them, it compresses at least as well as gzip
        // with level 6, in a seventh of the time (`make bench`).
        absent: Absent::Value("1"),
        example: "6",
        doc: "1 is fast, and about as small as `gzip -6`; 2 to 9 are zlib's levels: slower, and smaller for prose",
        aliases: &["BACKUP_COMPRESSION"],
        set: |to, text| values::number(text, 1, 9).map(|level| to.compression_level = level),
        show: |of| of.compression_level.to_string(),
    },
    Variable {
        name: "BACKUP_THREADS",
        absent: Absent::Off("as many as the processors that the container may use, at most 8"),
        example: "2",
        doc: "how many threads compress",
        aliases: &[],
        set: |to, text| values::count(text).map(|it| to.threads = it),
        show: |of| of.threads.to_string(),
    },
    Variable {
        name: "BACKUP_TEMP_DIR",
        absent: Absent::Off("TMPDIR, or /tmp; the image sets it to /spool"),
        example: "/var/tmp",
        doc: "where the temporary file goes that holds what is not uploaded yet (at most the compressed backup), and the \
              status file that pgkeep health reads",
        aliases: &["BACKUP_TMP_DIR", "BACKUP_TMPDIR", "BACKUP_DIR"],
        set: |to, text| values::directory(text).map(|it| to.temp_directory = it),
        show: |of| of.temp_directory.display().to_string(),
    },
    Variable {
        name: "BACKUP_LOG_LEVEL",
        absent: Absent::Value("info"),
        example: "debug",
        doc: "error, warn, info or debug",
        aliases: &["BACKUP_LOGLEVEL"],
        set: |to, text| {
            to.log_level = values::one_of(text, &values::LOG_LEVELS, "error, warn, info or debug")?;
            Ok(())
        },
        show: |of| of.log_level.as_str().to_lowercase(),
    },
    watch::LOG_FORMAT,
    watch::METRICS_LISTEN,
    watch::METRICS_FILE,
    Variable {
        name: "TZ",
        absent: Absent::Off("the system's local time"),
        example: "Europe/Berlin",
        doc: "the time zone of BACKUP_INTERVAL and of the days and weeks of BACKUP_KEEP_*. The names of backups are in UTC always",
        aliases: &["BACKUP_TZ", "BACKUP_TIMEZONE"],
        set: |to, text| values::time_zone(text).map(|it| to.time_zone = Some(it)),
        show: |of| of.time_zone.clone().unwrap_or_default(),
    },
];
