//! Encryption: who makes backups cannot read them, and who has the key restores them as any other.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::failures::assert_nothing_left;
use crate::support::age::{wrapped, Keys};
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, PausedDump, Server, SHOP};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

const INTRO: &[u8] = b"age-encryption.org/v1\n";

/// A database with `sql` in it, and its pgkeep.
fn database(sql: &str, s3: &s3::Server) -> (String, Pgkeep) {
    let server = postgres::server();
    let database = server.database("secret");
    server.psql(&database, sql);
    let pgkeep = Pgkeep::new(&database, s3);
    (database, pgkeep)
}

/// The one backup in the bucket, which is encrypted.
fn only_backup(s3: &s3::Server) -> String {
    let keys: Vec<String> = s3.objects().into_keys().collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert!(keys[0].ends_with(".gz.age"), "{keys:?}");
    keys.into_iter().next().expect("a key")
}

fn assert_same(restored: &str, source: &str) {
    let server = postgres::server();
    assert_eq!(server.contents(restored), server.contents(source));
}

#[test]
fn an_encrypted_backup_of_either_format_comes_back_with_the_key_only() {
    let Some(keys) = Keys::new() else { return };
    let server = postgres::server();
    for (format, extension) in [("plain", ".sql.gz.age"), ("custom", ".dump.gz.age")] {
        let s3 = s3::Server::start();
        // Of several parts.
        let (database, pgkeep) = database(&format!("{SHOP};{}", noise(20)), &s3);
        let comment = "a secret between us";
        server.psql(&database, &format!("COMMENT ON DATABASE {database} IS '{comment}'"));
        let pgkeep = keys.encrypts(pgkeep).with("BACKUP_FORMAT", format);
        let log = pgkeep.succeed(&["backup"]).log;
        let key = only_backup(&s3);
        assert!(key.ends_with(extension), "{key}");
        assert!(fs::read(s3.path(&key)).expect("the object").starts_with(INTRO));
        assert!(log.contains("age -d -i KEY -o ./") && log.contains(" && gunzip ./"), "{log}");
        // What is said about the database is no more readable.
        let metadata = format!("{:?}", s3.metadata(&key));
        assert!(metadata.contains("database-properties") && !metadata.contains(comment), "{metadata}");
        assert!(!metadata.contains("encoding"), "{metadata}");

        // Without the key: what can be seen is right, and nothing is restored.
        let log = pgkeep.succeed(&["verify"]).log;
        assert!(log.contains("complete, as far as can be seen") && !log.contains("is whole"), "{log}");
        let into = server.database("into");
        let log = pgkeep.fail(&["restore", &key, "--database", &into]).log;
        assert!(log.contains("is encrypted, and BACKUP_AGE_IDENTITY_FILE is missing"), "{log}");
        let stranger = Keys::new().expect("age");
        let log = stranger.opens(&pgkeep).fail(&["restore", &key, "--database", &into]).log;
        assert!(log.contains("age cannot decrypt it with BACKUP_AGE_IDENTITY_FILE (/"), "{log}");
        let log = stranger.opens(&pgkeep).fail(&["verify"]).log;
        assert!(log.contains("could not be read: the backup is encrypted"), "{log}");
        assert_eq!(server.contents(&into).0, "");

        // With it.
        let pgkeep = keys.opens(&pgkeep);
        let log = pgkeep.succeed(&["verify"]).log;
        assert!(log.contains("is whole: "), "{log}");
        pgkeep.succeed(&["restore", &key, "--database", &format!("{into}_2")]);
        assert_same(&format!("{into}_2"), &database);
        let query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = ";
        assert_eq!(server.psql("postgres", &format!("{query}'{into}_2'")).trim(), comment);
        if format == "custom" {
            // These need a file.
            let options = ["restore", &key, "--database", &format!("{into}_3"), "--jobs", "2"];
            pgkeep.succeed(&options);
            assert_same(&format!("{into}_3"), &database);
            let part = format!("{into}_4");
            pgkeep.succeed(&["restore", &key, "--database", &part, "--table", "customers"]);
            assert_eq!(server.psql(&part, "SELECT count(*) FROM customers").trim(), "500");
        } else {
            // By hand.
            server.restore(&keys.decrypt(&s3.path(&key)), &into);
            assert_same(&into, &database);
        }
    }
}

