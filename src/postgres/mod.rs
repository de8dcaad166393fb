//! PostgreSQL: its client programs, and what they are asked to do.
//!
//! A child gets the connection string as an argument, without its password, and the password in its
//! environment.

mod clients;
mod conninfo;
mod contents;
mod databases;
mod dump_options;
mod format;
mod globals;
mod guard;
mod interview;
mod leftovers;
mod patience;
mod pooler;
mod properties;
mod rights;
mod script;
mod search_path;
mod session;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::{warn, Level};

pub use self::clients::{major, Clients, Programs};
pub use self::conninfo::{refuse_hidden_password, Conninfo};
pub use self::contents::Table;
pub use self::databases::{identifier, name_with, Databases, LONGEST_NAME};
pub use self::dump_options::DumpOptions;
pub use self::format::Format;
pub use self::globals::Globals;
pub use self::guard::{explain, restricting, Guard};
pub use self::interview::{Interview, Server};
pub use self::leftovers::{Leftover, COMMENT, DRILL, UNFINISHED};
pub use self::pooler::SHARED;
pub use self::properties::{Properties, LONGEST_RECORD};
pub use self::rights::Rights;
use self::search_path::Access;
use crate::base::patience::Patience;
use crate::base::process::{self, is_broken_pipe, Process};
use crate::base::retry::{Policy, Retryable};
use crate::base::secret::Redactor;
use crate::base::shutdown::Shutdown;

const CONNECT: Policy =
    Policy { tries: 3, first_wait: Duration::from_secs(2), longest_wait: Duration::from_secs(10) };
/// A server that does not answer a question within this time does not answer at all. [`Postgres::work`] may
/// take longer.
const QUICK: Duration = Duration::from_secs(120);
/// For pg_restore, which otherwise guesses an archive's format from its first bytes.
const CUSTOM: &str = "--format=custom";
/// libpq's settings that detect a server that is gone. The connection string's own settings win.
const DEFAULTS: [(&str, &str); 5] = [
    ("application_name", "pgkeep"),
    ("connect_timeout", "10"),
    ("keepalives_idle", "60"),
    ("keepalives_interval", "10"),
    ("keepalives_count", "6"),
];

/// A database of a server, and the programs to reach it with.
#[derive(Clone)]
pub struct Postgres {
    connection: Conninfo,
    /// The newest client here: it understands every server.
    psql: Programs,
    redactor: Redactor,
    shutdown: Shutdown,
    stall_timeout: Duration,
}

impl Postgres {
    /// The database that `connection` names. The children are ended by a forced `shutdown`, and if they are
    /// silent for `stall_timeout` while the server does not work.
    pub fn new(
        connection: &Conninfo,
        clients: &Clients,
        redactor: &Redactor,
        shutdown: &Shutdown,
        stall_timeout: Duration,
    ) -> Self {
        let mut connection = connection.clone();
        for (keyword, value) in DEFAULTS {
            if connection.get(keyword).is_none() {
                connection.set(keyword, value);
            }
        }
        let redactor = redactor.clone().and(connection.password());
        let (psql, shutdown) = (clients.newest().clone(), shutdown.clone());
        Postgres { connection, psql, redactor, shutdown, stall_timeout }
    }

