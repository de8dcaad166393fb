//! pgkeep keeps a PostgreSQL database safe in S3-compatible storage.
//!
//! On a cron schedule it dumps the database, gzips it, uploads it, proves that what arrived is a whole
//! backup and deletes what the retention policy lets go. One file is one idea; `main.rs` chooses a command.

pub mod agenda;
pub mod ahead;
pub mod backup;
pub mod catalog;
pub mod check;
pub mod cli;
pub mod config;
pub mod conninfo;
pub mod daemon;
pub mod database;
pub mod drill;
mod environment;
#[cfg(test)]
mod fuzz;
pub mod get;
pub mod gzip;
pub mod health;
pub mod list;
pub mod logging;
pub mod postgres;
pub mod progress;
pub mod proof;
pub mod prune;
pub mod recovery;
pub mod restore;
pub mod retention;
pub mod retry;
pub mod rights;
pub mod s3;
pub mod schedule;
pub mod secret;
pub mod select;
pub mod shutdown;
pub mod spool;
pub mod status;
pub mod units;
pub mod verify;
