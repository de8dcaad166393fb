//! Whether each of several databases, and the server's globals, could be backed up tonight.

use std::path::Path;

use anyhow::{bail, ensure, Result};

use super::report::{Report, Verdict};
use crate::base::units;
use crate::jobs::server::Source;
use crate::jobs::Job;
use crate::postgres::{Clients, Rights};

const NAMED: usize = 20;

/// Asks the server which databases are meant, and each of them for the rights there.
pub fn check(source: &Source, report: &mut Report) {
    let (Some(several), Ok(clients)) = (&source.several, source.job.clients()) else { return };
    let what = "databases";
    let there = match source.job.postgres(&clients).database_names() {
        Ok(there) => there,
        Err(failure) => return report.line(Verdict::Failed, what, format!("{failure:#}")),
    };
    let choice = several.names.choose(&there);
    let named: Vec<String> = choice.databases.iter().take(NAMED).map(|name| units::printable(name)).collect();
    let count = units::count(choice.databases.len(), "database");
    let text = format!("{count} to back up: {}", units::first_few(&named, choice.databases.len()));
    match choice.databases.is_empty() {
        true => report.line(Verdict::Failed, what, "BACKUP_DATABASES means none of the server's databases"),
        false => report.ok(what, text),
    }
    for name in &choice.absent {
        let text =
            format!("BACKUP_DATABASES names {name}, and the server does not have it (or it is a template)");
        report.line(Verdict::Failed, what, text);
    }
    for pattern in &choice.idle {
        let text = format!("BACKUP_DATABASES: {pattern} matches no database of the server");
        report.line(Verdict::Warning, what, text);
    }
    let mut readable = true;
    for job in choice.databases.iter().map(|name| source.job.of(name)) {
        if let Err(failure) = check_one(&job, &clients) {
            readable = false;
            report.line(Verdict::Failed, &job.subject(), format!("{failure:#}"));
        }
    }
    if readable {
        report.ok("right to read", "every table and sequence of each database");
    }
    if several.globals {
        check_globals(&source.job, &clients, report);
    }
}

fn check_one(job: &Job, clients: &Clients) -> Result<()> {
    let postgres = job.postgres(clients);
    let server = postgres.ask()?;
    let rights = Rights::ask(&postgres)?;
    if let Some(problem) = rights.unreadable(server.major).or_else(|| rights.hidden()) {
        bail!(problem);
    }
    ensure!(!postgres.shares_backends().unwrap_or_default(), crate::postgres::SHARED);
    Ok(())
}

fn check_globals(job: &Job, clients: &Clients, report: &mut Report) {
    let what = "globals";
    let postgres = job.postgres(clients);
    let pg_dumpall = |directory: &Path| directory.join("pg_dumpall").is_file();
    let checked = postgres.ask().and_then(|server| {
        let programs = clients.for_server(&server)?;
        ensure!(
            pg_dumpall(&programs.directory),
            "there is no pg_dumpall in {}; BACKUP_GLOBALS=false leaves the globals out",
            programs.directory.display()
        );
        postgres.may_read_passwords()
    });
    match checked {
        Ok(true) => report.ok(what, "roles can be read with their passwords"),
        Ok(false) => {
            let text = "the role may not read the passwords of roles: they are backed up without";
            report.line(Verdict::Warning, what, text);
        }
        Err(failure) => report.line(Verdict::Failed, what, format!("{failure:#}")),
    }
}