    /// Another database of the same server.
    pub fn database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.connection.set("dbname", name);
        other
    }

    /// The same, but only another `shutdown` ends its children.
    pub fn with_shutdown(&self, shutdown: Shutdown) -> Self {
        Postgres { shutdown, ..self.clone() }
    }

    /// The properties of a database on this server that do not belong to its contents.
    pub fn properties(&self, database: &str) -> Result<Properties> {
        let answer = self.query(&Properties::query(database));
        Properties::read(&answer.context("cannot look at the database's properties")?)
    }

    /// Tries something up to three times, and passes it the time that it may take. If a server is silent,
    /// this does not wait three times: all tries together have the time of one.
    fn insist<T>(&self, attempt: impl Fn(Duration) -> Result<T>) -> Result<T> {
        let end = Instant::now() + self.quick();
        let left = || end.saturating_duration_since(Instant::now());
        let sleep = |wait| self.shutdown.sleep_unless_forced(wait);
        let attempt =
            || attempt(left()).map_err(|failure| Attempt { failure, again: left() > 2 * CONNECT.first_wait });
        Ok(CONNECT.run(sleep, attempt)?)
    }

    /// How long an answer may take.
    fn quick(&self) -> Duration {
        QUICK.min(self.stall_timeout)
    }

    /// Lets psql run a script (SQL and psql's own commands) in one transaction. Returns the output: rows,
    /// with tabs between the values. It calls no function of the database's users: see [`search_path`]. The
    /// script may only read, so a standby answers it too.
    ///
    /// # Errors
    /// psql's own message, or that psql is silent for too long.
    pub fn query(&self, script: &str) -> Result<String> {
        self.look_up(script, self.quick())
    }

    /// The same for a script that writes.
    ///
    /// # Errors
    /// The same as for [`Postgres::query`].
    pub fn change(&self, script: &str) -> Result<String> {
        let limit = self.quick();
        self.run_psql(&search_path::pinned(script, Access::ReadWrite, limit), Patience::of(limit))
    }

    /// The same, without a transaction: for statements that need this, such as CREATE DATABASE, and for work
    /// that takes longer the larger a database is. psql may be silent while its server process works.
    ///
    /// # Errors
    /// The same as for [`Postgres::query`].
    pub fn work(&self, script: &str) -> Result<String> {
        let (tagged, patience) = patience::with_server(self, self.quick());
        tagged.run_psql(&format!("{}{script}", search_path::SESSION), patience)
    }

    /// Like [`Postgres::query`], within `limit`.
    fn look_up(&self, script: &str, limit: Duration) -> Result<String> {
        self.run_psql(&search_path::pinned(script, Access::ReadOnly, limit), Patience::of(limit))
    }

    fn run_psql(&self, script: &str, patience: Patience) -> Result<String> {
        let mut command = self.psql(&self.psql);
        // -A, -t: bare values. -F: a separator that no version contains.
        command.args(["-A", "-t", "-F", "\t"]);
        // All messages of psql are in its error.
        let mut child = self.start("psql", Level::Debug, command, Stdio::piped(), patience)?;
        // psql reads faster than it answers, so neither waits for the other. If psql ended, it says why.
        let sent = child.write_all(script.as_bytes());
        let sent = match sent {
            Err(failure) if !is_broken_pipe(&failure) => return Err(failure),
            sent => sent,
        };
        let answer = child.answer()?;
        sent?;
        Ok(answer)
    }

    /// Starts psql on a script that comes on its standard input.
    pub fn start_psql(&self, programs: &Programs) -> Result<Process> {
        let (tagged, patience) = patience::with_server(self, self.stall_timeout);
        let mut command = tagged.psql(programs);
        // -b: shows the statement that failed.
        command.args(["-b", "-o", "/dev/null"]);
        self.start("psql", Level::Warn, command, Stdio::piped(), patience)
    }

    /// Starts pg_dump. It waits for a table's lock for at most `lock_timeout`. The custom format is not
    /// compressed here: pgkeep compresses it.
    pub fn dump(
        &self,
        programs: &Programs,
        format: Format,
        lock_timeout: Duration,
        options: &DumpOptions,
    ) -> Result<Process> {
        let format = ["--compress=0".to_owned(), format!("--format={format}")];
        self.start_pg_dump(programs, lock_timeout, format.iter().chain(options.words()))
    }

    /// Whether pg_dump accepts these options. It dumps only definitions, to nowhere.
    ///
    /// # Errors
    /// pg_dump's own message.
    pub fn try_dump(&self, programs: &Programs, lock_timeout: Duration, options: &DumpOptions) -> Result<()> {
        let no_data = [options.no_data().to_owned()];
        let words = no_data.iter().chain(options.words());
        let mut dump = self.start_pg_dump(programs, lock_timeout, words)?;
        while dump.read(&mut [0; 65_536])? > 0 {}
        dump.finish()
    }

    fn start_pg_dump<'a>(
        &self,
        programs: &Programs,
        lock_timeout: Duration,
        options: impl Iterator<Item = &'a String>,
    ) -> Result<Process> {
        // While it waits for a lock, it writes nothing.
        let (tagged, patience) = patience::with_server(self, self.stall_timeout.max(lock_timeout));
        let mut command = tagged.command(&programs.directory.join("pg_dump"));
        command.arg("--no-password");
        command.arg(format!("--lock-wait-timeout={}", lock_timeout.as_millis())).args(options);
        self.start("pg_dump", Level::Warn, command, Stdio::null(), patience)
    }

    /// Starts pg_dumpall for what belongs to the server and to no database: roles, memberships, tablespaces. If
    /// the role may not read the roles' passwords, they are left out, with a warning.
    pub fn dump_globals(&self, programs: &Programs, lock_timeout: Duration) -> Result<Process> {
        let (tagged, patience) = patience::with_server(self, self.stall_timeout.max(lock_timeout));
        let mut command = tagged.command(&programs.directory.join("pg_dumpall"));
        // In whatever encoding the names are, the file is read as UTF-8.
        command.args(["--no-password", "--globals-only", "--encoding=UTF8"]);
        // pg_dumpall ignores the database in a connection string.
        command.args(self.connection.get("dbname").map(|database| format!("--database={database}")));
        command.arg(format!("--lock-wait-timeout={}", lock_timeout.as_millis()));
        if !self.may_read_passwords()? {
            warn!(
                "the roles are backed up without their passwords: only a superuser may read them; BACKUP_GLOBALS=false \
                 leaves the globals out"
            );
            command.arg("--no-role-passwords");
        }
        self.start("pg_dumpall", Level::Warn, command, Stdio::null(), patience)
    }

    /// Whether the role may read the passwords of roles.
    pub fn may_read_passwords(&self) -> Result<bool> {
        let may = "SELECT has_table_privilege('pg_authid', 'SELECT')";
        Ok(self.query(may).context("cannot ask whether roles may be read")? == "t")
    }

    /// The databases of this server that can be backed up: those that allow connections and are no templates,
    /// without those that a restore is filling.
    pub fn database_names(&self) -> Result<Vec<String>> {
        let query = format!(
            "SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database \
             WHERE datallowconn AND NOT datistemplate \
             AND coalesce(shobj_description(oid, 'pg_database'), '') NOT LIKE '{COMMENT}%';"
        );
        let answer = self.insist(|limit| self.look_up(&query, limit).map_err(pooler::explain));
        let answer = answer.context("cannot ask the server for its databases")?;
        serde_json::from_str(&answer).with_context(|| format!("psql answered \"{answer}\" to: {query}"))
    }

    /// Starts pg_restore on an archive in the custom format. The archive comes on standard input, or
    /// `arguments` name a file.
    pub fn start_pg_restore(&self, programs: &Programs, arguments: &[String]) -> Result<Process> {
        let (tagged, patience) = patience::with_server(self, self.stall_timeout);
        let mut command = tagged.command(&programs.directory.join("pg_restore"));
        command.args(["--no-password", "--exit-on-error", CUSTOM]).args(arguments);
        self.start("pg_restore", Level::Warn, command, Stdio::piped(), patience)
    }

    /// The same, but it only writes a script for psql, and connects to nothing.
    pub fn start_pg_restore_to_script(&self, programs: &Programs, arguments: &[String]) -> Result<Process> {
        let mut command = process::command(&programs.directory.join("pg_restore"));
        command.args(["--file=-", CUSTOM]).args(arguments);
        let patience = Patience::of(self.stall_timeout);
        self.start("pg_restore", Level::Warn, command, Stdio::piped(), patience)
    }

    /// -X: no psqlrc. -f -: messages name the line.
    fn psql(&self, programs: &Programs) -> Command {
        let mut command = self.command(&programs.directory.join("psql"));
        command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = process::command(program);
        command.arg("-d").arg(self.connection.without_password());
        if let Some(password) = self.connection.password() {
            command.env("PGPASSWORD", password.expose());
        }
        command
    }

    fn start(
        &self,
        name: &'static str,
        level: Level,
        command: Command,
        stdin: Stdio,
        patience: Patience,
    ) -> Result<Process> {
        process::start(name, level, command, stdin, self.redactor.clone(), &self.shutdown, patience)
    }
}

/// A failed try to connect. The next one may find the server up, if there is time.
struct Attempt {
    failure: anyhow::Error,
    again: bool,
}

impl Retryable for Attempt {
    fn is_transient(&self) -> bool {
        self.again
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.failure)
    }
}

impl From<Attempt> for anyhow::Error {
    fn from(attempt: Attempt) -> Self {
        attempt.failure
    }
}
