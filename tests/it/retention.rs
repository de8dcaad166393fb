//! Promise 2: nothing is deleted but expired backups of this database under this prefix.

use std::collections::BTreeSet;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, wrapped_pg_dump};
use crate::support::s3::{self, Fault};

#[test]
fn among_1500_objects_only_the_expired_backups_of_this_database_go() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let longer = format!("{database}2");
    let key = |database: &str, time: &str| format!("b/{database}/{database}_{time}.sql.gz");
    let mut expired = BTreeSet::new();
    // Past the 1,000 keys of a listing's page.
    for n in 0..1200 {
        expired.insert(key(
            &database,
            &format!("2021-{:02}-{:02}_{:02}-00-00", 1 + n / 100, 1 + n % 28, n % 24),
        ));
    }
    let mut strangers = BTreeSet::new();
    for n in 0..150 {
        strangers.insert(key(&longer, &format!("2021-01-01_00-{:02}-{:02}", n / 60, n % 60)));
        strangers.insert(format!("b/{database}/{database}_2021-01-01_00-00-00.sql.gz.{n}"));
        strangers.insert(format!("{database}/{database}_2021-01-01_00-00-{:02}.sql.gz", n % 60));
    }
    for stranger in [
        "_latest.sql.gz",
        "_notes.txt",
        "_2021-01-01.sql.gz",
        "_2021-13-01_00-00-00.sql.gz",
        "_2021-01-01_00-00-60.sql.gz",
        "_2021-1-01_00-00-00.sql.gz",
        "2_2021-01-01_00-00-00.sql.gz",
        "_x/app_x_2021-01-01_00-00-00.sql.gz",
    ] {
        strangers.insert(format!("b/{database}/{database}{stranger}"));
    }
    for planted in expired.iter().chain(&strangers) {
        s3.plant(planted, b"x");
    }
    let planted = s3.objects().len();
    assert!(planted >= 1_500, "{planted}");

    let pgkeep = Pgkeep::new(&database, &s3).with("S3_PATH", "b").with("BACKUP_RETENTION_DAYS", "30");
    let plan = pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.contains("nothing was done") && s3.objects().len() == planted, "{plan}");
    let outcome = pgkeep.succeed(&["backup"]);
    let left: BTreeSet<String> = s3.objects().into_keys().collect();
    let missing: Vec<_> = strangers.difference(&left).collect();
    assert!(missing.is_empty(), "strangers' objects are gone: {missing:?}");
    assert_eq!(left.intersection(&expired).count(), 0);
    // The strangers, and the new backup.
    assert_eq!(left.len(), strangers.len() + 1);
    assert!(outcome.log.contains(&format!("1 backup kept, {} deleted", expired.len())), "{}", outcome.log);
    assert!(outcome.log.contains("deleted s3://backups/b/") && outcome.log.contains("old, kept for 30 d"));
}

#[test]
fn nothing_is_deleted_after_a_failed_backup() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let planted = ["01", "02"].map(|day| format!("{database}/{database}_2020-01-{day}_00-00-00.sql.gz"));
    planted.iter().for_each(|key| s3.plant(key, b"x"));
    let pgkeep = || Pgkeep::new(&database, &s3).with("BACKUP_RETENTION_DAYS", "1");
    // Before the dump, in it, at its upload and behind that.
    pgkeep().with("POSTGRES_CONNECTION_STRING", "host=/nowhere dbname=app").fail(&["backup"]);
    let broken = wrapped_pg_dump("exit 1");
    pgkeep().with("BACKUP_PG_BIN", broken.path().to_str().expect("UTF-8")).fail(&["backup"]);
    for method in ["PUT", "HEAD"] {
        s3.fail(1, method, "", Fault::Answer(403, "AccessDenied"));
        pgkeep().fail(&["backup"]);
    }
    assert!(planted.iter().all(|key| s3.path(key).exists()), "{:?}", s3.objects());
    assert!(s3.requests("DELETE", "").is_empty());
}

#[test]
fn prune_keeps_the_newest_whatever_its_age_and_says_why() {
    let s3 = s3::Server::start();
    s3.plant("app/app_2020-01-01_00-00-00.sql.gz", b"x");
    s3.plant("app/app_2020-01-02_00-00-00.sql.gz", b"x");
    let pgkeep = Pgkeep::new("app", &s3).with("BACKUP_RETENTION_DAYS", "1");
    let plan = pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.contains("delete  app/app_2020-01-01_00-00-00.sql.gz"), "{plan}");
    assert!(plan.contains("keep    app/app_2020-01-02_00-00-00.sql.gz  (the newest)"), "{plan}");
    pgkeep.succeed(&["prune"]);
    assert_eq!(s3.backups(), ["app/app_2020-01-02_00-00-00.sql.gz"]);
}

#[test]
fn without_a_retention_everything_is_kept() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    s3.plant(&format!("{database}/{database}_2001-01-01_00-00-00.sql.gz"), b"x");
    let outcome = Pgkeep::new(&database, &s3).succeed(&["backup"]);
    assert_eq!(s3.objects().len(), 2);
    assert!(outcome.log.contains("2 backups kept, 0 deleted"), "{}", outcome.log);
}

