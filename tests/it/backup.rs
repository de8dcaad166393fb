//! The main path: what is backed up can be restored without pgkeep.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, Server, SHOP};
use crate::support::s3::{self, Fault};
use crate::support::{free_port, wait_for};

/// The one backup in the bucket restores to what the database is.
pub fn assert_restores(s3: &s3::Server, database: &str) {
    assert_restores_on(postgres::server(), s3, database);
}

/// The same, on a server of the test's own.
pub fn assert_restores_on(server: &postgres::Server, s3: &s3::Server, database: &str) {
    let backups = s3.backups();
    assert_eq!(backups.len(), 1, "{backups:?}");
    let restored = server.database("restored");
    server.restore(&s3.path(&backups[0]), &restored);
    assert_eq!(server.contents(&restored), server.contents(database));
}

#[test]
fn a_backup_is_an_ordinary_file_that_gunzip_and_psql_restore() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let outcome = Pgkeep::new(&database, &s3).succeed(&["backup"]);
    assert_restores(&s3, &database);

    // One line tells all about it.
    let key = &s3.backups()[0];
    let line = outcome.log.lines().find(|line| line.contains("backup succeeded")).expect("the line");
    let size = s3.objects()[key];
    for part in [
        &format!("database \"{database}\""),
        " dumped",
        " compressed",
        "ratio",
        "/s)",
        "1 backup kept, 0 deleted",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(line.contains(&format!("s3://{}/{key}", s3::BUCKET)) && size > 0, "{line}");
    let start = outcome.log.lines().find(|line| line.contains("backup started")).expect("the line");
    assert!(start.contains("PostgreSQL") && start.contains("MB"), "{start}");
    // What is smaller than a part is one request.
    assert_eq!(s3.requests("PUT", "").len(), 1);
    assert!(s3.requests("POST", "").is_empty());
}

#[test]
fn a_standby_is_backed_up_as_its_primary_would_be() {
    let (primary, s3) = (Server::start(postgres::bin()), s3::Server::start());
    primary.create_database("shop");
    primary.psql("shop", SHOP);
    let standby = primary.standby();
    let pgkeep = Pgkeep::new("shop", &s3).with("POSTGRES_CONNECTION_STRING", &standby.connection("shop"));
    pgkeep.succeed(&["check"]);
    pgkeep.succeed(&["backup"]);
    assert_restores_on(&primary, &s3, "shop");
    // And so are all its databases, with the globals.
    pgkeep.with("BACKUP_DATABASES", "*").succeed(&["backup"]);
    assert!(s3.backups().iter().any(|key| key.contains("globals")), "{:?}", s3.backups());
}

#[test]
fn a_backup_of_several_parts_restores_too() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("noise");
    server.psql(&database, &noise(34));
    Pgkeep::new(&database, &s3).succeed(&["backup"]);
    let parts = s3.requests("PUT", "partNumber=");
    assert!(parts.len() >= 3, "{parts:?}");
    assert_eq!(s3.pending_uploads(), [] as [&str; 0]);
    assert_restores(&s3, &database);
}

#[test]
fn the_start_of_the_dump_names_the_backup_and_a_taken_name_is_passed_over() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let pgkeep = Pgkeep::new(&database, &s3).with("S3_PATH", "/deep/prefix/");
    // Backups of the same second take the seconds behind it.
    for _ in 0..3 {
        pgkeep.succeed(&["backup"]);
    }
    let backups = s3.backups();
    assert_eq!(backups.len(), 3, "{backups:?}");
    for key in backups {
        let name = key.strip_prefix(&format!("deep/prefix/{database}/{database}_")).expect(&key);
        let shape: String = name.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
        assert_eq!(shape, "9999-99-99_99-99-99.sql.gz");
    }
}

#[test]
fn list_shows_this_databases_backups_and_nothing_else() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let pgkeep = Pgkeep::new(&database, &s3).with("S3_PATH", "b");
    assert!(pgkeep.succeed(&["list"]).stdout.contains("0 backups"));
    s3.plant(&format!("b/{database}/{database}_2026-01-02_03-04-05.sql.gz"), &[0; 1234]);
    s3.plant(&format!("b/{database}/{database}_2025-01-02_03-04-05.dump.gz"), &[0; 99]);
    s3.plant(&format!("b/{database}/{database}_notes.txt"), b"somebody else's");
    s3.plant(&format!("b/{database}2/{database}2_2026-01-02_03-04-05.sql.gz"), b"another database's");

    let table = pgkeep.succeed(&["list"]).stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 4, "{table}");
    assert!(rows[1].contains("2025-01-02 03:04:05") && rows[1].contains("custom"), "{table}");
    assert!(rows[2].contains("1.2 kB") && rows[2].contains("plain"), "{table}");
    assert!(rows[3].starts_with("2 backups"), "{table}");

    let json: serde_json::Value =
        serde_json::from_str(&pgkeep.succeed(&["list", "--json"]).stdout).expect("JSON");
    let newest = &json.as_array().expect("an array")[1];
    assert_eq!(newest["time"], "2026-01-02T03:04:05Z");
    assert_eq!(newest["size"], 1234);
    assert_eq!(newest["database"], database);
}

