//! Databases on a server: make, inspect, swap and drop them.

use std::time::{Duration, Instant};

use anyhow::{anyhow, Context, Result};
use chrono::{DateTime, Utc};
use log::{debug, warn};

use super::properties::{Properties, Statement};
use super::search_path::SESSION;
use super::{pooler, Clients, Conninfo, Postgres, Server};
use crate::base::secret::Redactor;
use crate::base::shutdown::Shutdown;
use crate::base::units;

/// Databases to connect to while others are made and dropped. initdb makes both.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// PostgreSQL cuts longer names (NAMEDATALEN, minus the zero byte).
pub const LONGEST_NAME: usize = 63;
/// Clients that connect in between are disconnected again after this many seconds.
const USHER_EVERY: &str = "0.2";
/// Clients may come back in the moment before the renaming keeps them out.
const SWAP_TRIES: usize = 5;
/// The first major version that has DROP DATABASE ... WITH (FORCE).
const FORCE_SINCE: u32 = 13;

/// A server, and the right to make databases on it.
pub struct Databases {
    /// A connection to another database than the ones that are worked on.
    pub(super) maintenance: Postgres,
    /// What the server says about itself.
    pub server: Server,
    /// The clients on this machine.
    pub clients: Clients,
}

impl Databases {
    /// The databases of the server that `connection` names. This never connects to the database `but`: a
    /// database cannot be renamed while somebody is connected to it. `stall_timeout` is the same as for
    /// [`Postgres::new`].
    pub fn of(
        connection: &Conninfo,
        but: Option<&str>,
        clients: Clients,
        redactor: &Redactor,
        shutdown: &Shutdown,
        stall_timeout: Duration,
    ) -> Result<Self> {
        let own = Postgres::new(connection, &clients, redactor, shutdown, stall_timeout);
        let candidates = MAINTENANCE.into_iter().chain(connection.get("dbname"));
        let mut failure = None;
        // If a server is silent, do not wait three times.
        let end = Instant::now() + own.quick();
        for name in candidates.filter(|name| Some(*name) != but) {
            let maintenance = own.database(name);
            match maintenance.greet(end.saturating_duration_since(Instant::now())) {
                Ok((session, server)) => {
                    // What a restore sets for its session must not stay for other clients.
                    pooler::refuse_shared_backends(session, maintenance.session())?;
                    return Ok(Databases { maintenance, server, clients });
                }
                Err(problem) => {
                    debug!("no maintenance database: {problem:#}");
                    failure.get_or_insert(problem);
                }
            }
        }
        Err(failure.context("no database to try")?.context("cannot reach the server to restore to"))
    }

    /// A connection to one of the databases.
    pub fn connect(&self, name: &str) -> Postgres {
        self.maintenance.database(name)
    }

    /// The same, but a forced stop ends nothing: for cleaning up.
    pub fn unstoppable(&self) -> Databases {
        Databases {
            maintenance: self.maintenance.with_shutdown(Shutdown::default()),
            server: self.server.clone(),
            clients: self.clients.clone(),
        }
    }

    /// Whether there is a database with this name.
    pub fn exists(&self, name: &str) -> Result<bool> {
        let query = format!("SELECT count(*) FROM pg_database WHERE datname = {}", literal(name));
        Ok(self.query(&query)? == "1")
    }

    /// Makes an empty database with `comment`, and with the properties of `like` as far as this server
    /// supports them. Differences are logged.
    pub fn create(&self, name: &str, like: Option<&Properties>, comment: &str) -> Result<()> {
        let plain = || vec![format!("CREATE DATABASE {} TEMPLATE template0;", identifier(name))];
        let statements = like.map_or_else(plain, |like| like.create(name, self.server.major));
        let mut made = Ok(String::new());
        for statement in statements {
            made = self.run(&statement);
            if made.is_ok() {
                break;
            }
        }
        made.map_err(|failure| {
            let forbidden = format!("{failure:#}").contains("permission denied to create database");
            let remedy = if forbidden { "; ALTER ROLE … CREATEDB lets the role do it" } else { "" };
            failure.context(format!("cannot make the database \"{name}\"{remedy}"))
        })?;
        // Not waiting for the disk loses nothing: a half restored database is worth nothing, and the renaming
        // at the end is written together with everything before it. Settings of a role in a database win over
        // all other settings.
        let (database, comment) = (identifier(name), literal(comment));
        self.change(&format!(
            "COMMENT ON DATABASE {database} IS {comment};
             ALTER ROLE CURRENT_USER IN DATABASE {database} SET synchronous_commit TO off;
             ALTER ROLE CURRENT_USER IN DATABASE {database} SET default_transaction_read_only TO off;"
        ))?;
        let Some(like) = like else { return Ok(()) };
        if let Some(differs) = like.differences(&self.properties(name)?) {
            warn!("the new database differs from the one that was backed up: {differs}");
        }
        Ok(())
    }

