//! Options of the user's own for pg_dump: what they leave whole stays whole, and what would break a backup is
//! refused before anything starts.

use std::collections::BTreeMap;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, EVERYTHING, SHOP};
use crate::support::s3;

const ARGS: &str = "BACKUP_PG_DUMP_ARGS";

/// A database with `sql`, and pgkeep with these options for pg_dump.
fn with(sql: &str, options: &str) -> (String, s3::Server, Pgkeep) {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("options");
    server.psql(&database, &sql.replace("{role}", "postgres"));
    let pgkeep = Pgkeep::new(&database, &s3).with(ARGS, options);
    (database, s3, pgkeep)
}

/// The tables of a database and their numbers of rows.
fn rows(database: &str) -> BTreeMap<String, String> {
    let (counts, _) = postgres::server().contents(database);
    let pairs = counts.lines().filter_map(|line| line.split_once(": "));
    pairs.map(|(table, count)| (table.to_owned(), count.trim().to_owned())).collect()
}

#[test]
fn a_backup_by_other_statements_is_proven_and_restores_to_the_same() {
    let server = postgres::server();
    for (sql, options) in [
        (EVERYTHING, "--rows-per-insert=7 --quote-all-identifiers --use-set-session-authorization"),
        (EVERYTHING, "-vb -E UTF8 --extra-float-digits 3 --disable-dollar-quoting --load-via-partition-root"),
        (SHOP, "--column-ins --no-owner -x --role postgres --serializable-deferrable --no-sync"),
    ] {
        for format in ["plain", "custom"] {
            let (database, s3, pgkeep) = with(sql, options);
            let pgkeep = pgkeep.with("BACKUP_FORMAT", format);
            let log = pgkeep.succeed(&["backup"]).log;
            assert!(!log.contains("only a part"), "{log}");
            pgkeep.succeed(&["verify"]);
            let restored = format!("{database}_restored");
            pgkeep.succeed(&["restore", "latest", "--database", &restored]);
            assert_eq!(server.contents(&restored), server.contents(&database), "{options} {format}");
            if format == "plain" {
                let by_hand = server.database("by_hand");
                server.restore(&s3.path(&s3.backups()[0]), &by_hand);
                assert_eq!(server.contents(&by_hand), server.contents(&database), "{options}");
            }
        }
    }
}

#[test]
fn a_part_of_a_database_is_backed_up_with_a_warning_and_restores_as_a_part() {
    let sql = format!("{SHOP}; CREATE SCHEMA \"a b\"; CREATE TABLE \"a b\".t AS SELECT 1 AS n");
    for (options, left) in [
        (
            "--exclude-table-data='order*'",
            &[("\"a b\".t", "1"), ("public.customers", "500"), ("public.orders", "0")][..],
        ),
        ("-n '\"a b\"'", &[("\"a b\".t", "1")]),
        ("-T public.orders -vT totals --exclude-schema 'a b'", &[("public.customers", "500")]),
    ] {
        for format in ["plain", "custom"] {
            let (database, _s3, pgkeep) = with(&sql, options);
            let pgkeep = pgkeep.with("BACKUP_FORMAT", format);
            let log = pgkeep.succeed(&["backup"]).log;
            assert!(log.contains(&format!("[WARN ] {ARGS} leaves something out")), "{log}");
            let restored = format!("{database}_restored");
            pgkeep.succeed(&["restore", "latest", "--database", &restored]);
            let left: Vec<(String, String)> = left.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
            assert_eq!(rows(&restored), left.into_iter().collect(), "{options} {format}");
        }
    }
}

#[test]
fn a_part_that_needs_the_rest_is_found_out_by_a_drill() {
    let (_, s3, pgkeep) = with(SHOP, "-T orders");
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(
        log.contains("restore only if it needs nothing of the rest: pgkeep verify --drill tries it"),
        "{log}"
    );
    let drill = postgres::server().connection("postgres");
    let log = pgkeep.with("BACKUP_DRILL_CONNECTION_STRING", &drill).fail(&["verify", "--drill"]).log;
    assert!(log.contains("relation \"public.orders\" does not exist") && s3.backups().len() == 1, "{log}");
}

