//! Whether age encrypts for the recipients, and whether the key that is here opens it.

use super::report::{Report, Verdict};
use crate::jobs::Job;

const CANARY: &[u8] = b"a canary of pgkeep check";

/// Tries age, if it is used.
pub fn check(job: &Job, report: &mut Report) {
    let what = "encryption";
    let Some(recipients) = &job.recipients else { return };
    let sealed = recipients.try_out(&job.shutdown).and_then(|()| recipients.seal(CANARY, &job.shutdown));
    let sealed = match sealed {
        Ok(sealed) => sealed,
        Err(failure) => {
            return report.line(Verdict::Failed, what, format!("{failure:#}; see BACKUP_AGE_RECIPIENTS"));
        }
    };
    report.ok(what, format!("age encrypts for {recipients}"));
    let what = "decryption";
    match job.identity.as_ref().map(|identity| identity.open(&sealed, &job.shutdown)) {
        None => {}
        Some(Ok(opened)) if opened == CANARY => report.ok(what, "the key opens it"),
        Some(Ok(_)) => report.line(Verdict::Failed, what, "age gives other bytes back than it got"),
        // A backup is made all the same.
        Some(Err(failure)) => report.line(Verdict::Warning, what, format!("{failure:#}")),
    }
}
