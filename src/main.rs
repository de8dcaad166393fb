//! The `pgkeep` program: chooses a command, and turns its outcome into an exit status.

use std::process::ExitCode;

use anyhow::Result;
use log::{error, warn, LevelFilter};
use pgkeep::base::shutdown::Shutdown;
use pgkeep::base::{logging, shutdown};
use pgkeep::commands::{self, Command};
use pgkeep::commands::{check, get, health, list};
use pgkeep::config::Config;
use pgkeep::daemon;
use pgkeep::dump::gunzip as verify;
use pgkeep::jobs::{backup, drill, prune, restore};
use pgkeep::s3::Client;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before anything else, while there is one thread: errors carry stack traces only with it.
    std::env::set_var("RUST_BACKTRACE", "1");
    let command = match commands::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", commands::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            println!("pgkeep {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(command) => command,
        Err(problem) => {
            eprintln!("pgkeep: {problem}; pgkeep --help lists the commands");
            return ExitCode::from(WRONG_USAGE);
        }
    };
    let config = match Config::load(matches!(command, Command::Run | Command::Health)) {
        Ok(config) => config,
        Err(problems) => {
            logging::start(LevelFilter::Info);
            for problem in problems {
                error!("{problem}");
            }
            // Health checks know no other status for "not well".
            return ExitCode::from(if command == Command::Health { FAILED } else { WRONG_USAGE });
        }
    };
    logging::start(config.log_level);
    if let Some(zone) = &config.time_zone {
        // It may come from TZ_FILE.
        std::env::set_var("TZ", zone);
    }
    for name in &config.unknown {
        warn!("{name} is not a variable of pgkeep and does nothing: is it misspelt? pgkeep --help lists them all");
    }
    match run(&command, &config) {
        Ok(status) => status,
        Err(failure) => {
            logging::failure(&format!("{} failed", command.name()), &failure);
            ExitCode::from(FAILED)
        }
    }
}

fn run(command: &Command, config: &Config) -> Result<ExitCode> {
    shutdown::survive_file_size_limit()?;
    match command {
        Command::Run | Command::Backup => return stoppable(command, config, Shutdown::install()?),
        // What they have begun is undone, at once.
        Command::Restore(_) | Command::Verify { drill: true, .. } => {
            return stoppable(command, config, Shutdown::install()?.impatient());
        }
        Command::Check => return check(config, &Shutdown::install()?.impatient()),
        // The others have nothing to finish.
        _ => shutdown::end_at_signals()?,
    }
    let s3 = Client::new(&config.s3, Shutdown::default());
    match *command {
        Command::List { all, json } => list::command(config, &s3, all, json)?,
        Command::Prune { dry_run } => prune::command(config, &s3, dry_run)?,
        Command::Get { ref which, ref output } => get::command(config, &s3, which, output.as_deref())?,
        Command::Verify { all: true, .. } => verify::command(config, &s3, None)?,
        Command::Verify { ref which, .. } => verify::command(config, &s3, Some(which))?,
        Command::Health if !health::command(config)? => return Ok(ExitCode::from(FAILED)),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn check(config: &Config, shutdown: &Shutdown) -> Result<ExitCode> {
    let well = check::command(config, &Client::new(&config.s3, shutdown.clone()), shutdown);
    Ok(match shutdown.forced() {
        _ if well => ExitCode::SUCCESS,
        Some(status) => ExitCode::from(u8::try_from(status)?),
        None => ExitCode::from(FAILED),
    })
}

/// A command that hears signals.
fn stoppable(command: &Command, config: &Config, shutdown: Shutdown) -> Result<ExitCode> {
    let s3 = Client::new(&config.s3, shutdown.clone());
    let done = match command {
        Command::Run => daemon::run(config, &s3, &shutdown),
        Command::Restore(options) => restore::command(config, &s3, &shutdown, options),
        Command::Verify { which, .. } => drill::command(config, &s3, &shutdown, which),
        _ => backup::run(config, &s3, &shutdown).map(drop),
    };
    match (done, shutdown.forced()) {
        // The daemon survives a backup that was ended.
        (Ok(()), Some(status)) if *command == Command::Run => Ok(ExitCode::from(u8::try_from(status)?)),
        // Done before the signal could end it.
        (Ok(()), _) => Ok(ExitCode::SUCCESS),
        (Err(failure), None) => Err(failure),
        (Err(failure), Some(status)) => {
            logging::failure(&format!("{} failed", command.name()), &failure);
            Ok(ExitCode::from(u8::try_from(status)?))
        }
    }
}
