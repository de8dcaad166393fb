//! `pgkeep check`: what would fail tonight is told today, and nothing is left behind by asking.

use rustix::process::Signal;

use crate::support::pgkeep::{Outcome, Pgkeep};
use crate::support::postgres::{self, noise, SHOP};
use crate::support::s3::{self, Fault};

fn shop(s3: &s3::Server) -> (String, Pgkeep) {
    let database = postgres::server().database("shop");
    postgres::server().psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, s3).with("S3_PATH", "b").with("BACKUP_INTERVAL", "0 3 * * *");
    (database, pgkeep)
}

/// The one line about `what`.
fn line<'a>(outcome: &'a Outcome, what: &str) -> &'a str {
    let about = |line: &&str| line.get(9..).is_some_and(|line| line.starts_with(&format!("{what}: ")));
    outcome.stdout.lines().find(about).unwrap_or_else(|| panic!("no {what} in:\n{}", outcome.stdout))
}

fn assert_clean(s3: &s3::Server) {
    assert!(s3.objects().is_empty() && s3.pending_uploads().is_empty(), "{:?}", s3.objects());
}

#[test]
fn all_is_well_and_nothing_is_left() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    let drill = postgres::server().connection("postgres");
    let outcome = pgkeep.with("BACKUP_DRILL_CONNECTION_STRING", &drill).succeed(&["check"]);
    for what in [
        "configuration",
        "PostgreSQL",
        "connection",
        "right to read",
        "row security",
        "temporary space",
        "S3",
        "S3 list",
        "S3 put",
        "S3 get",
        "S3 delete",
        "S3 multipart upload",
        "bucket's versioning",
        "bucket's object lock",
        "schedule",
        "retention",
        "newest backup",
        "drill",
        "left-over databases",
    ] {
        assert!(line(&outcome, what).starts_with("ok "), "{}", outcome.stdout);
    }
    assert!(outcome.stdout.ends_with("\nnothing would fail tonight, 0 warnings\n"), "{}", outcome.stdout);
    assert_eq!(outcome.log, "");
    assert_eq!(s3.requests("PUT", "/b/").len(), 1);
    assert_clean(&s3);
}

/// A role without rights; its name, and pgkeep with its connection.
fn reader(database: &str, pgkeep: Pgkeep) -> (String, Pgkeep) {
    let (server, role) = (postgres::server(), format!("{database}_reader"));
    server.psql(database, &format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", postgres::PASSWORD));
    let connection = server.connection(database).replace("user=postgres", &format!("user={role}"));
    (role, pgkeep.with("POSTGRES_CONNECTION_STRING", &connection))
}

#[test]
fn a_role_that_may_not_read_everything_is_told_what_and_how() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let (database, pgkeep) = shop(&s3);
    let (role, pgkeep) = reader(&database, pgkeep);
    server.psql(
        &database,
        &format!(
            "CREATE SCHEMA shut; CREATE TABLE shut.up (); CREATE TABLE \"a\n\"\"b\" ();
             GRANT SELECT ON customers, customers_id_seq, orders TO {role}; GRANT SELECT ON shut.up TO {role};
             ALTER TABLE orders ENABLE ROW LEVEL SECURITY"
        ),
    );
    let outcome = pgkeep.fail(&["check"]);
    let rights = line(&outcome, "right to read");
    let unreadable = "FAILED   right to read: the role ";
    assert!(rights.starts_with(unreadable), "{rights}");
    // In their order, a name of two lines on one.
    let named = r#"may not read public."a\n""b", public.orders_id_seq, shut.up, and"#;
    assert!(rights.contains(named), "{rights}");
    assert!(rights.ends_with(&format!("; GRANT pg_read_all_data TO {role}")), "{rights}");
    let hidden = line(&outcome, "row security");
    assert!(hidden.starts_with("FAILED ") && hidden.contains("rows of public.orders from"), "{hidden}");
    assert!(hidden.ends_with(&format!("; ALTER ROLE {role} BYPASSRLS")), "{hidden}");
    // And so it is: the remedies that it names are enough.
    pgkeep.fail(&["backup"]);
    server.psql(&database, &format!("GRANT pg_read_all_data TO {role}"));
    assert!(line(&pgkeep.fail(&["check"]), "right to read").starts_with("ok "));
    pgkeep.fail(&["backup"]);
    server.psql(&database, &format!("ALTER ROLE {role} BYPASSRLS"));
    pgkeep.succeed(&["check"]);
    pgkeep.succeed(&["backup"]);
}

