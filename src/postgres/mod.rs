//! PostgreSQL's own programs: which ones to use, and their processes.
//!
//! A child gets the connection string without its password as an argument and the password by
//! environment, in a process group of its own, so that a terminal's Ctrl-C does not reach it.

pub mod conninfo;
pub mod databases;
pub mod guard;
pub mod rights;
pub mod search_path;

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{anyhow, bail, Context, Result};
use log::{debug, log, Level};
use rustix::io::retry_on_intr;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{kill_process_group, waitid, Pid, Signal, WaitId, WaitIdOptions};

use crate::base::retry::{Policy, Retryable};
use crate::base::secret::Redactor;
use crate::base::shutdown::{Shutdown, Watched};
use crate::config::{Config, VARIABLES};
use crate::postgres::conninfo::Conninfo;
use crate::store::key::Format;

const CONNECT: Policy =
    Policy { tries: 3, first_wait: Duration::from_secs(2), longest_wait: Duration::from_secs(10) };
/// Where distributions keep clients of several majors side by side: Alpine, Debian, Red Hat.
const LAYOUTS: [(&str, &str); 3] =
    [("/usr/libexec/postgresql", ""), ("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];
/// Majors to look for there.
const MAJORS: std::ops::RangeInclusive<u32> = 10..=30;
/// As large as Linux lets everybody have it (/proc/sys/fs/pipe-max-size).
const PIPE_SIZE: usize = 1 << 20;
/// An error shows so many of the first lines of a child's messages, and of the last; the log shows them all.
const FIRST_LINES: usize = 4;
const LAST_LINES: usize = 4;
/// More of a line is not read; shown is less, so that half a password at the end is not shown either.
const LONGEST_LINE: u64 = 64 * 1024;
const SHOWN_OF_A_LINE: usize = 4096;
/// libpq's settings that notice a server that is gone, where the connection string has none of its own.
const DEFAULTS: [(&str, &str); 5] = [
    ("application_name", "pgkeep"),
    ("connect_timeout", "10"),
    ("keepalives_idle", "60"),
    ("keepalives_interval", "10"),
    ("keepalives_count", "6"),
];

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Such as `16.4 (Debian 16.4-1)`.
    pub version: String,
    /// Such as 16.
    pub major: u32,
    /// The database's size on the server in bytes.
    pub database_size: u64,
}

/// A directory with `psql` and `pg_dump` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Where they are.
    pub directory: PathBuf,
    /// Such as `16.4`.
    pub version: String,
    /// Such as 16.
    pub major: u32,
}

/// What is needed to start a child.
#[derive(Clone)]
pub struct Postgres<'a> {
    connection: Conninfo,
    redactor: Redactor,
    config: &'a Config,
    shutdown: &'a Shutdown,
}

impl<'a> Postgres<'a> {
    /// The configured database. A forced `shutdown` ends its children.
    pub fn new(config: &'a Config, shutdown: &'a Shutdown) -> Self {
        Self::at(&config.connection, config, shutdown)
    }

    /// Any other database.
    pub fn at(connection: &Conninfo, config: &'a Config, shutdown: &'a Shutdown) -> Self {
        let mut connection = connection.clone();
        for (keyword, value) in DEFAULTS {
            if connection.get(keyword).is_none() {
                connection.set(keyword, value);
            }
        }
        let redactor = config.redactor().and(connection.password());
        Postgres { connection, redactor, config, shutdown }
    }

    /// Another database of the same server.
    pub fn database(&self, name: &str) -> Self {
        let mut other = self.clone();
        other.connection.set("dbname", name);
        other
    }

    /// The same, with children that go on when a stop is forced: they clean up.
    pub fn unstoppable(&self, shutdown: &'a Shutdown) -> Self {
        Postgres { shutdown, ..self.clone() }
    }

    /// Asks the server for its version and the database's size, with a real query; three tries.
    ///
    /// # Errors
    /// psql's own words of the last try.
    pub fn ask_server(&self, programs: &Programs) -> Result<Server> {
        let sleep = |wait| self.shutdown.sleep_unless_forced(wait);
        Ok(CONNECT.run(sleep, || self.ask(programs).map_err(Attempt))?)
    }

