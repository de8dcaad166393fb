//! A psql that stays connected and answers one script after another: to connect takes longer than most
//! answers.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{bail, Result};
use log::Level;

use super::Postgres;
use crate::base::patience::Patience;
use crate::base::process::{is_broken_pipe, Process};

const PIECE: usize = 4096;

/// A psql with its connection. `None` if it has ended.
pub struct Session(Option<Process>);

impl Session {
    /// Starts psql, which may be silent for `limit` whenever it is asked. It connects meanwhile.
    pub fn start(postgres: &Postgres, limit: Duration) -> Result<Self> {
        let mut command = postgres.psql(&postgres.psql);
        // -A, -t: bare values. -F: a separator that no version contains.
        command.args(["-A", "-t", "-F", "\t"]);
        let psql = postgres.start("psql", Level::Debug, command, Stdio::piped(), Patience::of(limit))?;
        Ok(Session(Some(psql)))
    }

    /// Lets psql run a script, and returns what it prints.
    ///
    /// # Errors
    /// psql's own message if it ended ([`Session::has_ended`]), or that it is silent for too long.
    pub fn ask(&mut self, script: &str) -> Result<String> {
        const ENDED: &str = "psql ended and did not say why";
        let Some(psql) = &mut self.0 else { bail!(ENDED) };
        // It is printed behind the answer.
        let mark = format!("{:016x}\n", fastrand::u64(..));
        let sent = psql.write_all(format!("{script}\nSELECT '{}';\n", mark.trim_end()).as_bytes());
        let mut answer = Vec::new();
        // If psql ended, it does not take the script, and says why.
        match sent {
            Err(failure) if !is_broken_pipe(&failure) => return Err(failure),
            _ => {}
        }
        while !answer.ends_with(mark.as_bytes()) {
            let mut piece = [0; PIECE];
            match psql.read(&mut piece)? {
                0 => {
                    self.end()?;
                    bail!(ENDED);
                }
                read => answer.extend_from_slice(&piece[..read]),
            }
        }
        answer.truncate(answer.len() - mark.len());
        // The output is in the database's encoding, which is not always UTF-8.
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// Whether psql has ended.
    pub fn has_ended(&self) -> bool {
        self.0.is_none()
    }

    /// Lets psql end in order: one that is killed causes an error in the server's log.
    ///
    /// # Errors
    /// psql's own message.
    pub fn end(&mut self) -> Result<()> {
        self.0.take().map_or(Ok(()), Process::finish)
    }
}
