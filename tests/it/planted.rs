//! What comes out of the bucket is not trusted: an object that somebody planted there runs no command on
//! pgkeep's host, reaches no other host and no other database, and is never reported as restored.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use flate2::{write::GzEncoder, Compression};

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server};
use crate::support::s3;

/// The key that the planted scripts give to `\restrict`, as pg_dump's do.
const KEY: &str = "1ZtDbosJsM0SPQcc0TeLECf7N2noEFMoFsUebzFK9KTpalpacgujNSSuVeur9bw";

/// psql's own commands. `{file}` appears if the command is run, `{script}` is a script that makes it appear,
/// `{port}` is where somebody listens, `{other}` is another database, with the table `kept`.
const COMMANDS: [&str; 38] = [
    r"\! touch {file}",
    r"SELECT 1; \! touch {file}",
    r"\copy planted FROM PROGRAM 'touch {file}; echo 1'",
    r"\copy (SELECT 1) TO PROGRAM 'cat >{file}'",
    r"\copy (SELECT 1) TO '{file}'",
    r"SELECT 1 \g |cat >{file}",
    r"SELECT 1 \g {file}",
    r"SELECT 1 \gx {file}",
    r"SELECT 1 \w {file}",
    r"SELECT 1 \w |touch {file}",
    r"\set name `touch {file}`",
    r"\echo `touch {file}`",
    r"SELECT :`touch {file}`;",
    "\\if `touch {file}; echo true`\n\\endif",
    "\\o {file}\nSELECT 1;",
    "\\o |touch {file}\nSELECT 1;",
    r"\i {script}",
    r"\ir {script}",
    r"\s {file}",
    r"\lo_import {script}",
    "SELECT lo_from_bytea(7, 'x');\n\\lo_export 7 {file}",
    "SELECT 'touch {file}' AS command \\gset\n\\! :command",
    "\\setenv PSQL_EDITOR 'touch {file} #'\n\\e {script}",
    r"\setenv PGHOST example.org",
    r"SELECT 'DROP TABLE planted' \gexec",
    r"SELECT 1 / 0 \watch 1",
    r"\connect 'host=127.0.0.1 port={port}'",
    r"\connect postgresql://127.0.0.1:{port}/postgres",
    r"\c - - 127.0.0.1 {port}",
    "\\connect {other}\nDROP TABLE kept;",
    "\\set ON_ERROR_STOP off\nSELECT 1 / 0;",
    r"\set AUTOCOMMIT off",
    r"\password",
    r"\q",
    "\\timing\n",
    // The one command that psql's restricted mode lets through.
    r"\unrestrict `touch {file}; echo {key}`",
    "\\unrestrict {key}\n\\! touch {file}",
    "\\restrict {key}\n\\unrestrict {key}\n\\! touch {file}",
];

/// SQL that leaves a transaction open, which would be rolled back, or that takes what pgkeep writes behind the script for
/// its own.
const ENDS: [&str; 11] = [
    "BEGIN;",
    "COMMIT; BEGIN;",
    "COMMIT AND CHAIN;",
    "SELECT 1 \\; COMMIT \\; BEGIN;",
    "SELECT pg_terminate_backend(pg_backend_pid());",
    "/*",
    "SELECT '",
    "SELECT $body$",
    "SELECT \"",
    "COPY texts FROM stdin;",
    // psql takes the rest of the script for a part of the literal, and the server does not.
    "SET standard_conforming_strings = off;\nSET standard_conforming_strings = on; SELECT '\\'; --",
];

/// An honest database that is full of such texts.
const LOOKS_PLANTED: &str = r#"
    CREATE TABLE texts (line text);
    INSERT INTO texts VALUES ('\restrict abc'), ('\unrestrict abc'), ('\.'), ('\\.'), ('\! touch {file}'), ('BEGIN;'),
        (''), ('COMMIT;'), ('ROLLBACK;'), ('COPY public.texts (line) FROM stdin;'), ('--'), (':{file}'), ('`touch {file}`'),
        ('-- Data for Name: 7; Type: BLOBS; Schema: -; Owner: -'), ('--'), (''), ('BEGIN;'), (''),
        ('SELECT pg_catalog.lo_close(0);'), (''), ('COMMIT;'), ('-- PostgreSQL database dump complete'), ('--'),
        (E'a\n\\! touch {file}\n\\.\n\\unrestrict abc\n');
    CREATE FUNCTION says() RETURNS text LANGUAGE sql AS $f$ SELECT '
\restrict abc
\unrestrict abc
\! touch {file}
BEGIN;
COMMIT;
\.
' $f$;
    COMMENT ON TABLE texts IS '
\! touch {file}
COMMIT;
\unrestrict `touch {file}`
';
    CREATE TABLE "a