    /// The same with one try.
    ///
    /// # Errors
    /// psql's own words.
    pub fn ask(&self, programs: &Programs) -> Result<Server> {
        const QUERY: &str =
            "SELECT current_setting('server_version_num'), current_setting('server_version'), \
                             pg_database_size(current_database());";
        let database = self.connection.get("dbname").unwrap_or_default();
        let answer = self.query(programs, QUERY);
        let answer = answer.with_context(|| format!("cannot reach database \"{database}\""))?;
        parse_server(&answer).ok_or_else(|| anyhow!("psql answered \"{answer}\" to: {QUERY}"))
    }

    /// Has psql run a script (SQL and psql's own commands) in one transaction and returns what it prints: rows,
    /// their values between tabs. No function of the database's users is called by it: see [`search_path`].
    ///
    /// # Errors
    /// psql's own words.
    pub fn query(&self, programs: &Programs, script: &str) -> Result<String> {
        self.run(programs, &search_path::pinned(script))
    }

    /// The same for statements that PostgreSQL runs in no transaction, such as CREATE DATABASE. They may
    /// name no function and no operator.
    ///
    /// # Errors
    /// psql's own words.
    pub fn run(&self, programs: &Programs, script: &str) -> Result<String> {
        let mut command = self.psql(programs);
        // -A, -t: bare values; -F: a separator that no version contains.
        command.args(["-A", "-t", "-F", "\t"]);
        // psql's words are all in its error.
        let mut child = self.start("psql", Level::Debug, command, Stdio::piped())?;
        // psql reads faster than it answers, so that neither waits for the other; one that ended says why.
        let sent = child.input().write_all(script.as_bytes());
        child.close_input();
        let mut answer = Vec::new();
        child.output().read_to_end(&mut answer).context("cannot read psql's answer")?;
        child.finish()?;
        sent.context("psql ended before its script did")?;
        // In the database's encoding, which is not always UTF-8: a name in it is for people.
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// Starts psql on a script that comes by its standard input.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn start_psql(&self, programs: &Programs) -> Result<Process> {
        let mut command = self.psql(programs);
        // -b: the statement that failed is shown.
        command.args(["-b", "-o", "/dev/null"]);
        self.start("psql", Level::Warn, command, Stdio::piped())
    }

    /// -X: no psqlrc; -f -: messages name the line.
    fn psql(&self, programs: &Programs) -> Command {
        let mut command = self.command(&programs.directory.join("psql"));
        command.args(["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        command
    }

    /// Starts pg_dump. The custom format is left uncompressed: compressing is pgkeep's part.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn dump(&self, programs: &Programs, format: Format) -> Result<Process> {
        let mut command = self.command(&programs.directory.join("pg_dump"));
        let lock_timeout = self.config.lock_timeout.as_millis();
        command.args(["--no-password", &format!("--format={format}"), "--compress=0"]);
        command.arg(format!("--lock-wait-timeout={lock_timeout}"));
        self.start("pg_dump", Level::Warn, command, Stdio::null())
    }

    /// Starts pg_restore on an archive of the custom format that comes by its standard input, or with
    /// `arguments` that name a file.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn start_pg_restore(&self, programs: &Programs, arguments: &[String]) -> Result<Process> {
        let mut command = self.command(&programs.directory.join("pg_restore"));
        // No other format is tried: pg_restore guesses by the first bytes.
        command.args(["--no-password", "--exit-on-error", "--format=custom"]).args(arguments);
        self.start("pg_restore", Level::Warn, command, Stdio::piped())
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("-d").arg(self.connection.without_password());
        // What pgkeep was given is none of the child's business, least of all the keys.
        for name in VARIABLES.iter().filter(|name| **name != "TZ") {
            command.env_remove(name);
        }
        if let Some(password) = self.connection.password() {
            command.env("PGPASSWORD", password.expose());
        }
        command
    }

    fn start(&self, name: &'static str, level: Level, mut command: Command, stdin: Stdio) -> Result<Process> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let group = Pid::from_child(&child);
        let watched = self.shutdown.watch(group);
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both were asked for as pipes");
        };
        // Larger, the pipe lets the child and this process take turns less often. A container may not be
        // allowed to.
        let _ = fcntl_setpipe_size(&stdout, PIPE_SIZE);
        let stdin = child.stdin.take();
        if let Some(stdin) = &stdin {
            let _ = fcntl_setpipe_size(stdin, PIPE_SIZE);
        }
        let redactor = self.redactor.clone();
        let messages = thread::Builder::new()
            .name(format!("{name} messages"))
            .spawn(move || relay_messages(name, level, BufReader::new(stderr), &redactor))?;
        Ok(Process { name, child, group, stdin, stdout, messages: Some(messages), watched: Some(watched) })
    }
}

