//! psql on a script that is not trusted: whoever can write to the bucket wrote it.
//!
//! A script for psql is more than SQL. Its own commands, which begin with a backslash, run programs, read and
//! write files, and connect to other servers, to which psql sends the password. So
//! - psql runs the script in its restricted mode, under a key that nobody knows before. It refuses each of its
//!   commands then, but `\unrestrict`;
//! - psql may open nothing more: no file, no pipe, no connection. Until August 2026 (15.19 and its siblings mend
//!   CVE-2026-18408) it ran what stands between backticks behind `\unrestrict`; the kernel stops what psql does not;
//! - the restore has succeeded only if psql says so, by the key, once it has left that mode at the end. A script that
//!   ends psql early, that leaves a transaction open (it would be rolled back), or a quotation which swallows what pgkeep
//!   writes behind it, is no success.
//!
//! A psql without a restricted mode (before 13.22, 14.19, 15.14, 16.10 and 17.6, of August 2025) is not
//! used, and no script is searched for commands instead. What is a command, and what is text within a function
//! or a row, depends on quotes, encodings and settings of the server; whoever plants a script needs one
//! difference between psql's reading and pgkeep's, and an honest script that were misread could not be restored at
//! all. The old psql's user has a way without pgkeep, and a newer psql restores into any older server.
//!
//! SQL is not looked at: it does what the role of the connection may do.

use anyhow::{bail, ensure, Context, Error, Result};
use log::{debug, info};
use rustix::process::{prlimit, Resource, Rlimit};
use rustix::rand::{getrandom, GetRandomFlags};

use super::process;
use super::script::Script;
use super::{Clients, Postgres, Process, Programs, QUICK};

/// What psql says when it is connected.
const READY: &str = "ready";
/// The settings that the server has.
const SETTINGS: &str = "SELECT json_agg(lower(name)) FROM pg_settings";
/// Standard input, output and error: a new file or connection would get a higher number. psql also waits for its
/// connection, which is impossible with a limit of 0.
const FILES: u64 = 3;
/// More than what psql says on its standard output, where no result of a query goes.
const LONGEST_ANSWER: usize = 1024;

/// What stands before and behind a script.
pub struct Guard {
    key: String,
    script: Script,
}

impl Guard {
    /// Starts psql, ready for the script.
    ///
    /// # Errors
    /// If no psql here has a restricted mode; psql's own words.
    pub fn start(target: &Postgres, clients: &Clients) -> Result<(Process, Self)> {
        let settings = target.query(SETTINGS).context("cannot ask the server for its settings")?;
        let settings = serde_json::from_str(&settings).context("the server's settings cannot be read")?;
        let mut psql = target.start_psql(restricting(clients)?)?;
        let guard = Guard { key: random_key()?, script: Script::new(settings) };
        let sent = psql.write_all(guard.opening().as_bytes());
        let mut answer = Vec::new();
        while sent.is_ok() && !answer.ends_with(b"\n") && answer.len() < LONGEST_ANSWER {
            let mut piece = [0; LONGEST_ANSWER];
            match psql.read(&mut piece)? {
                0 => break,
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
        if answer.trim_ascii_end() != READY.as_bytes() {
            psql.finish()?;
            bail!("psql ended before it was ready");
        }
        let limit = Rlimit { current: Some(FILES), maximum: Some(FILES) };
        prlimit(Some(psql.id()), Resource::Nofile, limit).context(
            "psql cannot be kept from opening files and connections: this script could run commands here",
        )?;
        Ok((psql, guard))
    }

    /// What psql gets first. `\copy` writes at once and past psql's output of results, as `\echo` does not.
    fn opening(&self) -> String {
        format!("\\copy (SELECT '{READY}') TO pstdout\n\\restrict {}\n", self.key)
    }

    /// What psql gets of the script's next bytes.
    pub fn pass(&mut self, bytes: &[u8]) -> &[u8] {
        self.script.pass(bytes)
    }

    /// What psql gets behind the script, when all of it is proven. `\r` forgets a statement without an end, which
    /// would become a part of pgkeep's own. DISCARD ALL is refused within a transaction.
    pub fn closing(&mut self) -> Vec<u8> {
        let key = &self.key;
        let succeed = format!("\n\\unrestrict {key}\n\\r\nDISCARD ALL;\n\\echo {key}\n");
        [self.script.end(), succeed.as_bytes()].concat()
    }

    /// Waits for psql's end.
    ///
    /// # Errors
    /// psql's own words, or that the script kept psql from succeeding.
    pub fn finish(self, psql: Process) -> Result<()> {
        for name in self.script.left_out() {
            info!("the dump sets {name}, which this server does not have: left out");
        }
        let answer = psql.answer()?;
        ensure!(
            answer == self.key,
            "the script ended psql, or leaves a quotation open: no script of pg_dump does"
        );
        Ok(())
    }
}

/// The newest psql here that has a restricted mode; distributions may give it to a version that had none.
///
/// # Errors
/// If there is none.
pub fn restricting(clients: &Clients) -> Result<&Programs> {
    clients.all().iter().find(|programs| restricts(programs)).with_context(|| {
        format!(
            "psql {} is too old to restore a plain backup safely: whoever can write to the bucket could run commands here; \
             install PostgreSQL's client 13.22, 14.19, 15.14, 16.10, 17.6 or newer (or, for a backup that you trust: \
             pgkeep get … -o - | gunzip | psql)",
            clients.newest().version
        )
    })
}

/// Asks psql, without a connection.
fn restricts(programs: &Programs) -> bool {
    let help = process::ask("psql", &programs.directory.join("psql"), "--help=commands", QUICK);
    help.inspect_err(|failure| debug!("{failure:#}")).is_ok_and(|help| help.contains("\\restrict "))
}

/// A script that psql stopped at one of its commands is named for what it is.
pub fn explain(failure: Error) -> Error {
    // psql's words are in the language of its user, but for this.
    match format!("{failure:#}").contains("\\unrestrict") {
        true => {
            failure.context("this is no script of pg_dump: it holds a command for psql, which was not run")
        }
        false => failure,
    }
}

fn random_key() -> Result<String> {
    let mut bytes = [0; 16];
    // So few bytes come at once or not at all.
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).context("the system has no random numbers")?;
    ensure!(count == bytes.len(), "the system has no random numbers");
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
