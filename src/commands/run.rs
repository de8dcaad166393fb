//! `pgkeep run`: the daemon.

use anyhow::Result;
use chrono::{Local, Utc};
use log::{info, warn};

use super::{no_options, Command, Outcome, Row};
use crate::base::logging;
use crate::base::shutdown::Shutdown;
use crate::base::units::both_times;
use crate::config::Config;
use crate::daemon;
use crate::jobs::server::Source;
use crate::jobs::Listener;

pub(super) const ROW: Row = Row {
    name: "run",
    options: "",
    summary: "back up on the schedule of BACKUP_INTERVAL (the default command)",
    details: "
It runs until SIGTERM, SIGINT or SIGHUP. A running backup is finished first; a second signal ends it at once.
",
    parse: |parser| no_options(parser, Command::Run),
};

pub(super) fn command(config: &Config, shutdown: &Shutdown, notified: Option<Listener>) -> Result<Outcome> {
    let plan = config.plan()?;
    info!("pgkeep {} started", env!("CARGO_PKG_VERSION"));
    for line in &config.lines {
        info!("{line}");
    }
    let fires = plan.interval.schedule.fires(Utc::now(), &Local, 4);
    for (number, fire) in fires.iter().take(3).enumerate() {
        info!("fire time {}: {}", number + 1, both_times(*fire));
    }
    match config.source(shutdown) {
        Ok(Source { job, several }) => {
            let location = if several.is_some() { job.store.location_of_all() } else { job.store.location() };
            info!("backups go to {location}");
            if let Some(text) = job.retention.warning(&fires) {
                warn!("{text}");
            }
        }
        // At the first fire time the server may be up.
        Err(failure) => logging::failure("where backups go is not known yet", &failure),
    }
    daemon::run(&|| config.source_of_now(shutdown), plan, shutdown, notified)?;
    Ok(Outcome::Done)
}
