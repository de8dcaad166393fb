//! `pgkeep health`, the status file, and what the daemon does at its start.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use chrono::{TimeDelta, Utc};
use rustix::fs::{mknodat, FileType, Mode, CWD};
use rustix::process::Signal;

use crate::daemon::large;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, PausedDump};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

/// A daemon whose schedule does not fire while a test runs: its last fire time is the first of January.
fn yearly(database: &str, s3: &s3::Server) -> Pgkeep {
    Pgkeep::new(database, s3).with("BACKUP_INTERVAL", "0 0 1 1 *")
}

/// Puts a backup of some days ago into the bucket.
fn plant(s3: &s3::Server, database: &str, days: i64) {
    let time = (Utc::now() - TimeDelta::days(days)).format("%Y-%m-%d_%H-%M-%S");
    s3.plant(&format!("{database}/{database}_{time}.sql.gz"), b"of another day");
}

/// What `pgkeep health` says, once it says something with `text` in it.
fn wait_for_health(pgkeep: &Pgkeep, status: i32, text: &str) -> String {
    wait_for(format!("health to say {text}"), || {
        let outcome = pgkeep.run(&["health"]);
        (outcome.status == status && outcome.stdout.contains(text)).then_some(outcome.stdout)
    })
}

#[test]
fn health_tells_of_a_daemon_from_its_first_backup_to_its_end() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("healthy");
    let pgkeep = yearly(&database, &s3).with("BACKUP_ON_START", "true");
    assert!(wait_for_health(&pgkeep, 1, "the daemon is not running").starts_with("unhealthy: "));
    let mut running = pgkeep.start(&[]);
    running.wait_for_log("backup succeeded");
    let sentence = wait_for_health(&pgkeep, 0, "the newest backup is of");
    assert!(sentence.contains("; next at ") && sentence.lines().count() == 1, "{sentence}");
    let told = pgkeep.succeed(&["status"]).stdout;
    for line in ["last run        succeeded at ", "next run ", "failures        0 of 1 runs\n"] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let told: serde_json::Value =
        serde_json::from_str(&pgkeep.succeed(&["status", "--json"]).stdout).expect("JSON");
    assert_eq!(told["record"]["succeeded"], 1, "{told}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    wait_for_health(&pgkeep, 1, "the daemon is not running");
    assert_eq!(pgkeep.spool.path().read_dir().expect("the spool's directory").count(), 0);
}

#[test]
fn a_restarted_daemon_knows_the_backups_of_its_predecessor() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    for (days, status, text) in
        [(10, 0, "the newest backup is of"), (800, 1, "older than the fire time before last")]
    {
        let database = server.database("remembered");
        plant(&s3, &database, days);
        let pgkeep = yearly(&database, &s3);
        let _running = pgkeep.start(&[]);
        wait_for_health(&pgkeep, status, text);
    }
}

#[test]
fn a_bucket_that_cannot_be_looked_into_is_looked_into_again() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("later");
    plant(&s3, &database, 1);
    s3.fail(1, "GET", "list-type", Fault::Answer(503, "SlowDown"));
    let pgkeep = yearly(&database, &s3);
    let running = pgkeep.start(&[]);
    let line = running.wait_for_log("the newest backup is not known: cannot look into the bucket");
    assert!(line.contains("503 SlowDown"), "{line}");
    wait_for_health(&pgkeep, 1, "503 SlowDown");
    // A minute later.
    wait_for_health(&pgkeep, 0, "the newest backup is of");
}

#[test]
fn a_backup_at_the_start_is_made_only_where_it_is_asked_for_and_missed() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    for (on_start, days, says) in [
        ("false", 800, "newest backup: s3://"),
        ("missed", 800, "backup succeeded"),
        ("missed", 0, "no backup at the start: no fire time was missed"),
        ("true", 1, "backup succeeded"),
        ("true", 0, "no backup at the start: the newest is of"),
    ] {
        let database = server.database("start");
        plant(&s3, &database, days);
        let mut running = yearly(&database, &s3).with("BACKUP_ON_START", on_start).start(&[]);
        running.wait_for_log(says);
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), 0);
        let made = s3.backups().iter().filter(|key| key.starts_with(&format!("{database}/"))).count() - 1;
        assert_eq!(
            made,
            usize::from(says == "backup succeeded"),
            "{on_start}, {days} days:\n{}",
            running.log()
        );
    }
}

