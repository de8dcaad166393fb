//! The command line.

pub mod check;
pub mod get;
pub mod health;
pub mod list;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

use crate::jobs::restore;

/// What `--help` prints.
pub const HELP: &str = "\
pgkeep keeps a PostgreSQL database safe in S3-compatible storage.

Usage: pgkeep [COMMAND]

Commands:
  run                 back up on the schedule of BACKUP_INTERVAL (the default)
  backup              back up once, now, and prune
  list [--all] [--json]
                      list this database's backups, the oldest first, and when they
                      expire; --all lists those of every database below S3_PATH
  prune [--dry-run]   delete the backups that BACKUP_RETENTION_DAYS lets go;
                      --dry-run only prints what would happen, and why
  restore WHICH [--database NAME] [--to CONNECTION] [--replace]
          [--table NAME]... [--schema NAME]... [--jobs N]
                      restore into a new database NAME (default: of the backup's name and
                      time) on the configured server, or that of CONNECTION; into one that
                      is there only if it is empty, or with --replace, which keeps the old
                      one under another name. The second line's options need a backup in
                      the custom format
  get WHICH [-o FILE] fetch a backup's file, checked on the way; - is standard output
  verify [WHICH | --all] [--drill]
                      read a backup (default: the newest) and prove it whole; --drill
                      also restores it, on BACKUP_DRILL_CONNECTION_STRING's server
  check               try now all that a backup needs: PostgreSQL, every right, S3, the
                      clock, the disk; each line is ok or says what to do
  health              exit with 0 while the daemon is alive and its newest backup is
                      young enough, else with 1; reads a file, asks no server

WHICH is latest, a time in UTC (2026-11-23_03-00-00) or its beginning (2026-11-23: the
newest of that day), or a key as list shows it.

Options:
  -h, --help          print this help
  -V, --version       print the version

Configuration, by environment variables; NAME_FILE names a file with NAME's value:
  POSTGRES_CONNECTION_STRING   postgresql://user:password@host:5432/database
  S3_BUCKET                    the bucket
  S3_ACCESS_KEY                the id of the key that signs requests
  S3_SECRET_KEY                the key that signs requests
  BACKUP_INTERVAL              five crontab fields, or @hourly @daily @midnight @weekly
                               @monthly @yearly @annually (needed by run only)
  S3_URL                       the endpoint (default: AWS, by region)
  S3_PATH                      a prefix within the bucket (default: none)
  S3_REGION                    (default: us-east-1)
  S3_ADDRESSING_STYLE          path or virtual (default: path, for AWS virtual)
  S3_CA_FILE                   a file with the certificates (PEM) of the endpoint's
                               authorities (default: the system's)
  BACKUP_ON_START              false, true or missed: back up at the start as well, or
                               only if a fire time was missed (default: false)
  S3_UPLOAD_CONCURRENCY        parts uploaded at a time (default: 4)
  BACKUP_RETENTION_DAYS        delete backups older than this (default: keep all)
  BACKUP_FORMAT                plain (SQL for psql) or custom (for pg_restore, table by
                               table) (default: plain)
  BACKUP_DRILL_CONNECTION_STRING   the server to try restores on
  BACKUP_DRILL_INTERVAL        when to try to restore the newest backup there, as
                               BACKUP_INTERVAL (default: never)
  BACKUP_LOCK_TIMEOUT          how long to wait for a table's lock (default: 5min)
  BACKUP_PG_BIN                the directory of pg_dump and psql (default: searched)
  BACKUP_COMPRESSION_LEVEL     1 (fast) to 9 (small) (default: 3)
  BACKUP_THREADS               threads that compress (default: the processors)
  BACKUP_TEMP_DIR              where the temporary file goes (default: TMPDIR, or /tmp)
  BACKUP_LOG_LEVEL             error, warn, info or debug (default: info)
  TZ                           the schedule's time zone, such as Europe/Berlin

Exit status: 0 done, 1 failed, 2 wrong usage or configuration; after a second
SIGTERM or SIGINT 143 or 130.
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The daemon.
    Run,
    /// One backup now.
    Backup,
    /// What is in the bucket.
    List {
        /// Of every database below the path.
        all: bool,
        /// For a script.
        json: bool,
    },
    /// Delete what the policy lets go.
    Prune {
        /// Only say what would happen.
        dry_run: bool,
    },
    /// From the bucket into a database.
    Restore(restore::Options),
    /// From the bucket into a file.
    Get {
        /// The backup.
        which: String,
        /// The file; `-` for standard output.
        output: Option<PathBuf>,
    },
    /// Prove backups whole.
    Verify {
        /// The backup; the newest where there is none.
        which: String,
        /// All of this database's instead.
        all: bool,
        /// By restoring it, too.
        drill: bool,
    },
    /// Try what a backup needs.
    Check,
    /// Whether the daemon and its backups are well.
    Health,
    /// `--help`
    Help,
    /// `--version`
    Version,
}

impl Command {
    /// The word on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Run => "run",
            Command::Backup => "backup",
            Command::List { .. } => "list",
            Command::Prune { .. } => "prune",
            Command::Restore(_) => "restore",
            Command::Get { .. } => "get",
            Command::Verify { .. } => "verify",
            Command::Check => "check",
            Command::Health => "health",
            Command::Help => "help",
            Command::Version => "version",
        }
    }
}