\! touch {file}
COMMIT;
" (a int DEFAULT 1);
    INSERT INTO "a
\! touch {file}
COMMIT;
" DEFAULT VALUES;
    SELECT lo_create(7), lo_from_bytea(8, decode(repeat('5c2e0a', 20000), 'hex')), lo_from_bytea(9, 'COMMIT;');
    CREATE TABLE behind AS SELECT 1 AS id;
    CREATE INDEX ON behind (id);
"#;

/// A database whose bucket somebody else can write to.
struct Planted {
    server: &'static Server,
    s3: s3::Server,
    pgkeep: Pgkeep,
    database: String,
    other: String,
    directory: tempfile::TempDir,
    listener: TcpListener,
}

impl Planted {
    fn new() -> Self {
        let (server, s3) = (postgres::server(), s3::Server::start());
        let (database, other) = (server.database("planted"), server.database("other"));
        server.psql(&other, "CREATE TABLE kept AS SELECT 1 AS id");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("its mode");
        let pgkeep = Pgkeep::new(&database, &s3)
            .with("BACKUP_DRILL_CONNECTION_STRING", &server.connection("postgres"));
        let directory = tempfile::tempdir().expect("a directory");
        let planted = Planted { server, s3, pgkeep, database, other, directory, listener };
        fs::write(planted.path("script"), format!("\\! touch {}\n", planted.path("file").display()))
            .expect("a script");
        planted
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts an object into the bucket that has all that a plain backup has, and `body`.
    fn plant(&self, body: &str) {
        let port = self.listener.local_addr().expect("its address").port();
        let path = |name| self.path(name).to_str().expect("UTF-8").to_owned();
        let body = body
            .replace("{file}", &path("file"))
            .replace("{script}", &path("script"))
            .replace("{port}", &port.to_string())
            .replace("{other}", &self.other)
            .replace("{key}", KEY);
        // As pg_dump wrote them until 2025; psql itself would run nothing in a script that restricts itself.
        let [begin, end] = match body.contains(KEY) {
            true => [format!("\\restrict {KEY}\n\n"), format!("\\unrestrict {KEY}\n\n")],
            false => [const { String::new() }; 2],
        };
        let text = format!(
            "--\n-- PostgreSQL database dump\n--\n\n{begin}SET client_min_messages = warning;\n\n\
             CREATE TABLE planted (id integer);\nCREATE TABLE texts (line text);\n\n{body}\n\n\
             --\n-- PostgreSQL database dump complete\n--\n\n{end}"
        );
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).expect("memory");
        let key = format!("{0}/{0}_2026-01-01_00-00-00.sql.gz", self.database);
        self.s3.plant(&key, &gzip.finish().expect("memory"));
    }

    /// Runs a command, which has to fail, to leave everything as it was, and to clean up.
    fn refuses(&self, arguments: &[&str], body: &str) -> String {
        self.plant(body);
        let outcome = self.pgkeep.run(arguments);
        let log = outcome.log;
        assert!(!self.path("file").exists(), "{body:?} ran a command: {log}");
        assert!(self.listener.accept().is_err(), "{body:?} connected to another server: {log}");
        assert_eq!(self.server.psql(&self.other, "SELECT count(*) FROM kept"), "1", "{body:?}: {log}");
        assert!(outcome.status == 1 && !log.contains("succeeded"), "{body:?}: {log}");
        let made = log.split(" into the database \"").nth(1).and_then(|rest| rest.split('"').next());
        assert!(!exists(self.server, made.expect(&log)), "{body:?}: {log}");
        log
    }

    /// The same with a database that is there and empty, and stays so.
    fn refuses_to_fill(&self, empty: &str, body: &str) {
        self.plant(body);
        let log = self.pgkeep.fail(&["restore", "latest", "--database", empty]).log;
        assert_eq!(self.server.contents(empty).0, "", "{body:?}: {log}");
    }
}

fn exists(server: &Server, database: &str) -> bool {
    let query = format!("SELECT count(*) FROM pg_database WHERE datname ~ '^{database}(_unfinished_.*)?$'");
    server.psql("postgres", &query) != "0"
}

#[test]
fn a_planted_script_runs_no_command_and_is_not_restored() {
    let planted = Planted::new();
    let empty = planted.server.database("empty");
    for (number, body) in COMMANDS.into_iter().enumerate() {
        let log = planted.refuses(&["restore", "latest", "--database", "made"], body);
        // Whoever reads the log knows what that was.
        assert!(!body.starts_with('\\') || log.contains("no script of pg_dump"), "{body:?}: {log}");
        if number % 4 == 0 {
            planted.refuses_to_fill(&empty, body);
        }
    }
}

