//! A dump's bytes, both ways.

mod archive;
pub mod gunzip;
pub mod gzip;
pub mod proof;
pub mod spool;
