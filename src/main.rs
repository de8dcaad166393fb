//! The `pgkeep` program: chooses a command, and turns its outcome into an exit status.

use std::process::ExitCode;

use log::{error, warn, LevelFilter};
use pgkeep::cli::{self, Command};
use pgkeep::config::Config;
use pgkeep::s3::Client;
use pgkeep::shutdown::Shutdown;
use pgkeep::{backup, daemon, list, logging, prune};

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    // Before anything else, while there is one thread: errors carry stack traces only with it.
    std::env::set_var("RUST_BACKTRACE", "1");
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{}", cli::HELP);
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
    let config = match Config::load(command == Command::Run) {
        Ok(config) => config,
        Err(problems) => {
            logging::start(LevelFilter::Info);
            for problem in problems {
                error!("{problem}");
            }
            return ExitCode::from(WRONG_USAGE);
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
    run(command, &config)
}

fn run(command: Command, config: &Config) -> ExitCode {
    let done = match command {
        // A second look at one command needs no graceful end: signals keep their default.
        Command::List { json } => list::command(config, &Client::new(&config.s3, Shutdown::default()), json),
        Command::Prune { dry_run } => {
            prune::command(config, &Client::new(&config.s3, Shutdown::default()), dry_run)
        }
        _ => return back_up(command, config),
    };
    finish(command.name(), done)
}

fn back_up(command: Command, config: &Config) -> ExitCode {
    let shutdown = match Shutdown::install() {
        Ok(shutdown) => shutdown,
        Err(problem) => return finish("starting", Err(problem.into())),
    };
    let s3 = Client::new(&config.s3, shutdown.clone());
    let done = match &config.interval {
        Some(interval) if command == Command::Run => daemon::run(config, interval, &s3, &shutdown),
        _ => backup::run(config, &s3, &shutdown),
    };
    let status = finish(command.name(), done);
    shutdown
        .forced()
        .and_then(|status| status.try_into().ok())
        .map_or(status, |status: u8| ExitCode::from(status))
}

fn finish(what: &str, done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::failure(&format!("{what} failed"), &failure);
            ExitCode::from(FAILED)
        }
    }
}
