//! Servers of every supported major version, each with a client of its own major.
//!
//! Distributions install few of them side by side. `PGKEEP_TEST_MAJORS` names a directory with further ones,
//! as `<major>/bin/…`; what is found nowhere is skipped, and said to be.

use std::env;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use crate::archive::{archive, gzip};
use crate::backup::assert_restores_on;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{noise, Server, EVERYTHING, SHOP};
use crate::support::s3;

const MAJORS: std::ops::RangeInclusive<u32> = 15..=18;

/// The programs of a major version, server and clients.
fn programs(major: u32) -> Option<PathBuf> {
    let further =
        env::var_os("PGKEEP_TEST_MAJORS").map(|all| PathBuf::from(all).join(format!("{major}/bin")));
    let installed = [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/libexec/postgresql{major}")];
    let mut candidates = further.into_iter().chain(installed.map(PathBuf::from));
    let found = candidates.find(|bin| ["initdb", "pg_dump"].iter().all(|program| bin.join(program).exists()));
    if found.is_none() {
        // Past the test harness, which shows only what failing tests print.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: PostgreSQL {major} is not installed, nor in a directory PGKEEP_TEST_MAJORS"
        );
    }
    found
}

#[test]
fn each_major_is_backed_up_by_its_own_client_and_restores_into_itself() {
    let all: Vec<(u32, PathBuf)> = MAJORS.filter_map(|major| Some((major, programs(major)?))).collect();
    let path = env::join_paths(all.iter().map(|(_, bin)| bin)).expect("a search path");
    let path = path.to_str().expect("UTF-8");
    for (major, bin) in &all {
        let (server, s3) = (Server::start(bin), s3::Server::start());
        let database = server.database("major");
        server.psql(&database, SHOP);
        let pgkeep = Pgkeep::new(&database, &s3)
            .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
            .with("PATH", path);
        let log = pgkeep.succeed(&["backup"]).log;
        assert!(log.contains(&format!("on PostgreSQL {major}.")), "{log}");
        assert!(log.contains(&format!("with pg_dump {major}.")), "{log}");
        assert_restores_on(&server, &s3, &database);
        // And by pgkeep, everything, in both formats.
        let every = server.database("every");
        server.psql("postgres", "CREATE ROLE someone");
        server.psql(&every, &EVERYTHING.replace("{role}", "someone"));
        for format in ["plain", "custom"] {
            let pgkeep = pgkeep
                .clone()
                .with("POSTGRES_CONNECTION_STRING", &server.connection(&every))
                .with("BACKUP_FORMAT", format);
            pgkeep.succeed(&["backup"]);
            let outcome = pgkeep.succeed(&["restore", "latest", "--database", format]);
            assert_eq!(server.contents(format), server.contents(&every), "{major}: {}", outcome.log);
        }
    }
}

