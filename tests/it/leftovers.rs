//! Databases that a drill or a restore left behind: told, and dropped only where they certainly are a dead drill's.

use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, Server, SHOP};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

/// A server of its own, because other tests' drills would drop what is made here; and pgkeep for both servers.
fn start() -> (Server, Pgkeep, s3::Server) {
    let (elsewhere, s3) = (Server::start(postgres::bin()), s3::Server::start());
    let database = elsewhere.database("shop");
    elsewhere.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &elsewhere.connection(&database))
        .with("BACKUP_DRILL_CONNECTION_STRING", &elsewhere.connection("postgres"))
        .with("BACKUP_INTERVAL", "@yearly");
    (elsewhere, pgkeep, s3)
}

fn databases(server: &Server) -> Vec<String> {
    let names = "SELECT datname FROM pg_database WHERE datname NOT LIKE 'template_' ORDER BY 1";
    server.psql("postgres", names).lines().map(str::to_owned).collect()
}

/// A client that stays connected.
fn guest(server: &Server, database: &str) -> Child {
    let mut psql = server.client("psql", database);
    let guest = psql.args(["-Xq"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("psql");
    let connected = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    wait_for("the guest", || (server.psql("postgres", &connected) == "1").then_some(()));
    guest
}

#[test]
fn what_a_kill_left_behind_is_told_and_only_a_dead_drills_database_is_dropped() {
    let (server, pgkeep, _s3) = start();
    let now = server.psql("postgres", "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD_HH24-MI-SS')");
    let (drill, young) = (
        "pgkeep_drill_0000000a_unfinished_2026-01-01_00-00-00",
        format!("pgkeep_drill_0000000b_unfinished_{now}"),
    );
    let guarded = [
        "pgkeep_drill_0000000c_unfinished_2026-01-01_00-00-00",
        "pgkeep_drill_0000000d_unfinished_2026-01-01_00-00-00",
        "it\"s_unfinished_2026-01-01_00-00-00",
    ];
    let silent = [young.as_str(), "ours_unfinished", "pgkeep_drill_ours"];
    for name in [drill].iter().chain(&guarded).chain(&silent) {
        server.create_database(name);
        let quoted = name.replace('"', "\"\"");
        // The second guarded one is not pgkeep's for certain.
        if *name != guarded[1] {
            let comment =
                format!("COMMENT ON DATABASE \"{quoted}\" IS 'pgkeep: an unfinished restore of s3://b/k'");
            server.psql("postgres", &comment);
        }
    }
    let mut guest = guest(&server, guarded[0]);

    let report = pgkeep.succeed(&["check"]).stdout;
    let daemon = pgkeep.start(&["run"]);
    let told = [drill, guarded[0], guarded[1], "it\"\"s_unfinished_2026-01-01_00-00-00"];
    for name in told {
        let remedy =
            format!("began at 2026-01-01 00:00:00 UTC and was broken off; DROP DATABASE \"{name}\";");
        // Once, although one server is both.
        assert_eq!(report.matches(&remedy).count(), 1, "{report}");
        let line = daemon.wait_for_log(&remedy);
        assert!(line.contains("[WARN ]"), "{line}");
    }
    assert_eq!(report.matches("warning  left-over databases: ").count(), told.len(), "{report}");
    assert_eq!(daemon.log().matches("was broken off").count(), told.len(), "{}", daemon.log());
    drop(daemon);

    // Neither of them drops anything, nor does a drill on another server.
    let before = databases(&server);
    assert_eq!(before.len(), 2 + 1 + guarded.len() + silent.len());
    pgkeep.succeed(&["backup"]);
    let elsewhere = postgres::server().connection("postgres");
    pgkeep.clone().with("BACKUP_DRILL_CONNECTION_STRING", &elsewhere).succeed(&["verify", "--drill"]);
    assert_eq!(databases(&server), before);
    let log = pgkeep.succeed(&["verify", "--drill"]).log;
    assert!(log.contains(&format!("dropped the database \"{drill}\", which a drill left behind")), "{log}");
    let left: Vec<String> = before.into_iter().filter(|name| name != drill).collect();
    assert_eq!(databases(&server), left);
    guest.kill().expect("the guest is sent away");
    guest.wait().expect("its end");
}

#[test]
fn a_killed_drills_database_is_dropped_by_a_later_drill_once_it_is_old() {
    let (server, pgkeep, s3) = start();
    let shop = databases(&server).into_iter().find(|name| name.starts_with("shop")).expect("the shop");
    server.psql(&shop, &noise(24));
    pgkeep.succeed(&["backup"]);
    s3.fail(1, "GET", "/shop", Fault::StopAnswer(8_000_000));
    let mut running = pgkeep.start(&["verify", "--drill"]);
    let copying =
        "SELECT datname FROM pg_stat_activity WHERE datname LIKE 'pgkeep_drill%' AND query LIKE 'COPY %'";
    let name = wait_for("rows on their way", || {
        let name = server.psql("postgres", copying);
        (!name.is_empty()).then_some(name)
    });
    running.signal(Signal::KILL);
    running.wait();
    wait_for("psql's end", || server.psql("postgres", copying).is_empty().then_some(()));
    // Young, it may be another pgkeep's.
    pgkeep.succeed(&["verify", "--drill"]);
    assert!(databases(&server).contains(&name));
    assert!(!pgkeep.succeed(&["check"]).stdout.contains(&name));
    let (begin, _) = name.rsplit_once("_unfinished_").expect("it says that it is unfinished");
    let old = format!("{begin}_unfinished_2026-01-01_00-00-00");
    server.psql("postgres", &format!("ALTER DATABASE \"{name}\" RENAME TO \"{old}\""));
    let log = pgkeep.succeed(&["verify", "--drill"]).log;
    assert!(log.contains(&format!("dropped the database \"{old}\"")), "{log}");
    assert!(!databases(&server).contains(&old));
}
