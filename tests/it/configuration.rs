//! Wrong usage and wrong configuration: exit status 2, and a sentence that helps.

use std::io::Write;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres;
use crate::support::s3;

#[test]
fn every_problem_is_told_at_once_and_nothing_starts() {
    let s3 = s3::Server::start();
    let pgkeep =
        Pgkeep::new("any", &s3).without("S3_BUCKET").with("TZ", "Mars/Olympus").with("S3_URL", "nowhere");
    let outcome = pgkeep.run(&["run"]);
    assert_eq!(outcome.status, 2);
    let lines: Vec<&str> = outcome.log.lines().collect();
    for name in [
        "S3_BUCKET is missing",
        "TZ is \"Mars/Olympus\"",
        "S3_URL is not a URL",
        "BACKUP_INTERVAL is missing",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(name) && line.contains("for example")),
            "{name}: {}",
            outcome.log
        );
    }
    assert_eq!(lines.len(), 4, "{}", outcome.log);
    assert!(s3.requests("", "").is_empty());
}

#[test]
fn an_unknown_command_or_option_is_refused() {
    let s3 = s3::Server::start();
    let pgkeep = Pgkeep::new("any", &s3);
    for arguments in [&["bakup"][..], &["list", "--all-of-it"], &["prune", "now"]] {
        let outcome = pgkeep.run(arguments);
        assert_eq!(outcome.status, 2, "{arguments:?}");
        assert!(outcome.log.contains("--help"), "{}", outcome.log);
    }
    assert!(pgkeep.succeed(&["--help-variables"]).stdout.contains("BACKUP_RETENTION_DAYS"));
    assert!(pgkeep.succeed(&["restore", "--help"]).stdout.contains("--replace"));
    assert!(pgkeep.succeed(&["--version"]).stdout.starts_with("pgkeep "));
}

#[test]
fn every_value_can_come_from_a_file() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let directory = tempfile::tempdir().expect("a directory");
    let mut pgkeep = Pgkeep::new(&database, &s3);
    for (name, value) in [
        ("POSTGRES_CONNECTION_STRING", server.connection(&database).as_str()),
        ("S3_URL", &s3.url),
        ("S3_BUCKET", s3::BUCKET),
        ("S3_ACCESS_KEY", s3::ACCESS_KEY),
        ("S3_SECRET_KEY", s3::SECRET_KEY),
        ("S3_PATH", "from/a/file"),
        ("TZ", "Europe/Berlin"),
    ] {
        let path = directory.path().join(name);
        let mut file = std::fs::File::create(&path).expect("a file");
        writeln!(file, "{value}").expect("its value");
        pgkeep = pgkeep.without(name).with(&format!("{name}_FILE"), path.to_str().expect("UTF-8"));
    }
    pgkeep.succeed(&["backup"]);
    assert!(s3.backups()[0].starts_with("from/a/file/"), "{:?}", s3.backups());
}

#[test]
fn a_misspelt_variable_is_pointed_out() {
    let s3 = s3::Server::start();
    let pgkeep = Pgkeep::new("any", &s3).with("BACKUP_RETENTION_DAY", "7");
    let outcome = pgkeep.succeed(&["list"]);
    assert!(outcome.log.contains("BACKUP_RETENTION_DAY is not a variable of pgkeep"), "{}", outcome.log);
}

#[test]
fn the_log_level_is_chosen() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = Pgkeep::new(&server.database("app"), &s3);
    assert_eq!(pgkeep.with("BACKUP_LOG_LEVEL", "error").succeed(&["backup"]).log, "");
    let pgkeep = Pgkeep::new(&server.database("app"), &s3).with("BACKUP_LOG_LEVEL", "debug");
    // Requests are told, and never their signatures: the harness looks.
    assert!(pgkeep.succeed(&["backup"]).log.contains("PutObject"));
}
