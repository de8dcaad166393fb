//! The bucket as backups.

pub mod key;
pub mod retention;
pub mod select;