#[test]
fn an_ssh_key_opens_what_was_encrypted_for_it_and_for_others() {
    let Some(keys) = Keys::new() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("id");
    let mut keygen = std::process::Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "me on my laptop", "-f"]).arg(&file);
    if !keygen.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no ssh-keygen, so SSH's keys are not tried");
        return;
    }
    let s3 = s3::Server::start();
    let (_, pgkeep) = database(SHOP, &s3);
    let list = directory.path().join("recipients");
    let public = fs::read_to_string(file.with_extension("pub")).expect("the public key");
    fs::write(&list, format!("# who may read\n{public}{}\n", keys.recipient)).expect("the keys");
    let pgkeep = pgkeep.with("BACKUP_AGE_RECIPIENTS_FILE", list.to_str().expect("UTF-8"));
    pgkeep.succeed(&["backup"]);
    keys.opens(&pgkeep).succeed(&["verify"]);
    pgkeep.with("BACKUP_AGE_IDENTITY_FILE", file.to_str().expect("UTF-8")).succeed(&["verify"]);
}

#[test]
fn a_file_is_fetched_as_it_is_with_the_key_and_without() {
    let Some(keys) = Keys::new() else { return };
    let s3 = s3::Server::start();
    let (_, pgkeep) = database(SHOP, &s3);
    let pgkeep = keys.encrypts(pgkeep);
    pgkeep.succeed(&["backup"]);
    let key = only_backup(&s3);
    let object = fs::read(s3.path(&key)).expect("the object");
    let directory = tempfile::tempdir().expect("a directory");
    for (pgkeep, name, says) in
        [(&pgkeep, "sealed", "as far as can be seen"), (&keys.opens(&pgkeep), "open", "whole")]
    {
        let file = directory.path().join(name);
        let log = pgkeep.succeed(&["get", "latest", "-o", file.to_str().expect("UTF-8")]).log;
        assert!(log.contains(says), "{log}");
        assert!(fs::read(&file).expect("the file") == object);
    }
}

#[test]
fn a_damaged_or_cut_backup_restores_nothing() {
    let Some(keys) = Keys::new() else { return };
    let (server, s3) = (postgres::server(), s3::Server::start());
    let (_, pgkeep) = database(&noise(3), &s3);
    let sealed = keys.encrypts(pgkeep);
    sealed.succeed(&["backup"]);
    let key = only_backup(&s3);
    let object = fs::read(s3.path(&key)).expect("the object");
    let chunk = 64 * 1024 + 16;
    let payload = object.len() - (object.len() - 200) / chunk * chunk;
    let mut garbled = object.clone();
    garbled[object.len() / 2] ^= 1;
    let opens = keys.opens(&sealed);
    for (what, bytes, seen) in [
        ("cut in a chunk", &object[..object.len() / 2], false),
        // Only the key shows that chunks are missing.
        ("cut between chunks", &object[..object.len() - (object.len() - payload) % chunk - chunk], false),
        ("the last byte", &object[..object.len() - 1], false),
        ("garbled", &garbled[..], false),
        ("the header", &object[..100], true),
        ("something else", &b"\x1f\x8b\x08 what is not encrypted at all"[..], true),
    ] {
        s3.plant(&key, bytes);
        let into = server.database("into");
        let log = opens.fail(&["restore", &key, "--database", &into]).log;
        assert!(log.contains("age failed") && !log.contains("restore succeeded"), "{what}: {log}");
        assert_eq!(server.contents(&into).0, "", "{what}");
        let left = format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{into}_%'");
        assert_eq!(server.psql("postgres", &left).trim(), "0", "{what}");
        let log = opens.fail(&["verify"]).log;
        assert!(log.contains("is not a whole backup: the backup is damaged"), "{what}: {log}");
        if seen {
            let log = sealed.fail(&["verify"]).log;
            assert!(log.contains("is not a whole backup: it is "), "{what}: {log}");
        }
    }
}

