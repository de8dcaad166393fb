//! Whether a server works for a silent child.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Conninfo, Postgres};
use crate::base::patience::Patience;
use crate::base::units;

/// What a server process waits for while it works: the disk, its parallel workers, a short lock in memory
/// (<https://www.postgresql.org/docs/current/monitoring-stats.html#WAIT-EVENT-TABLE>). Anything else, such as
/// a table's lock or the client itself, may never come.
const WORKING: [&str; 3] = ["IO", "IPC", "LWLock"];
/// Exceptions: these wait for another server or for other sessions.
const WAITING: [&str; 2] = ["SyncRep", "ProcSignalBarrier"];
/// `application_name` has at most 63 bytes (NAMEDATALEN).
const LONGEST_APPLICATION_NAME: usize = 63;

/// A connection whose server process can be recognised, and the patience with a child that uses it. After
/// `limit` the child may go on as long as the server works for it.
pub(super) fn with_server(postgres: &Postgres, limit: Duration) -> (Postgres, Patience) {
    let tag = format!("{:08x}", fastrand::u32(..));
    let mut tagged = postgres.clone();
    tagged.connection.set("application_name", &application_name(&postgres.connection, &tag));
    let asking = postgres.clone();
    let excuse = move || match ask(&asking, &tag) {
        Ok(processes) => judge(&processes, limit),
        Err(failure) => Err(format!("the server cannot be asked what it does: {failure:#}")),
    };
    (tagged, Patience::with_excuse(limit, excuse))
}

/// The connection's own name, and the tag after it. The server replaces characters that are not ASCII with
/// longer text, which could push the tag out of the length limit.
fn application_name(connection: &Conninfo, tag: &str) -> String {
    let own = connection.get("application_name").unwrap_or_default();
    let own = own.chars().map(|c| if c.is_ascii() { c } else { '?' });
    let own: String = own.take(LONGEST_APPLICATION_NAME - tag.len() - 1).collect();
    format!("{own} {tag}")
}

/// What a server process does, from `pg_stat_activity`.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    state: String,
    /// The type of the event that it waits for, and the event. Empty if it runs.
    waits_for: [String; 2],
    /// How long it has been in this state.
    since: Duration,
}

/// Asks for the server processes of a connection with this tag.
fn ask(postgres: &Postgres, tag: &str) -> Result<Vec<Process>> {
    let query = format!(
        "SELECT state, wait_event_type, wait_event,
                greatest(0, coalesce(extract(epoch FROM clock_timestamp() - state_change), 1e9))::bigint
         FROM pg_stat_activity WHERE strpos(application_name, '{tag}') > 0;"
    );
    let answer = postgres.insist(|limit| postgres.look_up(&query, limit))?;
    let processes: Option<Vec<Process>> = answer.lines().map(parse).collect();
    processes.with_context(|| format!("psql answered \"{answer}\" to: {query}"))
}

fn parse(line: &str) -> Option<Process> {
    let mut fields = line.split('\t');
    let mut next = || fields.next().map(str::to_owned);
    let (state, waits_for) = (next()?, [next()?, next()?]);
    Some(Process { state, waits_for, since: Duration::from_secs(next()?.parse().ok()?) })
}

/// A child may go on while one of its server processes works, or has done something since the child fell
/// silent. A pg_dump that has nothing to write yet may send a thousand short queries.
fn judge(processes: &[Process], limit: Duration) -> Result<String, String> {
    let busy = processes.iter().find(|process| process.works() || process.since < limit);
    match (busy, processes.first()) {
        (Some(process), _) => Ok(format!("its server process is {process}")),
        (None, Some(process)) => Err(format!("its server process is {process}")),
        (None, None) => Err("the server has no process for it".into()),
    }
}

impl Process {
    fn works(&self) -> bool {
        let [kind, event] = &self.waits_for;
        // Large objects are read with fastpath calls.
        ["active", "fastpath function call"].contains(&self.state.as_str())
            && (kind.is_empty() || WORKING.contains(&kind.as_str()))
            && !WAITING.contains(&event.as_str())
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.state)?;
        let [kind, event] = &self.waits_for;
        if !kind.is_empty() {
            write!(f, ", waiting for {kind} {event}")?;
        }
        write!(f, ", for {}", units::duration(self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn judged(lines: &str) -> Result<String, String> {
        let processes: Vec<Process> = lines.lines().map(|line| parse(line).unwrap()).collect();
        judge(&processes, HOUR)
    }

    #[test]
    fn a_server_that_works_is_waited_for() {
        for line in [
            "active\t\t\t7200",
            "active\tIO\tDataFileRead\t7200",
            "active\tIPC\tParallelCreateIndexScan\t7200",
            "active\tLWLock\tWALWrite\t7200",
            "fastpath function call\t\t\t7200",
            // The last query came a moment ago.
            "idle in transaction\tClient\tClientRead\t3599",
        ] {
            assert!(judged(line).is_ok(), "{line}");
            // Another connection of the same child.
            assert!(judged(&format!("idle\tClient\tClientRead\t9000\n{line}")).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_server_that_waits_is_not() {
        for line in [
            "active\tLock\trelation\t3600",
            "active\tClient\tClientWrite\t7200",
            "active\tClient\tClientRead\t7200",
            "active\tTimeout\tPgSleep\t7200",
            "active\tIPC\tSyncRep\t7200",
            "idle in transaction\tClient\tClientRead\t7200",
            "idle\t\t\t7200",
            // track_activities is off: nothing is known.
            "disabled\t\t\t7200",
        ] {
            assert!(judged(line).is_err(), "{line}");
        }
        assert_eq!(judged("").unwrap_err(), "the server has no process for it");
        assert_eq!(
            judged("active\tLock\trelation\t7260").unwrap_err(),
            "its server process is active, waiting for Lock relation, for 2 h 1 min"
        );
    }

    #[test]
    fn the_tag_ends_every_application_name_and_fits() {
        let name = |own: &str| {
            application_name(&Conninfo::parse(&format!("application_name='{own}'")).unwrap(), "0123abcd")
        };
        assert_eq!(name("pgkeep"), "pgkeep 0123abcd");
        assert_eq!(name("Zoë"), "Zo? 0123abcd");
        assert_eq!(name(&"x".repeat(80)).len(), LONGEST_APPLICATION_NAME);
    }
}
