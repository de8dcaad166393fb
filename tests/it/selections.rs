//! A part of a backup: what was asked for comes back whole, and what does not come back is named.

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server};
use crate::support::s3;

const PARTS: &str = r#"
    CREATE SCHEMA stock;
    CREATE SCHEMA "Odd. Schema";
    GRANT USAGE ON SCHEMA stock TO selector;
    CREATE TYPE stock.state AS ENUM ('new', 'old');
    CREATE TABLE items (id serial PRIMARY KEY, state stock.state DEFAULT 'new', at timestamptz DEFAULT now());
    CREATE TABLE stock.items (id int PRIMARY KEY, item int REFERENCES public.items, upper text);
    CREATE TABLE stock.places (id int PRIMARY KEY, next int REFERENCES stock.places);
    CREATE TABLE "Odd. Schema"."The ""Items""" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Größe" text);
    CREATE TABLE days (day date NOT NULL, n int, PRIMARY KEY (day)) PARTITION BY RANGE (day);
    CREATE TABLE days_old PARTITION OF days FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
    CREATE TABLE stock.days_new PARTITION OF days FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);
    CREATE INDEX ON days (n);
    CREATE FUNCTION stock.changed() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN NEW.upper := upper(NEW.upper); RETURN NEW; END $f$;
    CREATE TRIGGER changing BEFORE INSERT ON stock.items FOR EACH ROW EXECUTE FUNCTION stock.changed();
    CREATE VIEW stock.seen AS SELECT id FROM stock.items;
    CREATE VIEW stock.all_items AS SELECT id FROM public.items;
    CREATE STATISTICS together ON id, at FROM items;
    ALTER TABLE items ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON items TO selector USING (id > 1);
    GRANT SELECT (id) ON items TO selector;
    COMMENT ON COLUMN items.at IS 'when';
    INSERT INTO items DEFAULT VALUES;
    INSERT INTO items DEFAULT VALUES;
    INSERT INTO stock.items VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 1, 'c');
    INSERT INTO stock.places VALUES (1, 1);
    INSERT INTO "Odd. Schema"."The ""Items""" ("Größe") SELECT 'x' FROM generate_series(1, 4);
    INSERT INTO days SELECT '2025-12-30'::date + n, n FROM generate_series(0, 9) n;
"#;

/// A backup of `PARTS`, and the name of its database.
fn parts() -> (&'static Server, s3::Server, Pgkeep, String) {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let made =
        "DO $$ BEGIN CREATE ROLE selector; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$";
    server.psql("postgres", made);
    let database = server.database("parts");
    server.psql(&database, PARTS);
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_FORMAT", "custom");
    pgkeep.succeed(&["backup"]);
    (server, s3, pgkeep, database)
}

/// What pg_dump writes of some tables.
fn dump_of(server: &Server, database: &str, tables: &[&str]) -> String {
    let mut dump = server.client("pg_dump", database);
    let dump = dump.args(tables.iter().map(|table| format!("--table={table}"))).output().expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let text = String::from_utf8(dump.stdout).expect("UTF-8");
    text.lines().filter(|line| !line.contains("restrict ")).collect::<Vec<_>>().join("\n")
}

/// The tables that are there, without those of the system.
fn tables(server: &Server, database: &str) -> String {
    server.psql(
        database,
        "SELECT string_agg(oid::regclass::text, ' ' ORDER BY oid::regclass::text COLLATE \"C\") FROM pg_class
         WHERE relkind IN ('r', 'p', 'v') AND relnamespace::regnamespace::text !~ '^pg_|^information'",
    )
}

#[test]
fn a_table_comes_back_with_all_that_pg_dump_has_of_it() {
    let (server, _s3, pgkeep, database) = parts();
    for (table, pattern, there) in [
        ("public.items", "public.items", "items"),
        (
            "Odd. Schema.The \"Items\"",
            "\"Odd. Schema\".\"The \"\"Items\"\"\"",
            "\"Odd. Schema\".\"The \"\"Items\"\"\"",
        ),
        ("stock.places", "stock.places", "stock.places"),
    ] {
        for more in [&[] as &[&str], &["--jobs", "2"]] {
            let into = format!("{database}_{}", server.database("t"));
            let arguments = [&["restore", "latest", "--table", table, "--database", &into], more].concat();
            let log = pgkeep.succeed(&arguments).log;
            assert_eq!(tables(server, &into), there, "{log}");
            assert_eq!(dump_of(server, &into, &[pattern]), dump_of(server, &database, &[pattern]), "{log}");
            assert!(!log.contains("WARN"), "{log}");
        }
    }
    // It is as good as it was: a sequence goes on.
    let into = format!("{database}_items");
    pgkeep.succeed(&["restore", "latest", "--table", "public.items", "--database", &into]);
    assert_eq!(server.psql(&into, "INSERT INTO items DEFAULT VALUES RETURNING id, state"), "3|new");
}

