//! Puts a canary into the bucket the way a backup gets there, reads it and deletes it.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use anyhow::{bail, ensure, Context, Result};
use log::warn;
use md5::{Digest, Md5};

use super::report::{Report, Verdict};
use super::s3::{explain, with_remedy};
use crate::base::units;
use crate::dump::spool;
use crate::jobs::Job;
use crate::s3::{Claim, Made, Metadata, Part, S3Error, Source, Upload};

/// What the canary begins with. Behind it and a random number there are only zeros.
const TEXT: &str = "pgkeep check: this object may be deleted\n";

/// Stores a canary of the size of a backup's parts, finds it, reads it and deletes it. Then begins an upload,
/// and completes one if the backup will need several parts.
pub fn check(job: &Job, database_size: u64, may_list: bool, report: &mut Report) {
    let (s3, key) = (&job.store.client, job.store.canary_key());
    let size = s3.part_size.of(database_size);
    let canary = match canary(&job.temp_directory, size) {
        Ok(canary) => canary,
        Err(problem) => {
            let text =
                format!("put, get, delete and multipart upload: there is no temporary file ({problem})");
            return report.line(Verdict::Skipped, "S3", text);
        }
    };
    let put = put(job, &key, &canary);
    match &put {
        Ok(()) => {
            let read_back =
                if s3.has_odd_etags() { "; its ETags are not MD5s, so each backup is read back" } else { "" };
            report.ok("S3 put", format!("{} of {}{read_back}", s3.place(&key), units::bytes(size)));
            if may_list && s3.list_objects(&key).is_ok_and(|found| found.is_empty()) {
                let text =
                    "what was just put is not listed yet: a look into the bucket may miss the newest backup";
                report.line(Verdict::Warning, "S3 list", text);
            }
            match s3.holds(&key, &[(canary.length, canary.md5)]) {
                Ok(true) => report.ok("S3 get", "the same bytes"),
                Ok(false) => report.line(Verdict::Failed, "S3 get", "other bytes than were put"),
                // A backup arrives all the same.
                Err(error) if error.is_archived() => {
                    report.line(Verdict::Warning, "S3 get", with_remedy(&error));
                }
                Err(error) => report.line(Verdict::Failed, "S3 get", with_remedy(&error)),
            }
        }
        Err(failure) => {
            report.line(Verdict::Failed, "S3 put", explain(failure));
            report.line(Verdict::Skipped, "S3 get", "there is nothing to read");
        }
    }
    // In any case: the store may have worked even if only its answer was lost.
    match s3.delete_object(&key) {
        Ok(()) => report.ok("S3 delete", "gone again"),
        Err(error) => {
            let left =
                if put.is_ok() { format!("; {} is still there", s3.place(&key)) } else { String::new() };
            report.line(undeleted(job, &error), "S3 delete", with_remedy(&error) + &left);
        }
    }
    match s3.try_multipart_upload(&key) {
        Ok(()) => report.ok("S3 multipart upload", "begun and given up"),
        Err(error) => report.line(Verdict::Failed, "S3 multipart upload", with_remedy(&error)),
    }
    // A smaller database is sent at once.
    if database_size > size {
        check_parts(job, size, report);
    }
}

/// Without a retention, nothing has to be deleted.
fn undeleted(job: &Job, error: &S3Error) -> Verdict {
    match error.code() {
        Some("AccessDenied" | "Forbidden") if job.retention.rules.is_empty() => Verdict::Warning,
        _ => Verdict::Failed,
    }
}

/// Completes an upload of one part, and deletes the object.
fn check_parts(job: &Job, size: u64, report: &mut Report) {
    let (what, s3, key) = ("S3 upload in parts", &job.store.client, job.store.canary_key());
    let uploaded = upload(job, &key, size);
    let deleted = s3.delete_object(&key);
    match (uploaded, deleted) {
        (Err(failure), _) => report.line(Verdict::Failed, what, explain(&failure)),
        (Ok(()), Ok(())) => report.ok(what, "completed, and gone again"),
        (Ok(()), Err(error)) => {
            let left = format!("completed; {} is still there: {}", s3.place(&key), with_remedy(&error));
            report.line(undeleted(job, &error), what, left);
        }
    }
}

fn put(job: &Job, key: &str, canary: &Part) -> Result<()> {
    let made = job.store.client.put_new(&Claim::new(key), canary, &Metadata::new())?;
    ensure!(made == Made::Whole, "another object is at {}", job.store.client.place(key));
    Ok(())
}

fn upload(job: &Job, key: &str, size: u64) -> Result<()> {
    let part = canary(&job.temp_directory, size).context("there is no temporary file")?;
    let (claim, one) = (Claim::new(key), NonZeroUsize::MIN);
    let client = &job.store.client;
    let upload = Upload::start(client, &claim, Metadata::new(), one, Arc::default(), &job.shutdown)?;
    let end = Part { number: 2, length: 0, ..part.clone() };
    if upload.parts().send(part).is_err() {
        warn!("no part is taken any more");
    }
    match upload.commit(end)? {
        Made::Whole => Ok(()),
        Made::Taken => bail!("another object is at {}", client.place(key)),
    }
}

/// A part of this size. Its file is sparse, and takes no space.
fn canary(directory: &Path, size: u64) -> io::Result<Part> {
    let mut file = spool::unnamed_file(directory)?;
    let text = format!("{TEXT}{:032x}\n", fastrand::u128(..));
    file.write_all(text.as_bytes())?;
    file.set_len(size)?;
    let source = Arc::new(Source::new(file, directory.to_owned()));
    let mut part = Part { number: 1, md5: [0; 16], length: size, offset: 0, source };
    let (mut md5, mut buffer) = (Md5::new(), vec![0; 64 << 10]);
    let mut reader = part.reader();
    loop {
        match io::Read::read(&mut reader, &mut buffer)? {
            0 => break,
            read => md5.update(&buffer[..read]),
        }
    }
    drop(reader);
    part.md5 = md5.finalize().into();
    Ok(part)
}