    /// The properties that belong to the database itself.
    pub fn properties(&self, name: &str) -> Result<Properties> {
        self.maintenance.properties(name)
    }

    /// Removes the settings that [`Databases::create`] gave a database while it was being filled, and gives
    /// it its final properties. What this server refuses is logged.
    pub fn adopt(&self, name: &str, properties: Option<&Properties>) -> Result<()> {
        let database = identifier(name);
        self.change(&format!(
            "ALTER ROLE CURRENT_USER IN DATABASE {database} RESET ALL; COMMENT ON DATABASE {database} IS NULL;"
        ))?;
        let Some(properties) = properties else { return Ok(()) };
        if properties.is_cut() {
            warn!("not all properties of the database were recorded with its backup: look at its settings and grants");
        }
        for Statement { about, sql } in properties.adopt(name) {
            if let Err(failure) = self.change(&sql) {
                warn!("the restored database does not get its {about}: {failure:#}; to do it later: {sql}");
            }
        }
        Ok(())
    }

    /// Renames a database. Nobody may be connected to it.
    pub fn rename(&self, name: &str, to: &str) -> Result<()> {
        let rename = format!("ALTER DATABASE {} RENAME TO {};", identifier(name), identifier(to));
        self.change(&rename)
            .with_context(|| {
                format!("\"{name}\" is whole, but cannot be renamed to \"{to}\"; to do it: {rename}")
            })
            .map(drop)
    }

    /// Drops a database, even if somebody is connected to it.
    pub fn drop(&self, name: &str) -> Result<()> {
        let force = if self.server.major >= FORCE_SINCE { " WITH (FORCE)" } else { "" };
        let name = identifier(name);
        // The restored dump may have made it a template, which cannot be dropped.
        self.run(&format!("ALTER DATABASE {name} IS_TEMPLATE false; DROP DATABASE {name}{force};")).map(drop)
    }

    /// Gives the database `fresh` the name `name`. The database that had this name gets another one, which is
    /// returned. Both happen in one transaction: even if pgkeep is killed, a database with this name exists.
    pub fn swap(&self, fresh: &str, name: &str, now: DateTime<Utc>) -> Result<String> {
        let aside = name_with(name, "before", now);
        let (of, to, new) = (identifier(name), identifier(&aside), identifier(fresh));
        let renames = format!("ALTER DATABASE {of} RENAME TO {to}; ALTER DATABASE {new} RENAME TO {of};");
        let guests = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({}, {}) AND pid <> pg_backend_pid()",
            literal(name),
            literal(fresh)
        );
        let mut swapped = Err(anyhow!("not tried"));
        for _ in 0..SWAP_TRIES {
            // The renaming waits up to five seconds until the last client has left, and lets no new one in
            // meanwhile. Clients that came before it began are disconnected again and again.
            let mut usher = self.maintenance.start_psql(self.clients.newest())?;
            usher.write_all(format!("{SESSION}{guests} \\watch {USHER_EVERY}\n").as_bytes())?;
            swapped = self.change(&renames);
            drop(usher);
            if swapped.is_ok() {
                break;
            }
        }
        swapped.map(|_| aside).with_context(|| {
            format!("the two databases could not be renamed; once nobody is connected to \"{name}\", this does it: BEGIN; {renames} COMMIT;")
        })
    }

    /// Runs a script that only reads in the maintenance database, in a transaction, and returns its output.
    pub fn query(&self, script: &str) -> Result<String> {
        self.maintenance.query(script)
    }

    /// The same for a script that writes.
    pub(super) fn change(&self, script: &str) -> Result<String> {
        self.maintenance.change(script)
    }

    /// The same for statements that PostgreSQL does not run in a transaction.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        self.maintenance.work(script)
    }
}

/// `name_what_YYYY-MM-DD_HH-MM-SS`. A long name is cut, because PostgreSQL allows at most 63 bytes.
pub fn name_with(name: &str, what: &str, time: DateTime<Utc>) -> String {
    let suffix = format!("_{what}_{}", units::timestamp(time));
    let room = LONGEST_NAME - suffix.len();
    let end = (0..=room.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{suffix}", &name[..end])
}

/// An SQL identifier.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An SQL string that is right whatever standard_conforming_strings says.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_strings_are_quoted() {
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal(r"it's \"), r"E'it''s \\'");
    }

    #[test]
    fn a_name_with_its_time_fits_postgresql() {
        let time = "2026-11-23T03:00:09Z".parse().unwrap();
        assert_eq!(name_with("shop", "restored", time), "shop_restored_2026-11-23_03-00-09");
        for length in [34, 35, 63] {
            let name = name_with(&"é".repeat(length), "restored", time);
            assert!(name.len() <= LONGEST_NAME && name.len() > LONGEST_NAME - 2, "{name}");
            assert!(name.ends_with("é_restored_2026-11-23_03-00-09"), "{name}");
        }
    }
}
