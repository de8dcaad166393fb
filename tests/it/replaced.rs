//! What belongs to a database itself comes back too, and replacing a database locks nobody out.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server, SHOP};
use crate::support::s3;

/// Everything about a database that is not in it.
fn properties(server: &Server, name: &str) -> String {
    server.psql(
        "postgres",
        &format!(
            "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider, daticulocale, datconnlimit, datistemplate,
                    pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),
                    (SELECT array_agg(acl::text ORDER BY acl::text) FROM unnest(datacl) acl),
                    (SELECT array_agg((pg_get_userbyid(nullif(setrole, 0)), setconfig)::text ORDER BY setrole)
                     FROM pg_db_role_setting WHERE setdatabase = d.oid)
             FROM pg_database d WHERE datname = '{name}'"
        ),
    )
}

/// A database that is unlike others in every way, on a server of its own.
fn odd_one() -> (Server, s3::Server, Pgkeep) {
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    for statement in [
        "CREATE ROLE keeper",
        "CREATE ROLE \"gu\"\"est\"",
        "CREATE DATABASE odd TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' OWNER keeper",
        "COMMENT ON DATABASE odd IS 'it''s  é'",
        "ALTER DATABASE odd CONNECTION LIMIT 7",
        "ALTER DATABASE odd SET search_path = ''",
        "ALTER DATABASE odd SET temp_tablespaces = ''",
        "ALTER DATABASE odd SET log_statement = 'none'",
        "ALTER DATABASE odd SET work_mem = '7MB'",
        "ALTER ROLE keeper IN DATABASE odd SET search_path = public, \"O d\"",
        "ALTER ROLE keeper IN DATABASE odd SET jit = off",
        "REVOKE CONNECT ON DATABASE odd FROM PUBLIC",
        "GRANT CREATE ON DATABASE odd TO \"gu\"\"est\" WITH GRANT OPTION",
    ] {
        server.psql("postgres", statement);
    }
    // A byte that no UTF-8 has here.
    server.psql("odd", "CREATE TABLE public.t AS SELECT convert_from('\\xe9', 'SQL_ASCII') AS name");
    let pgkeep = Pgkeep::new("odd", &s3).with("POSTGRES_CONNECTION_STRING", &server.connection("odd"));
    (server, s3, pgkeep)
}

#[test]
fn the_database_itself_comes_back_into_a_new_one_and_into_its_place() {
    let (server, _s3, pgkeep) = odd_one();
    let before = properties(&server, "odd");
    pgkeep.succeed(&["backup"]);
    let log = pgkeep.succeed(&["restore", "latest", "--database", "new"]).log;
    assert_eq!(properties(&server, "new"), before, "{log}");
    assert_eq!(server.psql("new", "SELECT name::bytea FROM public.t"), "\\xe9");
    let log = pgkeep.succeed(&["restore", "latest", "--replace"]).log;
    assert_eq!(properties(&server, "odd"), before, "{log}");
    assert!(!log.contains("WARN"), "{log}");
    // And once more from what was restored.
    pgkeep.succeed(&["backup"]);
    pgkeep.succeed(&["restore", "latest", "--database", "again"]);
    assert_eq!(properties(&server, "again"), before);
    // An empty place keeps what it is: a locale, an owner.
    server.psql(
        "postgres",
        "CREATE DATABASE place TEMPLATE template0 ENCODING 'SQL_ASCII' OWNER \"gu\"\"est\"",
    );
    let place = properties(&server, "place");
    pgkeep.succeed(&["restore", "latest", "--database", "place"]);
    assert_eq!(properties(&server, "place"), place);
    let names = server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'place%'");
    assert_eq!(names, "place");
}

#[test]
fn what_the_other_server_lacks_is_named_and_the_rest_is_there() {
    let (server, _s3, pgkeep) = odd_one();
    let elsewhere = Server::start(postgres::bin());
    pgkeep.succeed(&["backup"]);
    let to = elsewhere.connection("postgres").replace(" dbname='postgres'", "");
    let log = pgkeep.succeed(&["restore", "latest", "--to", &to, "--database", "odd"]).log;
    for lacking in ["owner keeper", "setting search_path of the role keeper", "grant of CREATE to gu\"est"] {
        let line = format!("the restored database does not get its {lacking}");
        assert!(log.contains(&line) && log.contains("; to do it later: "), "{lacking}: {log}");
    }
    let settings = "SELECT setconfig FROM pg_db_role_setting";
    let there = elsewhere.psql("postgres", settings);
    assert_eq!(there, server.psql("postgres", &format!("{settings} WHERE setrole = 0")));
}

#[test]
fn clients_that_come_back_at_once_neither_hinder_a_swap_nor_stay_outside() {
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    server.create_database("busy");
    server.psql("busy", SHOP);
    let pgkeep = Pgkeep::new("busy", &s3).with("POSTGRES_CONNECTION_STRING", &server.connection("busy"));
    pgkeep.succeed(&["backup"]);
    let (stop, connected) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = server.client("psql", "busy");
                    let client =
                        client.args(["-XAtqc", "SELECT 1; SELECT pg_sleep(30)"]).stderr(Stdio::null());
                    let mut client = client.stdout(Stdio::null()).spawn().expect("psql");
                    while client.try_wait().expect("its status").is_none() && !stop.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    let _ = client.kill();
                    let _ = client.wait();
                    connected.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let log = pgkeep.succeed(&["restore", "latest", "--replace"]).log;
        stop.store(true, Ordering::Relaxed);
        assert!(log.contains("restore succeeded"), "{log}");
    });
    assert!(connected.into_inner() >= 4);
    assert_eq!(server.psql("busy", "SELECT count(*) FROM orders"), "5000");
}