#[test]
fn a_drill_that_nobody_watches_runs_none_either() {
    let planted = Planted::new();
    for body in [COMMANDS[0], COMMANDS[26], r"\q", r"\unrestrict `touch {file}; echo {key}`", ENDS[0]] {
        planted.refuses(&["verify", "--drill"], body);
    }
}

#[test]
fn a_script_that_leaves_something_open_is_not_restored() {
    let planted = Planted::new();
    for body in ENDS {
        planted.refuses(&["restore", "latest", "--database", "ended"], body);
    }
}

#[test]
fn what_only_looks_planted_is_restored() {
    let (server, directory) = (postgres::server(), tempfile::tempdir().expect("a directory"));
    let file = directory.path().join("file");
    let looks = LOOKS_PLANTED.replace("{file}", file.to_str().expect("UTF-8"));
    for strings in ["on", "off"] {
        for format in ["plain", "custom"] {
            let (s3, database) = (s3::Server::start(), server.database("looks"));
            let set = format!("ALTER DATABASE {database} SET standard_conforming_strings = {strings}");
            server.psql(&database, &looks);
            server.psql("postgres", &set);
            let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_FORMAT", format);
            pgkeep.succeed(&["backup"]);
            let back = format!("{database}_back");
            server.create_database(&back);
            server.psql("postgres", &set.replacen(&database, &back, 1));
            let log = pgkeep.succeed(&["restore", "latest", "--database", &back]).log;
            // Not even that a transaction is begun twice.
            assert!(!log.contains("WARN"), "{log}");
            assert_eq!(server.text(&back), server.text(&database));
            let objects =
                "SELECT string_agg(md5(lo_get(oid)), ' ' ORDER BY oid) FROM pg_largeobject_metadata";
            assert_eq!(server.psql(&back, objects), server.psql(&database, objects));
            assert!(!file.exists(), "{log}");
        }
    }
}

#[test]
fn large_objects_are_restored_with_all_the_rest_or_not_at_all() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let (database, empty) = (server.database("objects"), server.database("empty"));
    server.psql("postgres", "CREATE ROLE objects_reader");
    server.psql(
        &database,
        "CREATE TABLE things (id int); GRANT SELECT ON things TO objects_reader;
         SELECT lo_from_bytea(7, 'x'), lo_from_bytea(8, 'y')",
    );
    let pgkeep = Pgkeep::new(&database, &s3);
    pgkeep.succeed(&["backup"]);
    server.psql(&database, "DROP OWNED BY objects_reader; DROP ROLE objects_reader");
    // The grants come behind the large objects. What is recorded would already say which role is missing.
    let copy = s3.copy_without_metadata(&database);
    let log = pgkeep.fail(&["restore", &copy, "--database", &empty]).log;
    assert!(log.contains("role \"objects_reader\" does not exist"), "{log}");
    assert_eq!(server.psql(&empty, "SELECT count(*) FROM pg_largeobject_metadata"), "0");
    assert_eq!(server.contents(&empty).0, "");
}

#[test]
fn a_drill_drops_a_database_that_its_script_made_a_template() {
    let planted = Planted::new();
    planted.plant(
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I IS_TEMPLATE true', current_database()); END $$;",
    );
    let log = planted.pgkeep.succeed(&["verify", "--drill"]).log;
    let made = log.split(" into the database \"").nth(1).and_then(|rest| rest.split('"').next());
    assert!(!exists(planted.server, made.expect(&log)), "{log}");
}

#[test]
fn a_psql_without_a_restricted_mode_restores_no_script() {
    let planted = Planted::new();
    let old = postgres::wrapped_pg_dump("exec $REAL \"$@\"");
    let psql = old.path().join("psql");
    fs::remove_file(&psql).expect("the real psql");
    let real = postgres::bin().join("psql");
    let script = format!(
        "#!/bin/sh\ncase $1 in --help=commands) {0} \"$@\" | grep -v restrict;; *) exec {0} \"$@\";; esac\n",
        real.display()
    );
    fs::write(&psql, script).expect("the wrapper");
    fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).expect("its mode");
    let bin = old.path().to_str().expect("UTF-8");
    let refusal = "is too old to restore a plain backup safely";
    let planted = Planted { pgkeep: planted.pgkeep.clone().with("BACKUP_PG_BIN", bin), ..planted };
    let log = planted.refuses(&["restore", "latest", "--database", "old"], "SELECT 1;");
    assert!(log.contains(refusal) && log.contains("17.6"), "{log}");
    // Told before the day of need.
    let checked = planted.pgkeep.succeed(&["check"]);
    let told = checked.stdout.clone() + &checked.log;
    assert!(told.contains(refusal), "{told}");
}