#[test]
fn what_pg_dump_does_not_read_needs_no_right() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("mixed");
    let pgkeep = Pgkeep::new(&database, &s3);
    let (role, pgkeep) = reader(&database, pgkeep);
    server.psql(
        &database,
        &format!(
            "CREATE TABLE of_extension (); ALTER TABLE of_extension ENABLE ROW LEVEL SECURITY;
             ALTER EXTENSION plpgsql ADD TABLE of_extension;
             CREATE TABLE parent (n int) PARTITION BY LIST (n);
             CREATE TABLE child PARTITION OF parent FOR VALUES IN (1);
             ALTER TABLE parent ENABLE ROW LEVEL SECURITY;
             GRANT SELECT ON parent, child TO {role};
             CREATE TABLE own (); ALTER TABLE own OWNER TO {role}; ALTER TABLE own ENABLE ROW LEVEL SECURITY;
             CREATE VIEW seen AS SELECT 1; CREATE MATERIALIZED VIEW made AS SELECT 1"
        ),
    );
    pgkeep.succeed(&["check"]);
    pgkeep.succeed(&["backup"]);
    // But an extension's table that holds a user's rows, and an owner who is not excepted.
    server.psql(
        &database,
        "UPDATE pg_extension SET extconfig = ARRAY['of_extension'::regclass::oid], extcondition = ARRAY['']
         WHERE extname = 'plpgsql'",
    );
    let rights = pgkeep.fail(&["check"]);
    assert!(
        line(&rights, "right to read").contains("may not read public.of_extension,"),
        "{}",
        rights.stdout
    );
    pgkeep.fail(&["backup"]);
    server.psql(&database, "DROP EXTENSION plpgsql; ALTER TABLE own FORCE ROW LEVEL SECURITY");
    let rights = pgkeep.fail(&["check"]);
    assert!(line(&rights, "row security").contains("rows of public.own from"), "{}", rights.stdout);
    pgkeep.fail(&["backup"]);
}

#[test]
fn names_in_another_encoding_are_no_obstacle() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let create = "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    server.psql("postgres", create);
    // é, which is not UTF-8 there.
    server.psql("latin", "DO $$ BEGIN EXECUTE format('CREATE TABLE %I ()', chr(233)); END $$");
    let (_, pgkeep) = reader("latin", Pgkeep::new("latin", &s3));
    let outcome = pgkeep.fail(&["check"]);
    assert!(line(&outcome, "right to read").contains("public.\"\u{fffd}\","), "{}", outcome.stdout);
    server.psql("latin", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO latin_reader");
    pgkeep.succeed(&["check"]);
}

#[test]
fn each_right_on_the_bucket_that_is_missing_is_named() {
    for (method, part, what, right) in [
        ("GET", "list-type", "S3 list", "s3:ListBucket"),
        ("PUT", "check-", "S3 put", "s3:PutObject"),
        ("GET", "/b/", "S3 get", "s3:GetObject"),
        ("POST", "uploads", "S3 multipart upload", "s3:PutObject"),
    ] {
        let s3 = s3::Server::start();
        let (_, pgkeep) = shop(&s3);
        s3.fail(1, method, part, Fault::Answer(403, "AccessDenied"));
        let outcome = pgkeep.fail(&["check"]);
        let line = line(&outcome, what);
        assert!(line.starts_with("FAILED ") && line.contains(right), "{}", outcome.stdout);
        assert_eq!(outcome.stdout.matches("FAILED").count(), 1, "{}", outcome.stdout);
        assert_clean(&s3);
    }
    // What may not be tidied up is named.
    for (part, what, right, left) in [
        ("check-", "S3 delete", "s3:DeleteObject", "is still there"),
        ("uploadId", "S3 multipart upload", "s3:AbortMultipartUpload", "an upload without parts is left"),
    ] {
        let s3 = s3::Server::start();
        let (_, pgkeep) = shop(&s3);
        s3.fail(1, "DELETE", part, Fault::Answer(403, "AccessDenied"));
        let outcome = pgkeep.with("BACKUP_RETENTION_DAYS", "7").fail(&["check"]);
        let line = line(&outcome, what);
        assert!(line.starts_with("FAILED ") && line.contains(right) && line.contains(left), "{line}");
        assert_eq!(outcome.stdout.matches("FAILED").count(), 1, "{}", outcome.stdout);
        assert!(outcome.stdout.ends_with("\n1 step would fail tonight, 0 warnings\n"), "{}", outcome.stdout);
        assert_eq!(s3.objects().len() + s3.pending_uploads().len(), 1);
    }
}

