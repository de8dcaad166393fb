//! `pgkeep check`: everything that would fail tonight, tried now. Each line is ok, or says what to do.

use std::fmt;

use chrono::{DateTime, Local, TimeDelta, Utc};

use crate::base::logging;
use crate::base::shutdown::Shutdown;
use crate::base::units;
use crate::config::Config;
use crate::daemon::both_times;
use crate::dump::spool;
use crate::jobs::backup;
use crate::postgres::databases::Databases;
use crate::postgres::guard;
use crate::postgres::rights::Rights;
use crate::postgres::{self, Postgres, Programs, Server};
use crate::s3::{Client, Fault, S3Error};
use crate::store::key::{Backup, Format};

/// S3 refuses signatures of a clock that is wrong by more
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, RequestTimeTooSkewed).
const MOST_SKEW: TimeDelta = TimeDelta::minutes(15);
/// A clock that is kept in time is never that wrong.
const USUAL_SKEW: TimeDelta = TimeDelta::minutes(1);
const SET_THE_CLOCK: &str = "set this host's clock (NTP keeps it right)";
/// What the canary holds.
const CANARY: &str = "pgkeep check: this object may be deleted\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// Prints what is found, and counts.
struct Report<'a> {
    shutdown: &'a Shutdown,
    failed: usize,
    warnings: usize,
}

impl Report<'_> {
    fn line(&mut self, verdict: Verdict, what: &str, text: impl fmt::Display) {
        if self.shutdown.forced().is_some() {
            // What was broken off says nothing.
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
        println!("{word:<8} {what}: {}", logging::one_line(&text.to_string()));
    }

    fn ok(&mut self, what: &str, text: impl fmt::Display) {
        self.line(Verdict::Ok, what, text);
    }
}

/// Tries everything, prints a line about each, and answers whether nothing would fail. A forced `shutdown` ends
/// the waiting, not the tidying up.
pub fn command(config: &Config, s3: &Client, shutdown: &Shutdown) -> bool {
    let mut report = Report { shutdown, failed: 0, warnings: 0 };
    let place = s3.place(config.catalog().prefix());
    report.ok("configuration", format!("database \"{}\", backups at {place}…", config.database));
    for name in &config.unknown {
        let text = format!("{name} is not a variable of pgkeep and does nothing: is it misspelt?");
        report.line(Verdict::Warning, "configuration", text);
    }
    let size = check_postgres(config, shutdown, &mut report);
    check_disk(config, size, &mut report);
    let backups = check_s3(config, s3, &mut report);
    check_schedule(config, backups.as_deref(), Utc::now(), &mut report);
    check_drill(config, shutdown, &mut report);
    if shutdown.forced().is_some() {
        return false;
    }
    let fails = match report.failed {
        0 => "nothing".to_owned(),
        failed => units::count(failed, "step"),
    };
    println!("{fails} would fail tonight, {}", units::count(report.warnings, "warning"));
    report.failed == 0
}

/// Answers with the database's size in bytes.
fn check_postgres(config: &Config, shutdown: &Shutdown, report: &mut Report<'_>) -> Option<u64> {
    let what = "PostgreSQL";
    let postgres = Postgres::new(config, shutdown);
    let installed = match postgres::installed(config.client_directory.as_deref()) {
        Ok(installed) => installed,
        Err(failure) => {
            report.line(Verdict::Failed, what, format!("{failure:#}"));
            return None;
        }
    };
    let server = match postgres.ask(&installed[0]) {
        Ok(server) => server,
        Err(failure) => {
            report.line(Verdict::Failed, what, format!("{failure:#}; see POSTGRES_CONNECTION_STRING"));
            return None;
        }
    };
    match postgres::choose(&installed, &server) {
        Ok(programs) => report.ok(
            what,
            format!(
                "version {}, to be dumped with pg_dump {}; {} on the server",
                server.version,
                programs.version,
                units::bytes(server.database_size)
            ),
        ),
        Err(failure) => report.line(Verdict::Failed, what, format!("{failure:#}")),
    }
    // On the day of need it is late to find out.
    if let (Format::Plain, Err(failure)) = (config.format, guard::restricting(&installed)) {
        report.line(Verdict::Warning, "restore", format!("{failure:#}"));
    }
    check_rights(&postgres, &installed[0], &server, report);
    Some(server.database_size)
}

