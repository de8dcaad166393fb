//! Databases are full of other people's functions: pgkeep, which often connects as a superuser, calls none.

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server};
use crate::support::s3;

/// Functions and operators that fit pgkeep's queries better than PostgreSQL's own, or that stand before those in
/// the search path. Each returns what PostgreSQL's own would, and makes mallory a superuser if it can.
const TRAPS: &str = "
    CREATE FUNCTION sprung() RETURNS void LANGUAGE plpgsql AS $f$
        BEGIN ALTER ROLE mallory SUPERUSER; EXCEPTION WHEN OTHERS THEN NULL; END $f$;
    CREATE FUNCTION format(text, text, name, name) RETURNS text LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN pg_catalog.format($1, $2, $3, $4); END $f$;
    CREATE FUNCTION format(text, name, name) RETURNS text LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN pg_catalog.format($1, $2, $3); END $f$;
    CREATE FUNCTION format(text, text, name) RETURNS text LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN pg_catalog.format($1, $2, $3); END $f$;
    CREATE FUNCTION format(text, text, integer) RETURNS text LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN pg_catalog.format($1, $2, $3); END $f$;
    CREATE FUNCTION pg_database_size(name) RETURNS bigint LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN pg_catalog.pg_database_size($1); END $f$;
    CREATE FUNCTION current_setting(text) RETURNS text LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN pg_catalog.current_setting($1); END $f$;
    CREATE FUNCTION counted(bigint) RETURNS bigint LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN $1 + 1; END $f$;
    CREATE AGGREGATE count(*) (SFUNC = counted, STYPE = bigint, INITCOND = 0);
    CREATE FUNCTION does_not_match(name, name) RETURNS boolean LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN $1 OPERATOR(pg_catalog.!~) $2::text; END $f$;
    CREATE OPERATOR !~ (LEFTARG = name, RIGHTARG = name, FUNCTION = does_not_match);
    CREATE FUNCTION equal(name, name) RETURNS boolean LANGUAGE plpgsql AS $f$
        BEGIN PERFORM public.sprung(); RETURN $1 OPERATOR(pg_catalog.=) $2; END $f$;
    CREATE OPERATOR = (LEFTARG = name, RIGHTARG = name, FUNCTION = equal);
    CREATE TABLE things AS SELECT 1 AS id;
";

#[test]
fn no_function_of_a_databases_users_is_called() {
    // A server of its own: its maintenance database is trapped as well.
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    server.psql("postgres", "CREATE ROLE mallory");
    let is_super = "SELECT rolsuper FROM pg_roles WHERE rolname OPERATOR(pg_catalog.=) 'mallory'";
    let (database, empty) = (server.database("shop"), server.database("empty"));
    for name in [&database, "postgres", &empty] {
        if *name != empty {
            server.psql(name, TRAPS);
        }
        // An owner may do that.
        let set = format!("ALTER DATABASE {name} SET search_path = public, pg_catalog");
        server.psql("template1", &format!("{set}; ALTER DATABASE {name} OWNER TO mallory"));
    }
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection(&database))
        .with("BACKUP_DRILL_CONNECTION_STRING", &server.connection("postgres"));
    for command in [
        &["check"] as &[&str],
        &["backup"],
        &["restore", "latest", "--database", "back"],
        &["restore", "latest", "--database", &empty],
        &["verify", "--drill"],
        &["restore", "latest", "--replace"],
    ] {
        let log = pgkeep.succeed(command).log;
        assert_eq!(server.psql("template1", is_super), "f", "{command:?}: {log}");
        assert!(command[0] != "restore" || log.contains("1 table with 1 rows"), "{log}");
    }
    // The traps do work.
    server.psql(&database, "SELECT count(*) FROM things");
    assert_eq!(server.psql("template1", is_super), "t");
}
