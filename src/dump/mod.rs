//! A dump's bytes, both ways.

pub mod ahead;
mod archive;
pub mod gunzip;
pub mod gzip;
pub mod proof;
pub mod spool;
