//! pgkeep keeps a PostgreSQL database safe in S3-compatible storage.
//!
//! On a cron schedule it dumps the database, compresses the dump with gzip, uploads it, proves that what
//! arrived is a whole backup, and deletes the backups that the retention policy no longer keeps. One command
//! restores the data.
//!
//! # The map
//!
//! Each folder is a floor. A floor uses only the floors below it.
//!
//! | floor | what is there |
//! | --- | --- |
//! | `main.rs` | parse, load, start the log, run one command, exit status |
//! | `commands` | one file for each command: its options, its help, what it prints |
//! | `config` | environment → jobs; the table of variables |
//! | `daemon` | the loop, `BACKUP_ON_START`, the status file, health, metrics |
//! | `notify` | who hears of an event: heartbeats, a webhook |
//! | `jobs` | what is done for one database: backup, prune, restore, drill; `jobs/server`: for several; `Job`, `Event` |
//! | `store` | the bucket as backups: key grammar, listing, selection, retention |
//! | `dump` | a dump's bytes, in both directions: gzip, age, spool, gunzip, proof |
//! | `postgres` | connection strings, clients, databases, rights |
//! | `s3` | signing, sending, retrying, multipart uploads, listing |
//! | `schedule` | crontab(5) and time zone → next instant |
//! | `base` | log, child processes, progress, retry, secret, shutdown, units |
//!
//! # The way of a dump's bytes
//!
//! ```text
//! backup   pg_dump → dump::gzip → (dump::age) → dump::spool → s3::part → s3::upload → compare the size
//! restore  s3::download (in ranges) → (dump::age) → dump::gunzip (dump::proof) → postgres::guard → psql, or pg_restore
//! ```
//!
//! # The promises
//!
//! An object with a backup's name is a whole backup; a backup that failed leaves no object. pgkeep deletes
//! only expired backups of this database, by exact name, never the newest one, and nothing while something
//! looks wrong. A failure is loud and does not stop the next run. No secret is shown. Memory does not grow
//! with the database. SIGTERM lets a running backup finish. `gunzip` and `psql`
//! (and `age` before them, if it is encrypted) restore a backup without pgkeep.

pub mod base;
pub mod commands;
pub mod config;
mod daemon;
pub mod dump;
pub mod jobs;
mod notify;
mod postgres;
pub mod s3;
mod schedule;
mod store;
