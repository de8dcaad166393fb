//! Several databases of a server, in one run.

use rustix::process::Signal;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, wrapped_pg_dump, PausedDump, Server, SHOP};
use crate::support::s3;
use crate::support::wait_for;

/// A server of the test's own with these databases, and a shop in each.
pub fn server_with(databases: &[&str]) -> Server {
    let server = Server::start(postgres::bin());
    for name in databases {
        server.create_database(name);
        server.psql(name, SHOP);
    }
    server
}

/// A pgkeep for several databases of `server`. The connection names none.
pub fn pgkeep_for(server: &Server, s3: &s3::Server, databases: &str) -> Pgkeep {
    let connection = server.connection("").replace(" dbname=''", "");
    Pgkeep::new("", s3).with("POSTGRES_CONNECTION_STRING", &connection).with("BACKUP_DATABASES", databases)
}

/// The keys of a database's backups.
pub fn keys(s3: &s3::Server, folder: &str) -> Vec<String> {
    let prefix = format!("{folder}/{folder}_");
    s3.objects().into_keys().filter(|key| key.starts_with(&prefix)).collect()
}

#[test]
fn what_a_list_means_is_backed_up_and_one_that_fails_stops_no_other() {
    let (server, s3) = (server_with(&["app", "shop_a", "shop_b", "shop_test"]), s3::Server::start());
    server.psql("postgres", "CREATE DATABASE shop_template IS_TEMPLATE true");
    server.create_database("shop_é b");
    let pgkeep = pgkeep_for(&server, &s3, "gone,app,shop_*,x_*").with("BACKUP_EXCLUDE_DATABASES", "*_test");
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("BACKUP_DATABASES: x_* matches no database of the server"), "{log}");
    assert!(log.contains("database \"gone\": backup failed: BACKUP_DATABASES names it"), "{log}");
    let summary = log.lines().last().expect("a line");
    assert!(summary.contains("[ERROR] 4 of 5 databases backed up in "), "{summary}");
    assert!(summary.ends_with("; failed: gone"), "{summary}");
    for (name, folder) in
        [("app", "app"), ("shop_a", "shop_a"), ("shop_b", "shop_b"), ("shop_é b", "shop_.c3.a9.20b")]
    {
        let keys = keys(&s3, folder);
        assert_eq!(keys.len(), 1, "{folder}: {:?}", s3.objects());
        server.create_database("restored");
        server.restore(&s3.path(&keys[0]), "restored");
        assert_eq!(server.contents("restored"), server.contents(name), "{name}");
        server.psql("postgres", "DROP DATABASE restored");
    }
    assert_eq!(s3.backups().len(), 4 + 1, "and the globals: {:?}", s3.backups());

    // One whose dump fails, in the middle of the list.
    let broken = wrapped_pg_dump("case \"$*\" in *shop_a*) echo no >&2; exit 1;; esac; exec $REAL \"$@\"");
    let bin = broken.path().to_str().expect("UTF-8");
    std::os::unix::fs::symlink(postgres::bin().join("pg_dumpall"), broken.path().join("pg_dumpall"))
        .expect("a link");
    let pgkeep = pgkeep.with("BACKUP_DATABASES", "app,shop_*").with("BACKUP_PG_BIN", bin);
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("database \"shop_a\": backup failed: pg_dump failed"), "{log}");
    assert!(log.lines().last().expect("a line").ends_with("; failed: shop_a"), "{log}");
    let of = |folder| keys(&s3, folder).len();
    assert_eq!([of("app"), of("shop_a"), of("shop_b"), of("shop_.c3.a9.20b")], [2, 1, 2, 2]);

    // A new one is in the next run, and everything goes well.
    server.create_database("shop_new");
    let pgkeep = pgkeep.with("BACKUP_DATABASES", "*").without("BACKUP_PG_BIN");
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.lines().last().expect("a line").contains("[INFO ] 6 of 6 databases backed up in "), "{log}");
    assert_eq!((of("shop_new"), of("postgres"), of("shop_test")), (1, 1, 0));
    for (list, says) in [("x_*", "means none of the server's databases"), ("*", "cannot ask the server")] {
        let nowhere = if list == "*" { "host=127.0.0.1 port=1" } else { &server.connection("postgres") };
        let pgkeep =
            pgkeep.clone().with("BACKUP_DATABASES", list).with("POSTGRES_CONNECTION_STRING", nowhere);
        let log = pgkeep.fail(&["backup"]).log;
        assert!(log.contains("no database was backed up: ") && log.contains(says), "{log}");
    }
}