#[test]
fn a_wrong_recipient_and_a_missing_age_are_refused_at_the_start() {
    let Some(keys) = Keys::new() else { return };
    let s3 = s3::Server::start();
    let (_, pgkeep) = database("", &s3);
    let pgkeep = keys.encrypts(pgkeep).with("BACKUP_INTERVAL", "0 3 * * *");
    // Its checksum is wrong.
    let end = if keys.recipient.ends_with('q') { 'p' } else { 'q' };
    let wrong = format!("{}{end}", &keys.recipient[..keys.recipient.len() - 1]);
    let none = tempfile::tempdir().expect("a directory");
    let (no_cipher, _directory) = wrapped("exec cat", pgkeep.clone());
    for (pgkeep, says) in [
        (pgkeep.clone().with("BACKUP_AGE_RECIPIENTS", &wrong), "age failed (exit status: 1): age: error: "),
        (pgkeep.with("PATH", none.path().to_str().expect("UTF-8")), "encryption needs the program age"),
        (no_cipher, "what age made is not right: it is not encrypted with age"),
    ] {
        for command in ["run", "backup"] {
            let outcome = pgkeep.run(&[command]);
            assert_eq!(outcome.status, 2, "{}", outcome.log);
            let said = "BACKUP_AGE_RECIPIENTS cannot be used: ";
            assert!(outcome.log.contains(said) && outcome.log.contains(says), "{}", outcome.log);
        }
    }
    assert!(s3.objects().is_empty() && s3.requests("", "").is_empty());
}

