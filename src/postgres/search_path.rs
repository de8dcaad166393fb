//! The search path of pgkeep's own queries: PostgreSQL's catalog alone.
//!
//! Whoever may make functions or operators in a database can make some that fit a query better than PostgreSQL's
//! own, or that a setting of the database puts before them. pgkeep's role, often a superuser, would run them
//! (<https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATTERNS>).
//!
//! The path is set within a transaction and ends with it: behind a connection pooler that hands out a connection
//! for each transaction, the next client would inherit it from the session. Poolers also refuse or ignore options
//! at the start of a connection (`PGOPTIONS`).

/// Ends a transaction and begins the next one, for statements that are made by a query and run by `\gexec`.
pub const ANEW: &str = "COMMIT; BEGIN; SET LOCAL search_path = pg_catalog, pg_temp;";

/// The same script, in a transaction with the safe path.
pub fn pinned(script: &str) -> String {
    // The script may end without a semicolon, in a comment or with a command of psql's.
    format!("BEGIN; SET LOCAL search_path = pg_catalog, pg_temp;\n{script}\n;\nCOMMIT;\n")
}
