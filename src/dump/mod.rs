//! A dump's bytes, in both directions.

pub mod age;
pub mod archive;
pub mod deflate;
pub mod gunzip;
pub mod gzip;
pub mod proof;
mod repeats;
pub mod spool;
