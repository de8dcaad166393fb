//! What a child process gets of pgkeep's environment: what it needs, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, SHOP};
use crate::support::s3;

/// A directory for BACKUP_PG_BIN whose programs write down their environment before they run: as the kernel has it, not
/// as the shell sees it.
fn curious_programs(notes: &Path) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("pgkeep-bin-").tempdir().expect("a directory");
    for program in ["pg_dump", "psql", "pg_restore"] {
        let (real, notes) = (postgres::bin().join(program), notes.display());
        let script = format!(
            "#!/bin/sh\nwhat={program}; case $1 in --version|--help=*) what=$what-version;; esac\n\
             cat /proc/$$/environ >'{notes}'/$what.$$\nexec '{}' \"$@\"\n",
            real.display()
        );
        let path = directory.path().join(program);
        fs::write(&path, script).expect("the program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    }
    directory
}

#[test]
fn a_child_gets_what_it_needs_and_nothing_else() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("env");
    server.psql(&database, SHOP);
    let notes = tempfile::tempdir().expect("a directory");
    let programs = curious_programs(notes.path());
    let secret = notes.path().join("secret");
    fs::write(&secret, s3::SECRET_KEY).expect("the key");
    let mut pgkeep = Pgkeep::new(&database, &s3)
        .without("S3_SECRET_KEY")
        .with("S3_SECRET_KEY_FILE", secret.to_str().expect("UTF-8"))
        .with("BACKUP_PG_BIN", programs.path().to_str().expect("UTF-8"))
        .with("BACKUP_FORMAT", "custom")
        .with("BACKUP_DRILL_CONNECTION_STRING", &server.connection("postgres"));
    let passed_on = [("LC_ALL", "C"), ("HOME", "/nowhere"), ("TZ", "UTC"), ("PGOPTIONS", "-c work_mem=5MB")];
    let kept_back = [
        ("AWS_SECRET_ACCESS_KEY", "of-aws"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of-aws"),
        ("S3_MISSPELT", "of-s3"),
        ("FTP_PROXY", "http://user:of-the-proxy@127.0.0.1:9"),
        ("SOMEBODYS_TOKEN", "of-somebody"),
    ];
    for (name, value) in passed_on.iter().chain(&kept_back) {
        pgkeep = pgkeep.with(name, value);
    }
    for arguments in [&["check"] as &[&str], &["backup"], &["verify", "--drill"]] {
        pgkeep.succeed(arguments);
    }
    let pgkeep = pgkeep.with("BACKUP_FORMAT", "plain");
    for arguments in [&["backup"] as &[&str], &["check"]] {
        pgkeep.succeed(arguments);
    }

    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for note in fs::read_dir(notes.path()).expect("the notes").flatten() {
        let name = note.file_name().into_string().expect("UTF-8");
        let Some((program, _)) = name.rsplit_once('.') else { continue };
        *seen.entry(program.to_owned()).or_default() += 1;
        let environment = fs::read(note.path()).expect("an environment");
        for entry in String::from_utf8(environment).expect("UTF-8").split_terminator('\0') {
            let (variable, _) = entry.split_once('=').expect("a variable");
            let fits = ["PATH", "PGPASSWORD"].contains(&variable)
                || passed_on.iter().any(|(name, value)| entry == format!("{name}={value}"));
            assert!(fits, "{program} gets {variable}");
        }
        let has_password = fs::read_to_string(note.path()).expect("it").contains("PGPASSWORD=");
        assert_eq!(has_password, !program.ends_with("-version"), "{program}");
    }
    let seen: Vec<&str> = seen.keys().map(String::as_str).collect();
    assert_eq!(seen, ["pg_dump", "pg_dump-version", "pg_restore", "psql", "psql-version"]);
}
