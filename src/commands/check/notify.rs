//! Whether those who want to hear of events can be told.

use super::report::{Report, Verdict};
use crate::jobs::Job;
use crate::notify::Receiver;

const WHAT: &str = "notification";

/// Sends a test to each receiver, if that is wanted, and says what came back.
pub(super) fn check(receivers: &[Receiver], job: &Job, wanted: bool, report: &mut Report) {
    if wanted && receivers.is_empty() {
        let text = "nobody is told of a failure: see BACKUP_HEARTBEAT_URL and BACKUP_WEBHOOK_URL";
        report.line(Verdict::Warning, WHAT, text);
    }
    for receiver in receivers {
        let name = receiver.name();
        if !wanted {
            report.line(Verdict::Skipped, WHAT, format!("{name}; check --notify sends a test"));
            continue;
        }
        match receiver.test(job) {
            Ok(answer) => report.ok(WHAT, format!("{name} answered {answer}")),
            Err(problem) => report.line(Verdict::Failed, WHAT, problem),
        }
    }
}
