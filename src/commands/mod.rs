//! The command line: one file for each command, and the table of commands.

mod backup;
mod check;
mod get;
mod growth;
mod health;
mod list;
pub mod output;
mod prune;
mod restore;
mod restore_all;
mod run;
mod status;
mod verify;

use std::ffi::OsString;
use std::fmt::Write;

use anyhow::Result;
use lexopt::prelude::*;

use crate::base::shutdown::{self, Shutdown};
use crate::config::{Absent, Config, VARIABLES};
use crate::notify::Notifier;

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// Print a text and do nothing else.
    Print(String),
    /// Run a command.
    Do(Command),
}

/// A command with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run the daemon.
    Run,
    /// Make one backup now.
    Backup,
    /// List what is in the bucket.
    List(list::Options),
    /// Delete what the policy does not keep.
    Prune(prune::Options),
    /// Restore from the bucket into a database.
    Restore(restore::Options),
    /// Restore a whole server.
    RestoreAll(restore_all::Options),
    /// Copy from the bucket into a file.
    Get(get::Options),
    /// Prove that backups are whole.
    Verify(verify::Options),
    /// Try everything that a backup needs.
    Check(check::Options),
    /// Show whether the daemon and its backups are well.
    Health,
    /// Tell what the daemon knows.
    Status(status::Options),
}

/// How a command ended, unless it failed with an error that must still be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done,
    /// Not done. The reason is already logged or printed.
    Failed,
}

impl Outcome {
    fn of(done: bool) -> Self {
        if done {
            Outcome::Done
        } else {
            Outcome::Failed
        }
    }
}

/// A row of the table of commands.
struct Row {
    name: &'static str,
    /// Its options, as the usage line shows them.
    options: &'static str,
    /// One line for `pgkeep --help`.
    summary: &'static str,
    /// The rest of `pgkeep COMMAND --help`.
    details: &'static str,
    parse: fn(&mut lexopt::Parser) -> Result<Command, String>,
}

const ROWS: [Row; 10] = [
    run::ROW,
    backup::ROW,
    list::ROW,
    prune::ROW,
    restore::ROW,
    get::ROW,
    verify::ROW,
    check::ROW,
    health::ROW,
    status::ROW,
];

/// How to choose a backup.
const WHICH: &str = "
WHICH is latest, a time in UTC (2026-11-23_03-00-00) or its beginning (2026-11-23: the newest of that
day), or a key as pgkeep list shows it. With BACKUP_DATABASES, the database comes first: shop/latest,
shop/2026-11-23.
";
const NEEDS_WHICH: &str =
    "needs to know which backup: latest, a time in UTC or its beginning, or a key; pgkeep list shows them";
/// What is not known of an encrypted backup.
const NO_KEY: &str =
    "it is encrypted, and what is in it was not read, because BACKUP_AGE_IDENTITY_FILE is not set";

