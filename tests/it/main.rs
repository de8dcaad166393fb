//! Everything together: the built binary, a real PostgreSQL, a real S3 server that checks signatures.
//!
//! Each test reads as a sentence about what pgkeep does. They run in parallel, each with a database and an
//! S3 server of its own.

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod backup;
mod check;
mod configuration;
mod credentials;
mod daemon;
mod drill;
mod dump_options;
mod encryption;
mod environment;
mod failures;
mod health;
mod held_back;
mod leftovers;
mod logs;
mod majors;
mod metrics;
mod names_and_secrets;
mod notify;
mod objects;
mod overloaded;
mod planted;
mod poolers;
mod proxies;
mod ranges;
mod regression;
mod replaced;
mod resources;
mod restore;
mod retention;
mod s3_faults;
mod selections;
mod servers;
mod tidy;
mod tls;
mod two;
mod waits;
mod whole_server;
mod whole_server_back;
