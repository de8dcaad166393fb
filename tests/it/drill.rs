//! Drills: a restore that is tried before it is needed.

use rustix::process::Signal;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server, SHOP};
use crate::support::s3;
use crate::support::wait_for;

/// The databases that drills make.
fn scratch(server: &Server) -> String {
    server.psql("postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'pgkeep_drill%'")
}

#[test]
fn a_drill_restores_counts_drops_and_tells_how_long_a_recovery_takes() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let elsewhere = Server::start(postgres::bin());
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3);
    pgkeep.succeed(&["backup"]);
    // Never on a server that is not named for it.
    let log = pgkeep.fail(&["verify", "--drill"]).log;
    assert!(log.contains("BACKUP_DRILL_CONNECTION_STRING is missing"), "{log}");
    let there = elsewhere.connection("postgres").replace("dbname='postgres'", "");
    let pgkeep = pgkeep.with("BACKUP_DRILL_CONNECTION_STRING", &there);
    let log = pgkeep.succeed(&["verify", "latest", "--drill"]).log;
    assert!(log.contains("restores to 2 tables with 5500 rows; a recovery takes "), "{log}");
    assert_eq!(scratch(&elsewhere), "");

    // What a plain verify cannot see: the backup is whole, and does not restore there.
    server.psql(&database, "CREATE ROLE shopkeeper; ALTER TABLE orders OWNER TO shopkeeper");
    pgkeep.succeed(&["backup"]);
    pgkeep.succeed(&["verify"]);
    let log = pgkeep.fail(&["verify", "--drill"]).log;
    assert!(log.contains("the backup does not restore") && log.contains("shopkeeper"), "{log}");
    assert_eq!(scratch(&elsewhere), "");
}

#[test]
fn the_daemon_has_drills_and_health_knows_how_they_ended() {
    let s3 = s3::Server::start();
    let server = Server::start(postgres::bin());
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
        .with("BACKUP_INTERVAL", "0 0 1 1 *")
        .with("BACKUP_DRILL_INTERVAL", "* * * * *")
        .with("BACKUP_DRILL_CONNECTION_STRING", &server.connection("postgres"));
    pgkeep.succeed(&["backup"]);
    let mut running = pgkeep.start(&[]);
    running.wait_for_log("next drill at");
    running.wait_for_log("drill succeeded: ");
    assert_eq!(scratch(&server), "");
    wait_for("health", || pgkeep.run(&["health"]).stdout.starts_with("healthy").then_some(()));
    let key = s3.backups().pop().expect("a backup");
    s3.plant(&key, b"<html>this is no backup</html>");
    running.wait_for_log("drill failed: the backup does not restore");
    let sentence = wait_for("health to know", || {
        let health = pgkeep.run(&["health"]);
        (health.status == 1).then_some(health.stdout)
    });
    assert!(sentence.contains("the drill of") && sentence.contains("is no gzip file"), "{sentence}");
    assert_eq!(scratch(&server), "");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
}