#[test]
fn what_would_break_a_backup_is_refused_before_anything_starts() {
    let s3 = s3::Server::start();
    let pgkeep = Pgkeep::new("app", &s3).with(ARGS, "-vFt --fil=/tmp/x other").with("BACKUP_THREADS", "0");
    for command in ["backup", "check", "run"] {
        let outcome = pgkeep.run(&[command]);
        assert_eq!(outcome.status, 2, "{}", outcome.log);
        for part in [
            "BACKUP_PG_DUMP_ARGS has -F (in -vFt): BACKUP_FORMAT chooses the format, and has --fil, which can mean \
             --file: pgkeep itself",
            "and has \"other\", which is no option",
            "for example BACKUP_PG_DUMP_ARGS='--exclude-table-data=",
            "BACKUP_THREADS is \"0\"",
        ] {
            assert!(outcome.log.contains(part), "{part}: {}", outcome.log);
        }
    }
    assert!(s3.objects().is_empty());
}

#[test]
fn no_shell_runs_and_the_start_says_what_is_passed_on() {
    let (database, s3, pgkeep) = with(SHOP, "-T '$(touch x)`touch y`' -T \"a;b|c\" --strict-names");
    let pgkeep = pgkeep.with("BACKUP_INTERVAL", "0 0 1 1 *").with("BACKUP_ON_START", "true");
    let running = pgkeep.start(&[]);
    running.wait_for_log("BACKUP_PG_DUMP_ARGS = -T $(touch x)`touch y` -T a;b|c --strict-names");
    running.wait_for_log("backup succeeded");
    assert_eq!(s3.backups().len(), 1);
    pgkeep.succeed(&["restore", "latest", "--database", &format!("{database}_restored")]);
    assert_eq!(rows(&format!("{database}_restored")), rows(&database));
}

#[test]
fn check_lets_pg_dump_judge_the_options_and_what_they_leave_out_needs_no_right() {
    let server = postgres::server();
    let (database, s3, pgkeep) = with(&format!("{SHOP}; CREATE TABLE secrets ()"), "-T secrets");
    let role = format!("{database}_reader");
    server.psql(
        &database,
        &format!(
            "CREATE ROLE {role} LOGIN PASSWORD '{}';
             GRANT SELECT ON customers, orders, totals, customers_id_seq, orders_id_seq TO {role}",
            postgres::PASSWORD
        ),
    );
    let connection = server.connection(&database).replace("user=postgres", &format!("user={role}"));
    let pgkeep = pgkeep.with("POSTGRES_CONNECTION_STRING", &connection);
    let stdout = pgkeep.succeed(&["check"]).stdout;
    assert!(stdout.contains("\nok       pg_dump's options: accepted: -T secrets\n"), "{stdout}");
    assert!(stdout.contains("\nwarning  right to read: ") && stdout.contains("public.secrets"), "{stdout}");
    assert!(
        stdout.contains("\nwarning  configuration: BACKUP_PG_DUMP_ARGS leaves something out"),
        "{stdout}"
    );
    pgkeep.succeed(&["backup"]);
    for (options, says) in [
        ("--no-such-option", "no-such-option"),
        ("-t nowhere", "no matching tables were found"),
        ("--on-conflict-do-nothing", "--inserts"),
        ("-t secrets", "permission denied"),
        ("--role=nobody_at_all", "nobody_at_all"),
    ] {
        let pgkeep = pgkeep.clone().with(ARGS, options);
        let stdout = pgkeep.fail(&["check"]).stdout;
        let line =
            stdout.lines().find(|line| line.starts_with("FAILED   pg_dump's options: ")).unwrap_or(&stdout);
        assert!(line.contains(says) && line.ends_with("; see BACKUP_PG_DUMP_ARGS"), "{options}: {stdout}");
        // And so it is.
        pgkeep.fail(&["backup"]);
    }
    assert_eq!(s3.backups().len(), 1);
    // Without options, pg_dump is not asked.
    assert!(!pgkeep.without(ARGS).fail(&["check"]).stdout.contains("pg_dump's options"));
}