#[test]
fn an_age_that_fails_stalls_or_loses_something_leaves_no_object() {
    let Some(keys) = Keys::new() else { return };
    let server = postgres::server();
    let database = server.database("secret");
    server.psql(&database, &noise(34));
    for (script, limit, says) in [
        (r#"$REAL "$@" | head -c 20000000; kill -9 $$"#, "1h", "age failed (signal: 9 (SIGKILL))"),
        (r#"$REAL "$@"; echo oh no >&2; exit 3"#, "1h", "age failed (exit status: 3): oh no"),
        (r#"head -c 20000000 | $REAL "$@"; cat >/dev/null"#, "1h", "age reported success, and yet: age got "),
        (r#"head -c 20000000 | $REAL "$@""#, "1h", "age "),
        ("cat", "1h", "age reported success, and yet: it is not encrypted with age"),
        (r#"$REAL "$@" | head -c 20000000; sleep 3600"#, "10s", "wrote anything for 10.0 s and was ended"),
    ] {
        let s3 = s3::Server::start();
        // Before the backup, it encrypts the canary, and what is recorded about the database.
        let script = format!(
            r#"for n in 1 2; do [ -e "$0.$n" ] || {{ touch "$0.$n"; exec $REAL "$@"; }}; done; {script}"#
        );
        let (pgkeep, _directory) = wrapped(&script, keys.encrypts(Pgkeep::new(&database, &s3)));
        let log = pgkeep.with("BACKUP_STALL_TIMEOUT", limit).fail(&["backup"]).log;
        let failed = "backup failed: cannot encrypt the backup: ";
        assert!(log.contains(failed) && log.contains(says), "{script}: {log}");
        assert_nothing_left(&s3);
    }
}

#[test]
fn the_disk_gets_nothing_that_is_not_encrypted() {
    let Some(keys) = Keys::new() else { return };
    let s3 = s3::Server::start();
    let (_, pgkeep) = database(&noise(34), &s3);
    // What is uploaded leaves the disk.
    s3.fail(99, "PUT", "", Fault::Hold(Duration::from_secs(50)));
    let dump = PausedDump::new("");
    let pgkeep = keys.encrypts(pgkeep).with("BACKUP_PG_BIN", dump.bin());
    let mut running = pgkeep.start(&["backup"]);
    dump.wait();
    let spool = pgkeep.spool.path().canonicalize().expect("the spool's directory");
    let files = || -> Vec<PathBuf> {
        let all = fs::read_dir(format!("/proc/{}/fd", running.pid())).expect("its files").flatten();
        all.map(|entry| entry.path())
            .filter(|path| fs::read_link(path).is_ok_and(|target| target.starts_with(&spool)))
            .filter(|path| fs::metadata(path).is_ok_and(|file| file.size() > 1 << 20))
            .collect()
    };
    let found = wait_for("the temporary file", || Some(files()).filter(|files| !files.is_empty()));
    for path in found {
        let mut begin = vec![0; INTRO.len()];
        fs::File::open(path).and_then(|mut file| file.read_exact(&mut begin)).expect("it is read");
        assert_eq!(begin, INTRO);
    }
    // A second signal ends age too.
    let children = running.children();
    assert!(children.len() >= 2, "{children:?}");
    running.signal(Signal::TERM);
    running.wait_for_log("stopping");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert_nothing_left(&s3);
    for child in children {
        wait_for("the end of a child", || (!PathBuf::from(format!("/proc/{child}")).exists()).then_some(()));
    }
}

#[test]
fn a_drill_restores_an_encrypted_backup_and_says_if_the_key_is_missing() {
    let Some(keys) = Keys::new() else { return };
    let s3 = s3::Server::start();
    let (_, pgkeep) = database(SHOP, &s3);
    let elsewhere = Server::start(postgres::bin());
    let pgkeep =
        keys.encrypts(pgkeep).with("BACKUP_DRILL_CONNECTION_STRING", &elsewhere.connection("postgres"));
    pgkeep.succeed(&["backup"]);
    let log = pgkeep.fail(&["verify", "--drill"]).log;
    assert!(log.contains("BACKUP_AGE_IDENTITY_FILE is missing"), "{log}");
    let log = keys.opens(&pgkeep).succeed(&["verify", "--drill"]).log;
    assert!(log.contains("restores to 2 tables with 5500 rows"), "{log}");
}

#[test]
fn encrypted_and_plain_backups_are_listed_and_pruned_alike() {
    let Some(keys) = Keys::new() else { return };
    let s3 = s3::Server::start();
    let (database, pgkeep) = database(SHOP, &s3);
    let key = |time: &str, extension: &str| format!("{database}/{database}_{time}_03-00-00.{extension}");
    let old =
        [key("2021-01-01", "sql.gz"), key("2021-01-02", "sql.gz.age"), key("2021-01-03", "dump.gz.age")];
    let strange = key("2021-01-04", "sql.age");
    old.iter().chain([&strange]).for_each(|key| s3.plant(key, b"x"));
    let pgkeep = pgkeep.with("BACKUP_KEEP_LAST", "3");
    let listed: serde_json::Value =
        serde_json::from_str(&pgkeep.succeed(&["list", "--json"]).stdout).expect("JSON");
    let encrypted: Vec<bool> = listed
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| line["encrypted"].as_bool().expect("a value"))
        .collect();
    assert_eq!(encrypted, [false, true, true]);
    pgkeep.succeed(&["backup"]);
    keys.encrypts(pgkeep).succeed(&["backup"]);
    let left: Vec<String> = s3.objects().into_keys().collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(left.contains(&old[2]) && left.contains(&strange), "{left:?}");
    let ends = |end: &str| left.iter().filter(|key| !key.contains("_2021-") && key.ends_with(end)).count();
    assert_eq!((ends(".sql.gz"), ends(".sql.gz.age")), (1, 1), "{left:?}");
}

#[test]
fn check_tries_the_keys() {
    let Some(keys) = Keys::new() else { return };
    let s3 = s3::Server::start();
    let (_, pgkeep) = database(SHOP, &s3);
    let plain = pgkeep.run(&["check"]).stdout;
    assert!(!plain.contains("cryption"), "{plain}");
    let pgkeep = keys.encrypts(pgkeep);
    let line = |pgkeep: &Pgkeep, what: &str| -> String {
        let printed = pgkeep.run(&["check"]).stdout;
        printed.lines().find(|line| line.contains(what)).unwrap_or_default().to_owned()
    };
    assert!(line(&pgkeep, "encryption").contains(&keys.recipient));
    assert_eq!(line(&pgkeep, "decryption"), "");
    assert!(line(&keys.opens(&pgkeep), "decryption").contains("the key opens it"));
    let stranger = Keys::new().expect("age");
    assert!(line(&stranger.opens(&pgkeep), "decryption").contains("cannot decrypt it"));
    let none = pgkeep.with("BACKUP_AGE_RECIPIENTS", "age1nobody");
    assert!(line(&none, "encryption").contains("see BACKUP_AGE_RECIPIENTS"));
}
