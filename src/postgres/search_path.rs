//! The settings of pgkeep's own queries.
//!
//! The search path is PostgreSQL's catalog alone. Whoever may make functions or operators in a database can make some
//! that fit a query better than PostgreSQL's own, or that a setting of the database puts before them. pgkeep's role,
//! often a superuser, would run them
//! (<https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS>). And what a role or a database has set
//! for its own work, such as timeouts, does not count here, as for pg_dump.
//!
//! All of it is set within a transaction and ends with it: behind a connection pooler that hands out a connection
//! for each transaction, the next client would inherit it from the session. Poolers also refuse or ignore options
//! at the start of a connection (`PGOPTIONS`).

use std::time::Duration;

/// For statements that PostgreSQL runs in no transaction, and for a database that no pooler stands before: a
/// session's settings.
pub const SESSION: &str =
    "SET search_path = pg_catalog, pg_temp; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = off;\n";

/// The same script, in a transaction with these settings. Each of its statements ends on the server after `limit`.
pub fn pinned(script: &str, limit: Duration) -> String {
    // 0 would be no limit.
    let most = limit.as_millis().max(1);
    // The script may end without a semicolon, in a comment or with a command of psql's.
    format!(
        "BEGIN READ WRITE; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL statement_timeout = {most}; \
         SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0;\n{script}\n;\nCOMMIT;\n"
    )
}
