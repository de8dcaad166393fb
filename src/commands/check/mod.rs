//! `pgkeep check`: tries everything now that could fail tonight. Each line says ok, or what to do.

mod canary;
mod encryption;
mod notify;
mod report;
mod s3;
mod server;

use chrono::{DateTime, Local, Utc};
use lexopt::prelude::*;

use self::report::{Report, Verdict};
use super::{said, unexpected, Command, Outcome, Row};
use crate::base::units::{self, both_times};
use crate::config::Config;
use crate::dump::spool;
use crate::jobs::server::Source;
use crate::jobs::{backup, leftovers, prune, Job};
use crate::postgres::{restricting, Format, Leftover, Postgres, Programs, Rights, Server, SHARED};
use crate::schedule::Interval;
use crate::store::{self, Backup};

const LEFT_OVER: &str = "left-over databases";

pub(super) const ROW: Row = Row {
    name: "check",
    options: "[--notify]",
    summary: "try now all that a backup needs; each line is ok or says what to do",
    details: "
  --notify   send a test to the heartbeats and the webhook, too

PostgreSQL and every right there, S3 and every right there, clocks, encryption, disk, schedule; a connection pooler
that would harm others, and databases that were left behind. What it puts into the bucket it deletes again. The exit status is 1 if anything would fail tonight.
",
    parse,
};

/// The options of `pgkeep check`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to tell those who are told of events.
    pub notify: bool,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("notify") => options.notify = true,
            other => return Err(unexpected(other)),
        }
    }
    Ok(Command::Check(options))
}

/// Tries everything and prints a line about each step. A forced stop ends the waiting, but not the cleaning
/// up.
pub(super) fn command(config: &Config, source: &Source, options: &Options) -> Outcome {
    let job = &source.job;
    let mut report = Report::new(job.shutdown.clone());
    match &source.several {
        None => {
            let location = job.store.location();
            report.ok("configuration", format!("database \"{}\", backups at {location}", job.database));
        }
        Some(_) => {
            let location = job.store.location_of_all();
            report.ok("configuration", format!("several databases, backups at {location}"));
        }
    }
    for sentence in &config.warnings {
        report.line(Verdict::Warning, "configuration", sentence);
    }
    let mut found = None;
    let size = check_postgres(job, &mut found, &mut report);
    server::check(source, &mut report);
    encryption::check(job, &mut report);
    check_disk(job, size, &mut report);
    let backups = s3::check(job, size, &mut report);
    check_schedule(config.interval(), job, backups.as_deref(), Utc::now(), &mut report);
    check_pruning(job, backups.as_deref(), &mut report);
    check_drill(job, &mut found, &mut report);
    check_leftovers(found.as_deref(), &mut report);
    notify::check(&config.receivers(), job, options.notify, &mut report);
    Outcome::of(report.finish())
}

