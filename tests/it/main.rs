//! Everything together: the built binary, a real PostgreSQL, a real S3 server that checks signatures.
//!
//! Each test reads as a sentence about what pgkeep does. They run in parallel, each with a database and an
//! S3 server of its own.

#[path = "../support/mod.rs"]
mod support;

mod backup;
mod check;
mod configuration;
mod daemon;
mod drill;
mod failures;
mod health;
mod majors;
mod names_and_secrets;
mod resources;
mod restore;
mod retention;
mod s3_faults;
mod servers;
mod tls;
mod waits;
