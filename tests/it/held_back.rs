//! Promise 2: nothing is deleted when something suggests that the decision is wrong.

use std::fs;

use chrono::{DateTime, TimeDelta, Utc};

use crate::support::pgkeep::{Outcome, Pgkeep};
use crate::support::postgres::{self, noise, Server};
use crate::support::s3::{self, Fault};

const HELD_BACK: &str = "[WARN ] pruning held back, nothing was deleted: ";

/// The key of a backup of some days before a time.
fn key(database: &str, time: DateTime<Utc>, days: i64) -> String {
    let time = (time - TimeDelta::days(days)).format("%Y-%m-%d_%H-%M-%S");
    format!("{database}/{database}_{time}.sql.gz")
}

/// A database with its bucket, a retention, and a backup that is expired.
struct Bucket {
    s3: s3::Server,
    database: String,
    expired: String,
    pgkeep: Pgkeep,
}

impl Bucket {
    fn new() -> Self {
        let s3 = s3::Server::start();
        let database = postgres::server().database("app");
        let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_RETENTION_DAYS", "30");
        let expired = format!("{database}/{database}_2020-01-01_00-00-00.sql.gz");
        let bucket = Bucket { s3, database, expired, pgkeep };
        bucket.expire();
        bucket
    }

    /// Lets a backup expire.
    fn expire(&self) {
        self.s3.plant(&self.expired, b"x");
    }

    fn has_expired(&self) -> bool {
        self.s3.path(&self.expired).exists()
    }

    fn newest(&self) -> String {
        self.s3.backups().pop().expect("a backup")
    }

    /// A backup succeeds, and nothing goes because of `doubt`.
    fn back_up_and_hold(&self, pgkeep: &Pgkeep, doubt: &str) -> Outcome {
        let outcome = pgkeep.succeed(&["backup"]);
        assert!(self.has_expired() && self.s3.requests("DELETE", "").is_empty(), "{}", outcome.log);
        let line = outcome.log.lines().find(|line| line.contains(HELD_BACK)).unwrap_or(&outcome.log);
        assert!(line.contains(doubt), "{}", outcome.log);
        let line = outcome.log.lines().find(|line| line.contains("backup succeeded: ")).expect("a success");
        assert!(line.contains("; pruning held back: ") && line.contains(doubt), "{line}");
        outcome
    }

    /// A backup succeeds, and what is expired goes.
    fn back_up_and_prune(&self, pgkeep: &Pgkeep) {
        let log = pgkeep.succeed(&["backup"]).log;
        assert!(!self.has_expired() && log.contains(" kept, 1 deleted; "), "{log}");
        assert!(!log.contains("held back"), "{log}");
        self.s3.forget_requests();
    }
}

#[test]
fn nothing_goes_while_the_clock_and_s3s_disagree() {
    let bucket = Bucket::new();
    bucket.pgkeep.succeed(&["backup"]);
    bucket.s3.forget_requests();
    bucket.expire();
    for (days, differ) in [(400, "differ by 400 d "), (-1, "differ by 23 h ")] {
        let date = Utc::now() - TimeDelta::days(days);
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        bucket.s3.fail(99, "HEAD", ".sql.gz", Fault::WrongTime(date.leak()));
        let log = bucket.back_up_and_hold(&bucket.pgkeep, differ).log;
        assert!(log.contains("; set this host's clock (NTP keeps it right)"), "{log}");
        bucket.s3.calm();
    }
    // A store that does not say what time it is leaves nothing to compare.
    bucket.s3.fail(99, "HEAD", "", Fault::WrongTime(""));
    bucket.back_up_and_prune(&bucket.pgkeep);
}