impl Command {
    /// The command's name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Run => run::ROW.name,
            Command::Backup => backup::ROW.name,
            Command::List(_) => list::ROW.name,
            Command::Prune(_) => prune::ROW.name,
            Command::Restore(_) | Command::RestoreAll(_) => restore::ROW.name,
            Command::Get(_) => get::ROW.name,
            Command::Verify(_) => verify::ROW.name,
            Command::Check(_) => check::ROW.name,
            Command::Health => health::ROW.name,
            Command::Status(_) => status::ROW.name,
        }
    }

    /// Whether the command reads the daemon's schedule.
    pub fn needs_schedule(&self) -> bool {
        matches!(self, Command::Run | Command::Health | Command::Status(_))
    }

    /// Whether the command makes backups.
    pub fn encrypts(&self) -> bool {
        matches!(self, Command::Run | Command::Backup)
    }

    /// Runs the command. What a signal does depends on the work: a backup is finished first, a restore is
    /// undone, and all other commands just end.
    ///
    /// # Errors
    /// What went wrong. The caller logs it.
    pub fn run(&self, config: &Config, shutdown: &Shutdown) -> Result<Outcome> {
        // When this goes, it tells the last news.
        let notifier = self.tells().then(|| config.notifier(*self == Command::Run, shutdown));
        let source = || {
            let mut source = config.source(shutdown)?;
            source.job.listeners.extend(notifier.as_ref().and_then(Notifier::listener));
            anyhow::Ok(source)
        };
        match self {
            Command::Run => run::command(config, shutdown, notifier.as_ref().and_then(Notifier::listener)),
            Command::Backup => Ok(backup::command(config, source()?)),
            Command::List(options) => list::command(&source()?, options),
            Command::Prune(options) => prune::command(&source()?, options),
            Command::Restore(options) => restore::command(&source()?.job, options),
            Command::RestoreAll(options) => restore_all::command(&source()?, options),
            Command::Get(options) => get::command(&source()?.job, options),
            Command::Verify(options) => verify::command(&source()?, options),
            Command::Check(options) => Ok(check::command(config, &source()?, options)),
            Command::Health => health::command(config),
            Command::Status(options) => status::command(config, options),
        }
    }

    /// Whether somebody may want to hear what happens.
    fn tells(&self) -> bool {
        matches!(self, Command::Run | Command::Backup | Command::Verify(verify::Options { drill: true, .. }))
    }

    /// Starts to handle signals.
    pub fn hear_signals(&self) -> Result<Shutdown> {
        Ok(match self {
            Command::Run | Command::Backup => Shutdown::install()?,
            Command::Restore(_)
            | Command::RestoreAll(_)
            | Command::Verify(verify::Options { drill: true, .. })
            | Command::Check(_) => Shutdown::install()?.impatient(),
            Command::List(_)
            | Command::Prune(_)
            | Command::Get(_)
            | Command::Verify(_)
            | Command::Health
            | Command::Status(_) => {
                shutdown::end_at_signals()?;
                Shutdown::default()
            }
        })
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// A sentence about the first argument that does not fit.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let named = arguments.iter().find_map(|word| ROWS.iter().find(|row| word == row.name));
    // In any position, and whatever else is wrong.
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        return Ok(Request::Print(named.map_or_else(help, Row::help)));
    }
    let mut parser = lexopt::Parser::from_args(arguments);
    match parser.next().map_err(said)? {
        None => Ok(Request::Do(Command::Run)),
        Some(Short('V') | Long("version")) => {
            Ok(Request::Print(format!("pgkeep {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Some(Long("help-variables")) => Ok(Request::Print(help_variables())),
        Some(Value(word)) if word == "help" => Ok(Request::Print(named.map_or_else(help, Row::help))),
        Some(Value(word)) => {
            let row = ROWS.iter().find(|row| word == row.name);
            let row = row.ok_or_else(|| format!("there is no command {word:?}"))?;
            (row.parse)(&mut parser).map(Request::Do)
        }
        Some(argument) => Err(unexpected(argument)),
    }
}

/// Reads a command without options.
fn no_options(parser: &mut lexopt::Parser, command: Command) -> Result<Command, String> {
    match parser.next().map_err(said)? {
        None => Ok(command),
        Some(argument) => Err(unexpected(argument)),
    }
}

fn said(problem: lexopt::Error) -> String {
    problem.to_string()
}

fn unexpected(argument: lexopt::Arg<'_>) -> String {
    said(argument.unexpected())
}

/// The value of the option that was just read.
fn text(parser: &mut lexopt::Parser) -> Result<String, String> {
    parser.value().and_then(|value| value.string()).map_err(said)
}

/// What `pgkeep --help` prints.
fn help() -> String {
    let mut text = String::from(
        "pgkeep keeps a PostgreSQL database safe in S3-compatible storage.\n\nUsage: pgkeep [COMMAND]\n\nCommands:\n",
    );
    for Row { name, summary, .. } in &ROWS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<8} {summary}");
    }
    text + "
pgkeep COMMAND --help     a command's options
pgkeep --help-variables   the environment variables that configure pgkeep
pgkeep --version          the version

Exit status: 0 done, 1 failed, 2 wrong usage or configuration; after a second
SIGTERM, SIGINT or SIGHUP 143, 130 or 129.
"
}

impl Row {
    /// What `pgkeep COMMAND --help` prints.
    fn help(&self) -> String {
        let Row { name, options, summary, details, .. } = self;
        let usage = format!("Usage: pgkeep {name} {options}");
        let which = if options.contains("WHICH") { WHICH } else { "" };
        format!("{}\n\npgkeep {name}: {summary}.\n{which}{details}", usage.trim_end())
    }
}

/// What `pgkeep --help-variables` prints.
fn help_variables() -> String {
    let mut text = String::from(
        "pgkeep is configured by environment variables. NAME_FILE names a file that holds NAME's value.\n",
    );
    for variable in VARIABLES {
        let absent = match variable.absent {
            Absent::Required => "required".to_owned(),
            Absent::RequiredUnless(other) => format!("required, unless {other}"),
            Absent::RequiredToRun => "required by pgkeep run".to_owned(),
            Absent::Off(meaning) => format!("if not set: {meaning}"),
            Absent::Value(value) => format!("default: {value}"),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "\n{} ({absent})", variable.documented());
        // Too wide for any line, so the first word starts a new line.
        let mut width = usize::MAX / 2;
        for word in variable.doc.split_whitespace() {
            width += 1 + word.len();
            if width > 78 {
                text.push_str("\n   ");
                width = 4 + word.len();
            }
            text.push(' ');
            text.push_str(word);
        }
        let _ = writeln!(text, "\n    {}={}", variable.documented(), variable.example);
    }
    text
}

#[cfg(test)]
mod tests;