#[test]
fn list_says_what_the_retention_will_do_and_knows_the_other_databases() {
    let s3 = s3::Server::start();
    let [young, newest] = [2, 1].map(|days| {
        let time = (chrono::Utc::now() - chrono::TimeDelta::days(days)).format("%Y-%m-%d_%H-%M-%S");
        format!("b/app/app_{time}.sql.gz")
    });
    for key in ["b/app/app_2020-01-01_00-00-00.sql.gz", &young, &newest] {
        s3.plant(key, b"x");
    }
    s3.plant("b/a.20b/a.20b_2020-01-01_00-00-00.sql.gz", b"x");
    s3.plant("b/notes/readme.txt", b"x");
    s3.plant("app/app_2020-01-01_00-00-00.sql.gz", b"x");
    let pgkeep = Pgkeep::new("app", &s3).with("S3_PATH", "b").with("BACKUP_RETENTION_DAYS", "30");

    let table = pgkeep.succeed(&["list"]).stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert_eq!(rows.len(), 5, "{table}");
    assert!(rows[1].contains(" goes with the next backup "), "{table}");
    assert!(rows[2].contains(" expires 20"), "{table}");
    assert!(rows[3].contains(" kept: the newest "), "{table}");

    let table = pgkeep.succeed(&["list", "--all"]).stdout;
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows[1].starts_with("a b ") && rows[1].contains("  -  "), "{table}");
    assert!(rows[2].starts_with("app ") && rows[2].contains(" goes with the next backup "), "{table}");
    assert!(rows[5].starts_with("4 backups of 2 databases at s3://backups/b/"), "{table}");

    let json = pgkeep.succeed(&["list", "--all", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["database"], "a b");
    assert!(["keep", "reason", "expires"].iter().all(|field| json[0][field].is_null()), "{json}");
    assert_eq!((&json[1]["keep"], &json[1]["expires"]), (&false.into(), &"2020-01-31T00:00:00Z".into()));
    assert_eq!((&json[3]["keep"], &json[3]["reason"]), (&true.into(), &"the newest".into()));
    assert!(json[3]["expires"].is_null() && json[2]["expires"].is_string(), "{json}");
}

#[test]
fn a_slow_part_does_not_hold_up_the_next() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("slow");
    server.psql(&database, &noise(34));
    s3.fail(1, "PUT", "partNumber=1", Fault::Hold(Duration::from_secs(10)));
    let mut running = Pgkeep::new(&database, &s3).with("S3_UPLOAD_CONCURRENCY", "2").start(&["backup"]);
    let arrived = |part: &str| s3.pending_uploads().iter().any(|file| file.ends_with(part));
    wait_for("the second part", || arrived("part-2").then_some(()));
    assert!(!arrived("part-1"), "{:?}", s3.pending_uploads());
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_restores(&s3, &database);
}

#[test]
fn every_reader_of_gzip_reads_it_to_its_end() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("readers");
    // Several blocks on several threads.
    server.psql(&database, &noise(3));
    Pgkeep::new(&database, &s3).with("BACKUP_THREADS", "3").succeed(&["backup"]);
    let file = s3.path(&s3.backups()[0]).display().to_string();
    let read = |command: &[&str]| {
        let output = Command::new(command[0]).args(&command[1..]).arg(&file).output();
        output.ok().map(|output| (output.status.success(), output.stdout))
    };
    let (_, text) = read(&["gunzip", "-c"]).expect("gunzip");
    assert!(String::from_utf8_lossy(&text).contains("\n-- PostgreSQL database dump complete\n"));
    let python = "import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    for reader in
        [&["zcat"] as &[&str], &["pigz", "-dc"], &["busybox", "gunzip", "-c"], &["python3", "-c", python]]
    {
        match read(reader) {
            Some((success, read)) => assert!(success && read == text, "{reader:?}"),
            None => {
                let skipped = format!("SKIPPED: {} is not installed, which reads gzip too", reader[0]);
                let _ = writeln!(std::io::stderr(), "{skipped}");
            }
        }
    }
}

#[test]
fn a_stalled_s3_does_not_hold_up_pg_dump() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("stalled");
    server.psql(&database, &noise(34));
    s3.fail(3, "PUT", "partNumber=", Fault::Hold(Duration::from_secs(12)));
    let mut running = Pgkeep::new(&database, &s3).with("S3_UPLOAD_CONCURRENCY", "2").start(&["backup"]);
    running.wait_for_log("backup started");
    wait_for("pg_dump", || (!running.children().is_empty()).then_some(()));
    wait_for("its end", || running.children().is_empty().then_some(()));
    let arrived = s3.pending_uploads().into_iter().filter(|file| file.contains("part-")).count();
    assert_eq!(arrived, 0, "{:?}", s3.pending_uploads());
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_restores(&s3, &database);
}

/// A service's file names it, and only libpq reads that.
#[test]
fn a_connection_without_a_database_means_the_one_that_libpq_chooses() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("by_service");
    server.psql(&database, SHOP);
    let directory = tempfile::tempdir().expect("a directory");
    let (services, port) = (directory.path().join("services"), server.port);
    let text = |port| format!("[shop]\nhost=127.0.0.1\nport={port}\nuser=postgres\ndbname={database}\n");
    fs::write(&services, text(free_port())).expect("the services");
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", "service=shop")
        .with("PGSERVICEFILE", services.to_str().expect("UTF-8"))
        .with("PGPASSWORD", postgres::PASSWORD)
        .with("BACKUP_INTERVAL", "* * * * *");
    let log = pgkeep.fail(&["list"]).log;
    assert!(log.contains("names no database, and the server cannot be asked for its name"), "{log}");
    // A daemon goes on, and its next run asks again.
    let mut running = pgkeep.start(&["run"]);
    running.wait_for_log("where backups go is not known yet");
    running.wait_for_log("the newest backup is not known");
    fs::write(&services, text(port)).expect("the services");
    running.wait_for_log("backup succeeded");
    let health = pgkeep.succeed(&["health"]).stdout;
    assert!(health.contains("healthy: the newest backup is of"), "{health}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert!(pgkeep.succeed(&["list"]).stdout.contains(&s3.backups()[0]));
    assert_restores(&s3, &database);
}
