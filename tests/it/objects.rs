//! How new objects are kept, and how they are cut into parts.

use crate::backup::assert_restores;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, wrapped_pg_dump, SHOP};
use crate::support::s3::{self, Fault};

fn pgkeep(s3: &s3::Server, statements: &str) -> (String, Pgkeep) {
    let server = postgres::server();
    let database = server.database("kept");
    server.psql(&database, statements);
    let pgkeep = Pgkeep::new(&database, s3);
    (database, pgkeep)
}

#[test]
fn a_new_object_gets_its_class_encryption_and_tags_whether_it_has_parts_or_not() {
    let wanted = [
        "server-side-encryption-aws-kms-key-id: alias/backups",
        "server-side-encryption: aws:kms",
        "storage-class: STANDARD",
        "tagging: team=data&a%20b=c%2Bd",
    ];
    for (statements, method, part) in [(SHOP.to_owned(), "PUT", ""), (noise(34), "POST", "uploads=")] {
        let s3 = s3::Server::start();
        let (database, pgkeep) = pgkeep(&s3, &statements);
        let pgkeep = pgkeep
            .with("S3_STORAGE_CLASS", "STANDARD")
            .with("S3_SSE", "aws:kms")
            .with("S3_SSE_KMS_KEY_ID", "alias/backups")
            .with("S3_TAGS", "team=data&a b=c+d");
        pgkeep.succeed(&["backup"]);
        assert_restores(&s3, &database);
        assert_eq!(s3.properties(method, part), [wanted]);
        // AWS refuses such headers anywhere else.
        for (method, part) in [("PUT", "partNumber="), ("POST", "uploadId="), ("HEAD", ""), ("GET", "")] {
            assert!(s3.properties(method, part).iter().all(Vec::is_empty), "{method} {part}");
        }
        s3.forget_requests();
        pgkeep.succeed(&["check"]);
        assert!(s3.properties("PUT", ".check").iter().all(|headers| headers == &wanted));
    }
}

#[test]
fn nothing_is_asked_for_by_default() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = pgkeep(&s3, SHOP);
    pgkeep.succeed(&["backup"]);
    assert_eq!(s3.properties("PUT", ""), [[] as [&str; 0]]);
}

#[test]
fn a_store_that_refuses_a_property_is_told_with_the_variable() {
    for (name, value, status, code) in [
        ("S3_STORAGE_CLASS", "COLD", 400, "InvalidStorageClass"),
        ("S3_STORAGE_CLASS", "COLD", 501, "NotImplemented"),
        ("S3_SSE", "AES256", 400, "InvalidEncryptionAlgorithmError"),
        ("S3_TAGS", "a=b", 403, "AccessDenied"),
    ] {
        let s3 = s3::Server::start();
        let (_, pgkeep) = pgkeep(&s3, SHOP);
        let pgkeep = pgkeep.with(name, value);
        s3.fail(100, "POST", "", Fault::Answer(status, code));
        // The server itself refuses an object of a class that it does not know.
        if code != "InvalidStorageClass" {
            s3.fail(100, "PUT", "", Fault::Answer(status, code));
        }
        let log = pgkeep.fail(&["backup"]).log;
        assert!(log.contains(code) && log.contains(name), "{log}");
        assert!(!log.contains("try 1 of 5"), "{log}");
        let report = pgkeep.fail(&["check"]).stdout;
        for step in ["S3 put", "S3 multipart upload"] {
            let line = report.lines().find(|line| line.starts_with("FAILED") && line.contains(step));
            assert!(line.is_some_and(|line| line.contains(name)), "{step}: {report}");
        }
    }
}

#[test]
fn parts_have_the_given_size_and_grow_if_the_store_takes_few() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = pgkeep(&s3, &noise(34));
    for (variable, value, parts) in [("S3_PART_SIZE", "5MiB", 4..=20), ("S3_MAX_PARTS", "1", 0..=0)] {
        s3.clear();
        s3.forget_requests();
        pgkeep.clone().with(variable, value).succeed(&["backup"]);
        assert_restores(&s3, &database);
        let found = s3.requests("PUT", "partNumber=").len();
        assert!(parts.contains(&found), "{variable}: {found} parts");
    }
}

#[test]
fn a_backup_that_does_not_fit_says_which_variables_can_help() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = pgkeep(&s3, SHOP);
    // Much more than four times the database, and nothing of it can be compressed.
    let bin = wrapped_pg_dump("head -c 120000000 /dev/urandom; exec $REAL \"$@\"");
    let pgkeep = pgkeep.with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8")).with("S3_MAX_PARTS", "1");
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("the backup does not fit 1 part of ") && log.contains("S3_PART_SIZE"), "{log}");
    assert!(s3.objects().is_empty() && s3.pending_uploads().is_empty());
}
