//! Checks S3: the clock, every right, and the bucket's settings.

use chrono::{DateTime, TimeDelta, Utc};

use super::canary;
use super::report::{Report, Verdict};
use crate::base::units;
use crate::jobs::Job;
use crate::s3::{Fault, S3Error};
use crate::store::{Backup, Store, MOST_SKEW};

/// A clock that is kept right never differs by this much.
const USUAL_SKEW: TimeDelta = TimeDelta::minutes(1);
const SET_THE_CLOCK: &str = "set this host's clock (NTP keeps it right)";

/// Returns the backups in the bucket. `database_size` is in bytes.
pub fn check(job: &Job, database_size: Option<u64>, report: &mut Report) -> Option<Vec<Backup>> {
    let store = &job.store;
    let s3 = &store.client;
    match s3.server_time() {
        Ok(there) => {
            let (verdict, text) = clock(there, Utc::now());
            report.line(verdict, "S3", text);
        }
        Err(error) => {
            report.line(Verdict::Failed, "S3", format!("{error}; see S3_URL"));
            report.line(Verdict::Skipped, "S3", "all else: it cannot be reached");
            return None;
        }
    }
    let listed = check_list(store, report);
    if listed.as_ref().is_err_and(|error| common_remedy(error).is_some()) {
        report.line(Verdict::Skipped, "S3", "put, get, delete and multipart upload: for the same reason");
        return None;
    }
    canary::check(job, database_size.unwrap_or_default(), listed.is_ok(), report);
    // Not every server supports these requests, so one try is enough.
    let s3 = s3.without_retries();
    check_bucket(
        "versioning",
        s3.keeps_versions(),
        "deleted backups stay as versions and cost space; a lifecycle rule for noncurrent versions removes them",
        report,
    );
    check_bucket(
        "object lock",
        s3.locks_objects(),
        "retention cannot delete a backup that is locked; let locks end before the retention does",
        report,
    );
    listed.ok()
}

fn check_list(store: &Store, report: &mut Report) -> Result<Vec<Backup>, S3Error> {
    let listed = store.list();
    match &listed {
        Ok(backups) => report.ok("S3 list", units::count(backups.len(), "backup")),
        Err(error) => report.line(Verdict::Failed, "S3 list", with_remedy(error)),
    }
    listed
}

/// Whether a bucket has one of the settings that prevent retention from working.
fn check_bucket(what: &str, found: Result<bool, S3Error>, problem: &str, report: &mut Report) {
    let name = format!("bucket's {what}");
    match found {
        Ok(true) => report.line(Verdict::Warning, &name, format!("on: {problem}")),
        Ok(false) => report.ok(&name, "off"),
        // It is normal that this is not known, and no reason to worry.
        Err(error) => report.ok(&name, format!("not known ({error})")),
    }
}

/// What to say about S3's clock and the local one.
fn clock(there: Option<DateTime<Utc>>, here: DateTime<Utc>) -> (Verdict, String) {
    let Some(there) = there else {
        return (Verdict::Ok, "reached; it does not say what time it is".into());
    };
    let skew = (here - there).abs();
    let differ = format!(
        "the clocks differ by {}: {} here, {} at S3",
        units::duration(skew.to_std().unwrap_or_default()),
        here.format("%Y-%m-%d %H:%M:%S"),
        there.format("%Y-%m-%d %H:%M:%S")
    );
    if skew > MOST_SKEW {
        (Verdict::Failed, format!("{differ}; S3 refuses signatures past 15 minutes: {SET_THE_CLOCK}"))
    } else if skew > USUAL_SKEW {
        (Verdict::Warning, format!("{differ}; past 15 minutes S3 refuses signatures: {SET_THE_CLOCK}"))
    } else {
        (Verdict::Ok, "reached, and the clocks agree".into())
    }
}

