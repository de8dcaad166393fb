//! What came of a run over several databases, in a sentence.

use std::fmt;
use std::time::Duration;

use crate::base::units;
use crate::store::Backup;

/// At most this many failed databases are named.
const NAMED: usize = 20;

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many databases were backed up.
    pub succeeded: usize,
    /// The databases that were not.
    pub failed: Vec<String>,
    /// How many were not begun, because of a signal.
    pub skipped: usize,
    /// Whether the globals were backed up, if they should have been.
    pub globals: Option<bool>,
    /// The size of the new backups in bytes.
    pub size: u64,
    /// How long the run took.
    pub took: Duration,
}

impl Summary {
    pub(super) fn count(&mut self, backup: &Backup) {
        self.succeeded += 1;
        self.size += backup.size;
    }

    pub(super) fn count_failed(&mut self, database: String) {
        self.failed.push(database);
    }

    pub(super) fn count_skipped(&mut self) {
        self.skipped += 1;
    }

    /// Whether everything was backed up.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && self.skipped == 0 && self.globals != Some(false)
    }
}

/// `5 of 6 databases backed up in 3 min 12 s, 412 MB; failed: shop`
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.succeeded + self.failed.len() + self.skipped;
        write!(
            f,
            "{} of {} backed up in {}, {}",
            self.succeeded,
            units::count(all, "database"),
            units::duration(self.took),
            units::bytes(self.size)
        )?;
        if !self.failed.is_empty() {
            let named: Vec<String> = self.failed.iter().take(NAMED).cloned().collect();
            write!(f, "; failed: {}", units::first_few(&named, self.failed.len()))?;
        }
        if self.globals == Some(false) {
            f.write_str("; the server's globals were not backed up")?;
        }
        if self.skipped > 0 {
            write!(f, "; stopped before {}", units::count(self.skipped, "database"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_failed() {
        let mut summary =
            Summary { succeeded: 5, size: 412_000_000, took: Duration::from_secs(192), ..Summary::default() };
        assert_eq!(summary.to_string(), "5 of 5 databases backed up in 3 min 12 s, 412.0 MB");
        assert!(summary.is_success());
        summary.count_failed("shop".into());
        assert!(!summary.is_success());
        assert_eq!(summary.to_string(), "5 of 6 databases backed up in 3 min 12 s, 412.0 MB; failed: shop");
        summary.failed.clear();
        summary.skipped = 1;
        assert!(!summary.is_success() && summary.to_string().ends_with("; stopped before 1 database"));
        let globals = Summary { globals: Some(false), ..Summary::default() };
        assert!(
            !globals.is_success() && globals.to_string().ends_with("the server's globals were not backed up")
        );
    }
}
