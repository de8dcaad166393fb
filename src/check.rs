//! `pgkeep check`: everything that would fail tonight, tried now. Each line is ok, or says what to do.

use std::fmt;

use anyhow::{bail, Result};
use chrono::{DateTime, Local, TimeDelta, Utc};

use crate::backup;
use crate::catalog::Backup;
use crate::config::Config;
use crate::database::Databases;
use crate::logging;
use crate::postgres::{self, Postgres, Programs, Server};
use crate::rights::Rights;
use crate::s3::{Client, S3Error};
use crate::shutdown::Shutdown;
use crate::spool;
use crate::units;

/// S3 refuses signatures of a clock that is wrong by more
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>, RequestTimeTooSkewed).
const MOST_SKEW: TimeDelta = TimeDelta::minutes(15);
/// A clock that is kept in time is never that wrong.
const USUAL_SKEW: TimeDelta = TimeDelta::minutes(1);
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
#[derive(Default)]
struct Report {
    failed: usize,
    warnings: usize,
}

impl Report {
    fn line(&mut self, verdict: Verdict, what: &str, text: impl fmt::Display) {
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

/// Tries everything, and prints a line about each.
///
/// # Errors
/// Where something would fail.
pub fn command(config: &Config, s3: &Client) -> Result<()> {
    let mut report = Report::default();
    let place = s3.place(config.catalog().prefix());
    report.ok("configuration", format!("database \"{}\", backups at {place}…", config.database));
    for name in &config.unknown {
        report.line(
            Verdict::Warning,
            "configuration",
            format!("{name} is not a variable of pgkeep: is it misspelt?"),
        );
    }
    let shutdown = Shutdown::default();
    let size = check_postgres(config, &shutdown, &mut report);
    check_disk(config, size, &mut report);
    let backups = check_s3(config, &s3.without_retries(), &mut report);
    check_schedule(config, backups.as_deref(), Utc::now(), &mut report);
    check_drill(config, &shutdown, &mut report);
    let warnings = units::count(report.warnings, "warning");
    if report.failed > 0 {
        bail!("{} would fail tonight, {warnings}", units::count(report.failed, "step"));
    }
    println!("all is well, {warnings}");
    Ok(())
}

/// Answers with the database's size in bytes.
fn check_postgres(config: &Config, shutdown: &Shutdown, report: &mut Report) -> Option<u64> {
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
    check_rights(&postgres, &installed[0], &server, report);
    Some(server.database_size)
}

fn check_rights(postgres: &Postgres<'_>, psql: &Programs, server: &Server, report: &mut Report) {
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

fn check_disk(config: &Config, database_size: Option<u64>, report: &mut Report) {
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
    let need = database_size.map(backup::usual_size);
    let text = format!("{} are free in {directory}", units::bytes(free));
    match need {
        Some(need) if free < need => report.line(
            Verdict::Warning,
            what,
            format!(
                "{text}, and a backup may need {}, unless S3 is faster than the dump",
                units::bytes(need)
            ),
        ),
        _ => report.ok(what, text),
    }
}

/// Answers with the backups in the bucket.
fn check_s3(config: &Config, s3: &Client, report: &mut Report) -> Option<Vec<Backup>> {
    match s3.server_time() {
        Ok(time) => check_clock(time, Utc::now(), report),
        Err(error) => {
            report.line(Verdict::Failed, "S3", format!("{error}; see S3_URL"));
            report.line(Verdict::Skipped, "S3", "the rest of it");
            return None;
        }
    }
    let catalog = config.catalog();
    let backups = match s3.list_objects(catalog.prefix()) {
        Ok(objects) => {
            let backups = catalog.backups(objects);
            report.ok("S3 list", units::count(backups.len(), "backup"));
            Some(backups)
        }
        Err(error) => {
            report.line(Verdict::Failed, "S3 list", with_remedy(&error, "s3:ListBucket"));
            None
        }
    };
    // No backup's name, so that nobody takes it for one.
    let key = format!("{}check-{:016x}", catalog.prefix(), fastrand::u64(..));
    match s3.put_bytes(&key, CANARY.as_bytes()) {
        Ok(()) => {
            report.ok("S3 put", s3.place(&key));
            match s3.get_text(&key) {
                Ok(text) if text == CANARY => report.ok("S3 get", "the same bytes"),
                Ok(_) => report.line(Verdict::Failed, "S3 get", "other bytes than were put"),
                Err(error) => report.line(Verdict::Failed, "S3 get", with_remedy(&error, "s3:GetObject")),
            }
            match s3.delete_object(&key) {
                Ok(()) => report.ok("S3 delete", "gone again"),
                Err(error) => {
                    let text = with_remedy(&error, "s3:DeleteObject");
                    report.line(
                        Verdict::Failed,
                        "S3 delete",
                        format!("{text}; {} is still there", s3.place(&key)),
                    );
                }
            }
        }
        Err(error) => {
            report.line(Verdict::Failed, "S3 put", with_remedy(&error, "s3:PutObject"));
            report.line(Verdict::Skipped, "S3 get and delete", "there is nothing to read");
        }
    }
    match s3.try_multipart_upload(&key) {
        Ok(()) => report.ok("S3 multipart upload", "begun and given up"),
        Err(error) => report.line(
            Verdict::Failed,
            "S3 multipart upload",
            with_remedy(&error, "s3:PutObject or s3:AbortMultipartUpload"),
        ),
    }
    check_bucket("versioning", s3.keeps_versions(), "deleted backups stay as versions and cost space; a lifecycle rule for noncurrent versions removes them", report);
    check_bucket(
        "object lock",
        s3.locks_objects(),
        "retention cannot delete a backup that is locked; let locks end before BACKUP_RETENTION_DAYS does",
        report,
    );
    backups
}

/// Whether a bucket has one of the settings that keep retention from doing its work.
fn check_bucket(what: &str, found: std::result::Result<bool, S3Error>, problem: &str, report: &mut Report) {
    let name = format!("bucket's {what}");
    match found {
        Ok(true) => report.line(Verdict::Warning, &name, format!("on: {problem}")),
        Ok(false) => report.ok(&name, "off"),
        // Not to be known is normal, and no reason to worry.
        Err(error) => report.ok(&name, format!("not known ({error})")),
    }
}

fn check_clock(there: Option<DateTime<Utc>>, here: DateTime<Utc>, report: &mut Report) {
    let Some(there) = there else { return report.ok("S3", "reached; it does not say what time it is") };
    let skew = (here - there).abs();
    let differ = format!(
        "the clocks differ by {}: {} here, {} at S3",
        units::duration(skew.to_std().unwrap_or_default()),
        here.format("%Y-%m-%d %H:%M:%S"),
        there.format("%Y-%m-%d %H:%M:%S")
    );
    let (verdict, text) = if skew > MOST_SKEW {
        (Verdict::Failed, format!("{differ}; S3 refuses signatures past 15 minutes: set this host's clock"))
    } else if skew > USUAL_SKEW {
        (Verdict::Warning, format!("{differ}; past 15 minutes S3 refuses signatures"))
    } else {
        (Verdict::Ok, "reached, and the clocks agree".into())
    };
    report.line(verdict, "S3", text);
}

/// Says which right is missing where that is the reason.
fn with_remedy(error: &S3Error, right: &str) -> String {
    match error.code() {
        Some("AccessDenied" | "Forbidden") => format!("{error}; the key needs the right {right}"),
        Some("SignatureDoesNotMatch") => format!("{error}; see S3_SECRET_KEY"),
        Some("InvalidAccessKeyId") => format!("{error}; see S3_ACCESS_KEY"),
        Some("NoSuchBucket") => format!("{error}; see S3_BUCKET"),
        _ => error.to_string(),
    }
}

fn check_schedule(config: &Config, backups: Option<&[Backup]>, now: DateTime<Utc>, report: &mut Report) {
    let what = "schedule";
    let Ok(interval) = config.interval() else {
        return report.ok(what, "BACKUP_INTERVAL is not set: pgkeep run would not start, pgkeep backup does");
    };
    let fires = interval.schedule.fires(now, &Local, 4);
    match fires.first() {
        Some(next) => report.ok(what, format!("next backup at {} UTC", next.format("%Y-%m-%d %H:%M:%S"))),
        None => report.line(Verdict::Failed, what, "no fire time is left"),
    }
    match config.retention.shorter_than(&fires) {
        Some(text) => report.line(Verdict::Warning, "retention", text),
        None => report.ok("retention", config.retention),
    }
    let newest = backups.and_then(<[Backup]>::last);
    match (newest, interval.schedule.past(now, &Local)) {
        (Some(newest), Some([_, before_last])) if newest.time < before_last => report.line(
            Verdict::Warning,
            "newest backup",
            format!("{}, older than the fire time before last: see the daemon's log", newest.key),
        ),
        (Some(newest), _) => report.ok("newest backup", &newest.key),
        (None, _) => {}
    }
}

fn check_drill(config: &Config, shutdown: &Shutdown, report: &mut Report) {
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
