//! `pgkeep restore --all`: the server is gone, and comes back on an empty one.

use std::io::Write;

use flate2::{write::GzEncoder, Compression};

use crate::support::postgres::{self, Server};
use crate::support::s3;
use crate::whole_server::{keys, pgkeep_for, server_with};

/// Roles with everything that pg_dumpall writes about them, and databases that need them.
const ROLES: [&str; 9] = [
    "CREATE ROLE readers NOLOGIN",
    "CREATE ROLE app LOGIN PASSWORD 'only-in-the-test' CREATEDB CONNECTION LIMIT 7 VALID UNTIL '2040-01-01' IN ROLE readers",
    r#"CREATE ROLE "odd ""role;" NOINHERIT"#,
    r#"GRANT app TO "odd ""role;" WITH ADMIN OPTION"#,
    r"COMMENT ON ROLE app IS E'it''s;\n a \\ comment'",
    r#"ALTER ROLE app SET search_path = shop, "B c""#,
    r"ALTER ROLE app SET my.thing = E'a''b\\c'",
    "GRANT pg_read_all_data TO readers",
    "CREATE ROLE second_admin SUPERUSER LOGIN",
];

/// What a server is: its databases with their properties, and its roles.
fn described(server: &Server) -> (String, Vec<(String, String)>, String) {
    let properties = server.psql(
        "postgres",
        "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datconnlimit,
                (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(datacl) a),
                shobj_description(d.oid, 'pg_database'), setconfig
         FROM pg_database d LEFT JOIN pg_db_role_setting ON setdatabase = d.oid AND setrole = 0
         WHERE NOT datistemplate ORDER BY 1",
    );
    let names = server.psql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1");
    let texts = names.lines().map(|name| (name.to_owned(), server.text(name))).collect();
    // This role was there before, with a password of its own.
    let globals = server.globals();
    let globals: Vec<&str> =
        globals.lines().filter(|line| !line.starts_with("ALTER ROLE postgres WITH ")).collect();
    (properties, texts, globals.join("\n"))
}

fn full_server() -> Server {
    let server = server_with(&["app", "shop"]);
    ROLES.iter().for_each(|sql| drop(server.psql("postgres", sql)));
    server
        .psql("postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C' OWNER app");
    server.psql("postgres", "ALTER DATABASE shop OWNER TO app");
    server.psql("postgres", "ALTER DATABASE shop SET work_mem = '7MB'");
    server.psql("postgres", "REVOKE CONNECT ON DATABASE shop FROM PUBLIC");
    server.psql("postgres", "GRANT CONNECT ON DATABASE shop TO readers");
    server.psql("postgres", "COMMENT ON DATABASE shop IS 'the shop'");
    server.psql("shop", "CREATE SCHEMA own AUTHORIZATION app; CREATE TABLE own.t AS SELECT 1 AS id");
    server.psql(
        "shop",
        "ALTER TABLE orders OWNER TO app; GRANT SELECT ON customers TO readers, \"odd \"\"role;\"",
    );
    server
}

