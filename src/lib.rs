//! pgkeep keeps a PostgreSQL database safe in S3-compatible storage.
//!
//! On a cron schedule it dumps the database, gzips it, uploads it, proves that what arrived is a whole
//! backup and deletes what the retention policy lets go. One file is one idea; `main.rs` chooses a command.

pub mod base;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod dump;
pub mod jobs;
pub mod postgres;
pub mod s3;
pub mod schedule;
pub mod store;