/// What to do about a refusal that every request would get.
fn common_remedy(error: &S3Error) -> Option<&'static str> {
    if matches!(error.fault, Fault::NoCredentials { .. }) {
        return Some("see S3_CREDENTIALS");
    }
    let Fault::Refused { code, message, .. } = &error.fault else { return None };
    Some(match code.as_str() {
        "SignatureDoesNotMatch" => {
            "see S3_SECRET_KEY: it is not the one that belongs to S3_ACCESS_KEY, or a proxy on the way changes the \
             Host header or the path, which a signature does not survive"
        }
        "InvalidAccessKeyId" => "see S3_ACCESS_KEY: nobody has it there",
        "NoSuchBucket" => "see S3_BUCKET, or make the bucket; S3_URL has to be without it",
        // AWS uses the last one if a signature in the query was made for another region.
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "MovedPermanently"
        | "IllegalLocationConstraintException"
        | "AuthorizationHeaderMalformed"
        | "AuthorizationQueryParametersError" => "see S3_REGION and S3_URL: the bucket is somewhere else",
        "RequestTimeTooSkewed" => SET_THE_CLOCK,
        "AccessDenied" if message.contains("expired") || message.contains("not yet valid") => SET_THE_CLOCK,
        _ => return None,
    })
}

/// The refusal, the missing right if that is the reason, and what is left behind.
pub(super) fn with_remedy(error: &S3Error) -> String {
    format!("{error}{}", remedy(error))
}

/// The same for a failure that S3 may have caused.
pub(super) fn explain(failure: &anyhow::Error) -> String {
    let cause = failure.chain().find_map(|cause| cause.downcast_ref());
    format!("{failure:#}{}", cause.map_or(String::new(), remedy))
}

fn remedy(error: &S3Error) -> String {
    let right = match error.operation {
        "ListObjectsV2" => "s3:ListBucket, of the bucket itself",
        "GetObject" | "HeadObject" => "s3:GetObject",
        "DeleteObject" => "s3:DeleteObject",
        "AbortMultipartUpload" => "s3:AbortMultipartUpload",
        _ => "s3:PutObject",
    };
    let remedy = match (common_remedy(error), error.code()) {
        (Some(remedy), _) => format!("; {remedy}"),
        (None, Some("AccessDenied" | "Forbidden")) => format!("; the key needs the right {right}"),
        _ => String::new(),
    };
    let left = match error.operation {
        "AbortMultipartUpload" => {
            "; an upload without parts is left, a lifecycle rule for incomplete uploads ends it"
        }
        _ => "",
    };
    format!("{remedy}{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_a_warning_and_then_a_failure_in_both_directions() {
        let here: DateTime<Utc> = "2026-11-23T03:00:00Z".parse().unwrap();
        for (seconds, verdict) in [
            (0, Verdict::Ok),
            (60, Verdict::Ok),
            (61, Verdict::Warning),
            (900, Verdict::Warning),
            (901, Verdict::Failed),
        ] {
            for there in [TimeDelta::seconds(seconds), TimeDelta::seconds(-seconds)] {
                let (found, text) = clock(Some(here + there), here);
                assert_eq!(found, verdict, "{there}");
                assert_eq!(text.contains(SET_THE_CLOCK), verdict != Verdict::Ok, "{text}");
            }
        }
        assert_eq!(clock(None, here).0, Verdict::Ok);
    }

    #[test]
    fn a_refusal_is_told_with_its_remedy() {
        for (operation, code, message, remedy) in [
            ("PutObject", "AccessDenied", "no", "; the key needs the right s3:PutObject"),
            ("CreateMultipartUpload", "AccessDenied", "no", "; the key needs the right s3:PutObject"),
            (
                "ListObjectsV2",
                "Forbidden",
                "no",
                "; the key needs the right s3:ListBucket, of the bucket itself",
            ),
            ("PutObject", "AccessDenied", "Request has expired", SET_THE_CLOCK),
            ("PutObject", "AccessDenied", "Request is not yet valid", SET_THE_CLOCK),
            ("PutObject", "RequestTimeTooSkewed", "The difference is too large", SET_THE_CLOCK),
            ("PutObject", "AuthorizationQueryParametersError", "the region is wrong", "is somewhere else"),
            ("PutObject", "QuotaExceeded", "full", "PutObject s3://b/k: 403 QuotaExceeded: full"),
        ] {
            let fault =
                Fault::Refused { status: 403, code: code.into(), message: message.into(), retry_after: None };
            let error = S3Error { operation, place: "s3://b/k".into(), fault };
            let told = with_remedy(&error);
            assert!(told.contains(code) && told.contains(message) && told.ends_with(remedy), "{told}");
        }
    }
}
