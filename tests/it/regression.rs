//! PostgreSQL's own regression database: what its developers try a pg_dump with. `make test-regression` names a
//! checkout of PostgreSQL's sources.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server};
use crate::support::s3;
use crate::support::wait_for;

/// Fewer tables are no regression database: something kept most statements from running.
const FEWEST_TABLES: usize = 200;

/// The directory with the regression tests.
fn regress() -> PathBuf {
    let sources = env::var_os("PGKEEP_TEST_SOURCES").unwrap_or_default();
    let regress = Path::new(&sources).join("src/test/regress");
    assert!(
        regress.join("parallel_schedule").is_file() && regress.join("sql").is_dir(),
        "{} is no directory of PostgreSQL's regression tests: make test-regression DIR=…, a checkout of PostgreSQL's \
         sources, best of the server's own version",
        regress.display()
    );
    regress
}

/// The tests in the order of the schedule, those of a group one after the other: `test: a b c`.
fn scheduled(regress: &Path) -> Vec<String> {
    let schedule = fs::read_to_string(regress.join("parallel_schedule")).expect("the schedule");
    let groups = schedule.lines().filter_map(|line| line.strip_prefix("test:"));
    groups.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Runs all tests in a database, as pg_regress does. Some statements are to fail, others need a library that is not
/// built here.
fn load(server: &Server, database: &str, regress: &Path) {
    for test in scheduled(regress) {
        // A file ends early if it connects as a role without a password.
        server
            .client("psql", database)
            .args(["-X", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", "-f"])
            .arg(regress.join(format!("sql/{test}.sql")))
            .current_dir(regress)
            .env("PG_ABS_SRCDIR", regress)
            .env("PG_ABS_BUILDDIR", regress)
            .env("PG_LIBDIR", regress)
            .env("PG_DLSUFFIX", ".so")
            .env("PGTZ", "America/Los_Angeles")
            .env("PGDATESTYLE", "Postgres, MDY")
            .output()
            .expect("psql");
        // A test may crash a server process.
        wait_for("PostgreSQL to answer", || server.answers().then_some(()));
    }
}

#[test]
#[ignore = "make test-regression"]
fn postgresqls_own_regression_database_comes_back_as_pg_dump_and_psql_bring_it() {
    let regress = regress();
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    let database = server.database("regression");
    load(&server, &database, &regress);
    let tables = server.contents(&database).0;
    assert!(tables.lines().count() >= FEWEST_TABLES, "too little was loaded: {tables}");
    for format in ["plain", "custom"] {
        let pgkeep = Pgkeep::new(&database, &s3)
            .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
            .with("BACKUP_FORMAT", format);
        pgkeep.succeed(&["backup"]);
        // A restored inheritance may differ in the order of its columns, so the database itself is no measure.
        let reference = server.database("reference");
        let by_hand = server
            .client("sh", &database)
            .args(["-c", "\"$0\" | PGDATABASE=\"$2\" \"$1\" -Xqo /dev/null -v ON_ERROR_STOP=1"])
            .args([server.client("pg_dump", "").get_program(), server.client("psql", "").get_program()])
            .arg(&reference)
            .output()
            .expect("sh");
        assert!(by_hand.status.success(), "{}", String::from_utf8_lossy(&by_hand.stderr));
        for more in [&[] as &[&str], &["--jobs", "2"]] {
            if format == "plain" && !more.is_empty() {
                continue;
            }
            let into = server.database(format);
            let log = pgkeep.succeed(&[&["restore", "latest", "--database", &into], more].concat()).log;
            assert!(
                server.contents(&into) == server.contents(&reference),
                "{format} {more:?} differs: {log}"
            );
        }
    }
}