#[test]
fn without_a_retention_nothing_has_to_be_deleted() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    s3.fail(1, "DELETE", "check-", Fault::Answer(403, "AccessDenied"));
    let outcome = pgkeep.succeed(&["check"]);
    let line = line(&outcome, "S3 delete");
    assert!(line.starts_with("warning ") && line.contains("is still there"), "{line}");
    assert_eq!(s3.objects().len(), 1);
}

#[test]
fn a_proxy_that_takes_no_large_body_is_found_before_the_night() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    s3.fail(99, "PUT", "", Fault::LimitBody(1 << 20));
    let outcome = pgkeep.fail(&["check"]);
    let line = line(&outcome, "S3 put");
    assert!(
        line.starts_with("FAILED ") && line.contains("413 ") && line.contains("client_max_body_size"),
        "{line}"
    );
    assert_clean(&s3);
}

#[test]
fn a_database_of_several_parts_tries_an_upload_of_parts() {
    let s3 = s3::Server::start();
    let database = postgres::server().database("large");
    postgres::server().psql(&database, &noise(17));
    let pgkeep = Pgkeep::new(&database, &s3).with("S3_PATH", "b").with("BACKUP_INTERVAL", "0 3 * * *");
    let outcome = pgkeep.succeed(&["check"]);
    let what = "S3 upload in parts";
    assert_eq!(line(&outcome, what), "ok       S3 upload in parts: completed, and gone again");
    assert_eq!(s3.requests("POST", "uploadId=").len(), 1);
    assert_clean(&s3);
    for (method, part) in [("PUT", "partNumber="), ("POST", "uploadId=")] {
        s3.fail(1, method, part, Fault::Answer(403, "AccessDenied"));
        let outcome = pgkeep.fail(&["check"]);
        let line = line(&outcome, what);
        assert!(line.starts_with("FAILED ") && line.contains("needs the right s3:PutObject"), "{line}");
        assert_clean(&s3);
    }
}

#[test]
fn a_store_whose_etags_are_no_md5s_is_told() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    s3.fail(99, "PUT", "", Fault::WrongEtag);
    let outcome = pgkeep.succeed(&["check"]);
    assert!(line(&outcome, "S3 put").ends_with("so each backup is read back"), "{}", outcome.stdout);
    assert_clean(&s3);
}

#[test]
fn a_canary_that_comes_back_changed_or_is_not_listed_is_noticed() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    let empty = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>backups</Name>
        <Prefix/><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>";
    s3.fail(1, "GET", "check-", Fault::Document(empty));
    s3.fail(1, "GET", "/b/", Fault::Document("something else"));
    let outcome = pgkeep.fail(&["check"]);
    assert!(line(&outcome, "S3 get").starts_with("FAILED   S3 get: other bytes"), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("\nwarning  S3 list: what was just put"), "{}", outcome.stdout);
    assert_clean(&s3);
}

#[test]
fn what_a_backup_would_try_again_is_tried_again() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    for method in ["PUT", "DELETE"] {
        s3.fail(1, method, "check-", Fault::Answer(503, "SlowDown"));
    }
    let outcome = pgkeep.succeed(&["check"]);
    assert_eq!(outcome.log.matches("try 1 of 5 failed").count(), 2, "{}", outcome.log);
    assert_clean(&s3);
}

#[test]
fn a_signal_breaks_it_off_and_nothing_is_left() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    // The canary arrives, and its answer does not.
    s3.fail(100, "PUT", "check-", Fault::LoseAnswer);
    let mut running = pgkeep.start(&["check"]);
    running.wait_for_log("try 1 of 5 failed");
    assert_eq!(s3.objects().len(), 1);
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert_clean(&s3);
}

#[test]
fn a_wrong_key_bucket_host_or_database_is_told_and_the_rest_is_tried() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    // Said once; the rest of S3 would only repeat it.
    let listing_fails = |outcome: &Outcome, code, remedy| {
        let told = line(outcome, "S3 list");
        assert!(told.starts_with("FAILED ") && told.contains(code) && told.contains(remedy), "{told}");
        assert_eq!(outcome.stdout.matches("FAILED").count(), 1, "{}", outcome.stdout);
        assert!(outcome.stdout.contains("\nskipped  S3: put, get, delete"), "{}", outcome.stdout);
        assert!(line(outcome, "newest backup").starts_with("skipped "), "{}", outcome.stdout);
    };
    let outcome = pgkeep.with("S3_SECRET_KEY", "wrong").fail(&["check"]);
    listing_fails(&outcome, "SignatureDoesNotMatch", "see S3_SECRET_KEY");
    let (_, pgkeep) = shop(&s3);
    listing_fails(&pgkeep.with("S3_BUCKET", "nowhere").fail(&["check"]), "NoSuchBucket", "see S3_BUCKET");
    let (_, pgkeep) = shop(&s3);
    let outcome = pgkeep
        .with("S3_URL", "http://127.0.0.1:1")
        .with("POSTGRES_CONNECTION_STRING", "host=127.0.0.1 port=1 dbname=x")
        .fail(&["check"]);
    assert!(line(&outcome, "PostgreSQL").starts_with("FAILED "), "{}", outcome.stdout);
    assert!(line(&outcome, "S3").contains("Connection refused"), "{}", outcome.stdout);
    assert!(line(&outcome, "schedule").starts_with("ok "), "{}", outcome.stdout);
    assert_clean(&s3);
}