#[test]
fn nothing_goes_after_a_backup_that_has_suddenly_shrunk() {
    let (server, bucket) = (postgres::server(), Bucket::new());
    server.psql(&bucket.database, &noise(1));
    bucket.back_up_and_prune(&bucket.pgkeep);
    bucket.expire();
    server.psql(&bucket.database, "DROP TABLE noise");
    bucket.back_up_and_hold(&bucket.pgkeep, "the newest backup has ");
    // The second one is not measured by the first.
    let log = bucket.back_up_and_hold(&bucket.pgkeep, " MB were usual").log;
    assert!(log.contains("BACKUP_SHRINK_GUARD=false prunes at once"), "{log}");
    let outcome = bucket.pgkeep.fail(&["prune"]);
    assert!(outcome.log.contains(HELD_BACK) && bucket.has_expired(), "{}", outcome.log);

    // Everybody says so.
    let held = "\npruning is held back: the newest backup has ";
    let plan = bucket.pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.starts_with(&format!("hold    {}  (", bucket.expired)) && plan.contains(held), "{plan}");
    assert!(plan.ends_with("4 backups would be kept, 0 deleted; nothing was done\n"), "{plan}");
    let list = bucket.pgkeep.succeed(&["list"]).stdout;
    assert!(list.contains(" expired, and held back ") && list.contains(held), "{list}");
    let json = bucket.pgkeep.succeed(&["list", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["keep"], true);
    let why = json[0]["held_back"].as_str().expect("a reason");
    assert!(why.contains("BACKUP_SHRINK_GUARD") && json[1]["held_back"].is_null(), "{json}");
    let check = bucket.pgkeep.succeed(&["check"]).stdout;
    assert!(check.contains("\nwarning  pruning: held back: the newest backup has "), "{check}");

    // It was on purpose; or it was not, and the data is back.
    let unguarded = bucket.pgkeep.clone().with("BACKUP_SHRINK_GUARD", "false");
    unguarded.succeed(&["prune"]);
    assert!(!bucket.has_expired());
    bucket.expire();
    bucket.back_up_and_prune(&unguarded);
    bucket.expire();
    server.psql(&bucket.database, &noise(1));
    bucket.back_up_and_prune(&bucket.pgkeep);
    let check = bucket.pgkeep.succeed(&["check"]).stdout;
    assert!(check.contains("\nok       pruning: nothing holds it back"), "{check}");
}

#[test]
fn a_short_retention_keeps_the_good_backups_for_a_week_of_small_ones() {
    let s3 = s3::Server::start();
    let pgkeep = Pgkeep::new("app", &s3).with("BACKUP_RETENTION_DAYS", "1");
    let now = Utc::now();
    let key = |days| key("app", now, days);
    s3.plant(&key(7), &[0; 1000]);
    for days in (0..=6).rev() {
        s3.plant(&key(days), &[0; 10]);
    }
    pgkeep.fail(&["prune"]);
    assert_eq!(s3.backups().len(), 8);
    // One day earlier.
    fs::rename(s3.path(&key(7)), s3.path(&key(8))).expect("the object");
    s3.plant(&key(7), &[0; 10]);
    pgkeep.succeed(&["prune"]);
    assert_eq!(s3.backups(), [key(0)]);
}

#[test]
fn two_servers_with_one_place_do_not_prune_each_others_backups() {
    let bucket = Bucket::new();
    let another = Server::start(postgres::bin());
    another.create_database(&bucket.database);
    let one = &bucket.pgkeep;
    let other = &one.clone().with("POSTGRES_CONNECTION_STRING", &another.connection(&bucket.database));
    bucket.back_up_and_prune(one);
    let first = bucket.newest();
    for (server, pgkeep) in [(postgres::server(), None), (&another, Some(other))] {
        if let Some(pgkeep) = pgkeep {
            bucket.expire();
            let told = format!("{first} was made of another PostgreSQL server");
            let log = bucket.back_up_and_hold(pgkeep, &told).log;
            assert!(log.contains("; two servers need two values of S3_PATH; "), "{log}");
        }
        let id = server.psql("postgres", "SELECT system_identifier FROM pg_control_system()");
        assert_eq!(bucket.s3.metadata(&bucket.newest())["cluster-id"], id);
    }
    // As after a move: the old server's are all older.
    bucket.back_up_and_prune(other);
    // But the old one is still there.
    bucket.expire();
    let last = bucket.newest();
    bucket.back_up_and_hold(one, &last);
    // Its second one in a row, and they take turns.
    bucket.back_up_and_hold(one, &last);
    one.fail(&["prune"]);
    let list = one.succeed(&["list"]).stdout;
    assert!(list.contains(&format!("\npruning is held back: {last} was made of another")), "{list}");
}

#[test]
fn everybody_may_ask_for_the_clusters_identifier_and_need_not() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("rights");
    let role = format!("{database}_reader");
    server.psql(&database, &format!("CREATE ROLE {role} LOGIN PASSWORD '{}'", postgres::PASSWORD));
    let connection = server.connection(&database).replace("user=postgres", &format!("user={role}"));
    let pgkeep = Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &connection);
    pgkeep.succeed(&["backup"]);
    let newest = || s3.metadata(&s3.backups().pop().expect("a backup"));
    assert!(newest().contains_key("cluster-id"));
    server.psql(&database, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(newest().contains_key("database") && !newest().contains_key("cluster-id"));
    assert!(!log.contains("pg_control_system"), "{log}");
}