#[test]
fn whatever_ends_a_replacement_the_name_takes_connections() {
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    server.create_database("live");
    server.psql("live", SHOP);
    let pgkeep = Pgkeep::new("live", &s3).with("POSTGRES_CONNECTION_STRING", &server.connection("live"));
    pgkeep.succeed(&["backup"]);
    let mut swapped = 0;
    for (signal, step) in [Signal::TERM, Signal::INT, Signal::KILL].iter().flat_map(|signal| {
        ["restore started", "CREATE", "COPY", "RENAME"].iter().map(move |step| (*signal, *step))
    }) {
        let mut running = pgkeep.start(&["restore", "latest", "--replace"]);
        running.wait_for_log("restore started");
        // As soon as the server is seen at this step; one that is missed is a signal a little later.
        for _ in 0..50 {
            let seen = format!(
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{step}%' AND pid <> pg_backend_pid() AND state = 'active'"
            );
            if step == "restore started" || server.psql("template1", &seen) != "0" {
                break;
            }
        }
        running.signal(signal);
        let status = running.wait();
        assert_eq!(server.psql("live", "SELECT count(*) FROM orders"), "5000", "{}", running.log());
        assert!(status != 0 || running.log().contains("restore succeeded"), "{}", running.log());
        swapped += usize::from(status == 0);
        // What a kill left is named as unfinished, or whole beside it.
        let left = server.psql(
            "postgres",
            "SELECT datname FROM pg_database WHERE datname !~ '^(postgres|template.|live|live_(unfinished|before|restored)_.*)$'",
        );
        assert_eq!(left, "");
    }
    println!("{swapped} of 12 were done before the signal");
}

#[test]
fn counting_is_no_judge_of_a_restore() {
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    server.psql(
        "postgres",
        "CREATE ROLE counter LOGIN CREATEDB PASSWORD 'of the counter'; ALTER ROLE counter SET statement_timeout = '25ms';
         ALTER ROLE counter SET max_parallel_workers_per_gather = 0; ALTER ROLE counter SET default_transaction_read_only = on",
    );
    server.create_database("counted");
    server.psql("postgres", "ALTER DATABASE counted OWNER TO counter");
    server.psql(
        "counted",
        "SET ROLE counter; CREATE TABLE open AS SELECT generate_series(1, 2000000) n; CREATE TABLE forced AS SELECT 1 n;
         CREATE TABLE revoked AS SELECT 1 n;
         ALTER TABLE forced ENABLE ROW LEVEL SECURITY; ALTER TABLE forced FORCE ROW LEVEL SECURITY;
         CREATE POLICY none ON forced USING (n > 1); REVOKE SELECT ON revoked FROM counter",
    );
    Pgkeep::new("counted", &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection("counted"))
        .succeed(&["backup"]);
    let counter =
        format!("host=127.0.0.1 port={} user=counter password='of the counter' dbname=counted", server.port);
    let pgkeep = Pgkeep::new("counted", &s3).with("POSTGRES_CONNECTION_STRING", &counter);
    // A question waits for this lock, and the rows of `open` take long to count: both longer than the role's timeout.
    server.psql("postgres", "CREATE DATABASE anew OWNER counter");
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| server.psql("anew", "BEGIN; LOCK pg_largeobject_metadata; SELECT pg_sleep(2); COMMIT"));
        let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND pid <> pg_backend_pid()";
        while server.psql("postgres", held) == "0" {}
        pgkeep.succeed(&["restore", "latest", "--database", "anew"])
    });
    let row = |table: &str, rows: &str| {
        let line =
            outcome.stdout.lines().find(|line| line.starts_with(&format!("public.{table} "))).expect("a row");
        assert!(line.ends_with(&format!(" {rows}")), "{line}");
    };
    row("open", "2000000");
    row("forced", "?");
    row("revoked", "?");
    assert!(outcome.log.contains("public.forced, public.revoked could not be counted"), "{}", outcome.log);
    assert_eq!(server.psql("anew", "SELECT count(*) FROM open"), "2000000");
}

#[test]
fn a_database_with_nothing_but_extensions_is_empty() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3);
    pgkeep.succeed(&["backup"]);
    let empty = server.database("extended");
    // An extension's own schema, table, index, sequence and types.
    server.psql(
        &empty,
        "CREATE SCHEMA of_it; CREATE TABLE of_it.things (id serial PRIMARY KEY, name text); CREATE TYPE of_it.pair AS (a int, b int);
         ALTER EXTENSION plpgsql ADD SCHEMA of_it; ALTER EXTENSION plpgsql ADD TABLE of_it.things;
         ALTER EXTENSION plpgsql ADD TYPE of_it.pair",
    );
    pgkeep.succeed(&["restore", "latest", "--database", &empty]);
    assert_eq!(server.psql(&empty, "SELECT count(*) FROM orders"), "5000");
}