#[test]
fn each_of_several_selections_means_what_it_says() {
    let (server, _s3, pgkeep, database) = parts();
    let restored = |selection: &[&str]| {
        let into = format!("{database}_{}", server.database("t"));
        let log = pgkeep.succeed(&[&["restore", "latest", "--database", &into], selection].concat()).log;
        (tables(server, &into), log)
    };
    // Not every table of this name, nor every schema of the other.
    let (there, log) = restored(&["--table", "stock.items", "--table", "public.days_old"]);
    assert_eq!(there, "days_old stock.items", "{log}");
    let left_out = "not restored, as it needs what is not selected: ";
    let line = log.lines().find(|line| line.contains(left_out)).expect(&log);
    assert!(line.contains("fk constraint stock.items items_item_fkey (needs table public.items)"), "{line}");
    // Without a schema, every table of this name.
    let (there, log) = restored(&["--table", "items"]);
    assert_eq!(there, "items stock.items", "{log}");
    assert!(!log.contains(left_out), "{log}");
    let (there, log) = restored(&["--schema", "stock", "--table", "days"]);
    assert_eq!(there, "days days_old stock.days_new stock.items stock.places stock.seen", "{log}");
    assert!(log.contains("view stock.all_items (needs table public.items)"), "{log}");
    let (there, log) = restored(&["--schema", "stock", "--schema", "public", "--jobs", "2"]);
    assert_eq!(
        there,
        "days days_old items stock.all_items stock.days_new stock.items stock.places stock.seen"
    );
    assert!(!log.contains(left_out), "{log}");
}

#[test]
fn a_partitioned_table_comes_with_its_partitions_and_their_indexes() {
    let (server, _s3, pgkeep, database) = parts();
    let into = format!("{database}_days");
    let log = pgkeep.succeed(&["restore", "latest", "--table", "days", "--database", &into]).log;
    assert!(log.contains("2 tables with 10 rows"), "{log}");
    let all = ["public.days", "public.days_old", "stock.days_new"];
    assert_eq!(dump_of(server, &into, &all), dump_of(server, &database, &all));
}

#[test]
fn names_that_mean_nothing_fail_and_are_named() {
    let (server, _s3, pgkeep, database) = parts();
    let into = format!("{database}_none");
    for (selection, said) in [
        (&["--table", "Items", "--table", "items"] as &[&str], "no table \"Items\";"),
        (&["--table", "stock.days"], "no table \"stock.days\";"),
        (&["--table", "\"items\"", "--schema", "Stock"], "no table \"\"items\"\", no schema \"Stock\";"),
        (&["--table", "seen"], "view stock.seen cannot be restored without table stock.items"),
    ] {
        let log = pgkeep.fail(&[&["restore", "latest", "--database", &into], selection].concat()).log;
        assert!(log.contains(said), "{said}: {log}");
        let left = format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{into}%'");
        assert_eq!(server.psql("postgres", &left), "0", "{log}");
    }
}

#[test]
fn another_role_restores_without_the_roles_of_the_backup() {
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::start());
    let elsewhere = Server::start(postgres::bin());
    server.psql("postgres", "CREATE ROLE keeper; CREATE ROLE reader");
    server.psql("postgres", "CREATE DATABASE owned OWNER keeper");
    server.psql(
        "postgres",
        "REVOKE CONNECT ON DATABASE owned FROM PUBLIC; GRANT CONNECT ON DATABASE owned TO reader",
    );
    server.psql(
        "owned",
        "CREATE SCHEMA s AUTHORIZATION keeper; CREATE TABLE s.t AS SELECT 1 AS id; ALTER TABLE s.t OWNER TO keeper;
         GRANT SELECT ON s.t TO reader; CREATE VIEW s.v AS SELECT id FROM s.t",
    );
    elsewhere.psql("postgres", "CREATE ROLE other LOGIN CREATEDB PASSWORD 'other'");
    let to = format!("postgresql://other:other@127.0.0.1:{}", elsewhere.port);
    let pgkeep = Pgkeep::new("owned", &s3)
        .with("POSTGRES_CONNECTION_STRING", &server.connection("owned"))
        .with("BACKUP_FORMAT", "custom");
    pgkeep.succeed(&["backup"]);
    let base = ["restore", "latest", "--database", "back", "--to", to.as_str()];
    let log = pgkeep.fail(&base).log;
    assert!(log.contains("roles that the server does not have: keeper, reader; "), "{log}");
    let log = pgkeep.fail(&[&base[..], &["--no-owner"]].concat()).log;
    assert!(log.contains("role \"reader\" does not exist"), "{log}");
    for more in
        [&["--no-owner", "--no-privileges"] as &[&str], &["--no-owner", "--no-privileges", "--schema", "s"]]
    {
        let log = pgkeep.succeed(&[&base[..], more].concat()).log;
        let who = "SELECT string_agg(relname || ' of ' || relowner::regrole || coalesce(relacl::text, ''), ', ' ORDER BY relname)
                   FROM pg_class WHERE relnamespace = 's'::regnamespace";
        assert_eq!(elsewhere.psql("back", who), "t of other, v of other", "{log}");
        assert_eq!(elsewhere.psql("back", "SELECT id FROM s.v"), "1");
        // Nor does the database itself want them.
        let database =
            "SELECT datdba::regrole || coalesce(datacl::text, '') FROM pg_database WHERE datname = 'back'";
        assert_eq!(elsewhere.psql("postgres", database), "other");
        assert!(!log.contains("WARN"), "{log}");
        elsewhere.psql("postgres", "DROP DATABASE back");
    }
    let plain = pgkeep.with("BACKUP_FORMAT", "plain");
    plain.succeed(&["backup"]);
    let key = s3.backups().pop().expect("a plain backup");
    let log = plain.fail(&["restore", &key, "--no-owner"]).log;
    assert!(
        log.contains("is plain SQL; to restore it as another role, first make the roles that it names"),
        "{log}"
    );
}
