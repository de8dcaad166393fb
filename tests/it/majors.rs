//! Servers of every supported major version, each with a client of its own major.
//!
//! Distributions install few of them side by side. `PGKEEP_TEST_MAJORS` names a directory with further ones,
//! as `<major>/bin/…`; what is found nowhere is skipped, and said to be.

use std::env;
use std::io::Write;
use std::path::PathBuf;

use crate::backup::assert_restores_on;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{Server, EVERYTHING, SHOP};
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