#[test]
fn backups_of_a_database_that_is_gone_are_kept_as_long_as_the_retention_says() {
    let (server, s3) = (server_with(&["app", "old"]), s3::Server::start());
    let pgkeep = pgkeep_for(&server, &s3, "*").with("BACKUP_RETENTION_DAYS", "7");
    pgkeep.succeed(&["backup"]);
    server.psql("postgres", "DROP DATABASE old");
    s3.plant("old/old_2020-01-01_00-00-00.sql.gz", b"long ago");
    // Nobody knows whose these are, and these are not meant.
    s3.plant("strange/strange_2020-01-01_00-00-00.sql.gz", b"of another server");
    s3.plant("strange/strange_2020-01-02_00-00-00.sql.gz", b"of another server");
    let newest = keys(&s3, "old").pop().expect("a backup");
    let log = pgkeep.succeed(&["backup"]).log;
    assert_eq!(log.matches("not on the server any more").count(), 1, "{log}");
    assert!(log.contains("their newest backups are kept: old, strange"), "{log}");
    assert!(log.contains("database \"old\": deleted ") && log.contains("old_2020-01-01"), "{log}");
    assert_eq!(keys(&s3, "old"), [newest.as_str()]);
    assert_eq!(keys(&s3, "strange").len(), 2);
}

#[test]
fn a_signal_lets_the_running_backup_finish_and_begins_no_other() {
    let (server, s3) = (server_with(&["a", "b"]), s3::Server::start());
    let dump = PausedDump::new("");
    let pgkeep =
        pgkeep_for(&server, &s3, "a,b").with("BACKUP_GLOBALS", "false").with("BACKUP_PG_BIN", dump.bin());
    let mut running = pgkeep.start(&["backup"]);
    dump.wait();
    running.signal(Signal::TERM);
    running.wait_for_log("SIGTERM: stopping as soon as");
    dump.go_on();
    assert_ne!(running.wait(), 0);
    assert_eq!((keys(&s3, "a").len(), keys(&s3, "b").len()), (1, 0), "{}", running.log());
    assert!(running.log().contains("1 of 2 databases backed up"), "{}", running.log());
    assert!(running.log().contains("; stopped before 1 database"), "{}", running.log());
}

