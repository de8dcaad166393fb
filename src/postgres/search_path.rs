//! The settings for pgkeep's own queries.
//!
//! The search path contains only PostgreSQL's catalog. Somebody who may make functions or operators in a
//! database can make some that fit a query better than PostgreSQL's own, or that a setting of the database
//! puts first. pgkeep's role, often a superuser, would run them
//! (<https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS>). Settings that a role or
//! a database has for its own work, such as timeouts, do not apply here either. pg_dump does the same.
//!
//! All settings are made inside a transaction and end with it. A connection pooler may give out a connection
//! for one transaction, and the next client would inherit settings of the session. Poolers also refuse or
//! ignore options at the start of a connection (`PGOPTIONS`).

use std::time::Duration;

/// Settings of the session: for statements that PostgreSQL does not run in a transaction, and for a database
/// that is not reached through a pooler.
pub const SESSION: &str =
    "SET search_path = pg_catalog, pg_temp; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = off;\n";

/// Whether a transaction may write. A standby takes only those that may not.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// It may only read.
    ReadOnly,
    /// It may write, even if the role's transactions usually may not.
    ReadWrite,
}

/// The same script, in a transaction with these settings. Each of its statements ends on the server after
/// `limit`.
pub fn pinned(script: &str, access: Access, limit: Duration) -> String {
    // 0 would mean no limit.
    let most = limit.as_millis().max(1);
    let access = match access {
        Access::ReadOnly => "READ ONLY",
        Access::ReadWrite => "READ WRITE",
    };
    // The script may end without a semicolon, in a comment, or with a command of psql.
    format!(
        "BEGIN {access}; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = {most}; \
         SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;\n{script}\n;\nCOMMIT;\n"
    )
}
