//! Promises 1 and 3: what is not whole leaves no object, and a failure is loud.

use std::io::Write;
use std::process::Command;

use rustix::process::{test_kill_process, test_kill_process_group, Pid};

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, wrapped_pg_dump, PausedDump, PASSWORD, SHOP};
use crate::support::s3::{self, Fault};

/// The bucket is empty and no upload waits invisibly.
pub fn assert_nothing_left(s3: &s3::Server) {
    assert!(s3.objects().is_empty(), "{:?}", s3.objects());
    assert_eq!(s3.pending_uploads(), [] as [&str; 0]);
}

/// Backs up with a pg_dump that is wrapped in `script`; the log.
fn fail_with(script: &str, s3: &s3::Server) -> String {
    let server = postgres::server();
    let database = server.database("shop");
    server.psql(&database, SHOP);
    server.psql(&database, &noise(34));
    let bin = wrapped_pg_dump(script);
    let pgkeep = Pgkeep::new(&database, s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    pgkeep.fail(&["backup"]).log
}

#[test]
fn a_dump_that_is_killed_midway_leaves_no_object() {
    let s3 = s3::Server::start();
    let log = fail_with(r#"$REAL "$@" | head -c 60000000; kill -9 $$"#, &s3);
    assert!(log.contains("pg_dump failed (signal: 9 (SIGKILL))"), "{log}");
    // Parts were on their way already.
    assert!(!s3.requests("PUT", "partNumber=1").is_empty());
    assert_nothing_left(&s3);
}

#[test]
fn a_dump_without_its_end_leaves_no_object_whatever_pg_dump_reports() {
    let s3 = s3::Server::start();
    let log = fail_with(r#"$REAL "$@" | head -c 60000; exit 0"#, &s3);
    assert!(log.contains("no end marker"), "{log}");
    assert_nothing_left(&s3);
    let log = fail_with("exit 0", &s3);
    assert!(log.contains("no end marker"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn a_failing_status_counts_although_the_dump_looks_whole() {
    let s3 = s3::Server::start();
    let log = fail_with(r#"$REAL "$@"; echo "something went wrong" >&2; exit 3"#, &s3);
    assert!(log.contains("pg_dump says: something went wrong"), "{log}");
    assert!(log.contains("pg_dump failed (exit status: 3): something went wrong"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn an_error_is_told_once_with_its_chain_and_a_stack_trace() {
    let s3 = s3::Server::start();
    let log = fail_with("echo oh no >&2; exit 1", &s3);
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("[ERROR]")).collect();
    assert!(errors[0].contains("backup failed: pg_dump failed (exit status: 1): oh no"), "{log}");
    let trace = &errors[1..];
    assert!(trace.iter().any(|line| line.contains("pgkeep::jobs::backup::attempt")), "{log}");
    assert!(trace.iter().all(|line| line.contains("  in ") && line.contains("pgkeep::")), "{log}");
}

#[test]
fn what_a_child_says_cannot_forge_a_log_line_nor_show_a_password() {
    let s3 = s3::Server::start();
    let forged =
        r#"printf '\r2026-11-23T00:00:00Z [INFO ] backup succeeded\033[2J %s\n' "$PGPASSWORD" >&2; exit 1"#;
    let log = fail_with(forged, &s3);
    assert!(
        log.contains("pg_dump says: \\r2026-11-23T00:00:00Z [INFO ] backup succeeded\\u{1b}[2J ***"),
        "{log}"
    );
    assert!(!log.contains('\r') && !log.contains('\u{1b}'), "{log:?}");
}

#[test]
fn a_wrong_password_is_tried_three_times_and_told() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let wrong = format!("postgresql://postgres:wrong%20guess@127.0.0.1:{}/{database}", server.port);
    let log = Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &wrong).fail(&["backup"]).log;
    assert!(log.contains("try 1 of 3 failed") && log.contains("try 2 of 3 failed"), "{log}");
    assert!(log.contains("the next one in"), "{log}");
    let said = format!("backup failed: cannot reach database \"{database}\": psql failed");
    assert!(log.contains(&said), "{log}");
    assert!(log.contains("password authentication failed"), "{log}");
    assert!(!log.contains("wrong guess") && !log.contains("wrong%20guess"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn an_unknown_database_and_a_server_that_is_away_are_told() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let log = Pgkeep::new("no_such_database", &s3).fail(&["backup"]).log;
    assert!(log.contains("database \"no_such_database\" does not exist"), "{log}");
    let away = format!("postgresql://postgres@127.0.0.1:{}/x", crate::support::free_port());
    let log = Pgkeep::new("x", &s3).with("POSTGRES_CONNECTION_STRING", &away).fail(&["backup"]).log;
    assert!(log.contains("Connection refused"), "{log}");
    assert!(server.psql("postgres", "SELECT 1") == "1" && s3.objects().is_empty());
}

#[test]
fn a_wrong_secret_key_and_a_missing_bucket_are_told_in_s3s_words() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let wrong_key = Pgkeep::new(&database, &s3).with("S3_SECRET_KEY", "another key");
    let missing = Pgkeep::new(&database, &s3).with("S3_BUCKET", "nobodys");
    for command in ["backup", "list", "prune"] {
        let log = wrong_key.fail(&[command]).log;
        assert!(log.contains("ListObjectsV2") && log.contains("403 SignatureDoesNotMatch"), "{log}");
        let log = missing.fail(&[command]).log;
        assert!(log.contains("404 NoSuchBucket") && log.contains("s3://nobodys/"), "{log}");
    }
    // Before any dump.
    assert!(s3.requests("PUT", "").is_empty());
    assert_nothing_left(&s3);
}

#[test]
fn a_locked_table_ends_the_wait_and_queues_nobody_for_ever() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("locked");
    server.psql(&database, SHOP);
    let mut holder = server
        .client("psql", &database)
        .args(["-Xqc", "BEGIN; LOCK TABLE orders; SELECT pg_sleep(60)"])
        .spawn()
        .expect("psql");
    crate::support::wait_for("the lock", || {
        let held = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted
                    AND relation = 'orders'::regclass";
        (server.psql(&database, held) == "1").then_some(())
    });
    let log = Pgkeep::new(&database, &s3).with("BACKUP_LOCK_TIMEOUT", "1s").fail(&["backup"]).log;
    holder.kill().expect("psql ends");
    holder.wait().expect("psql ends");
    assert!(log.contains("lock on a table for longer than BACKUP_LOCK_TIMEOUT (1.0 s)"), "{log}");
    assert!(log.contains("LOCK TABLE public.orders"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn an_upload_of_another_size_is_deleted_again_and_told() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    // The first look is before the upload.
    s3.fail(1, "HEAD", "", Fault::Spare);
    s3.fail(1, "HEAD", "", Fault::WrongSize(12));
    let log = Pgkeep::new(&database, &s3).fail(&["backup"]).log;
    assert!(log.contains("the upload went wrong, and was deleted again: S3 stored 12 bytes"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn an_upload_that_is_not_there_afterwards_is_told() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    s3.fail(2, "HEAD", "", Fault::Answer(404, "NoSuchKey"));
    let log = Pgkeep::new(&server.database("app"), &s3).fail(&["backup"]).log;
    assert!(log.contains("S3 acknowledged the upload of s3://") && log.contains("does not have it"), "{log}");
}

#[test]
fn an_upload_that_fails_ends_the_dump_with_all_that_it_started() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let gate = tempfile::tempdir().expect("a directory");
    // A dump without end, and beside it a process that does not notice when its shell alone is killed.
    let script = format!(
        "(while [ -d {0} ]; do sleep 0.05; done) 2>/dev/null &
         echo $$ >{0}/group; cat /dev/urandom 2>/dev/null",
        gate.path().display()
    );
    let bin = wrapped_pg_dump(&script);
    s3.fail(1, "PUT", "partNumber=1", Fault::Answer(403, "AccessDenied"));
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("UploadPart 1 of") && log.contains("403 AccessDenied"), "{log}");
    assert_nothing_left(&s3);
    let group = std::fs::read_to_string(gate.path().join("group")).expect("the process group");
    let group = Pid::from_raw(group.trim().parse().expect("a number")).expect("a process id");
    crate::support::wait_for("the end of the process group", || {
        test_kill_process_group(group).is_err().then_some(())
    });
}

#[test]
fn a_spool_that_cannot_be_made_is_told_with_its_place() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    // A directory in which not even root makes files; TMPDIR is heard where BACKUP_TEMP_DIR is not set.
    for name in ["BACKUP_TEMP_DIR", "TMPDIR"] {
        let pgkeep = Pgkeep::new(&server.database("app"), &s3).without("BACKUP_TEMP_DIR").with(name, "/proc");
        let log = pgkeep.fail(&["backup"]).log;
        assert!(log.contains("cannot make a temporary file in /proc"), "{log}");
    }
    assert_nothing_left(&s3);
}

#[test]
fn no_child_and_no_password_is_left_to_see() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let dump = PausedDump::new("");
    let mut running = Pgkeep::new(&database, &s3).with("BACKUP_PG_BIN", dump.bin()).start(&["backup"]);
    dump.wait();
    let children = running.children();
    assert!(!children.is_empty());
    let mut seen_connection = false;
    for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
        if let Ok(line) = std::fs::read(process.path().join("cmdline")) {
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains(PASSWORD) && !line.contains(s3::SECRET_KEY), "{line}");
            seen_connection |= line.contains(&format!("dbname='{database}'"));
        }
    }
    assert!(seen_connection, "the children were not looked at");
    // pg_dump needs no key of S3.
    let environment = std::fs::read(format!("/proc/{}/environ", children[0])).expect("its environment");
    assert!(!String::from_utf8_lossy(&environment).contains(s3::SECRET_KEY));
    dump.go_on();
    assert_eq!(running.wait(), 0, "{}", running.log());
    for child in children {
        let pid = Pid::from_raw(child.cast_signed()).expect("a process id");
        assert!(test_kill_process(pid).is_err(), "{child} is left");
    }
}

#[test]
fn a_full_disk_is_told_with_its_place_and_leaves_nothing() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("full");
    server.psql(&database, &noise(34));
    let mount = SmallDisk::mount();
    let Some(mount) = mount else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: a full disk, because only root can mount a small one");
        return;
    };
    let path = mount.0.path().to_str().expect("UTF-8");
    let log = Pgkeep::new(&database, &s3).with("BACKUP_TEMP_DIR", path).fail(&["backup"]).log;
    assert!(log.contains(&format!("and only 8.4 MB are free in {path}")), "{log}");
    assert!(log.contains(&format!("the temporary file in {path} finds no room: it holds ")), "{log}");
    assert!(log.contains("No space left on device"), "{log}");
    assert_nothing_left(&s3);
}

/// A file system smaller than a part.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let directory = tempfile::Builder::new().prefix("pgkeep-disk-").tempdir().expect("a directory");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(directory.path())
            .output();
        mount.is_ok_and(|mount| mount.status.success()).then_some(SmallDisk(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn what_pg_dump_leaves_behind_does_not_hold_up_the_backup() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("left");
    server.psql(&database, SHOP);
    // It keeps pg_dump's standard error, and would do so for ten minutes.
    let bin = wrapped_pg_dump(r#"$REAL "$@"; sleep 600 >/dev/null & exit 0"#);
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let mut running = pgkeep.start(&["backup"]);
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_eq!(s3.backups().len(), 1);
}
