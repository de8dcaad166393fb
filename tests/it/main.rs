//! Everything together: the built binary, a real PostgreSQL, a real S3 server that checks signatures.

#[path = "../support/mod.rs"]
mod support;

mod backup;