/// Returns the database's size in bytes.
fn check_postgres(job: &Job, found: &mut Option<Vec<Leftover>>, report: &mut Report) -> Option<u64> {
    let what = "PostgreSQL";
    let clients = match job.clients() {
        Ok(clients) => clients,
        Err(failure) => {
            report.line(Verdict::Failed, what, format!("{failure:#}"));
            return None;
        }
    };
    let postgres = job.postgres(&clients);
    let server = match postgres.ask() {
        Ok(server) => server,
        Err(failure) => {
            report.line(Verdict::Failed, what, format!("{failure:#}; see POSTGRES_CONNECTION_STRING"));
            return None;
        }
    };
    let programs = clients.for_server(&server);
    match &programs {
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
    let newer = programs.ok().filter(|programs| programs.major > server.major);
    // It is too late to find this out when a restore is needed.
    if job.format == Format::Plain || newer.is_some() {
        if let Err(failure) = restricting(&clients) {
            report.line(Verdict::Warning, "restore", format!("{failure:#}"));
        }
    }
    if let Some(programs) = newer.filter(|programs| programs.set_what_lacks(&server)) {
        let text = format!(
            "pg_dump {} is newer than the server: pgkeep restores its backups on this server, but psql and pg_restore \
             stop there at SET transaction_timeout, a line to be removed first (see README); or install the client of \
             PostgreSQL {}",
            programs.version, server.major
        );
        report.line(Verdict::Warning, "restore without pgkeep", text);
    }
    check_connection(&postgres, report);
    check_rights(job, &postgres, &server, report);
    if let Ok(programs) = clients.for_server(&server) {
        check_dump_options(job, &postgres, programs, report);
    }
    match Leftover::all(&postgres, Utc::now()) {
        Ok(left) => *found = Some(left),
        Err(failure) => report.line(Verdict::Skipped, LEFT_OVER, format!("{failure:#}")),
    }
    Some(server.database_size)
}

/// Whether the connection leads to the server itself, or to a pooler that does no harm.
fn check_connection(postgres: &Postgres, report: &mut Report) {
    let what = "connection";
    match postgres.shares_backends() {
        Ok(false) => report.ok(what, "each session has a server process of its own"),
        Ok(true) => report.line(Verdict::Failed, what, format!("{SHARED}; see POSTGRES_CONNECTION_STRING")),
        Err(failure) => {
            let text = format!("whether a pooler shares it with other clients is not known: {failure:#}");
            report.line(Verdict::Warning, what, text);
        }
    }
}

/// Lets pg_dump judge the options that pgkeep passes on.
fn check_dump_options(job: &Job, postgres: &Postgres, programs: &Programs, report: &mut Report) {
    let (what, options) = ("pg_dump's options", &job.dump_options);
    if options.words().is_empty() {
        return;
    }
    match postgres.try_dump(programs, job.lock_timeout, options) {
        Ok(()) => report.ok(what, format!("accepted: {options}")),
        Err(failure) => report.line(Verdict::Failed, what, format!("{failure:#}; see BACKUP_PG_DUMP_ARGS")),
    }
}

fn check_rights(job: &Job, postgres: &Postgres, server: &Server, report: &mut Report) {
    let what = "right to read";
    // What is not dumped needs no right. Only pg_dump knows what that is.
    let (missing, unless) = match job.dump_options.need_other_rights() {
        true => (Verdict::Warning, ", unless BACKUP_PG_DUMP_ARGS leaves it out or names another role"),
        false => (Verdict::Failed, ""),
    };
    let rights = match Rights::ask(postgres) {
        Ok(rights) => rights,
        Err(failure) => return report.line(Verdict::Failed, what, format!("{failure:#}")),
    };
    match rights.unreadable(server.major) {
        Some(problem) => report.line(missing, what, format!("{problem}{unless}")),
        None => report.ok(what, "every table and sequence"),
    }
    match rights.hidden() {
        Some(problem) => report.line(missing, "row security", format!("{problem}{unless}")),
        None => report.ok("row security", "hides nothing"),
    }
}

fn check_disk(job: &Job, database_size: Option<u64>, report: &mut Report) {
    let what = "temporary space";
    let directory = job.temp_directory.display();
    if let Err(problem) = tempfile::tempfile_in(&job.temp_directory) {
        let remedy = "BACKUP_TEMP_DIR can name another directory";
        return report.line(
            Verdict::Failed,
            what,
            format!("no file can be made in {directory}: {problem}; {remedy}"),
        );
    }
    let Some(free) = spool::free_space(&job.temp_directory) else {
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

fn check_schedule(
    interval: Option<&Interval>,
    job: &Job,
    backups: Option<&[Backup]>,
    now: DateTime<Utc>,
    report: &mut Report,
) {
    let schedule = interval.map(|interval| &interval.schedule);
    let fires = schedule.map_or(Vec::new(), |schedule| schedule.fires(now, &Local, 4));
    match (schedule, fires.first()) {
        (Some(_), Some(next)) => report.ok("schedule", format!("next backup at {}", both_times(*next))),
        (Some(_), None) => report.line(Verdict::Failed, "schedule", "BACKUP_INTERVAL has no fire time left"),
        (None, _) => {
            let text = "BACKUP_INTERVAL is not set: pgkeep run would not start, pgkeep backup does";
            report.ok("schedule", text);
        }
    }
    match job.retention.warning(&fires) {
        Some(text) => report.line(Verdict::Warning, "retention", text),
        None => report.ok("retention", &job.retention),
    }
    let what = "newest backup";
    let Some(backups) = backups else {
        return report.line(Verdict::Skipped, what, "the backups cannot be listed");
    };
    let (past, future) = store::split_future(backups, now);
    if let Some(warning) = store::warning(future) {
        report.line(Verdict::Warning, "backups' names", warning);
    }
    let Some(newest) = past.last() else { return report.ok(what, "there is none yet") };
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

/// Checks whether something would stop the deletion of expired backups.
fn check_pruning(job: &Job, backups: Option<&[Backup]>, report: &mut Report) {
    let what = "pruning";
    if job.retention.rules.is_empty() {
        return;
    }
    let Some(backups) = backups else {
        return report.line(Verdict::Skipped, what, "the backups cannot be listed");
    };
    match prune::judge(job, backups) {
        Ok(plan) if plan.doubts.is_empty() => report.ok(what, "nothing holds it back"),
        Ok(plan) => {
            for doubt in plan.doubts {
                report.line(Verdict::Warning, what, format!("held back: {doubt}"));
            }
        }
        Err(error) => report.line(Verdict::Failed, what, s3::with_remedy(&error)),
    }
}

fn check_drill(job: &Job, found: &mut Option<Vec<Leftover>>, report: &mut Report) {
    let Some(drill) = &job.drill else { return };
    let query = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user;";
    let may = job.databases(drill, None).and_then(|of| Ok((of.query(query)?, of.leftovers()?, of.server)));
    match may {
        Ok((may, left, Server { version, .. })) if may == "t" => {
            leftovers::add(left, found.get_or_insert_default());
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

/// Databases that drills and restores left behind and that nobody will drop, on both servers if they were
/// asked.
fn check_leftovers(found: Option<&[Leftover]>, report: &mut Report) {
    if found.is_some_and(<[Leftover]>::is_empty) {
        report.ok(LEFT_OVER, "none");
    }
    for leftover in found.into_iter().flatten() {
        report.line(Verdict::Warning, LEFT_OVER, leftover);
    }
}