#[test]
fn a_wrong_clock_and_a_bucket_that_keeps_everything_are_noticed() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    s3.fail(1, "HEAD", "", Fault::WrongTime("Mon, 23 Nov 2020 03:00:00 GMT"));
    s3.fail(
        1,
        "GET",
        "versioning",
        Fault::Document("<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
    );
    s3.fail(1, "GET", "object-lock", Fault::Document(
        "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled></ObjectLockConfiguration>",
    ));
    let outcome = pgkeep.fail(&["check"]);
    assert!(line(&outcome, "S3").contains("set this host's clock"), "{}", outcome.stdout);
    assert!(
        line(&outcome, "bucket's versioning").starts_with("warning  bucket's versioning: on: "),
        "{}",
        outcome.stdout
    );
    assert!(line(&outcome, "bucket's object lock").starts_with("warning "), "{}", outcome.stdout);
}

#[test]
fn a_retention_shorter_than_the_schedule_and_an_old_newest_backup_are_warnings() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = shop(&s3);
    s3.plant(&format!("b/{database}/{database}_2020-01-01_00-00-00.sql.gz"), b"x");
    let pgkeep = pgkeep.with("BACKUP_INTERVAL", "0 3 1 * *").with("BACKUP_RETENTION_DAYS", "7");
    let outcome = pgkeep.succeed(&["check"]);
    assert!(line(&outcome, "retention").contains("only the newest is ever kept"), "{}", outcome.stdout);
    assert!(line(&outcome, "newest backup").starts_with("warning "), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with("\nnothing would fail tonight, 2 warnings\n"), "{}", outcome.stdout);
    // Kubernetes keeps the schedule: there is none to compare with.
    let outcome = pgkeep.without("BACKUP_INTERVAL").with("BACKUP_RETENTION_DAY", "7").succeed(&["check"]);
    assert!(line(&outcome, "schedule").starts_with("ok       schedule: BACKUP_INTERVAL is not set"));
    assert!(line(&outcome, "newest backup").starts_with("ok "), "{}", outcome.stdout);
    let misspelt = "\nwarning  configuration: BACKUP_RETENTION_DAY is not a variable";
    assert!(outcome.stdout.contains(misspelt), "{}", outcome.stdout);
    assert!(outcome.stdout.ends_with(", 1 warning\n"), "{}", outcome.stdout);
}

#[test]
fn a_temporary_directory_that_is_not_there_is_told() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    let outcome = pgkeep.without("BACKUP_TEMP_DIR").with("TMPDIR", "/nowhere").fail(&["check"]);
    let told = line(&outcome, "temporary space");
    assert!(told.starts_with("FAILED ") && told.contains("/nowhere"), "{told}");
    assert!(told.contains("BACKUP_TEMP_DIR"), "{told}");
    assert_eq!(outcome.stdout.matches("FAILED").count(), 1, "{}", outcome.stdout);
    // Named by its own variable, it is a wrong configuration.
    let (_, pgkeep) = shop(&s3);
    let outcome = pgkeep.with("BACKUP_TEMP_DIR", "/nowhere").run(&["check"]);
    assert_eq!((outcome.status, outcome.stdout.as_str()), (2, ""));
}

#[test]
fn a_bucket_that_does_not_know_its_settings_is_no_worry() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    for (query, fault) in [
        ("versioning", Fault::Document("<ListBucketResult><Status>Enabled</Status></ListBucketResult>")),
        ("object-lock", Fault::Answer(404, "ObjectLockConfigurationNotFoundError")),
    ] {
        s3.fail(1, "GET", query, fault);
    }
    let outcome = pgkeep.succeed(&["check"]);
    let unknown = "ok       bucket's versioning: not known (GetBucketVersioning";
    assert!(line(&outcome, "bucket's versioning").starts_with(unknown), "{}", outcome.stdout);
    assert_eq!(line(&outcome, "bucket's object lock"), "ok       bucket's object lock: off");
}
