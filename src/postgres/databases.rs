//! Databases on a server: made, looked at, swapped, dropped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use log::{debug, warn};

use super::{Clients, Conninfo, Postgres, Server};
use crate::base::secret::Redactor;
use crate::base::shutdown::Shutdown;
use crate::base::units;

/// Databases to connect to while others are made and dropped; initdb makes both.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// PostgreSQL cuts longer names off (NAMEDATALEN, less the zero byte).
pub const LONGEST_NAME: usize = 63;
/// What DROP DATABASE ... WITH (FORCE) needs.
const FORCE_SINCE: u32 = 13;

/// A server and the right to make databases on it.
pub struct Databases {
    /// Connected to another database than those that are worked on.
    maintenance: Postgres,
    /// What the server says of itself.
    pub server: Server,
    /// The clients here.
    pub clients: Clients,
}

/// A table and how many rows it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Schema and name, quoted where SQL needs it.
    pub name: String,
    /// Its rows, without those of its partitions.
    pub rows: u64,
}

impl Databases {
    /// Those of the server that `connection` names. `but` is not connected to: a database cannot be renamed
    /// while somebody is. `stall_timeout` is that of [`Postgres::new`].
    ///
    /// # Errors
    /// Where it cannot be reached.
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
        // A server that says nothing is not waited for three times.
        let end = Instant::now() + own.quick();
        for name in candidates.filter(|name| Some(*name) != but) {
            let maintenance = own.database(name);
            match maintenance.ask_within(end.saturating_duration_since(Instant::now())) {
                Ok(server) => return Ok(Databases { maintenance, server, clients }),
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

    /// The same, where a forced stop ends nothing: for cleaning up.
    pub fn unstoppable(&self) -> Databases {
        Databases {
            maintenance: self.maintenance.with_shutdown(Shutdown::default()),
            server: self.server.clone(),
            clients: self.clients.clone(),
        }
    }

    /// Whether there is a database of this name.
    pub fn exists(&self, name: &str) -> Result<bool> {
        let query = format!("SELECT count(*) FROM pg_database WHERE datname = {}", literal(name));
        Ok(self.query(&query)? == "1")
    }

    /// Makes a database with nothing in it.
    pub fn create(&self, name: &str) -> Result<()> {
        self.maintenance
            .work(&format!("CREATE DATABASE {} TEMPLATE template0", identifier(name)))
            .with_context(|| format!("cannot make the database \"{name}\" (the role needs CREATEDB)"))
            .map(drop)
    }

    /// Makes schemas in a database that is there.
    pub fn create_schemas(&self, name: &str, schemas: &[String]) -> Result<()> {
        let script: String = schemas
            .iter()
            .map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {};", identifier(schema)))
            .collect();
        self.connect(name).query(&script).context("cannot make the schemas").map(drop)
    }

    /// Gives a database another name; nobody may be connected to it.
    pub fn rename(&self, name: &str, to: &str) -> Result<()> {
        let rename = format!("ALTER DATABASE {} RENAME TO {};", identifier(name), identifier(to));
        self.query(&rename)
            .with_context(|| format!("\"{name}\" is whole, but cannot be renamed to \"{to}\""))
            .map(drop)
    }

    /// Drops a database, whoever is connected to it.
    pub fn drop(&self, name: &str) -> Result<()> {
        let force = if self.server.major >= FORCE_SINCE { " WITH (FORCE)" } else { "" };
        self.maintenance.work(&format!("DROP DATABASE {}{force}", identifier(name))).map(drop)
    }

    /// Whether a database holds nothing of its own: no relation, function, type, schema or large object but
    /// those of extensions.
    pub fn is_empty(&self, name: &str) -> Result<bool> {
        let query = "
            WITH own AS (
                SELECT oid FROM pg_namespace
                WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
            of_extensions AS (SELECT classid, objid FROM pg_depend WHERE deptype = 'e')
            SELECT (SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid FROM own)
                    AND ('pg_class'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions))
                 + (SELECT count(*) FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own)
                    AND ('pg_proc'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions))
                 + (SELECT count(*) FROM pg_type WHERE typnamespace IN (SELECT oid FROM own) AND typtype IN ('e', 'd', 'r')
                    AND ('pg_type'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions))
                 + (SELECT count(*) FROM pg_namespace WHERE oid IN (SELECT oid FROM own) AND nspname <> 'public'
                    AND ('pg_namespace'::regclass, oid) NOT IN (SELECT classid, objid FROM of_extensions))
                 + (SELECT count(*) FROM pg_largeobject_metadata);";
        let found = self.connect(name).query(query);
        Ok(found.with_context(|| format!("cannot look into the database \"{name}\""))? == "0")
    }

    /// Every table with its number of rows, by name; each is counted by itself, so that however many there
    /// are, few locks are held.
    pub fn tables(&self, name: &str) -> Result<Vec<Table>> {
        let query = "
            SET row_security = off;
            SELECT format('SELECT %L, count(*) FROM ONLY %I.%I', format('%I.%I', nspname, relname), nspname, relname)
            FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
            WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
            ORDER BY nspname, relname \\gexec";
        let answer = self.connect(name).work(query);
        let answer = answer.with_context(|| format!("cannot count the rows of \"{name}\""))?;
        // A name may contain a line feed; a count does not.
        let mut tables: Vec<Table> = Vec::new();
        let mut name = String::new();
        for line in answer.lines() {
            match line.rsplit_once('\t').and_then(|(end, rows)| Some((end, rows.parse().ok()?))) {
                Some((end, rows)) => tables.push(Table { name: std::mem::take(&mut name) + end, rows }),
                None => name = name + line + "\n",
            }
        }
        Ok(tables)
    }

    /// Gives the database `fresh` the name `name`, and the one that had it another one, which is answered. What
    /// belongs to a database and not to what is in it goes over: owner, grants, settings.
    pub fn swap(&self, fresh: &str, name: &str, now: DateTime<Utc>) -> Result<String> {
        if let Err(failure) = self.query(&carry_over(name, fresh)) {
            warn!("owner, grants and settings of \"{name}\" were not all given to the restored one: {failure:#}");
        }
        let aside = name_with(name, "before", now);
        let (of, to, new) = (identifier(name), identifier(&aside), identifier(fresh));
        // A database cannot be renamed while anybody is connected; nobody may come back in between.
        let close = format!(
            "ALTER DATABASE {of} ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {};",
            literal(name)
        );
        let open =
            |name: &str| self.query(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS true;", identifier(name)));
        let rename = format!(
            "BEGIN; ALTER DATABASE {of} RENAME TO {to}; ALTER DATABASE {new} RENAME TO {of}; COMMIT;"
        );
        match self.query(&close).and_then(|_| self.query(&rename)) {
            Ok(_) => {
                if let Err(failure) = open(&aside) {
                    warn!("\"{aside}\" takes no connections: {failure:#}");
                }
                Ok(aside)
            }
            Err(failure) => {
                let _ = open(name);
                Err(failure)
            }
        }
    }

    /// What a script answers that runs in the maintenance database.
    pub fn query(&self, script: &str) -> Result<String> {
        self.maintenance.query(script)
    }
}

/// A script that gives `fresh` the owner, grants and settings of `name`; each line that the query makes is run.
fn carry_over(name: &str, fresh: &str) -> String {
    let (name, fresh) = (literal(name), literal(fresh));
    format!(
        r"WITH old AS (SELECT * FROM pg_database WHERE datname = {name}),
          settings AS (
              SELECT pg_get_userbyid(nullif(setrole, 0)) AS role, split_part(setting, '=', 1) AS name,
                     substr(setting, strpos(setting, '=') + 1) AS value
              FROM old JOIN pg_db_role_setting ON setdatabase = oid, unnest(setconfig) AS setting)
          SELECT format('ALTER DATABASE %I OWNER TO %I', {fresh}, pg_get_userbyid(datdba)) FROM old
          UNION ALL SELECT format('ALTER DATABASE %I CONNECTION LIMIT %s', {fresh}, datconnlimit) FROM old
          UNION ALL SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', {fresh}) FROM old WHERE datacl IS NOT NULL
          UNION ALL SELECT format('GRANT %s ON DATABASE %I TO %s%s', privilege_type, {fresh},
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
              CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) FROM old, aclexplode(datacl)
          UNION ALL SELECT CASE WHEN role IS NULL THEN format('ALTER DATABASE %I', {fresh})
                                ELSE format('ALTER ROLE %I IN DATABASE %I', role, {fresh}) END
              || format(' SET %I TO ', name)
              -- Lists of names are kept quoted already, as pg_dump knows too (GUC_LIST_QUOTE).
              || CASE WHEN name IN ('search_path', 'temp_tablespaces', 'local_preload_libraries',
                                    'session_preload_libraries') THEN value
                      ELSE quote_literal(value) END
              FROM settings \gexec"
    )
}

/// `name_what_YYYY-MM-DD_HH-MM-SS`; a long name is cut, as PostgreSQL takes no more than 63 bytes.
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

/// An SQL string, whatever standard_conforming_strings says.
fn literal(text: &str) -> String {
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
