//! What `pgkeep check` prints: one line for each step.

use std::fmt;

use crate::base::shutdown::Shutdown;
use crate::base::{logging, units};
use crate::commands::output;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would work tonight.
    Ok,
    /// It would work, but something is not good.
    Warning,
    /// It would not work.
    Failed,
    /// It was not tried.
    Skipped,
}

/// Prints the results and counts them.
pub struct Report {
    shutdown: Shutdown,
    failed: usize,
    warnings: usize,
}

impl Report {
    /// An empty report. After a forced `shutdown` no line is printed, because the result of an aborted step
    /// means nothing.
    pub fn new(shutdown: Shutdown) -> Self {
        Report { shutdown, failed: 0, warnings: 0 }
    }

    /// Prints the line of a step.
    pub fn line(&mut self, verdict: Verdict, what: &str, text: impl fmt::Display) {
        if self.shutdown.forced().is_some() {
            return;
        }
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        self.failed += usize::from(verdict == Verdict::Failed);
        self.warnings += usize::from(verdict == Verdict::Warning);
        print(&format!("{word:<8} {what}: {}", logging::one_line(&text.to_string())));
    }

    /// Prints the line of a step that went well.
    pub fn ok(&mut self, what: &str, text: impl fmt::Display) {
        self.line(Verdict::Ok, what, text);
    }

    /// Prints the last line. Returns whether nothing would fail.
    pub fn finish(self) -> bool {
        if self.shutdown.forced().is_some() {
            return false;
        }
        let fails = match self.failed {
            0 => "nothing".to_owned(),
            failed => units::count(failed, "step"),
        };
        print(&format!("{fails} would fail tonight, {}", units::count(self.warnings, "warning")));
        self.failed == 0
    }
}

/// If nothing can be printed, the exit status still shows the result.
fn print(line: &str) {
    let _ = output::line(format_args!("{line}"));
}