#[test]
fn health_knows_each_database() {
    let (server, s3) = (server_with(&["a", "b"]), s3::Server::start());
    let pgkeep = pgkeep_for(&server, &s3, "a,b,missing")
        .with("BACKUP_INTERVAL", "0 0 1 1 *")
        .with("BACKUP_ON_START", "true");
    let health = |status: i32, text: &str| {
        wait_for(format!("health to say {text}"), || {
            let outcome = pgkeep.run(&["health"]);
            (outcome.status == status && outcome.stdout.contains(text)).then_some(outcome.stdout)
        })
    };
    let mut running = pgkeep.start(&[]);
    running.wait_for_log("2 of 3 databases backed up");
    let said = health(1, "1 of 4 not well; missing: no backup is known");
    assert!(said.contains("BACKUP_DATABASES names it"), "{said}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    // A new start knows all of it again, and makes no backup within an hour.
    let pgkeep = pgkeep.clone().with("BACKUP_DATABASES", "a,b");
    let running = pgkeep.start(&[]);
    running.wait_for_log("newest backups: of 3 of 3; the oldest of them is s3://");
    running.wait_for_log("no backup at the start: the newest is of");
    wait_for("health to be well", || {
        let outcome = pgkeep.run(&["health"]);
        (outcome.status == 0 && outcome.stdout.contains("2 databases; ")).then_some(())
    });
}

#[test]
fn each_command_knows_the_databases_apart() {
    let (server, s3) = (server_with(&["app", "shop"]), s3::Server::start());
    server.create_database("app_test");
    let pgkeep = pgkeep_for(&server, &s3, "app*,shop")
        .with("BACKUP_EXCLUDE_DATABASES", "*_test")
        .with("BACKUP_RETENTION_DAYS", "7")
        .with("BACKUP_DRILL_CONNECTION_STRING", &server.connection("postgres"));
    for _ in 0..2 {
        pgkeep.succeed(&["backup"]);
    }
    s3.plant("shop/shop_2020-01-01_00-00-00.sql.gz", b"long ago");
    s3.plant("app_test/app_test_2020-01-01_00-00-00.sql.gz", b"not meant");
    let listed = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let arguments = [&["list", "--json"], arguments].concat();
        serde_json::from_str(&pgkeep.succeed(&arguments).stdout).expect("JSON")
    };
    let names = |arguments: &[&str]| -> Vec<String> {
        listed(arguments).iter().map(|line| line["database"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&[]), [".globals", ".globals", "app", "app", "shop", "shop", "shop"]);
    assert_eq!(names(&["shop", "app_test"]), ["app_test", "shop", "shop", "shop"]);
    assert_eq!(names(&["--all"]).len(), 8);
    let table = pgkeep.succeed(&["list"]).stdout;
    assert!(table.contains("7 backups of 2 databases and of the globals at s3://"), "{table}");
    assert!(
        table.lines().any(|line| line.starts_with("shop ") && line.contains("goes with the next")),
        "{table}"
    );
    // The objects of a run carry its id.
    let runs = listed(&["--runs"]);
    let run = |line: &serde_json::Value| line["run"].as_str().unwrap_or_default().to_owned();
    assert_eq!(run(&runs[0]), "", "{runs:?}");
    assert!(run(&runs[1]) == run(&runs[3]) && run(&runs[4]) == run(&runs[6]), "{runs:?}");
    assert!(run(&runs[1]) < run(&runs[4]), "{runs:?}");

    assert!(pgkeep.succeed(&["prune", "--dry-run"]).stdout.contains("delete  shop/shop_2020"));
    pgkeep.succeed(&["prune"]);
    assert_eq!((keys(&s3, "shop").len(), keys(&s3, "app_test").len()), (2, 1));

    let log = pgkeep.succeed(&["verify"]).log;
    assert!(log.contains("all 3 backups are whole"), "{log}");
    assert!(pgkeep.succeed(&["verify", "--all"]).log.contains("all 6 backups are whole"));
    for which in ["shop", "shop/latest", &keys(&s3, "shop")[0], ".globals"] {
        let log = pgkeep.succeed(&["verify", which]).log;
        assert_eq!(log.matches(" is whole: ").count(), 1, "{which}: {log}");
    }
    let log = pgkeep.succeed(&["verify", "--drill"]).log;
    assert_eq!(log.matches("drill succeeded").count(), 2, "{log}");
    assert_eq!(pgkeep.succeed(&["verify", "shop", "--drill"]).log.matches("drill succeeded").count(), 1);

    let log = pgkeep.fail(&["restore", "latest"]).log;
    assert!(log.contains("\"latest\" does not say of which database: for example shop/latest"), "{log}");
    let day = &keys(&s3, "shop")[0]["shop/shop_".len()..][..10];
    pgkeep.succeed(&["restore", &format!("shop/{day}"), "--database", "again"]);
    assert_eq!(server.contents("again"), server.contents("shop"));
    let log = pgkeep.fail(&["restore", ".globals/latest"]).log;
    assert!(log.contains("restore --all"), "{log}");
    let lines = pgkeep.succeed(&["check"]).stdout;
    assert!(lines.contains("2 databases to back up: app, shop"), "{lines}");
    let lines = pgkeep.clone().with("BACKUP_DATABASES", "shop,gone").fail(&["check"]).stdout;
    assert!(lines.contains("names gone, and the server does not have it"), "{lines}");
}

#[test]
fn as_many_databases_at_a_time_as_are_wanted() {
    let (server, s3) = (server_with(&["a", "b", "c"]), s3::Server::start());
    let running = tempfile::tempdir().expect("a directory");
    // Each waits until another one has begun too.
    let script = format!(
        r#"touch {0}/$$; tries=0
           while [ "$(ls {0} | wc -l)" -lt 2 ]; do
               sleep 0.05; tries=$((tries + 1)); [ $tries -lt 1000 ] || exit 9
           done; exec $REAL "$@""#,
        running.path().display()
    );
    let waiting = wrapped_pg_dump(&script);
    let pgkeep = pgkeep_for(&server, &s3, "*")
        .with("BACKUP_GLOBALS", "false")
        .with("BACKUP_JOBS", "2")
        .with("BACKUP_PG_BIN", waiting.path().to_str().expect("UTF-8"));
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("4 of 4 databases backed up"), "{log}");
    for name in ["a", "b", "c"] {
        server.create_database("restored");
        server.restore(&s3.path(&keys(&s3, name)[0]), "restored");
        assert!(server.contents("restored") == server.contents(name), "{name}: {log}");
        server.psql("postgres", "DROP DATABASE restored");
    }
}