#[test]
fn a_new_backup_that_is_not_listed_yet_is_the_newest_all_the_same() {
    let bucket = Bucket::new();
    let good = key(&bucket.database, Utc::now(), 1);
    bucket.s3.plant(&good, &[0; 1_000_000]);
    let contents: String = [(&bucket.expired, 1), (&good, 1_000_000)]
        .map(|(key, size)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2020-01-01T00:00:00.000Z</LastModified>
                 <ETag>\"e\"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        })
        .concat();
    let listing = format!(
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>backups</Name><Prefix/>
         <KeyCount>2</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    );
    bucket.s3.fail(9, "GET", "list-type", Fault::Document(listing.leak()));
    bucket.back_up_and_hold(&bucket.pgkeep, "1.0 MB were usual");
}

#[test]
fn a_backup_of_the_future_is_never_the_newest_and_never_deleted() {
    let bucket = Bucket::new();
    let (pgkeep, database) = (&bucket.pgkeep, &bucket.database);
    bucket.back_up_and_prune(pgkeep);
    let (now, future) = (bucket.newest(), format!("{database}/{database}_2199-01-01_00-00-00.sql.gz"));
    bucket.s3.plant(&future, &fs::read(bucket.s3.path(&now)).expect("the backup"));
    bucket.expire();
    let warning = format!("1 backup named by a time in the future, so a clock is or was wrong: {future};");

    let plan = pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.contains(&format!("keep    {now}  (the newest)\n")), "{plan}");
    assert!(plan.contains(&format!("keep    {future}  (named by a time in the future)\n")), "{plan}");
    assert!(plan.contains(&format!("\nwarning: {warning}")), "{plan}");
    for options in [&["list"] as &[&str], &["list", "--all"]] {
        let list = pgkeep.succeed(options).stdout;
        let row = list.lines().find(|row| row.ends_with(&future)).expect("its row");
        assert!(row.contains(" future ") && row.contains(" kept: named by a time in the future "), "{row}");
        // With --all, its database is in front.
        assert!(list.contains(&format!("warning: {warning}")), "{list}");
    }
    let check = pgkeep.succeed(&["check"]).stdout;
    assert!(check.contains(&format!("\nwarning  backups' names: {warning}")), "{check}");
    assert!(check.contains(&format!("newest backup: {now}, ")), "{check}");

    let log = pgkeep.succeed(&["prune"]).log;
    assert!(log.contains(&format!("[WARN ] {warning}")) && !bucket.has_expired(), "{log}");
    assert_eq!(bucket.s3.backups(), [now.clone(), future.clone()]);

    // It is no newest for a restore either, and still there for who names it.
    for (which, meant) in
        [("latest", &now), ("2199", &future), ("2199-01-01_00-00-00", &future), (&future, &future)]
    {
        let log = pgkeep.succeed(&["verify", which]).log;
        assert!(log.contains(&format!("s3://backups/{meant} is whole")), "{which}: {log}");
    }
    fs::remove_file(bucket.s3.path(&now)).expect("the object");
    let log = pgkeep.fail(&["verify"]).log;
    assert!(log.contains("there is no backup") && log.contains(&warning), "{log}");
}

#[test]
fn a_daemon_does_not_take_a_backup_of_the_future_for_one_of_today() {
    let bucket = Bucket::new();
    let future = format!("{0}/{0}_2199-01-01_00-00-00.sql.gz", bucket.database);
    bucket.s3.plant(&future, b"x");
    let pgkeep = bucket.pgkeep.clone().with("BACKUP_INTERVAL", "0 0 1 1 *").with("BACKUP_ON_START", "missed");
    let running = pgkeep.start(&[]);
    running.wait_for_log(&format!(
        "1 backup named by a time in the future, so a clock is or was wrong: {future};"
    ));
    assert!(running.wait_for_log("newest backup: ").contains(&bucket.expired), "{}", running.log());
    running.wait_for_log("backup succeeded");
}

#[test]
fn who_may_only_list_still_sees_the_list() {
    let bucket = Bucket::new();
    bucket.s3.plant(&key(&bucket.database, Utc::now(), 1), b"x");
    bucket.s3.fail(99, "HEAD", ".sql.gz", Fault::Answer(403, "AccessDenied"));
    let outcome = bucket.pgkeep.succeed(&["list"]);
    assert!(outcome.stdout.contains(" goes with the next backup "), "{}", outcome.stdout);
    assert!(outcome.log.contains("whether pruning is held back is not known: HeadObject"), "{}", outcome.log);
    // What is not known is no reason to delete.
    let log = bucket.pgkeep.fail(&["prune"]).log;
    assert!(log.contains("cannot look at the newest backups: HeadObject") && bucket.has_expired(), "{log}");
    let check = bucket.pgkeep.fail(&["check"]).stdout;
    assert!(check.contains("\nFAILED   pruning: HeadObject"), "{check}");
    assert!(check.contains("; the key needs the right s3:GetObject\n"), "{check}");
}