/// A running child. Dropped before its end, it is killed with its whole process group.
pub struct Process {
    name: &'static str,
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    messages: Option<JoinHandle<Vec<String>>>,
    watched: Option<Watched>,
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> Pid {
        self.group
    }

    /// What it writes.
    pub fn output(&mut self) -> &mut ChildStdout {
        &mut self.stdout
    }

    /// What it reads, where it was started to. Before it is closed, the child is killed, unless
    /// [`Process::finish`] or [`Process::close_input`] closes it: an end is something that a child acts upon.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().expect("an input that is open")
    }

    /// Tells the child that there is no more to read.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Closes its input and waits for the end.
    ///
    /// # Errors
    /// Any status but 0, with the child's last messages.
    pub fn finish(mut self) -> Result<()> {
        self.close_input();
        let (status, messages) = self.reap()?;
        if status.success() {
            return Ok(());
        }
        let messages = if messages.is_empty() { "it said nothing".into() } else { messages.join(" | ") };
        bail!("{} failed ({status}): {messages}", self.name)
    }

    fn reap(&mut self) -> Result<(ExitStatus, Vec<String>)> {
        let waiting = || format!("cannot wait for {}", self.name);
        // What the child has started and left behind would keep its standard error open. The group goes before
        // the child is reaped, while its id cannot be another's.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::Pid(self.group), ended)).with_context(waiting)?;
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = self.child.wait().with_context(waiting)?;
        self.watched = None;
        let messages = self.messages.take().map(JoinHandle::join);
        Ok((status, messages.and_then(Result::ok).unwrap_or_default()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.watched.is_some() {
            debug!("ending {} (process group {})", self.name, self.group.as_raw_nonzero());
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.reap();
        }
    }
}

/// Whether a failure is that the other end of a pipe was closed.
pub fn is_broken_pipe(failure: &anyhow::Error) -> bool {
    let io = failure.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// Logs what a child says, line by line, and answers with the first and the last lines.
fn relay_messages(name: &str, level: Level, mut messages: impl BufRead, redactor: &Redactor) -> Vec<String> {
    let (mut first, mut last, mut left_out) = (Vec::new(), VecDeque::new(), false);
    let mut line = Vec::new();
    loop {
        line.clear();
        match messages.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => {
                first.extend(left_out.then(|| "…".to_owned()));
                first.extend(last);
                return first;
            }
            Ok(_) => {}
        }
        if !line.ends_with(b"\n") {
            // The rest is dropped unseen: half a password at its beginning would not be recognised.
            let _ = messages.skip_until(b'\n');
        }
        let text = redactor.clean(String::from_utf8_lossy(&line).trim_end());
        let text: String = text.chars().take(SHOWN_OF_A_LINE).collect();
        if text.is_empty() {
            continue;
        }
        log!(level, "{name} says: {text}");
        if first.len() < FIRST_LINES {
            first.push(text);
            continue;
        }
        last.push_back(text);
        if last.len() > LAST_LINES {
            last.pop_front();
            left_out = true;
        }
    }
}

/// A failed try to connect: the next one may find the server up.
struct Attempt(anyhow::Error);

impl Retryable for Attempt {
    fn is_transient(&self) -> bool {
        true
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl From<Attempt> for anyhow::Error {
    fn from(attempt: Attempt) -> Self {
        attempt.0
    }
}

fn parse_server(answer: &str) -> Option<Server> {
    let mut fields = answer.split('\t');
    let number: u32 = fields.next()?.parse().ok()?;
    let version = fields.next()?.to_owned();
    let database_size = fields.next()?.parse().ok()?;
    Some(Server { version, major: number / 10_000, database_size })
}

/// The clients that are installed, the newest first: in `BACKUP_PG_BIN` alone where it is set, else where
/// distributions put them and on `PATH`.
///
/// # Errors
/// Where there are none.
pub fn installed(only: Option<&Path>) -> Result<Vec<Programs>> {
    let directories: Vec<PathBuf> = match only {
        Some(directory) => vec![directory.to_owned()],
        None => {
            let side_by_side = LAYOUTS.iter().flat_map(|(before, behind)| {
                MAJORS.map(move |major| PathBuf::from(format!("{before}{major}{behind}")))
            });
            let path = env::var_os("PATH").unwrap_or_default();
            side_by_side.chain(env::split_paths(&path)).collect()
        }
    };
    let mut found: Vec<Programs> = Vec::new();
    let mut broken = None;
    for directory in directories {
        if ["pg_dump", "psql"].iter().all(|program| fs::metadata(directory.join(program)).is_ok()) {
            match version_of(&directory) {
                Ok(programs) if !found.iter().any(|known| known.major == programs.major) => {
                    found.push(programs)
                }
                Ok(_) => {}
                Err(problem) => {
                    debug!("left alone: {problem:#}");
                    broken = Some(problem);
                }
            }
        }
    }
    if found.is_empty() {
        if let Some(problem) = broken {
            return Err(problem.context("PostgreSQL's client does not work"));
        }
        bail!(
            "no pg_dump and psql found: install PostgreSQL's client (postgresql-client), or set BACKUP_PG_BIN to \
             the directory that has them"
        );
    }
    found.sort_by_key(|programs| std::cmp::Reverse(programs.major));
    Ok(found)
}

fn version_of(directory: &Path) -> Result<Programs> {
    let program = directory.join("pg_dump");
    let output = Command::new(&program).arg("--version").output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let version =
        version.with_context(|| format!("{} --version says \"{}\"", program.display(), text.trim()))?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let major = digits.parse().with_context(|| format!("{}: no major in {version}", program.display()))?;
    Ok(Programs { directory: directory.to_owned(), version: version.to_owned(), major })
}

/// The clients to dump a server with: its own major, else the next newer one, because an older pg_dump
/// refuses a newer server (<https://www.postgresql.org/docs/current/app-pgdump.html#APP-PGDUMP-NOTES>).
///
/// # Errors
/// Where all are older than the server.
pub fn choose(installed: &[Programs], server: &Server) -> Result<Programs> {
    let fitting = installed.iter().filter(|programs| programs.major >= server.major);
    fitting.min_by_key(|programs| programs.major).cloned().with_context(|| {
        let newest = installed.iter().map(|programs| programs.version.as_str()).next().unwrap_or("none");
        format!(
            "the server is PostgreSQL {}, but the newest client here is {newest}: install the client of PostgreSQL {}",
            server.version, server.major
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(major: u32) -> Programs {
        Programs { directory: PathBuf::new(), version: format!("{major}.1"), major }
    }

    fn server(major: u32) -> Server {
        Server { version: format!("{major}.2"), major, database_size: 0 }
    }

    #[test]
    fn the_servers_own_major_is_chosen_else_the_next_newer() {
        let installed = [programs(18), programs(17), programs(15)];
        for (of, chosen) in [(15, 15), (16, 17), (17, 17), (18, 18), (14, 15)] {
            assert_eq!(choose(&installed, &server(of)).unwrap().major, chosen);
        }
        let problem = choose(&installed, &server(19)).unwrap_err().to_string();
        assert!(problem.contains("19.2") && problem.contains("18.1"), "{problem}");
    }

    #[test]
    fn the_servers_answer_is_read() {
        let server = parse_server("150018\t15.18 (Debian 15.18-0+deb12u1)\t7631663").unwrap();
        assert_eq!((server.major, server.database_size), (15, 7_631_663));
        assert_eq!(server.version, "15.18 (Debian 15.18-0+deb12u1)");
        assert_eq!(parse_server(""), None);
        assert_eq!(parse_server("150018\t15.18"), None);
    }

    #[test]
    fn messages_are_redacted_and_bounded_and_the_first_and_last_are_kept() {
        let redactor = Redactor::new([crate::base::secret::Secret::new("hush")]);
        let text = format!("1\n2\n\n3 hush\n4\n{}\n6", "x".repeat(LONGEST_LINE as usize + 10));
        let relay = |text: &str| relay_messages("test", Level::Debug, text.as_bytes(), &redactor);
        assert_eq!(relay(&text), ["1", "2", "3 ***", "4", &"x".repeat(SHOWN_OF_A_LINE), "6"]);
        assert_eq!(relay(&format!("{text}\n7\n8\n9\n")), ["1", "2", "3 ***", "4", "…", "6", "7", "8", "9"]);
    }
}
