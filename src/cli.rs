//! The command line.

use std::ffi::OsString;

use lexopt::prelude::*;

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
  health              exit with 0 while the daemon is alive and its newest backup is
                      young enough, else with 1; reads a file, asks no server

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
  BACKUP_ON_START              false, true or missed: back up at the start as well, or
                               only if a fire time was missed (default: false)
  S3_UPLOAD_CONCURRENCY        parts uploaded at a time (default: 4)
  BACKUP_RETENTION_DAYS        delete backups older than this (default: keep all)
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Whether the daemon and its backups are well.
    Health,
    /// `--help`
    Help,
    /// `--version`
    Version,
}

impl Command {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Command::Run => "run",
            Command::Backup => "backup",
            Command::List { .. } => "list",
            Command::Prune { .. } => "prune",
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
    while let Some(argument) = parser.next().map_err(|problem| problem.to_string())? {
        match (argument, &mut command) {
            (Short('h') | Long("help"), _) => return Ok(Command::Help),
            (Short('V') | Long("version"), _) => return Ok(Command::Version),
            (Long("all"), Some(Command::List { all, .. })) => *all = true,
            (Long("json"), Some(Command::List { json, .. })) => *json = true,
            (Long("dry-run"), Some(Command::Prune { dry_run })) => *dry_run = true,
            (Value(name), None) => {
                command = Some(match name.to_str() {
                    Some("run") => Command::Run,
                    Some("backup") => Command::Backup,
                    Some("list") => Command::List { all: false, json: false },
                    Some("prune") => Command::Prune { dry_run: false },
                    Some("health") => Command::Health,
                    Some("help") => Command::Help,
                    _ => return Err(format!("there is no command {name:?}")),
                });
            }
            (argument, _) => return Err(argument.unexpected().to_string()),
        }
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
            "--prune",
            "-x",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_names_every_variable() {
        for name in crate::config::VARIABLES {
            assert!(HELP.contains(&format!("\n  {name} ")), "{name}");
        }
    }
}