#[test]
fn a_deletion_that_fails_is_told_and_passed_over() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    for day in ["01", "02"] {
        s3.plant(&format!("{database}/{database}_2001-01-{day}_00-00-00.sql.gz"), b"x");
    }
    s3.fail(1, "DELETE", "2001-01-01", Fault::Answer(403, "AccessDenied"));
    let outcome = Pgkeep::new(&database, &s3).with("BACKUP_RETENTION_DAYS", "1").succeed(&["backup"]);
    assert!(outcome.log.contains("1 backup kept, 1 deleted, 1 could not be deleted"), "{}", outcome.log);
    assert!(
        outcome.log.contains("DeleteObject") && outcome.log.contains("403 AccessDenied"),
        "{}",
        outcome.log
    );
    assert_eq!(s3.objects().len(), 2);
}

#[test]
fn days_weeks_and_months_keep_their_newest_in_the_time_zone_and_all_say_why() {
    let s3 = s3::Server::start();
    let pgkeep = Pgkeep::new("app", &s3)
        .with("TZ", "America/New_York")
        .with("BACKUP_KEEP_LAST", "1")
        .with("BACKUP_KEEP_DAILY", "2")
        .with("BACKUP_KEEP_WEEKLY", "2")
        .with("BACKUP_KEEP_MONTHLY", "3");
    // In New York: Sunday 2020-05-31 twice; Sunday 2020-06-07 once and Monday 2020-06-08 once.
    let times = [
        "2019-12-31_12-00-00",
        "2020-01-01_04-59-59",
        "2020-05-31_12-00-00",
        "2020-06-01_03-59-59",
        "2020-06-08_03-59-59",
        "2020-06-08_04-00-00",
    ];
    for time in times {
        s3.plant(&format!("app/app_{time}.sql.gz"), &[0; 1000]);
    }
    // The newest of a time to come displaces nothing.
    s3.plant("app/app_2199-01-01_00-00-00.sql.gz", b"x");
    let plan = pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    for row in [
        "delete  app/app_2019-12-31_12-00-00.sql.gz  (",
        "keep    app/app_2020-01-01_04-59-59.sql.gz  (monthly)\n",
        "delete  app/app_2020-05-31_12-00-00.sql.gz  (",
        "keep    app/app_2020-06-01_03-59-59.sql.gz  (monthly)\n",
        "keep    app/app_2020-06-08_03-59-59.sql.gz  (daily, weekly)\n",
        "keep    app/app_2020-06-08_04-00-00.sql.gz  (the newest, last, daily, weekly, monthly)\n",
        "keep    app/app_2199-01-01_00-00-00.sql.gz  (named by a time in the future)\n",
    ] {
        assert!(plan.contains(row), "{row}: {plan}");
    }
    assert!(plan.contains(" old, kept by no rule)\n"), "{plan}");

    let list = pgkeep.succeed(&["list"]).stdout;
    assert!(list.contains(" kept: daily, weekly ") && list.contains(" goes with the next backup "), "{list}");
    let column = |row: &str| Some(row.find("app/app_2")? - row.find("plain")?);
    let columns: BTreeSet<usize> = list.lines().filter_map(column).collect();
    assert_eq!(columns.len(), 1, "{list}");
    let json = || -> serde_json::Value {
        serde_json::from_str(&pgkeep.succeed(&["list", "--json"]).stdout).expect("JSON")
    };
    let weekly = &json()[4];
    assert_eq!((&weekly["keep"], &weekly["expires"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(weekly["kept_by"][1], serde_json::json!({"rule": "weekly", "until": null}));
    assert_eq!(json()[0]["kept_by"], serde_json::json!([]));

    // Many days keep all of them for now.
    let both = pgkeep.clone().with("BACKUP_RETENTION_DAYS", "36500");
    let plan = both.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.contains("(daily, weekly, days until 2120-05-15 03:59)\n"), "{plan}");
    assert!(
        plan.contains(" old, kept for 36500 d)\n") && plan.contains("\n7 backups would be kept, 0 "),
        "{plan}"
    );

    pgkeep.succeed(&["prune"]);
    let left = [1, 3, 4, 5].map(|at| format!("app/app_{}.sql.gz", times[at]));
    assert_eq!(s3.backups()[..4], left);
    assert_eq!(s3.backups().len(), 5);
    // Doubts hold back as ever: the newest has shrunk.
    s3.plant("app/app_2020-06-13_00-00-00.sql.gz", &[0; 10]);
    let before = s3.backups();
    let log = pgkeep.fail(&["prune"]).log;
    assert!(log.contains("pruning held back") && s3.backups() == before, "{log}");
}

#[test]
fn a_backup_prunes_by_count_over_both_formats() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let key = |time: &str, ending: &str| format!("{database}/{database}_{time}.{ending}");
    s3.plant(&key("2020-01-01_00-00-00", "sql.gz"), b"x");
    s3.plant(&key("2020-01-02_00-00-00", "dump.gz"), b"x");
    s3.plant(&key("2020-01-03_00-00-00", "dump.gz"), b"x");
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_KEEP_LAST", "2");
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("; 2 backups kept, 2 deleted; "), "{log}");
    assert!(log.contains("2020-01-01_00-00-00.sql.gz (") && log.contains(" old, kept by no rule)"), "{log}");
    assert!(s3.path(&key("2020-01-03_00-00-00", "dump.gz")).exists());
    let check = pgkeep.with("BACKUP_KEEP_LAST", "1").succeed(&["check"]).stdout;
    assert!(
        check.contains("\nwarning  retention: BACKUP_KEEP_LAST=1: only the newest is ever kept"),
        "{check}"
    );
}
