//! What is done for one database.

pub mod backup;
pub mod drill;
pub mod prune;
pub mod recovery;
pub mod restore;
