//! The `pgkeep` program: chooses a command and turns its outcome into an exit status.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use log::{error, warn, LevelFilter};
use pgkeep::base::{logging, shutdown};
use pgkeep::commands::{self, output, Command, Outcome, Request};
use pgkeep::config::Config;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    // First of all, while there is only one thread: errors carry stack traces only if this is set.
    std::env::set_var("RUST_BACKTRACE", "1");
    let command = match commands::parse(std::env::args_os().skip(1)) {
        Ok(Request::Do(command)) => command,
        Ok(Request::Print(text)) => {
            return ExitCode::from(if output::text(&text).is_ok() { 0 } else { FAILED });
        }
        Err(problem) => {
            // It does not matter whether somebody reads it.
            let _ = writeln!(io::stderr(), "pgkeep: {problem}; pgkeep --help lists the commands");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let config = match Config::load(command.needs_schedule()) {
        Ok(config) => config,
        Err(refused) => {
            let _log = logging::start(LevelFilter::Info, refused.log_format);
            for problem in refused.problems {
                error!("{problem}");
            }
            // For a health check, no other status means "not well".
            return ExitCode::from(if command == Command::Health { FAILED } else { WRONG_USAGE });
        }
    };
    if let Some(zone) = config.time_zone() {
        // The zone may come from TZ_FILE. This comes before the log, because the log starts a thread.
        std::env::set_var("TZ", zone);
    }
    let _log = logging::start(config.log_level(), config.log_format());
    for sentence in &config.warnings {
        warn!("{sentence}");
    }
    run(&command, &config).unwrap_or_else(|failure| {
        logging::failure(&format!("{} failed", command.name()), &failure);
        ExitCode::from(FAILED)
    })
}

fn run(command: &Command, config: &Config) -> Result<ExitCode> {
    shutdown::survive_file_size_limit()?;
    let shutdown = command.hear_signals()?;
    if command.encrypts() {
        if let Err(problem) = config.try_recipients(&shutdown) {
            error!("{problem}");
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    }
    let outcome = command.run(config, &shutdown).unwrap_or_else(|failure| {
        logging::failure(&format!("{} failed", command.name()), &failure);
        Outcome::Failed
    });
    Ok(match (outcome, shutdown.forced()) {
        // The daemon survives when a backup is ended. All other commands were done before the signal could
        // end them.
        (Outcome::Done, Some(status)) if *command == Command::Run => ExitCode::from(u8::try_from(status)?),
        (Outcome::Done, _) => ExitCode::SUCCESS,
        (Outcome::Failed, Some(status)) => ExitCode::from(u8::try_from(status)?),
        (Outcome::Failed, None) => ExitCode::from(FAILED),
    })
}