fn check_rights(postgres: &Postgres<'_>, psql: &Programs, server: &Server, report: &mut Report<'_>) {
    let what = "right to read";
    let rights = match Rights::ask(postgres, psql) {
        Ok(rights) => rights,
        Err(failure) => return report.line(Verdict::Failed, what, format!("{failure:#}")),
    };
    match rights.unreadable(server.major) {
        Some(problem) => report.line(Verdict::Failed, what, problem),
        None => report.ok(what, "every table and sequence"),
    }
    match rights.hidden() {
        Some(problem) => report.line(Verdict::Failed, "row security", problem),
        None => report.ok("row security", "hides nothing"),
    }
}

fn check_disk(config: &Config, database_size: Option<u64>, report: &mut Report<'_>) {
    let what = "temporary space";
    let directory = config.temp_directory.display();
    if let Err(problem) = tempfile::tempfile_in(&config.temp_directory) {
        let remedy = "BACKUP_TEMP_DIR can name another directory";
        return report.line(
            Verdict::Failed,
            what,
            format!("no file can be made in {directory}: {problem}; {remedy}"),
        );
    }
    let Some(free) = spool::free_space(&config.temp_directory) else {
        return report.ok(what, format!("{directory} can be written to; its free space is not known"));
    };
    let text = format!("{} are free in {directory}", units::bytes(free));
    let Some(need) = database_size.map(backup::usual_size) else { return report.ok(what, text) };
    let text = format!("{text}, a backup may need {}", units::bytes(need));
    if free < need {
        let remedy = "unless S3 is faster than the dump; BACKUP_TEMP_DIR can name another directory";
        report.line(Verdict::Warning, what, format!("{text}, {remedy}"));
    } else {
        report.ok(what, text);
    }
}

/// Answers with the backups in the bucket.
fn check_s3(config: &Config, s3: &Client, report: &mut Report<'_>) -> Option<Vec<Backup>> {
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
    let listed = check_list(config, s3, report);
    if listed.as_ref().is_err_and(|error| common_remedy(error).is_some()) {
        report.line(Verdict::Skipped, "S3", "put, get, delete and multipart upload: for the same reason");
        return None;
    }
    check_objects(config, s3, listed.is_ok(), report);
    // Not every server knows these, so that one try is enough.
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
        "retention cannot delete a backup that is locked; let locks end before BACKUP_RETENTION_DAYS does",
        report,
    );
    listed.ok()
}

fn check_list(config: &Config, s3: &Client, report: &mut Report<'_>) -> Result<Vec<Backup>, S3Error> {
    let catalog = config.catalog();
    let listed = s3.list_objects(catalog.prefix()).map(|objects| catalog.backups(objects));
    match &listed {
        Ok(backups) => report.ok("S3 list", units::count(backups.len(), "backup")),
        Err(error) => report.line(Verdict::Failed, "S3 list", with_remedy(error)),
    }
    listed
}

/// Puts a canary, finds, reads and deletes it, and begins an upload.
fn check_objects(config: &Config, s3: &Client, may_list: bool, report: &mut Report<'_>) {
    // No backup's name, so that nobody takes it for one.
    let key = format!("{}check-{:016x}", config.catalog().prefix(), fastrand::u64(..));
    let put = s3.put_bytes(&key, CANARY.as_bytes());
    match &put {
        Ok(()) => {
            report.ok("S3 put", s3.place(&key));
            if may_list && s3.list_objects(&key).is_ok_and(|found| found.is_empty()) {
                let text =
                    "what was just put is not listed yet: a look into the bucket may miss the newest backup";
                report.line(Verdict::Warning, "S3 list", text);
            }
            match s3.get_text(&key) {
                Ok(text) if text == CANARY => report.ok("S3 get", "the same bytes"),
                Ok(_) => report.line(Verdict::Failed, "S3 get", "other bytes than were put"),
                Err(error) => report.line(Verdict::Failed, "S3 get", with_remedy(&error)),
            }
        }
        Err(error) => {
            report.line(Verdict::Failed, "S3 put", with_remedy(error));
            report.line(Verdict::Skipped, "S3 get", "there is nothing to read");
        }
    }
    // In any case: what the put failed with may have been the loss of its answer.
    match s3.delete_object(&key) {
        Ok(()) => report.ok("S3 delete", "gone again"),
        Err(error) => {
            let left =
                if put.is_ok() { format!("; {} is still there", s3.place(&key)) } else { String::new() };
            report.line(Verdict::Failed, "S3 delete", with_remedy(&error) + &left);
        }
    }
    match s3.try_multipart_upload(&key) {
        Ok(()) => report.ok("S3 multipart upload", "begun and given up"),
        Err(error) => report.line(Verdict::Failed, "S3 multipart upload", with_remedy(&error)),
    }
}

