//! `pgkeep status`: what the daemon knows, in words. Like `pgkeep health`, it only reads the status file.

use anyhow::Result;
use lexopt::prelude::*;

use super::{output, said, unexpected, Command, Outcome, Row};
use crate::base::logging;
use crate::base::units::{self, both_times};
use crate::config::Config;
use crate::daemon::Status;

pub(super) const ROW: Row = Row {
    name: "status",
    options: "[--json]",
    summary: "tell of the daemon's last and next run, drill and failures; asks no server",
    details: "
  --json   for a script
",
    parse,
};

/// The options of `pgkeep status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether to print JSON, for a script.
    pub json: bool,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Long("json") => options.json = true,
            other => return Err(unexpected(other)),
        }
    }
    Ok(Command::Status(options))
}

pub(super) fn command(config: &Config, options: &Options) -> Result<Outcome> {
    let status = Status::read(&config.plan()?.status_path)?;
    if options.json {
        output::line(format_args!("{:#}", status.json()))?;
        return Ok(Outcome::Done);
    }
    for (what, text) in told(&status) {
        output::line(format_args!("{what:<15} {}", logging::one_line(&text)))?;
    }
    Ok(Outcome::Done)
}

/// A line's first word, and the rest.
type Line = (&'static str, String);

/// One line for each thing that is known. If there are several databases, those of each come after its name.
fn told(status: &Status) -> Vec<Line> {
    let mut lines = vec![("daemon", format!("since {}", both_times(status.started)))];
    if let Some(since) = status.running_since {
        lines.push(("running", format!("since {}", both_times(since))));
    }
    if let Some(next) = status.next_fire {
        lines.push(("next run", both_times(next)));
    }
    if status.databases.is_none() {
        lines.extend(told_of_one(status));
        return lines;
    }
    for (name, of) in status.each() {
        lines.push(("database", units::printable(&name)));
        lines.extend(told_of_one(&of));
    }
    lines
}

fn told_of_one(status: &Status) -> Vec<Line> {
    let record = &status.record;
    let mut lines = vec![match record.attempt {
        Some((time, success)) => {
            ("last run", format!("{} at {}", if success { "succeeded" } else { "failed" }, both_times(time)))
        }
        None => ("last run", "none since the daemon started".into()),
    }];
    if let Some((took, dumped)) = record.took.zip(record.dumped) {
        lines.push((
            "last success",
            format!("took {}, {} dumped", units::duration(took), units::bytes(dumped)),
        ));
    }
    lines.push(match &status.newest {
        Some(newest) => {
            let size = record.size.map_or(String::new(), |size| format!(", {}", units::bytes(size)));
            ("newest backup", format!("{}{size}", newest.key))
        }
        None => ("newest backup", "none is known".into()),
    });
    if let Some((number, bytes)) = record.kept {
        let number = units::count(usize::try_from(number).unwrap_or(usize::MAX), "backup");
        lines.push(("in the bucket", format!("{number}, {}", units::bytes(bytes))));
    }
    if let Some(drill) = &status.drill {
        let (Ok(result) | Err(result)) = &drill.result;
        let how = if drill.result.is_ok() { "succeeded" } else { "failed" };
        lines.push(("last drill", format!("{how} at {}: {result}", both_times(drill.time))));
    }
    let failed: u64 = record.failed.values().sum();
    let steps: Vec<String> = record.failed.iter().map(|(step, number)| format!("{step} {number}")).collect();
    let steps = if steps.is_empty() { String::new() } else { format!(" ({})", steps.join(", ")) };
    lines.push(("failures", format!("{failed} of {} runs{steps}", failed + record.succeeded)));
    if let Some(failure) = &status.failure {
        lines.push(("last failure", format!("at {}: {}", both_times(failure.time), failure.reason)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    #[test]
    fn a_status_is_told_in_words() {
        let mut status = Status::default();
        let words = |status: &Status| {
            told(status).iter().map(|(what, text)| format!("{what}: {text}\n")).collect::<String>()
        };
        let text = words(&status);
        assert!(text.contains("last run: none since") && text.contains("failures: 0 of 0 runs\n"), "{text}");
        status.record.attempt = Some((DateTime::UNIX_EPOCH, false));
        status.record.succeeded = 3;
        status.record.failed = [("dump".to_owned(), 1), ("upload".to_owned(), 2)].into();
        let text = words(&status);
        assert!(text.contains("last run: failed at ") && text.contains("1970-01-01 00:00:00 UTC"), "{text}");
        assert!(text.contains("failures: 3 of 6 runs (dump 1, upload 2)\n"), "{text}");
    }
}
