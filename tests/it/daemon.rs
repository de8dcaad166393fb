//! The loop: the schedule fires, failures are survived, signals stop it.

use std::fs;
use std::time::{Duration, Instant};

use chrono::Utc;
use rustix::process::{test_kill_process_group, Pid, Signal};

use crate::backup::assert_restores;
use crate::support::pgkeep::{Pgkeep, Running};
use crate::support::postgres::{self, noise, PausedDump, SHOP};
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
fn each_run_reads_the_secrets_anew_and_fails_alone_if_it_cannot() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("rotated");
    server.psql(&database, SHOP);
    let directory = tempfile::tempdir().expect("a directory");
    let key = directory.path().join("key");
    fs::write(&key, "the-key-of-yesterday\n").expect("the key");
    let mut running = Pgkeep::new(&database, &s3)
        .without("S3_SECRET_KEY")
        .with("S3_SECRET_KEY_FILE", key.to_str().expect("UTF-8"))
        .with("BACKUP_INTERVAL", "* * * * *")
        .start(&[]);
    running.wait_for_log("the newest backup is not known");
    fs::remove_file(&key).expect("it is gone");
    let failed = running.wait_for_log("backup failed: the configuration cannot be read again");
    assert!(failed.contains("S3_SECRET_KEY_FILE names ") && failed.contains("cannot be read"), "{failed}");
    fs::write(&key, format!("{}\r\n", s3::SECRET_KEY)).expect("the key");
    running.wait_for_log("backup succeeded");
    running.wait_for_log("S3_SECRET_KEY_FILE has Windows line ends around its value");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert_restores(&s3, &database);
}

#[test]
fn a_fire_time_that_passes_during_a_run_is_skipped_and_told() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let dump = PausedDump::new("");
    let mut running = Pgkeep::new(&server.database("slow"), &s3)
        .with("BACKUP_INTERVAL", "* * * * *")
        .with("BACKUP_PG_BIN", dump.bin())
        .start(&[]);
    let fired = running.wait_for_log("scheduled backup of");
    wait_for("the next minute", || (Utc::now().format("%M").to_string() != fired[14..16]).then_some(()));
    dump.go_on();
    running.wait_for_log("skipped 1 fire time that passed while the backup ran: ");
    assert_eq!(running.log().matches("scheduled backup of").count(), 1, "{}", running.log());
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert_eq!(s3.backups().len(), 1);
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

/// A backup whose dump has stopped in its middle, with a part on its way.
struct Halfway {
    running: Running,
    pgkeep: Pgkeep,
    dump: PausedDump,
}

fn halfway(database: &str, s3: &s3::Server, first: &str) -> Halfway {
    let dump = PausedDump::new(first);
    let pgkeep = Pgkeep::new(database, s3).with("BACKUP_PG_BIN", dump.bin());
    let running = pgkeep.start(&["backup"]);
    dump.wait();
    wait_for("the first part", || (!s3.requests("PUT", "partNumber=1").is_empty()).then_some(()));
    Halfway { running, pgkeep, dump }
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
    let mut halfway = halfway(&database, &s3, "");
    halfway.running.signal(Signal::TERM);
    halfway.running.wait_for_log("SIGTERM: stopping as soon as a running backup is done");
    // What is tried again at other times is tried again now, too.
    s3.fail(1, "POST", "uploadId=", Fault::Answer(503, "SlowDown"));
    halfway.dump.go_on();
    assert_eq!(halfway.running.wait(), 0, "{}", halfway.running.log());
    assert!(halfway.running.log().contains("try 1 of 5 failed: CompleteMultipartUpload"));
    assert_restores(&s3, &database);
}

#[test]
fn a_second_signal_ends_the_backup_at_once_and_leaves_nothing() {
    let database = large("forced");
    // The second dump does not listen.
    for (signal, status, first) in [(Signal::TERM, 143, ""), (Signal::INT, 130, "trap '' TERM")] {
        let s3 = s3::Server::start();
        let mut halfway = halfway(&database, &s3, first);
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
fn a_dump_that_ends_well_after_the_second_signal_is_not_uploaded_any_more() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("late");
    let dump = PausedDump::new("trap '' TERM");
    let mut running = Pgkeep::new(&database, &s3).with("BACKUP_PG_BIN", dump.bin()).start(&["backup"]);
    dump.wait();
    running.signal(Signal::TERM);
    running.wait_for_log("stopping");
    running.signal(Signal::TERM);
    running.wait_for_log("second signal");
    // Within the second before it is killed.
    dump.go_on();
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(s3.requests("PUT", "").is_empty(), "{}", running.log());
    assert!(s3.objects().is_empty());
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