#[test]
fn what_a_newer_client_backed_up_restores_on_its_own_older_server() {
    for (major, newer) in [(15, 17), (16, 18), (17, 18)] {
        let (Some(bin), Some(clients)) = (programs(major), programs(newer)) else { continue };
        let (server, s3) = (Server::start(&bin), s3::Server::start());
        server.psql("postgres", "CREATE ROLE someone");
        let every = server.database("every");
        server.psql(&every, &EVERYTHING.replace("{role}", "someone"));
        let before = server.contents(&every);
        let objects = "SELECT md5(lo_get(4711))";
        let object = server.psql(&every, objects);
        for format in ["plain", "custom"] {
            let pgkeep = Pgkeep::new(&every, &s3)
                .with("POSTGRES_CONNECTION_STRING", &server.connection(&every))
                .with("BACKUP_DRILL_CONNECTION_STRING", &server.connection("postgres"))
                .with("BACKUP_PG_BIN", clients.to_str().expect("UTF-8"))
                .with("BACKUP_FORMAT", format);
            let told_of_backup = pgkeep.succeed(&["backup"]).log;
            assert!(told_of_backup.contains(&format!("with pg_dump {newer}.")), "{told_of_backup}");
            let told = pgkeep.succeed(&["check"]).stdout;
            assert_eq!(told.contains("a line to be removed first"), major < 17, "{told}");
            let jobs = format!("{format}_jobs");
            let mut restores = vec![vec!["latest", "--database", format], vec!["latest", "--replace"]];
            if format == "custom" {
                restores.push(vec!["latest", "--database", &jobs, "--jobs", "2"]);
            }
            for arguments in restores {
                let log = pgkeep.succeed(&[&["restore"], &arguments[..]].concat()).log;
                let into = arguments.get(2).unwrap_or(&every.as_str()).to_string();
                assert_eq!(server.contents(&into), before, "{major}, {newer}, {arguments:?}: {log}");
                assert_eq!(server.psql(&into, objects), object);
                let left_out = "the dump sets transaction_timeout, which this server does not have";
                assert_eq!(log.contains(left_out), major < 17, "{log}");
                assert_eq!(log.contains("--jobs 2 is not possible here"), into == jobs, "{log}");
            }
            let log = pgkeep.succeed(&["verify", "--drill"]).log;
            assert!(log.contains("drill succeeded"), "{log}");
            // By hand, as README says.
            let ending = if format == "plain" { ".sql.gz" } else { ".dump.gz" };
            let key = s3.objects().into_keys().find(|key| key.ends_with(ending)).expect("a backup");
            let hand = server.database("hand");
            let script = format!(
                "gunzip -c {} | {} | sed '1,20{{/^SET transaction_timeout/d;}}' | {2}/psql -Xqo /dev/null -v ON_ERROR_STOP=1",
                s3.path(&key).display(),
                if format == "plain" { "cat".into() } else { format!("{0}/pg_restore -f -", clients.display()) },
                clients.display()
            );
            let by_hand = server.client("sh", &hand).args(["-c", &script]).output().expect("sh");
            assert!(by_hand.status.success(), "{}", String::from_utf8_lossy(&by_hand.stderr));
            assert_eq!(server.contents(&hand), before);
            // And as the log says. A function stands in for aws, which other tests use.
            let line =
                told_of_backup.lines().find(|line| line.contains("backup succeeded")).expect("the line");
            let command = line.split("to restore it without pgkeep: ").nth(1).expect(line);
            assert_eq!(command.contains("sed "), major < 17, "{command}");
            let directory = tempfile::tempdir().expect("a directory");
            let path = format!("{}:{}", clients.display(), env::var("PATH").expect("PATH"));
            let by_log = server
                .client("sh", "postgres")
                .args(["-c", &format!(r#"aws() {{ for to; do :; done; cp "$OBJECT" "$to"; }}; {command}"#)])
                .current_dir(directory.path())
                .env("OBJECT", s3.path(&key))
                .env("PATH", path)
                .env_remove("PGDATABASE")
                .output()
                .expect("sh");
            assert!(by_log.status.success(), "{command}: {}", String::from_utf8_lossy(&by_log.stderr));
            let restored = format!("{every}_restored");
            assert_eq!(server.contents(&restored), before, "{command}");
            server.psql("postgres", &format!("DROP DATABASE {restored}"));
        }
    }
}

#[test]
fn a_statement_that_fails_on_an_older_server_is_named_and_nothing_is_left() {
    let (Some(bin), Some(clients)) = (programs(16), programs(18)) else { return };
    let (server, s3) = (Server::start(&bin), s3::Server::start());
    let database = server.database("gone");
    // In a restore the search path is empty, and so the function in the function is not found.
    server.psql(
        &database,
        &format!(
            "{SHOP} CREATE FUNCTION shorten(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT left($1, 3)';
             CREATE FUNCTION low(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT shorten(lower($1))';
             CREATE INDEX short ON customers (low(name))"
        ),
    );
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
        .with("BACKUP_PG_BIN", clients.to_str().expect("UTF-8"))
        .with("BACKUP_FORMAT", "custom");
    pgkeep.succeed(&["backup"]);
    for more in [&[] as &[&str], &["--jobs", "2"]] {
        let log = pgkeep.fail(&[&["restore", "latest", "--database", "again"], more].concat()).log;
        let error = log.lines().find(|line| line.contains("restore failed")).expect(&log);
        assert!(error.contains("function shorten(text) does not exist"), "{error}");
        assert!(error.contains("CREATE INDEX short ON public.customers"), "{error}");
        let left = server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'again%'");
        assert_eq!(left, "");
    }
}

#[test]
fn a_damaged_archive_restores_nothing_on_an_older_server() {
    let (Some(bin), Some(clients)) = (programs(16), programs(18)) else { return };
    let (server, s3) = (Server::start(&bin), s3::Server::start());
    let database = server.database("damaged");
    server.psql(&database, &noise(12));
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
        .with("BACKUP_PG_BIN", clients.to_str().expect("UTF-8"))
        .with("BACKUP_FORMAT", "custom");
    pgkeep.succeed(&["backup"]);
    let key = s3.objects().into_keys().next().expect("a backup");
    // So large that both pipes are full at times.
    pgkeep.succeed(&["restore", "latest", "--database", "whole"]);
    assert_eq!(server.contents("whole"), server.contents(&database));
    let whole = fs::read(s3.path(&key)).expect("the backup");
    let mut wrong_sum = whole.clone();
    wrong_sum[whole.len() - 6] ^= 1;
    for (bytes, reason) in [(&whole[..whole.len() / 2], "is cut off"), (&wrong_sum, "is damaged")] {
        s3.plant(&key, bytes);
        let log = pgkeep.fail(&["restore", "latest", "--database", "again"]).log;
        assert!(log.contains(reason), "{reason}: {log}");
        let left = server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'again%'");
        assert_eq!(left, "", "{log}");
    }
}

#[test]
fn a_planted_archive_runs_no_command_on_its_way_to_an_older_server() {
    let (Some(bin), Some(clients)) = (programs(16), programs(18)) else { return };
    let (server, s3) = (Server::start(&bin), s3::Server::start());
    let database = server.database("planted");
    let comment = "x".repeat(300);
    server.psql(&database, &format!("CREATE TABLE t (); COMMENT ON TABLE t IS '{comment}'"));
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
        .with("BACKUP_PG_BIN", clients.to_str().expect("UTF-8"))
        .with("BACKUP_FORMAT", "custom");
    pgkeep.succeed(&["backup"]);
    let (archive, key) = archive(&s3);
    let statement = format!("COMMENT ON TABLE public.t IS '{comment}';");
    let at = archive.windows(statement.len()).position(|window| window == statement.as_bytes());
    let at = at.expect("the comment");
    let file = pgkeep.spool.path().with_extension("planted");
    let command = format!("SELECT 1;\n\\! touch {}\n--", file.display());
    // As long as what it replaces.
    let planted = format!("{command:<0$}", statement.len());
    s3.plant(&key, &gzip(&[&archive[..at], planted.as_bytes(), &archive[at + planted.len()..]].concat()));
    let log = pgkeep.fail(&["restore", "latest", "--database", "again"]).log;
    assert!(log.contains("this is no script of pg_dump"), "{log}");
    assert!(!file.exists(), "{log}");
    let left = server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'again%'");
    assert_eq!(left, "", "{log}");
}

#[test]
fn a_server_newer_than_every_client_is_refused_before_anything_is_dumped() {
    let (Some(old), Some(new)) = (programs(15), programs(18)) else { return };
    let (server, s3) = (Server::start(&new), s3::Server::start());
    let database = server.database("newer");
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
        .with("BACKUP_PG_BIN", old.to_str().expect("UTF-8"));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(
        log.contains("the server is PostgreSQL 18.") && log.contains("the newest client here is 15."),
        "{log}"
    );
    assert!(!log.contains("backup started") && s3.objects().is_empty(), "{log}");
}
