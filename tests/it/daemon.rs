//! The loop: the schedule fires, failures are survived, signals stop it.

use std::time::{Duration, Instant};

use rustix::process::{test_kill_process_group, Pid, Signal};

use crate::backup::assert_restores;
use crate::support::pgkeep::{Pgkeep, Running};
use crate::support::postgres::{self, noise, wrapped_pg_dump, SHOP};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

#[test]
fn the_schedule_fires_and_a_failed_run_does_not_stop_the_next() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("nightly");
    server.psql(&database, SHOP);
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    let mut running = Pgkeep::new(&database, &s3).with("BACKUP_INTERVAL", "* * * * *").start(&[]);
    // A minute at most to the first fire time, and one more to the second.
    running.wait_for_log("starts");
    running.wait_for_log("backup failed: cannot upload the backup: PutObject");
    assert!(!running.log().contains("backup succeeded"));
    wait_for("the first run's end", || (running.log().matches("next backup at").count() == 2).then_some(()));
    running.wait_for_log("backup succeeded");
    let log = running.log();
    assert_eq!(log.matches("scheduled backup of").count(), 2, "{log}");
    // Each fires in the first seconds of its minute.
    let fired = log.lines().filter(|line| line.contains("scheduled backup of"));
    fired.for_each(|line| assert_eq!(&line[17..19], "00", "{line}"));
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert_restores(&s3, &database);
}

#[test]
fn the_start_tells_the_configuration_and_the_next_fire_times() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let running = Pgkeep::new(&server.database("app"), &s3)
        .with("BACKUP_INTERVAL", "30 2 * * 1")
        .with("BACKUP_RETENTION_DAYS", "3")
        .with("TZ", "America/New_York")
        .start(&["run"]);
    running.wait_for_log("next backup at");
    let log = running.log();
    assert!(log.contains("password=***") && log.contains("S3_SECRET_KEY = ***"), "{log}");
    assert!(log.contains("TZ = America/New_York") && log.contains("BACKUP_INTERVAL = 30 2 * * 1"), "{log}");
    for number in 1..=3 {
        let line = running.wait_for_log(&format!("fire time {number}:"));
        assert!(line.contains("02:30:00 -0") && line.contains(":30:00 UTC)"), "{line}");
    }
    assert!(log.contains("BACKUP_RETENTION_DAYS=3 is shorter than the 7 d"), "{log}");
}

#[test]
fn an_idle_daemon_ends_at_once() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let mut running = Pgkeep::new(&database, &s3).with("BACKUP_INTERVAL", "0 0 1 1 *").start(&[]);
        running.wait_for_log("next backup at");
        let asked = Instant::now();
        running.signal(signal);
        assert_eq!(running.wait(), 0);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(running.log().contains(&format!("{name}: stopping")));
    }
}

/// A backup whose dump waits in its middle for the file `go`.
pub struct Halfway {
    pub running: Running,
    pub pgkeep: Pgkeep,
    gate: tempfile::TempDir,
    _bin: tempfile::TempDir,
}

/// Starts a command that backs up at once, and waits for the middle of the dump.
pub fn halfway(
    database: &str,
    s3: &s3::Server,
    change: impl FnOnce(Pgkeep) -> Pgkeep,
    command: &str,
) -> Halfway {
    let gate = tempfile::tempdir().expect("a directory");
    let script = format!(
        r#"$REAL "$@" >{0}/dump; head -c 60000000 {0}/dump; while ! [ -e {0}/go ]; do sleep 0.05; done
           tail -c +60000001 {0}/dump"#,
        gate.path().display()
    );
    let bin = wrapped_pg_dump(&script);
    let pgkeep = Pgkeep::new(database, s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let pgkeep = change(pgkeep);
    let running = pgkeep.start(&[command]);
    wait_for("the first part", || (!s3.requests("PUT", "partNumber=1").is_empty()).then_some(()));
    Halfway { running, pgkeep, gate, _bin: bin }
}

/// A database whose backup has several parts.
pub fn large(name: &str) -> String {
    let server = postgres::server();
    let database = server.database(name);
    server.psql(&database, &noise(34));
    database
}

#[test]
fn a_running_backup_is_finished_after_a_signal() {
    let s3 = s3::Server::start();
    let database = large("finished");
    let mut halfway = halfway(&database, &s3, |pgkeep| pgkeep, "backup");
    halfway.running.signal(Signal::TERM);
    halfway.running.wait_for_log("SIGTERM: stopping as soon as a running backup is done");
    std::fs::write(halfway.gate.path().join("go"), "").expect("the cue");
    assert_eq!(halfway.running.wait(), 0, "{}", halfway.running.log());
    assert_restores(&s3, &database);
}

#[test]
fn a_second_signal_ends_the_backup_at_once_and_leaves_nothing() {
    let database = large("forced");
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let s3 = s3::Server::start();
        let mut halfway = halfway(&database, &s3, |pgkeep| pgkeep, "backup");
        let children = halfway.running.children();
        assert!(!children.is_empty());
        halfway.running.signal(Signal::TERM);
        halfway.running.wait_for_log("stopping");
        let asked = Instant::now();
        halfway.running.signal(signal);
        assert_eq!(halfway.running.wait(), status, "{}", halfway.running.log());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(s3.objects().is_empty());
        assert_eq!(s3.pending_uploads(), [] as [&str; 0], "{}", halfway.running.log());
        assert_eq!(halfway.pgkeep.left_in_spool(), [] as [&str; 0]);
        // The group: the shell around pg_dump, and what it has started.
        for group in children {
            wait_for(format!("the end of process group {group}"), || {
                test_kill_process_group(Pid::from_raw(group.cast_signed())?).is_err().then_some(())
            });
        }
    }
}

#[test]
fn a_second_signal_ends_a_stalled_upload_too() {
    let s3 = s3::Server::start();
    let database = large("stalled");
    s3.fail(9, "PUT", "partNumber=2", Fault::Hold(Duration::from_secs(50)));
    let mut running = Pgkeep::new(&database, &s3).start(&["backup"]);
    wait_for("the stalled part", || (!s3.requests("PUT", "partNumber=2").is_empty()).then_some(()));
    running.signal(Signal::TERM);
    running.wait_for_log("stopping");
    let asked = Instant::now();
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(!s3.requests("DELETE", "uploadId=").is_empty(), "{}", running.log());
    assert!(s3.objects().is_empty());
    assert_eq!(s3.pending_uploads(), [] as [&str; 0]);
}
