//! How pgkeep is watched: its log and its metrics.

use std::path::Path;

use log::LevelFilter;

use super::reader::Reader;
use super::{variables, Config, Settings};
use crate::base::logging;

/// What is wrong with a configuration.
#[derive(Debug)]
pub struct Refused {
    /// One sentence for each problem: the variable, what is wrong with it, and an example of a right value.
    pub problems: Vec<String>,
    /// How to log them.
    pub log_format: logging::Format,
}

impl Config {
    /// The level of the log.
    pub fn log_level(&self) -> LevelFilter {
        self.settings.log_level
    }

    /// How log lines are written.
    pub fn log_format(&self) -> logging::Format {
        self.settings.log_format
    }

    /// The file for the metrics of `pgkeep backup`.
    pub fn metrics_file(&self) -> Option<&Path> {
        self.settings.metrics_file.as_deref()
    }
}

/// The format of the log, whatever is wrong with the other variables.
pub(super) fn log_format(mut from: Reader) -> logging::Format {
    let mut alone = Settings::default();
    from.read(&variables::LOG_FORMAT, false, &mut alone);
    alone.log_format
}
