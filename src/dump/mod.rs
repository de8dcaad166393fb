//! A dump's bytes, both ways.

pub mod ahead;
pub mod gunzip;
pub mod gzip;
pub mod proof;
pub mod script;
pub mod spool;
