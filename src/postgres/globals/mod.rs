//! Reads what pg_dumpall writes about roles and tablespaces, and makes those that a server does not have.
//!
//! The script comes from the bucket and is not trusted, so nothing of it is run. It is read as SQL tokens; a
//! statement that pg_dumpall writes is written anew from its names, strings and known words, and everything
//! else is left out. A statement about a role counts only if this server does not have the role yet: what
//! exists is left as it is.

mod read;

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use log::{info, warn};

pub use self::read::Statement;
use self::read::Subject;
use super::databases::{identifier, Databases};
use crate::base::units;

/// At most this many names in a line.
const NAMED: usize = 20;

/// What belongs to a server and to no database.
#[derive(Debug, Default)]
pub struct Globals {
    statements: Vec<Statement>,
    /// The beginnings of statements that are not understood.
    pub unknown: Vec<String>,
}

impl Globals {
    /// Reads a script of pg_dumpall.
    pub fn read(script: &str) -> Self {
        let mut globals = Globals::default();
        for tokens in read::statements(script) {
            match read::statement(&tokens) {
                Ok(Some(statement)) => globals.statements.push(statement),
                Ok(None) => {}
                Err(beginning) => globals.unknown.push(beginning),
            }
        }
        globals
    }

    /// The roles that it makes.
    pub fn roles(&self) -> Vec<String> {
        let made = |statement: &Statement| match &statement.subject {
            Subject::NewRole(name) => Some(name.clone()),
            _ => None,
        };
        self.statements.iter().filter_map(made).collect()
    }

    fn about_roles(&self, new: &BTreeSet<&String>) -> Vec<&Statement> {
        let is_of_new = |statement: &&Statement| match &statement.subject {
            Subject::NewRole(name) | Subject::Role(name) => new.contains(name),
            Subject::NewTablespace(_) | Subject::Tablespace(_) => false,
        };
        self.statements.iter().filter(is_of_new).collect()
    }
}

impl Databases {
    /// Which of these roles the server does not have.
    pub fn missing_roles(&self, roles: &[String]) -> Result<Vec<String>> {
        let there = self.names("SELECT coalesce(json_agg(rolname), '[]') FROM pg_roles;")?;
        let mut missing: Vec<String> = roles.iter().filter(|name| !there.contains(*name)).cloned().collect();
        missing.sort();
        missing.dedup();
        Ok(missing)
    }

    /// The names that a query returns as JSON.
    pub fn names(&self, query: &str) -> Result<Vec<String>> {
        let answer = self.query(query).context("cannot ask the server what it has")?;
        serde_json::from_str(&answer).with_context(|| format!("psql answered \"{answer}\" to: {query}"))
    }

    /// Makes these roles, which the server does not have: as the globals say, else without anything. What the
    /// server refuses is logged.
    ///
    /// # Errors
    /// A role could not be made.
    pub fn create_roles(&self, roles: &[String], globals: &Globals) -> Result<()> {
        let new: BTreeSet<&String> = roles.iter().collect();
        let known = globals.roles();
        let statements = globals.about_roles(&new);
        let all: String = statements.iter().filter_map(|statement| statement.sql.first()).cloned().collect();
        // All at once is fast. One at a time tells what the server refuses.
        if self.change(&all).is_err() {
            for statement in &statements {
                self.apply(statement)?;
            }
        }
        let bare: Vec<String> = roles.iter().filter(|name| !known.contains(name)).cloned().collect();
        for name in &bare {
            self.change(&format!("CREATE ROLE {};", identifier(name)))
                .with_context(|| format!("cannot make the role \"{name}\""))?;
        }
        if !roles.is_empty() {
            let named: Vec<String> = roles.iter().take(NAMED).cloned().collect();
            info!("made {}: {}", units::count(roles.len(), "role"), units::first_few(&named, roles.len()));
        }
        if !bare.is_empty() {
            warn!("not in the globals, so they may do nothing, not even connect: {}", bare.join(", "));
        }
        let mighty: Vec<&str> = statements
            .iter()
            .filter(|statement| statement.mighty)
            .map(|statement| statement.about.as_str())
            .collect();
        if !mighty.is_empty() {
            warn!("superusers now, as the globals say: {}", mighty.join(", "));
        }
        Ok(())
    }

    /// Makes the tablespaces that the server does not have. What the server refuses is logged: a database is
    /// restored without its tablespace then.
    pub fn create_tablespaces(&self, globals: &Globals) -> Result<()> {
        let there = self.names("SELECT coalesce(json_agg(spcname), '[]') FROM pg_tablespace;")?;
        let mut made = Vec::new();
        for statement in &globals.statements {
            match &statement.subject {
                Subject::NewTablespace(name) if !there.contains(name) => {
                    // PostgreSQL does not run this in a transaction.
                    match statement.sql.iter().try_for_each(|sql| self.run(sql).map(drop)) {
                        Ok(()) => made.push(name.clone()),
                        Err(failure) => warn!("the tablespace \"{name}\" is not made: {failure:#}"),
                    }
                }
                Subject::Tablespace(name) if made.contains(name) => self.apply(statement)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Runs the first of a statement's forms that the server takes.
    fn apply(&self, statement: &Statement) -> Result<()> {
        let mut tried = Ok(String::new());
        for sql in &statement.sql {
            tried = self.change(sql);
            if tried.is_ok() {
                return Ok(());
            }
        }
        match (tried, &statement.subject) {
            (Ok(_), _) => Ok(()),
            (Err(failure), Subject::NewRole(name)) => {
                Err(failure.context(format!("cannot make the role \"{name}\"")))
            }
            (Err(failure), _) => {
                warn!("left out of the globals: {}: {failure:#}", statement.about);
                Ok(())
            }
        }
    }
}