/// Reads the arguments behind the program's name.
///
/// # Errors
/// A sentence about the first argument that does not fit.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut command = None;
    let said = |problem: lexopt::Error| problem.to_string();
    while let Some(argument) = parser.next().map_err(said)? {
        match (argument, &mut command) {
            (Short('h') | Long("help"), _) => return Ok(Command::Help),
            (Short('V') | Long("version"), _) => return Ok(Command::Version),
            (Long("all"), Some(Command::List { all, .. })) => *all = true,
            (Long("json"), Some(Command::List { json, .. })) => *json = true,
            (Long("dry-run"), Some(Command::Prune { dry_run })) => *dry_run = true,
            (Long("all"), Some(Command::Verify { all, .. })) => *all = true,
            (Long("drill"), Some(Command::Verify { drill, .. })) => *drill = true,
            (Short('o') | Long("output"), Some(Command::Get { output, .. })) => {
                *output = Some(parser.value().map_err(said)?.into());
            }
            (Long("database"), Some(Command::Restore(options))) => {
                options.database = Some(parser.value().and_then(|name| name.string()).map_err(said)?);
            }
            (Long("to"), Some(Command::Restore(options))) => {
                options.to = Some(parser.value().and_then(|to| to.string()).map_err(said)?);
            }
            (Long("replace"), Some(Command::Restore(options))) => options.replace = true,
            (Long("table"), Some(Command::Restore(options))) => {
                let name = parser.value().and_then(|name| name.string()).map_err(said)?;
                options.selection.tables.push(name);
            }
            (Long("schema"), Some(Command::Restore(options))) => {
                let name = parser.value().and_then(|name| name.string()).map_err(said)?;
                options.selection.schemas.push(name);
            }
            (Short('j') | Long("jobs"), Some(Command::Restore(options))) => {
                let jobs = parser.value().and_then(|jobs| jobs.parse()).map_err(said)?;
                options.selection.jobs = Some(jobs);
            }
            (
                Value(value),
                Some(
                    Command::Restore(restore::Options { which, .. })
                    | Command::Get { which, .. }
                    | Command::Verify { which, .. },
                ),
            ) if which.is_empty() => *which = value.string().map_err(said)?,
            (Value(name), None) => {
                command = Some(match name.to_str() {
                    Some("run") => Command::Run,
                    Some("backup") => Command::Backup,
                    Some("list") => Command::List { all: false, json: false },
                    Some("prune") => Command::Prune { dry_run: false },
                    Some("restore") => Command::Restore(restore::Options::default()),
                    Some("get") => Command::Get { which: String::new(), output: None },
                    Some("verify") => Command::Verify { which: String::new(), all: false, drill: false },
                    Some("check") => Command::Check,
                    Some("health") => Command::Health,
                    Some("help") => Command::Help,
                    _ => return Err(format!("there is no command {name:?}")),
                });
            }
            (argument, _) => return Err(argument.unexpected().to_string()),
        }
    }
    let needs = "needs to know which backup: latest, a time in UTC or its beginning, or a key; pgkeep list shows them";
    match &mut command {
        Some(Command::Restore(restore::Options { which, .. })) if which.is_empty() => {
            return Err(format!("restore {needs}"));
        }
        Some(Command::Restore(restore::Options { database: Some(name), .. })) if name.is_empty() => {
            return Err("--database is empty".into());
        }
        Some(Command::Restore(options)) if options.selection.jobs == Some(0) => {
            return Err("--jobs is 0; it has to be a number from 1".into());
        }
        Some(Command::Get { which, .. }) if which.is_empty() => return Err(format!("get {needs}")),
        Some(Command::Verify { which, all: true, drill }) if !which.is_empty() || *drill => {
            return Err("verify --all takes neither a backup nor --drill".into());
        }
        Some(Command::Verify { which, .. }) if which.is_empty() => *which = "latest".into(),
        _ => {}
    }
    Ok(command.unwrap_or(Command::Run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn commands_and_their_options() {
        for (line, command) in [
            ("", Command::Run),
            ("run", Command::Run),
            ("backup", Command::Backup),
            ("list", Command::List { all: false, json: false }),
            ("list --json", Command::List { all: false, json: true }),
            ("list --json --all", Command::List { all: true, json: true }),
            ("prune --dry-run", Command::Prune { dry_run: true }),
            ("health", Command::Health),
            ("check", Command::Check),
            ("verify", Command::Verify { which: "latest".into(), all: false, drill: false }),
            ("verify 2026 --drill", Command::Verify { which: "2026".into(), all: false, drill: true }),
            ("get latest -o -", Command::Get { which: "latest".into(), output: Some("-".into()) }),
            (
                "restore --replace latest --to host=x --jobs 4 --table a --table=b",
                Command::Restore(restore::Options {
                    which: "latest".into(),
                    database: None,
                    to: Some("host=x".into()),
                    replace: true,
                    selection: restore::Selection {
                        tables: vec!["a".into(), "b".into()],
                        schemas: vec![],
                        jobs: Some(4),
                    },
                }),
            ),
            ("list --help", Command::Help),
            ("-V", Command::Version),
        ] {
            assert_eq!(read(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for line in [
            "bakup",
            "list --dry-run",
            "--all",
            "prune --all",
            "prune --json",
            "--json",
            "backup now",
            "restore",
            "restore a b",
            "restore latest --jobs 0",
            "restore latest --jobs many",
            "restore latest --database=",
            "restore latest --all",
            "get",
            "get latest -o",
            "verify latest --all",
            "verify --all --drill",
            "verify --replace",
            "--prune",
            "-x",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_names_every_variable() {
        for name in crate::config::VARIABLES {
            let named = [format!("\n  {name} "), format!("\n  {name}_FILE ")];
            assert!(named.iter().any(|line| HELP.contains(line)), "{name}");
        }
    }
}
