//! The custom format has no end marker: an archive shows by its table of contents whether it is whole.

use std::fs::File;
use std::io::{Read, Write};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::Compression;

use crate::failures::assert_nothing_left;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, wrapped_pg_dump, EVERYTHING, SHOP};
use crate::support::s3;

fn pgkeep(database: &str, s3: &s3::Server) -> Pgkeep {
    Pgkeep::new(database, s3).with("BACKUP_FORMAT", "custom")
}

/// The archive within the bucket's one object, and its key.
pub fn archive(s3: &s3::Server) -> (Vec<u8>, String) {
    let objects = s3.objects();
    assert_eq!(objects.len(), 1, "{objects:?}");
    let key = objects.into_keys().next().expect("a backup");
    let mut archive = Vec::new();
    GzDecoder::new(File::open(s3.path(&key)).expect("the object")).read_to_end(&mut archive).expect("gzip");
    (archive, key)
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).expect("memory");
    gzip.finish().expect("memory")
}

#[test]
fn a_custom_dump_that_is_cut_off_leaves_no_object_whatever_pg_dump_reports() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("cut");
    server.psql(&database, SHOP);
    server.psql(&database, "SELECT lo_from_bytea(0, decode(repeat('00ff', 9000), 'hex'))");
    let pgkeep = pgkeep(&database, &s3);
    pgkeep.succeed(&["backup"]);
    let length = archive(&s3).0.len();
    s3.clear();
    for (cut, said) in [
        (0, "it does not begin as pg_dump's custom format"),
        (4, "it does not begin as pg_dump's custom format"),
        (60, "the archive is cut off: it ends within its header"),
        (2_000, "the archive is cut off: it ends within its table of contents, after "),
        (length / 2, "the archive is cut off: it ends within the data of entry "),
        // The last two numbers are the ends of the last large object and of all of them.
        (length - 10, "the archive is cut off: it ends within the data of entry "),
        (length - 5, "the archive is cut off: it ends within the data of entry "),
        (length - 1, "the archive is cut off: it ends within the data of entry "),
    ] {
        let bin = wrapped_pg_dump(&format!(r#"$REAL "$@" | head -c {cut}; exit 0"#));
        let pgkeep = pgkeep.clone().with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
        let log = pgkeep.fail(&["backup"]).log;
        let said = format!("pg_dump reported success, and yet: {said}");
        assert!(log.contains(&said), "{cut} of {length}: {log}");
        assert_nothing_left(&s3);
    }
    let bin = wrapped_pg_dump(r#"$REAL "$@"; echo more"#);
    let pgkeep = pgkeep.with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("bytes follow the archive's end"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn an_archive_that_was_cut_off_elsewhere_is_found_and_restores_nothing() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("planted");
    server.psql(&database, SHOP);
    let pgkeep = pgkeep(&database, &s3);
    pgkeep.succeed(&["backup"]);
    pgkeep.succeed(&["verify"]);
    let (archive, key) = archive(&s3);
    for length in [2_000, archive.len() / 2, archive.len() - 1] {
        s3.plant(&key, &gzip(&archive[..length]));
        let log = pgkeep.fail(&["verify"]).log;
        assert!(log.contains("is not a whole backup: the archive is cut off: it ends within"), "{log}");
        let into = format!("{database}_again");
        pgkeep.fail(&["restore", "latest", "--database", &into]);
        let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{into}'");
        assert_eq!(server.psql("postgres", &there), "0");
    }
}

#[test]
fn archives_with_everything_and_with_nothing_are_whole() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    server.psql("postgres", "CREATE ROLE archivist");
    let many_large_objects =
        "SELECT lo_from_bytea(0, 'small') FROM generate_series(1, 2500); SELECT lo_create(4294967295)";
    for sql in [
        "SELECT 1",
        "CREATE TABLE empty (id int PRIMARY KEY); COMMENT ON TABLE empty IS 'nothing'; GRANT SELECT ON empty TO archivist",
        "CREATE VIEW one AS SELECT 1; CREATE SEQUENCE two",
        many_large_objects,
        &EVERYTHING.replace("{role}", "archivist"),
    ] {
        let database = server.database("archive");
        server.psql(&database, sql);
        let pgkeep = pgkeep(&database, &s3);
        pgkeep.succeed(&["backup"]);
        pgkeep.succeed(&["verify"]);
        s3.clear();
    }
}

#[test]
fn an_archive_of_a_version_that_is_not_known_yet_is_kept_and_called_unproven() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("newer");
    server.psql(&database, SHOP);
    // 1.99; the real version is in bytes 6 and 7.
    let bin = wrapped_pg_dump(r#"printf 'PGDMP\001\143'; $REAL "$@" | tail -c +8"#);
    let pgkeep = pgkeep(&database, &s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    for command in ["backup", "verify"] {
        let log = pgkeep.succeed(&[command]).log;
        assert!(log.contains("[WARN ] the archive has version 1.99, and pgkeep knows 1.16 at most"), "{log}");
    }
}
