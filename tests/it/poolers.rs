//! Connection poolers: those that lend one server connection to many clients in turn are refused, because pg_dump's
//! settings would stay there. Others are welcome. A real PgBouncer, where it is installed.

use crate::backup::assert_restores;
use crate::support::pgbouncer::PgBouncer;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, PASSWORD, SHOP};
use crate::support::s3;

/// A database, pgkeep that reaches it through the pooler, and its S3 server.
fn shop(pooler: &PgBouncer) -> (String, Pgkeep, s3::Server) {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("pooled");
    server.psql(&database, SHOP);
    let pgkeep =
        Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &pooler.connection(&database));
    (database, pgkeep, s3)
}

/// Has clients work at the same time, so that the pool has as many backends.
fn warm(pooler: &PgBouncer, database: &str, clients: usize) {
    let work =
        || pooler.client(database).args(["-c", "DO 'BEGIN PERFORM pg_sleep(1); END'"]).spawn().expect("psql");
    let clients: Vec<_> = (0..clients).map(|_| work()).collect();
    for mut client in clients {
        assert!(client.wait().expect("psql").success());
    }
}

/// What applications find, through whichever backend they get.
fn assert_unharmed(pooler: &PgBouncer, database: &str) {
    for _ in 0..12 {
        assert_eq!(pooler.psql(database, "SELECT count(*) FROM orders"), "5000");
        let settings = "SELECT current_setting('search_path'), current_setting('row_security'), count(*)
            FROM pg_class WHERE relpersistence = 't'";
        assert_eq!(pooler.psql(database, settings), "\"$user\", public|on|0");
    }
}

#[test]
fn a_pooler_that_shares_its_connections_is_refused_before_pg_dump_runs() {
    for (mode, settings, clients) in [
        ("transaction", "", 0),
        ("transaction", "default_pool_size = 1", 1),
        ("transaction", "", 3),
        // Each question gets the backend that has rested longest.
        ("transaction", "server_round_robin = 1", 2),
        ("transaction", "server_round_robin = 1", 3),
        ("statement", "", 2),
    ] {
        let Some(pooler) = PgBouncer::start(mode, settings) else { return };
        let (database, pgkeep, s3) = shop(&pooler);
        warm(&pooler, &database, clients);
        let report = pgkeep.fail(&["check"]).stdout;
        // In statement mode the first question is refused already.
        let line = if mode == "statement" { "FAILED   PostgreSQL: " } else { "FAILED   connection: " };
        let found = report.lines().find(|found| found.starts_with(line));
        let found = found.unwrap_or_else(|| panic!("{mode}, {settings}, {clients}:\n{report}"));
        let remedy = "or to a pool in session mode";
        assert!(found.contains(remedy) && found.ends_with("; see POSTGRES_CONNECTION_STRING"), "{found}");
        let log = pgkeep.fail(&["backup"]).log;
        assert!(log.contains("backup failed: ") && log.contains(remedy), "{log}");
        assert!(!log.contains("backup started"), "{log}");
        assert!(s3.objects().is_empty() && s3.pending_uploads().is_empty());
        assert_unharmed(&pooler, &database);
        // Nor is anything restored through it.
        let drill = pgkeep.with("BACKUP_DRILL_CONNECTION_STRING", &pooler.connection("postgres"));
        let report = drill.fail(&["check"]).stdout;
        let found = report.lines().find(|line| line.starts_with("FAILED   drill: ")).expect(&report);
        assert!(found.contains(remedy), "{found}");
    }
}

/// What the refusal is for, and that `assert_unharmed` would notice it.
#[test]
fn pg_dump_through_such_a_pooler_breaks_the_next_clients() {
    let Some(pooler) = PgBouncer::start("transaction", "server_round_robin = 1") else { return };
    let (database, _, _s3) = shop(&pooler);
    warm(&pooler, &database, 3);
    assert_unharmed(&pooler, &database);
    let mut dump = postgres::server().client("pg_dump", &database);
    let dumped = dump.args(["-d", &pooler.connection(&database)]).output().expect("pg_dump");
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let broken = (0..12).filter(|_| {
        let client = pooler.client(&database).args(["-c", "SELECT count(*) FROM orders"]).output();
        String::from_utf8_lossy(&client.expect("psql").stderr).contains("relation \"orders\" does not exist")
    });
    assert!(broken.count() > 0);
}

#[test]
fn a_pooler_in_session_mode_is_as_good_as_the_server() {
    // In the pool of one, the second session waits in vain, and that is no reason either.
    for (settings, found) in [
        ("", "ok       connection: each session has a server process of its own"),
        ("server_round_robin = 1", "ok       connection: "),
        (
            "default_pool_size = 1",
            "warning  connection: whether a pooler shares it with other clients is not known: ",
        ),
    ] {
        let Some(pooler) = PgBouncer::start("session", settings) else { return };
        let (database, pgkeep, s3) = shop(&pooler);
        warm(&pooler, &database, 2);
        let report = pgkeep.succeed(&["check"]).stdout;
        assert!(report.lines().any(|line| line.starts_with(found)), "{settings}: {report}");
        pgkeep.succeed(&["backup"]);
        assert_restores(&s3, &database);
        assert_unharmed(&pooler, &database);
    }
}

#[test]
fn a_role_that_may_connect_once_only_is_no_obstacle() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("once");
    server.psql(&database, SHOP);
    server.psql(
        "postgres",
        &format!(
            "CREATE ROLE once LOGIN CONNECTION LIMIT 1 PASSWORD '{PASSWORD}'; GRANT pg_read_all_data TO once"
        ),
    );
    let connection = server.connection(&database).replace("user=postgres", "user=once");
    let pgkeep = Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &connection);
    let report = pgkeep.succeed(&["check"]).stdout;
    let found = report.lines().find(|line| line.starts_with("warning  connection: ")).expect(&report);
    assert!(
        found.contains("there cannot be two sessions at a time") && found.contains("too many"),
        "{found}"
    );
    pgkeep.succeed(&["backup"]);
    assert_restores(&s3, &database);
}