/// Whether a bucket has one of the settings that keep retention from doing its work.
fn check_bucket(what: &str, found: Result<bool, S3Error>, problem: &str, report: &mut Report<'_>) {
    let name = format!("bucket's {what}");
    match found {
        Ok(true) => report.line(Verdict::Warning, &name, format!("on: {problem}")),
        Ok(false) => report.ok(&name, "off"),
        // Not to be known is normal, and no reason to worry.
        Err(error) => report.ok(&name, format!("not known ({error})")),
    }
}

/// What to say of S3's clock and the one here.
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

/// What to do about a refusal that every request would meet.
fn common_remedy(error: &S3Error) -> Option<&'static str> {
    let Fault::Refused { code, message, .. } = &error.fault else { return None };
    Some(match code.as_str() {
        "SignatureDoesNotMatch" => "see S3_SECRET_KEY: it is not the one that belongs to S3_ACCESS_KEY",
        "InvalidAccessKeyId" => "see S3_ACCESS_KEY: nobody has it there",
        "NoSuchBucket" => "see S3_BUCKET, or make the bucket",
        // The last one is what AWS says to a signature in the query that is made for another region.
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

/// The refusal, which right is missing where that is the reason, and what is left behind.
fn with_remedy(error: &S3Error) -> String {
    let right = match error.operation {
        "ListObjectsV2" => "s3:ListBucket, of the bucket itself",
        "GetObject" => "s3:GetObject",
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
    format!("{error}{remedy}{left}")
}

fn check_schedule(config: &Config, backups: Option<&[Backup]>, now: DateTime<Utc>, report: &mut Report<'_>) {
    let schedule = config.interval().ok().map(|interval| &interval.schedule);
    let fires = schedule.map_or(Vec::new(), |schedule| schedule.fires(now, &Local, 4));
    match (schedule, fires.first()) {
        (Some(_), Some(next)) => report.ok("schedule", format!("next backup at {}", both_times(*next))),
        (Some(_), None) => report.line(Verdict::Failed, "schedule", "BACKUP_INTERVAL has no fire time left"),
        (None, _) => {
            let text = "BACKUP_INTERVAL is not set: pgkeep run would not start, pgkeep backup does";
            report.ok("schedule", text);
        }
    }
    match config.retention.shorter_than(&fires) {
        Some(text) => report.line(Verdict::Warning, "retention", text),
        None => report.ok("retention", config.retention),
    }
    let what = "newest backup";
    let Some(backups) = backups else {
        return report.line(Verdict::Skipped, what, "the backups cannot be listed");
    };
    let Some(newest) = backups.last() else { return report.ok(what, "there is none yet") };
    let age = units::duration((now - newest.time).to_std().unwrap_or_default());
    let text = format!("{}, {age} old", newest.key);
    match schedule.and_then(|schedule| schedule.missed_twice(newest.time, now, &Local)) {
        Some(before_last) => {
            let before_last = both_times(before_last);
            let late = format!("older than the fire time before last ({before_last}); see the daemon's log");
            report.line(Verdict::Warning, what, format!("{text}, {late}"));
        }
        None => report.ok(what, text),
    }
}

fn check_drill(config: &Config, shutdown: &Shutdown, report: &mut Report<'_>) {
    let Some(drill) = &config.drill else { return };
    let query = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user;";
    let may = Databases::of(drill, None, config, shutdown).and_then(|of| Ok((of.query(query)?, of.server)));
    match may {
        Ok((may, Server { version, .. })) if may == "t" => {
            report.ok("drill", format!("PostgreSQL {version}, databases can be made there"));
        }
        Ok(_) => report.line(
            Verdict::Failed,
            "drill",
            "the role may not make databases; ALTER ROLE … CREATEDB lets it",
        ),
        Err(failure) => {
            report.line(Verdict::Failed, "drill", format!("{failure:#}; see BACKUP_DRILL_CONNECTION_STRING"))
        }
    }
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
