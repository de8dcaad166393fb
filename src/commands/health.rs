//! `pgkeep health`: for a container's health check. It only reads the status file and asks nobody else, so it
//! can run every few seconds.

use anyhow::Result;
use chrono::{Local, Utc};

use super::{no_options, output, Command, Outcome, Row};
use crate::config::Config;
use crate::daemon::{line, verdict, Status};

pub(super) const ROW: Row = Row {
    name: "health",
    options: "",
    summary: "say whether the daemon and its backups are well; reads a file, asks no server",
    details: "
The exit status is 0 while the daemon is alive and its newest backup is young enough (that of each database,
if there are several), else 1.
",
    parse: |parser| no_options(parser, Command::Health),
};

pub(super) fn command(config: &Config) -> Result<Outcome> {
    let plan = config.plan()?;
    let verdict = match Status::read(&plan.status_path) {
        Ok(status) => verdict(&status, &plan.interval.schedule, &Local, Utc::now()),
        Err(failure) => Err(format!("{failure:#}")),
    };
    output::line(format_args!("{}", line(&verdict)))?;
    Ok(Outcome::of(verdict.is_ok()))
}
