//! The way back: restored is what was backed up, or nothing at all.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use rustix::process::Signal;

use crate::support::pgkeep::{Pgkeep, Running};
use crate::support::postgres::{self, noise, Server, EVERYTHING, SHOP};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

/// The one backup of a database that `sql` makes.
fn backed_up(name: &str, sql: &str, format: &str) -> (String, s3::Server, Pgkeep, String) {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database(name);
    server.psql(&database, sql);
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_FORMAT", format);
    pgkeep.succeed(&["backup"]);
    let key = s3.objects().into_keys().next().expect("a backup");
    (database, s3, pgkeep, key)
}

/// `2026-11-23_03-00-00` of a key.
fn time_of(key: &str) -> &str {
    let name = key.strip_suffix(".sql.gz").or(key.strip_suffix(".dump.gz")).expect("a backup's key");
    &name[name.len() - 19..]
}

fn exists(server: &Server, database: &str) -> bool {
    let query = format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'");
    server.psql("postgres", &query).trim() == "1"
}

fn assert_same(server: &Server, restored: &str, source: &str) {
    let (restored, source) = (server.contents(restored), server.contents(source));
    assert_eq!(restored.0, source.0);
    assert_eq!(restored.1, source.1);
}

#[test]
fn the_latest_is_restored_into_a_new_database_of_its_name_and_time() {
    let server = postgres::server();
    let (database, _s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    let outcome = pgkeep.succeed(&["restore", "latest"]);
    let restored = format!("{database}_restored_{}", time_of(&key));
    assert_same(server, &restored, &database);
    // What was restored, for somebody who has never done it before.
    assert!(
        outcome.stdout.contains("public.customers") && outcome.stdout.contains(" 500\n"),
        "{}",
        outcome.stdout
    );
    let said = format!("restore succeeded: 2 tables with 5500 rows in the database \"{restored}\"");
    assert!(outcome.log.contains(&said), "{}", outcome.log);
    // Once more, and it would be written to: refused.
    let log = pgkeep.fail(&["restore", "latest"]).log;
    assert!(log.contains("is there and not empty") && log.contains("--replace"), "{log}");
    assert_same(server, &restored, &database);
}

#[test]
fn everything_that_pg_dump_knows_comes_back_in_both_formats() {
    let server = postgres::server();
    let role = "everything role";
    server.psql("postgres", &format!("CREATE ROLE \"{role}\""));
    for format in ["plain", "custom"] {
        let (database, s3, pgkeep, key) = backed_up("every", &EVERYTHING.replace("{role}", role), format);
        assert!(key.ends_with(if format == "plain" { ".sql.gz" } else { ".dump.gz" }), "{key}");
        let into = format!("{database}-back \"again\"");
        pgkeep.succeed(&["restore", &key, "--database", &into]);
        assert_same(server, &into, &database);
        let hashes =
            "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM \"Odd Schema\".\"The \"\"Table\"\"\" t
                      UNION ALL SELECT md5(lo_get(4711)) UNION ALL SELECT last_value::text FROM numbers";
        assert_eq!(server.psql(&into, hashes), server.psql(&database, hashes));
        assert_eq!(s3.requests("GET", "/every").len(), 1, "one GET, and no more");
    }
}

#[test]
fn an_existing_database_is_restored_into_only_where_it_is_empty() {
    let server = postgres::server();
    let (database, _s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    let empty = server.database("empty");
    pgkeep.succeed(&["restore", &key, "--database", &empty]);
    assert_same(server, &empty, &database);
    for (name, sql) in [
        ("table", "CREATE TABLE kept ()"),
        ("type", "CREATE TYPE kept AS ENUM ('a')"),
        ("schema", "CREATE SCHEMA kept"),
        ("function", "CREATE FUNCTION kept() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
        ("object", "SELECT lo_create(7)"),
    ] {
        let used = server.database(name);
        server.psql(&used, sql);
        let before = server.contents(&used);
        let log = pgkeep.fail(&["restore", &key, "--database", &used]).log;
        assert!(log.contains("is there and not empty"), "{name}: {log}");
        assert_eq!(server.contents(&used), before);
    }
}

#[test]
fn replace_swaps_by_renaming_and_says_how_to_undo_it() {
    let server = postgres::server();
    let (database, _s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    server.psql(&database, "DELETE FROM orders WHERE id > 10");
    let role = format!("{database}_owner");
    server.psql(
        "postgres",
        &format!(
            "CREATE ROLE {role}; GRANT {role} TO postgres; ALTER DATABASE {database} OWNER TO {role};
             ALTER DATABASE {database} SET search_path = public, \"Odd\";
             ALTER DATABASE {database} SET work_mem = '7MB'; ALTER ROLE {role} IN DATABASE {database} SET jit = off;
             REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"
        ),
    );
    let properties = |name: &str| {
        server.psql(
            "postgres",
            &format!(
                "SELECT pg_get_userbyid(datdba), (SELECT array_agg(acl::text ORDER BY acl::text) FROM unnest(datacl) acl), datallowconn,
                        (SELECT array_agg((setrole, setconfig)::text ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid)
                 FROM pg_database d WHERE datname = '{name}'"
            ),
        )
    };
    let (before, owned) = (server.contents(&database), properties(&database));
    // Somebody is connected, and stays so.
    let mut guest = server.client("psql", &database);
    let mut guest = guest.args(["-Xqc", "SELECT pg_sleep(600)"]).stderr(Stdio::null()).spawn().expect("psql");
    let log = pgkeep.succeed(&["restore", time_of(&key), "--replace"]).log;
    let _ = guest.wait();
    assert_eq!(server.psql(&database, "SELECT count(*) FROM orders").trim(), "5000");
    assert_eq!(properties(&database), owned);
    let line = log.lines().find(|line| line.contains("restore succeeded")).expect("the line");
    let aside = line.split("what it was before is now \"").nth(1).expect(line).split('"').next().expect(line);
    assert_eq!(server.contents(aside), before);
    let undo = line.split("to undo: ").nth(1).expect(line);
    server.psql("postgres", undo);
    assert_eq!(server.contents(&database), before);
}

#[test]
fn another_databases_backup_is_restored_by_its_key_and_to_another_server() {
    let (other, s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    let elsewhere = Server::start(postgres::bin());
    let connection = elsewhere.connection("postgres").replace("dbname='postgres'", "");
    let place = format!("s3://{}/{key}", s3::BUCKET);
    // The configured database is gone, with its server.
    let mine = pgkeep.with("POSTGRES_CONNECTION_STRING", "host=/nowhere dbname=mine");
    mine.succeed(&["restore", &place, "--to", &connection, "--database", "back"]);
    assert_eq!(elsewhere.contents("back"), postgres::server().contents(&other));
    let to_named = elsewhere.connection("named");
    mine.succeed(&["restore", &place, "--to", &to_named]);
    assert_eq!(elsewhere.contents("named"), postgres::server().contents(&other));
    let log = mine.fail(&["restore", "latest", "--to", &to_named]).log;
    assert!(log.contains("there is no backup of database \"mine\""), "{log}");
    s3.plant(&format!("{other}/notes.sql.gz"), b"x");
    let log = mine.fail(&["restore", &format!("{other}/notes.sql.gz")]).log;
    assert!(log.contains("is no backup of pgkeep's"), "{log}");
}

#[test]
fn a_time_means_the_newest_match_and_an_unknown_one_lists_the_nearest() {
    let server = postgres::server();
    let (database, s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    let bytes = fs::read(s3.path(&key)).expect("the backup");
    for time in ["2025-03-01_00-00-00", "2025-03-02_00-00-00", "2025-03-02_12-00-00"] {
        s3.plant(&format!("{database}/{database}_{time}.sql.gz"), &bytes);
    }
    pgkeep.succeed(&["restore", "2025-03-02"]);
    assert!(exists(server, &format!("{database}_restored_2025-03-02_12-00-00")));
    let log = pgkeep.fail(&["restore", "2025-03-03"]).log;
    let nearest = "2025-03-01_00-00-00, 2025-03-02_00-00-00, 2025-03-02_12-00-00";
    assert!(
        log.contains(&format!("there is no backup of 2025-03-03 (UTC); the nearest: {nearest}")),
        "{log}"
    );
    assert!(pgkeep.fail(&["restore", "yesterday"]).log.contains("2026-11-23_03-00-00"));
}

/// A table whose rows cannot be restored: their check looks for another table on the search path, which is empty in
/// a restore.
const UNRESTORABLE: &str = "
    CREATE TABLE helper (id int);
    CREATE FUNCTION looks(int) RETURNS boolean LANGUAGE plpgsql AS
        'BEGIN RETURN NOT EXISTS (SELECT FROM helper); END';
    CREATE TABLE a (id int CHECK (looks(id)));
    INSERT INTO a VALUES (1);
";

#[test]
fn a_statement_that_fails_is_named_and_nothing_is_left() {
    let server = postgres::server();
    for format in ["plain", "custom"] {
        let sql = format!("{SHOP} {UNRESTORABLE}");
        let (database, _s3, pgkeep, key) = backed_up("gone", &sql, format);
        let log = pgkeep.fail(&["restore", "latest"]).log;
        let error = log.lines().find(|line| line.contains("restore failed")).expect(&log);
        assert!(error.contains("relation \"helper\" does not exist") && error.contains("COPY"), "{error}");
        assert!(!exists(server, &format!("{database}_restored_{}", time_of(&key))), "{log}");
        // In a database that was there, all of it or nothing.
        let empty = server.database("empty");
        pgkeep.fail(&["restore", "latest", "--database", &empty]);
        assert_eq!(server.contents(&empty).0, "");
    }
}

#[test]
fn a_damaged_backup_is_refused_by_restore_verify_and_get_and_leaves_nothing() {
    let server = postgres::server();
    for format in ["plain", "custom"] {
        let (database, s3, pgkeep, key) = backed_up("damaged", &noise(2), format);
        let whole = fs::read(s3.path(&key)).expect("the backup");
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        let mut wrong_sum = whole.clone();
        wrong_sum[whole.len() - 6] ^= 1;
        let other = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff".as_slice(), &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
        let empty = server.database("empty");
        for (bytes, reason) in [
            (&whole[..whole.len() / 2], "is cut off: the object ends at byte"),
            (&whole[..whole.len() - 1], "is cut off: the object ends at byte"),
            (&flipped, "is damaged"),
            (&wrong_sum, "is damaged"),
            (&[whole.clone(), b"more".to_vec()].concat(), "4 bytes are behind it"),
            (&[whole.clone(), whole.clone()].concat(), "bytes are behind it"),
            (b"<html>not found</html>", "is no gzip file"),
            (b"", "is cut off: the object ends at byte 0"),
            // The gzip of nothing at all.
            (&other, if format == "plain" { "no end marker" } else { "does not begin as" }),
        ] as [(&[u8], &str); 9]
        {
            s3.plant(&key, bytes);
            for command in [
                &["restore", "latest"] as &[&str],
                &["restore", "latest", "--database", &empty],
                &["verify"],
                &["get", "latest", "-o", s3.path("got").to_str().expect("UTF-8")],
            ] {
                let log = pgkeep.fail(command).log;
                // pg_restore may stumble over the damage before the checksum is there that shows it.
                let stumbled = bytes == flipped && format == "custom" && command[0] == "restore";
                let told = log.contains(reason) || stumbled && log.contains("pgkeep verify s3://");
                assert!(told, "{format}, {reason}: {command:?}: {log}");
                assert!(!log.contains("succeeded") && !log.contains(" is whole:"), "{log}");
            }
            assert!(!exists(server, &format!("{database}_restored_{}", time_of(&key))));
            assert_eq!(server.contents(&empty).0, "", "{reason}");
            assert!(!s3.path("got").exists());
            let piped = pgkeep.command(&["get", "latest", "-o", "-"]).output().expect("pgkeep");
            assert_eq!(piped.status.code(), Some(1), "{reason}");
        }
    }
}

#[test]
fn get_writes_the_file_itself_and_replaces_none() {
    let (_database, s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    let directory = tempfile::tempdir().expect("a directory");
    let whole = fs::read(s3.path(&key)).expect("the backup");
    pgkeep.succeed(&["get", "latest", "-o", directory.path().to_str().expect("UTF-8")]);
    let file = directory.path().join(key.rsplit('/').next().expect("a name"));
    assert!(fs::read(&file).expect("the file") == whole);
    let log = pgkeep.fail(&["get", &key, "-o", file.to_str().expect("UTF-8")]).log;
    assert!(log.contains("exists already"), "{log}");
    let output = pgkeep.command(&["get", &key, "-o", "-"]).output().expect("pgkeep");
    assert!(output.status.success() && output.stdout == whole);
    assert_eq!(fs::read_dir(&directory).expect("the directory").count(), 1);
}

#[test]
fn verify_reads_one_or_all_and_says_which_is_not_whole() {
    let (database, s3, pgkeep, key) = backed_up("shop", SHOP, "plain");
    let log = pgkeep.succeed(&["verify"]).log;
    assert!(log.contains(&format!("{key} is whole")) && log.contains("uncompressed"), "{log}");
    let whole = fs::read(s3.path(&key)).expect("the backup");
    s3.plant(&format!("{database}/{database}_2025-03-01_00-00-00.sql.gz"), &whole);
    assert!(pgkeep.succeed(&["verify", "--all"]).log.contains("all 2 backups are whole"));
    s3.plant(&format!("{database}/{database}_2025-03-02_00-00-00.sql.gz"), &whole[1..]);
    let log = pgkeep.fail(&["verify", "--all"]).log;
    assert!(log.contains("2025-03-02_00-00-00.sql.gz is not a whole backup"), "{log}");
    assert!(
        log.contains("2025-03-01_00-00-00.sql.gz is whole")
            && log.contains("1 of 3 backups are not proven whole"),
        "{log}"
    );
}

#[test]
fn tables_schemas_and_jobs_are_for_the_custom_format() {
    let server = postgres::server();
    let sql = format!("{SHOP} CREATE SCHEMA stock; CREATE TABLE stock.items AS SELECT 1 AS id");
    let (database, _s3, pgkeep, _) = backed_up("shop", &sql, "custom");
    pgkeep.succeed(&["restore", "latest", "--jobs", "3", "--database", &format!("{database}_jobs")]);
    assert_same(server, &format!("{database}_jobs"), &database);
    let log = pgkeep
        .succeed(&["restore", "latest", "--table", "customers", "--database", &format!("{database}_t")])
        .log;
    assert!(log.contains("1 table with 500 rows"), "{log}");
    let log = pgkeep
        .succeed(&["restore", "latest", "--schema", "stock", "--database", &format!("{database}_s")])
        .log;
    assert!(log.contains("1 table with 1 rows"), "{log}");
    let log = pgkeep.fail(&["restore", "latest", "--replace", "--table", "customers"]).log;
    assert!(log.contains("would replace the whole database by a part of it"), "{log}");
    let (_, _s3, plain, _) = backed_up("shop", SHOP, "plain");
    assert!(plain
        .fail(&["restore", "latest", "--jobs", "2"])
        .log
        .contains("need a backup in the custom format"));
}

#[test]
fn a_connection_that_breaks_is_gone_on_with_where_it_broke() {
    let server = postgres::server();
    let (database, s3, pgkeep, key) = backed_up("noise", &noise(24), "plain");
    s3.fail(4, "GET", "/noise", Fault::CutAnswer(500_000));
    s3.fail(1, "GET", "/noise", Fault::Answer(503, "SlowDown"));
    let log = pgkeep.succeed(&["restore", "latest"]).log;
    assert!(log.contains("broken off at byte ") && log.contains("going on from there"), "{log}");
    assert_same(server, &format!("{database}_restored_{}", time_of(&key)), &database);
    assert_eq!(s3.requests("GET", "/noise").len() as u64, s3.objects()[&key].div_ceil(1 << 20) + 5);
    // One that never brings a byte ends.
    s3.fail(1, "GET", "/noise", Fault::CutAnswer(100_000));
    s3.fail(99, "GET", "/noise", Fault::Answer(403, "AccessDenied"));
    let log = pgkeep.fail(&["verify"]).log;
    assert!(log.contains("GetObject") && log.contains("403 AccessDenied"), "{log}");
    // Which is no word about the backup.
    assert!(log.contains("could not be read") && !log.contains("is not a whole backup"), "{log}");
}

/// Restoring stands still in the midst of a table's rows.
fn paused(into: &str) -> (s3::Server, Running) {
    let server = postgres::server();
    let (_, s3, pgkeep, _) = backed_up("noise", &noise(24), "plain");
    s3.fail(1, "GET", "bytes=8388608-", Fault::StopAnswer(0));
    let running = pgkeep.start(&["restore", "latest", "--database", into]);
    let copying =
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE '{into}_unfinished_%' AND query LIKE 'COPY %'");
    wait_for("rows on their way", || (server.psql("postgres", &copying).trim() == "1").then_some(()));
    (s3, running)
}

#[test]
fn a_signal_breaks_a_restore_off_and_leaves_nothing() {
    let server = postgres::server();
    let (_s3, mut running) = paused("stopped");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(running.log().contains("was dropped again"), "{}", running.log());
    assert_eq!(server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'stopped%'"), "");
    // At once: not only when the connection to S3 was given up as stalled.
    assert!(!running.log().contains("broken off at byte"), "{}", running.log());
}

#[test]
fn what_a_killed_restore_leaves_has_no_name_that_somebody_expects() {
    let server = postgres::server();
    let empty = server.database("empty");
    let (_s3, mut running) = paused(&empty);
    running.signal(Signal::KILL);
    running.wait();
    // psql sees the end of its input, and ends as well.
    let guests = format!("SELECT count(*) FROM pg_stat_activity WHERE datname LIKE '{empty}%'");
    wait_for("psql's end", || (server.psql("postgres", &guests).trim() == "0").then_some(()));
    assert_eq!(server.contents(&empty).0, "");
    let left = "SELECT datname || ': ' || shobj_description(oid, 'pg_database') FROM pg_database WHERE datname LIKE ";
    let left = server.psql("postgres", &format!("{left} '{empty}_%'"));
    assert!(
        left.contains("_unfinished_20") && left.contains(": pgkeep: an unfinished restore of s3://"),
        "{left}"
    );
}

#[test]
fn the_object_says_what_it_is_and_the_log_how_to_restore_it_without_pgkeep() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let directory = tempfile::tempdir().expect("a directory");
    let has_aws = server.client("aws", "postgres").arg("--version").output().is_ok();
    for (format, sql, parts) in [("plain", SHOP.to_owned(), 1), ("custom", noise(34), 3)] {
        let database = format!("-recover {format} \"é\"");
        server.create_database(&database);
        server.psql(&database, &sql);
        let log = Pgkeep::new(&database, &s3).with("BACKUP_FORMAT", format).succeed(&["backup"]).log;
        let key = s3.objects().into_keys().find(|key| key.contains(format)).expect("a backup");
        let metadata = s3.metadata(&key);
        assert_eq!(metadata["pgkeep-version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(metadata["database"], format!("-recover.20{format}.20.22.c3.a9.22"));
        let version = server.psql("postgres", "SHOW server_version");
        assert_eq!(metadata["server-version"], version.trim());
        assert!(version.starts_with(&metadata["client-version"]), "{metadata:?}");
        // S3 takes metadata at the beginning, and only a single part is uploaded when all is known.
        assert_eq!(metadata.contains_key("dumped-bytes"), parts == 1, "{metadata:?}");

        let line = log.lines().find(|line| line.contains("backup succeeded")).expect("the line");
        let command = line.split("to restore it without pgkeep: ").nth(1).expect(line);
        if !has_aws {
            let skipped = "SKIPPED: aws is not installed, which the recovery command uses";
            let _ = writeln!(std::io::stderr(), "{skipped}");
            continue;
        }
        let output = server
            .client("sh", "postgres")
            .args(["-c", command])
            .current_dir(directory.path())
            .env_remove("PGDATABASE")
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
            .output()
            .expect("sh");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let restored = format!("recover_20{format}_20_22_c3_a9_22_restored");
        assert_same(server, &restored, &database);
    }
}

#[test]
fn ten_thousand_tables_come_back() {
    let server = Server::start(postgres::bin());
    let s3 = s3::Server::start();
    let database = server.database("many");
    // Many transactions: none of them can hold so many locks.
    for from in (0..10_000).step_by(1_000) {
        server.psql(
            &database,
            &format!(
                "DO $$ BEGIN FOR n IN {from}..{} LOOP
                     EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY)', n);
                     EXECUTE format('INSERT INTO t%s VALUES (%s)', n, n);
                 END LOOP; END $$",
                from + 999
            ),
        );
    }
    let pgkeep =
        Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &server.connection(&database));
    for format in ["plain", "custom"] {
        let pgkeep = pgkeep.clone().with("BACKUP_FORMAT", format);
        pgkeep.succeed(&["backup"]);
        let outcome = pgkeep.succeed(&["restore", "latest", "--database", format]);
        assert!(outcome.log.contains("10000 tables with 10000 rows"), "{}", outcome.log);
        assert!(server.text(format) == server.text(&database), "{format}");
    }
    let left = server.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE '%unfinished%'");
    assert_eq!(left.trim(), "0");
}

#[test]
fn on_a_terminal_one_line_shows_how_far_it_is() {
    let (_, s3, pgkeep, _) = backed_up("noise", &noise(24), "plain");
    // Half of it, then a wait for the rest.
    s3.fail(2, "GET", "bytes=12582912-", Fault::Answer(503, "SlowDown"));
    let Some(shown) = pgkeep.on_a_terminal("verify") else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: script is not installed, which makes a terminal");
        return;
    };
    let line = shown.split("\r\x1b[K").find(|line| line.starts_with("verifying for ")).expect(&shown);
    assert!(
        line.contains(" of 2") && line.contains(" MB (") && line.contains(" %, ") && line.ends_with(" left"),
        "{line:?}"
    );
    // It gives way to the lines of the log, and is gone in the end.
    assert!(shown.contains("is whole: 2"), "{shown:?}");
    assert!(!shown.rsplit("\r\x1b[K").next().expect("a last line").contains("verifying"), "{shown:?}");
}

#[test]
fn the_maintenance_database_itself_can_be_replaced() {
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    server.psql("postgres", SHOP);
    let connection = server.connection("postgres");
    let pgkeep = Pgkeep::new("postgres", &s3).with("POSTGRES_CONNECTION_STRING", &connection);
    pgkeep.succeed(&["backup"]);
    server.psql("postgres", "DROP TABLE orders CASCADE");
    pgkeep.succeed(&["restore", "latest", "--replace"]);
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM orders").trim(), "5000");
}

#[test]
fn a_restore_that_fails_early_does_not_fetch_the_rest() {
    for format in ["plain", "custom"] {
        let sql = format!("{} ; {UNRESTORABLE}", noise(24));
        let (_, s3, pgkeep, _) = backed_up("early", &sql, format);
        // What is behind these bytes does not come.
        s3.fail(99, "GET", "bytes=12582912-", Fault::StopAnswer(0));
        let log = pgkeep.fail(&["restore", "latest"]).log;
        assert!(log.contains("relation \"helper\" does not exist"), "{log}");
        let asked = s3.requests("GET", "/early").len();
        assert!(asked <= 16, "of 26 ranges {asked}: {log}");
    }
}