#[test]
fn a_daemon_that_is_killed_in_a_backup_and_started_again_does_not_repeat_it_at_once() {
    let s3 = s3::Server::start();
    let database = large("killed");
    let dump = PausedDump::new("");
    let pgkeep = yearly(&database, &s3).with("BACKUP_ON_START", "missed").with("BACKUP_PG_BIN", dump.bin());
    let mut running = pgkeep.start(&[]);
    dump.wait();
    running.signal(Signal::KILL);
    running.wait();
    assert_eq!(s3.backups(), [] as [&str; 0]);
    // The third knows it from the second.
    for _ in 0..2 {
        let mut running = pgkeep.start(&[]);
        running.wait_for_log("no backup at the start: one that began at");
        running.signal(Signal::KILL);
        running.wait();
        assert!(!running.log().contains("backup started"), "{}", running.log());
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_found_at_the_start() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = yearly(&server.database("nowhere"), &s3).with("BACKUP_TEMP_DIR", "/proc");
    let log = pgkeep.fail(&["run"]).log;
    assert!(log.contains("does BACKUP_TEMP_DIR name a directory for pgkeep?"), "{log}");
}

#[test]
fn two_daemons_in_one_directory_tell_of_their_own_backups() {
    let (server, s3, elsewhere) = (postgres::server(), s3::Server::start(), s3::Server::start());
    let database = server.database("twin");
    let one = yearly(&database, &s3).with("BACKUP_ON_START", "true");
    let spool = one.spool.path().to_str().expect("UTF-8").to_owned();
    // The same bucket's name at another endpoint; another path in the same bucket; another bucket.
    let others = [
        yearly(&database, &elsewhere),
        yearly(&database, &s3).with("S3_PATH", "other"),
        yearly(&database, &s3).with("S3_BUCKET", "nowhere"),
    ];
    let others = others.map(|other| other.with("BACKUP_TEMP_DIR", &spool));
    let _running = one.start(&[]);
    wait_for_health(&one, 0, "the newest backup is of");
    for other in &others {
        wait_for_health(other, 1, "the daemon is not running");
    }
    let mut running = others.each_ref().map(|other| other.start(&[]));
    wait_for_health(&others[0], 0, "no backup yet");
    wait_for_health(&others[1], 0, "no backup yet");
    wait_for_health(&others[2], 1, "NoSuchBucket");
    for other in &mut running {
        other.signal(Signal::TERM);
        assert_eq!(other.wait(), 0);
    }
    // It is still the first one's, and still there.
    wait_for_health(&one, 0, "the newest backup is of");
}

#[test]
fn what_others_put_in_the_status_files_place_is_not_read_and_is_replaced() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = yearly(&server.database("planted"), &s3);
    let sentence = pgkeep.run(&["health"]).stdout;
    let path = sentence.split_whitespace().find(|word| word.ends_with(".status.json:")).expect("its path");
    let path = Path::new(path.trim_end_matches(':'));
    let precious = pgkeep.spool.path().join("precious.status.json");
    for kind in ["fifo", "link", "huge"] {
        match kind {
            "fifo" => mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO"),
            "link" => {
                fs::write(&precious, "precious").expect("a file");
                symlink(&precious, path).expect("a link");
            }
            _ => fs::File::create(path).and_then(|file| file.set_len(1 << 40)).expect("a file"),
        }
        let outcome = pgkeep.run(&["health"]);
        assert!(outcome.stdout.starts_with("unhealthy: the status file "), "{kind}: {}", outcome.stdout);
        let mut running = pgkeep.start(&[]);
        wait_for_health(&pgkeep, 0, "no backup yet");
        assert!(fs::symlink_metadata(path).expect("the file").is_file(), "{kind}");
        running.signal(Signal::TERM);
        assert_eq!(running.wait(), 0);
    }
    assert_eq!(fs::read_to_string(&precious).expect("the link's target"), "precious");
}