#[test]
fn an_empty_server_is_as_the_lost_one_was() {
    let (server, s3) = (full_server(), s3::Server::start());
    let log = pgkeep_for(&server, &s3, "*").succeed(&["backup"]).log;
    assert!(log.contains("backup succeeded: the server's globals, ") && log.contains("psql -X"), "{log}");
    let before = described(&server);
    let empty = Server::start(postgres::bin());
    let pgkeep = pgkeep_for(&empty, &s3, "*");

    let plan = pgkeep.succeed(&["restore", "--all", "--dry-run"]).stdout;
    assert!(plan.contains("make role  app") && plan.contains("restore    shop  from shop/shop_"), "{plan}");
    assert!(plan.contains("4 databases to restore, ") && !plan.contains("lacks"), "{plan}");
    assert_eq!(empty.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'app'"), "0");

    let outcome = pgkeep.succeed(&["restore", "--all"]);
    let after = described(&empty);
    assert_eq!((&after.0, &after.2), (&before.0, &before.2), "{}", outcome.log);
    assert!(after.1 == before.1, "a database is another one: {}", outcome.log);
    assert!(outcome.log.contains("roles that are there stay as they are: postgres"), "{}", outcome.log);
    assert!(outcome.log.contains("superusers now, as the globals say: second_admin"), "{}", outcome.log);
    let row = outcome.stdout.lines().find(|line| line.starts_with("shop ")).expect("a row");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!((words[1], words[2], words.last()), ("3", "5501", Some(&"ok")), "{row}");

    // Again: only what is missing, and nothing that is there changes.
    empty.psql("postgres", "DROP DATABASE app");
    empty.psql("postgres", "ALTER ROLE app NOLOGIN");
    empty.psql("shop", "DELETE FROM orders WHERE id > 10");
    let table = pgkeep.succeed(&["restore", "--all"]).stdout;
    assert!(table.lines().any(|line| line.starts_with("shop ") && line.contains("passed over")), "{table}");
    assert!(empty.contents("app") == server.contents("app"), "app is another one");
    assert_eq!(empty.psql("shop", "SELECT count(*) FROM orders"), "10");
    assert_eq!(empty.psql("postgres", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'"), "f");
    pgkeep.succeed(&["restore", "--all", "--replace"]);
    assert!(empty.contents("shop") == server.contents("shop"), "shop is another one");
}

#[test]
fn one_that_does_not_restore_stops_no_other_and_a_time_chooses_the_backups() {
    let (server, s3) = (server_with(&["app", "broken"]), s3::Server::start());
    pgkeep_for(&server, &s3, "*").succeed(&["backup"]);
    let early = keys(&s3, "app").pop().expect("a backup");
    // Cut off in its middle.
    let key = keys(&s3, "broken").pop().expect("a backup");
    let bytes = std::fs::read(s3.path(&key)).expect("the backup");
    std::fs::remove_file(s3.path(&key)).expect("it is gone");
    s3.plant(&key, &bytes[..bytes.len() / 2]);
    s3.plant("app/app_2020-01-01_00-00-00.sql.gz", &std::fs::read(s3.path(&early)).expect("the backup"));
    let empty = Server::start(postgres::bin());
    let pgkeep = pgkeep_for(&empty, &s3, "*");
    let plan = pgkeep.succeed(&["restore", "--all", "--dry-run", "--at", "2020-01-01"]).stdout;
    assert!(plan.contains("app/app_2020-01-01_00-00-00.sql.gz") && plan.contains("1 database to"), "{plan}");
    let outcome = pgkeep.fail(&["restore", "--all"]);
    let row = |name: &str| outcome.stdout.lines().find(|line| line.starts_with(name)).expect(name).to_owned();
    assert!(row("broken").contains("failed: ") && row("broken").contains("cut off"), "{}", outcome.stdout);
    assert!(row("app").ends_with("  ok"), "{}", outcome.stdout);
    assert!(empty.contents("app") == server.contents("app"), "app is another one");
}

#[test]
fn a_restore_names_all_roles_that_are_missing_and_makes_them_if_it_may() {
    let (server, s3) = (full_server(), s3::Server::start());
    pgkeep_for(&server, &s3, "*").succeed(&["backup"]);
    let other = Server::start(postgres::bin());
    let pgkeep = pgkeep_for(&other, &s3, "*");
    let log = pgkeep.fail(&["restore", "shop/latest", "--database", "shop"]).log;
    assert!(log.contains("does not have: app, odd \"role;, readers; --create-roles makes them"), "{log}");
    pgkeep.succeed(&["restore", "shop/latest", "--database", "shop", "--create-roles"]);
    assert!(other.contents("shop") == server.contents("shop"), "shop is another one");
    assert_eq!(other.psql("postgres", "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'app'"), "7");
    // Without a backup of the globals, they may do nothing.
    let third = Server::start(postgres::bin());
    s3.objects().keys().filter(|key| key.starts_with(".globals/")).for_each(|key| {
        std::fs::remove_file(s3.path(key)).expect("it is gone");
    });
    let log = pgkeep_for(&third, &s3, "*")
        .succeed(&["restore", "shop/latest", "--database", "shop", "--create-roles"])
        .log;
    assert!(log.contains("not in the globals, so they may do nothing"), "{log}");
    assert_eq!(third.psql("postgres", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app'"), "f");
}

#[test]
fn a_role_that_may_not_read_passwords_backs_up_roles_without_them() {
    let (server, s3) = (full_server(), s3::Server::start());
    server.psql("postgres", "CREATE ROLE reader LOGIN PASSWORD 'readers-word'");
    server.psql("app", "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader");
    server.psql("app", "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO reader");
    let connection = format!("host=127.0.0.1 port={} user=reader password=readers-word", server.port);
    let pgkeep = pgkeep_for(&server, &s3, "app").with("POSTGRES_CONNECTION_STRING", &connection);
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("the roles are backed up without their passwords"), "{log}");
    let check = pgkeep.run(&["check"]).stdout;
    assert!(check.contains("may not read the passwords of roles"), "{check}");
    let key = s3.backups().into_iter().find(|key| key.starts_with(".globals/")).expect("the globals");
    pgkeep.succeed(&["verify", &key]);
    let script = pgkeep.command(&["get", &key, "-o", "-"]).output().expect("the file").stdout;
    let script = std::io::read_to_string(flate2::read::GzDecoder::new(&script[..])).expect("UTF-8");
    assert!(script.contains("CREATE ROLE app;") && !script.contains("PASSWORD"), "{script}");
}

/// A script that somebody else put there can make roles, but not change those that exist, nor anything else.
#[test]
fn planted_globals_change_nothing_that_is_there_and_run_nothing() {
    let (server, s3) = (server_with(&["app"]), s3::Server::start());
    let pgkeep = pgkeep_for(&server, &s3, "*");
    pgkeep.succeed(&["backup"]);
    server.psql("postgres", "CREATE ROLE intern LOGIN");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    let path = file.display();
    let script = format!(
        "--\n-- PostgreSQL database cluster dump\n--\n\n\
         ALTER ROLE intern WITH SUPERUSER;\nALTER ROLE postgres WITH PASSWORD 'stolen';\nGRANT postgres TO intern;\n\
         CREATE ROLE intern;\nALTER ROLE \"intern\" SET search_path TO 'evil';\nCOMMENT ON ROLE intern IS 'x';\n\
         GRANT SET ON PARAMETER work_mem TO intern;\n\
         \\! touch {path}\n\\copy (SELECT 1) TO PROGRAM 'touch {path}'\nSELECT `touch {path}`;\n\
         COPY (SELECT 1) TO PROGRAM 'touch {path}';\nDROP DATABASE app;\nALTER SYSTEM SET work_mem TO '1MB';\n\
         DO $$BEGIN ALTER ROLE intern SUPERUSER; END$$;\nALTER ROLE ALL SET work_mem TO '1MB';\n\
         CREATE ROLE fresh; ALTER ROLE intern SUPERUSER;\nCOMMENT ON ROLE fresh IS E'\\\\'; ALTER ROLE intern SUPERUSER; --';\n\
         ALTER ROLE fresh WITH LOGIN PASSWORD ':`touch {path}`';\n\n\
         --\n-- PostgreSQL database cluster dump complete\n--\n\n"
    );
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(script.as_bytes()).expect("memory");
    let time = (chrono::Utc::now() + chrono::TimeDelta::seconds(5)).format("%Y-%m-%d_%H-%M-%S");
    s3.plant(&format!(".globals/.globals_{time}.sql.gz"), &gzip.finish().expect("memory"));
    let state = || {
        server.psql(
            "postgres",
            "SELECT a.*, setconfig FROM pg_authid a LEFT JOIN pg_db_role_setting ON setrole = a.oid WHERE rolname IN ('intern', 'postgres') ORDER BY 1",
        )
    };
    let (before, memberships) =
        (state(), "SELECT count(*) FROM pg_auth_members WHERE member = 'intern'::regrole");
    let log = pgkeep.succeed(&["restore", "--all"]).log;
    assert_eq!(state(), before, "{log}");
    assert_eq!(server.psql("postgres", memberships), "0", "{log}");
    assert!(!file.exists(), "{log}");
    assert!(log.contains("left out of the globals") && log.contains("DROP DATABASE app"), "{log}");
    assert_eq!(
        server.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'fresh'"),
        "1",
        "{log}"
    );
    assert!(!log.contains("stolen"), "{log}");
}
