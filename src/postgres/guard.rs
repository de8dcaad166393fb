//! Runs psql on a script that is not trusted: anybody who can write to the bucket may have written it.
//!
//! A script for psql is more than SQL. Its own commands, which begin with a backslash, run programs, read and
//! write files, and connect to other servers, to which psql sends the password. That is why
//! - psql runs the script in its restricted mode, with a key that nobody knows before. In this mode psql
//!   refuses all its commands except `\unrestrict`;
//! - psql cannot open anything more: no file, no pipe, no connection. Until August 2026 (15.19 and its sister
//!   versions fix CVE-2026-18408), psql ran the text between backticks after `\unrestrict`. What psql does
//!   not stop, the kernel stops;
//! - the restore has succeeded only if psql says so, by the key, after it has left that mode at the end. A
//!   script fails if it ends psql early, leaves a transaction open (it would be rolled back), or opens a
//!   quotation that swallows what pgkeep writes after it.
//!
//! A psql without a restricted mode (before 13.22, 14.19, 15.14, 16.10 and 17.6, of August 2025) is not used.
//! Searching the script for commands is no way out: what is a command, and what is text inside a function or
//! a row, depends on quotes, encodings and settings of the server. An attacker needs only one difference
//! between psql's reading and pgkeep's, and an honest script that is misread could not be restored at all.
//! Users of an old psql can restore without pgkeep, and a newer psql restores into any older server.
//!
//! The SQL is not checked: it can do what the role of the connection may do.

use anyhow::{bail, ensure, Context, Error, Result};
use log::{debug, info};
use rustix::process::{prlimit, Resource, Rlimit};
use rustix::rand::{getrandom, GetRandomFlags};

use super::script::Script;
use super::{Clients, Postgres, Programs, QUICK};
use crate::base::process::{self, Process};

/// psql prints this when it is connected.
const READY: &str = "ready";
/// Lists the settings that the server has.
const SETTINGS: &str = "SELECT json_agg(lower(name)) FROM pg_settings";
/// Standard input, output and error: a new file or connection would get a higher number. psql also waits for
/// its connection, which is impossible with a limit of 0.
const FILES: u64 = 3;
/// More than psql prints on its standard output. Results of queries do not go there.
const LONGEST_ANSWER: usize = 1024;

/// What is sent before and after a script.
pub struct Guard {
    key: String,
    script: Script,
}

impl Guard {
    /// Starts psql, ready for the script.
    ///
    /// # Errors
    /// No psql here has a restricted mode, or psql fails with its own message.
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

    /// What psql gets first. `\copy` writes at once and does not use psql's output for results; `\echo` is
    /// different.
    fn opening(&self) -> String {
        format!("\\copy (SELECT '{READY}') TO pstdout\n\\restrict {}\n", self.key)
    }

    /// What psql gets for the next bytes of the script.
    pub fn pass(&mut self, bytes: &[u8]) -> &[u8] {
        self.script.pass(bytes)
    }

    /// What psql gets after the script, when the whole script is proven. `\r` drops an unfinished statement,
    /// which would otherwise become part of pgkeep's own. DISCARD ALL is refused inside a transaction.
    pub fn closing(&mut self) -> Vec<u8> {
        let key = &self.key;
        let succeed = format!("\n\\unrestrict {key}\n\\r\nDISCARD ALL;\n\\echo {key}\n");
        [self.script.end(), succeed.as_bytes()].concat()
    }

    /// Waits until psql ends.
    ///
    /// # Errors
    /// psql's own message, or that the script kept psql from succeeding.
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

/// The newest psql here that has a restricted mode. Distributions may add it to a version that had none.
pub fn restricting(clients: &Clients) -> Result<&Programs> {
    clients.all().iter().find(|programs| restricts(programs)).with_context(|| {
        format!(
            "psql {} is too old to restore a plain backup safely: whoever can write to the bucket could run commands here; \
             install PostgreSQL's client 13.22, 14.19, 15.14, 16.10, 17.6 or newer (or, for a plain backup that you trust: \
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

/// If psql stopped the script at one of its commands, the error says so.
pub fn explain(failure: Error) -> Error {
    // psql's messages are in its user's language, but this word stays the same.
    match format!("{failure:#}").contains("\\unrestrict") {
        true => {
            failure.context("this is no script of pg_dump: it holds a command for psql, which was not run")
        }
        false => failure,
    }
}

fn random_key() -> Result<String> {
    let mut bytes = [0; 16];
    // This few bytes come at once or not at all.
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).context("the system has no random numbers")?;
    ensure!(count == bytes.len(), "the system has no random numbers");
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
