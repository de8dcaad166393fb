//! Which statements are written anew, and that nothing else is.

use super::*;

/// What each statement of a script is written as first, or `?` and its beginning.
fn rewritten(script: &str) -> Vec<String> {
    let statements = statements(script);
    let rewritten = statements.iter().filter_map(|tokens| statement(tokens).transpose());
    rewritten.map(|read| read.map_or_else(|what| format!("? {what}"), |of| of.sql[0].clone())).collect()
}

#[test]
fn what_pg_dumpall_writes_is_written_anew() {
    let script = r#"--
-- PostgreSQL database cluster dump; with a semicolon
--

\restrict FuYUEi9tz

SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';

CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER INHERIT NOCREATEROLE CREATEDB LOGIN NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 5 PASSWORD 'SCRAM-SHA-256$4096:a==$b=' VALID UNTIL '2030-01-01 00:00:00+00';
COMMENT ON ROLE app IS E'it''s
; a \\ comment';
CREATE ROLE "odd ""role;";
ALTER ROLE "odd ""role;" WITH NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB NOLOGIN NOREPLICATION NOBYPASSRLS;
ALTER ROLE app SET search_path TO 'a', 'B c';
ALTER ROLE app SET "my.thing" TO E'a''b\\\\c';
GRANT "odd ""role;" TO app WITH ADMIN OPTION, INHERIT FALSE GRANTED BY postgres;
GRANT pg_read_all_data TO app;
GRANT SET, ALTER SYSTEM ON PARAMETER work_mem TO app;
CREATE TABLESPACE ts OWNER app LOCATION '/t';
ALTER TABLESPACE ts SET (random_page_cost=1.5, seq_page_cost=2);
REVOKE ALL ON TABLESPACE ts FROM app;
GRANT ALL ON TABLESPACE ts TO PUBLIC;
\unrestrict FuYUEi9tz
"#;
    assert_eq!(
        rewritten(script),
        [
            r#"CREATE ROLE "app";"#,
            r#"ALTER ROLE "app" WITH CREATEDB LOGIN CONNECTION LIMIT 5 PASSWORD E'SCRAM-SHA-256$4096:a==$b=' VALID UNTIL E'2030-01-01 00:00:00+00';"#,
            "COMMENT ON ROLE \"app\" IS E'it''s\n; a \\\\ comment';",
            r#"CREATE ROLE "odd ""role;";"#,
            "",
            r#"ALTER ROLE "app" SET "search_path" TO E'a', E'B c';"#,
            r#"ALTER ROLE "app" SET "my"."thing" TO E'a''b\\\\c';"#,
            r#"GRANT "odd ""role;" TO "app" WITH ADMIN OPTION, INHERIT FALSE GRANTED BY "postgres";"#,
            r#"GRANT "pg_read_all_data" TO "app";"#,
            r#"GRANT SET, ALTER SYSTEM ON PARAMETER "work_mem" TO "app";"#,
            r#"CREATE TABLESPACE "ts" OWNER "app" LOCATION E'/t';"#,
            r#"ALTER TABLESPACE "ts" SET ("random_page_cost" = E'1.5', "seq_page_cost" = E'2');"#,
            r#"REVOKE ALL ON TABLESPACE "ts" FROM "app";"#,
            r#"GRANT ALL ON TABLESPACE "ts" TO PUBLIC;"#,
        ]
    );
}

#[test]
fn what_pg_dumpall_does_not_write_is_left_out_and_named_without_its_strings() {
    for (script, left) in [
        ("DROP DATABASE shop;", "? DROP DATABASE shop"),
        ("ALTER ROLE app RENAME TO b;", "? ALTER ROLE app RENAME"),
        ("ALTER ROLE app IN DATABASE x SET a TO 'b';", "? ALTER ROLE app IN"),
        ("ALTER ROLE app WITH LOGIN GHOST;", "? ALTER ROLE app WITH"),
        ("ALTER ROLE app SET a TO b;", "? ALTER ROLE app SET"),
        ("ALTER ROLE app WITH PASSWORD 'hush' 'hush';", "? ALTER ROLE app WITH"),
        ("CREATE ROLE app SUPERUSER;", "? CREATE ROLE app SUPERUSER"),
        ("CREATE ROLE 'hush';", "? CREATE ROLE …"),
        ("CREATE ROLE a \\! touch x\n;", "? CREATE ROLE a …"),
        ("GRANT a, b TO c;", "? GRANT a … b"),
        ("GRANT ALL ON DATABASE a TO b;", "? GRANT ALL ON DATABASE"),
        ("SELECT pg_terminate_backend(1);", "? SELECT pg_terminate_backend … 1"),
        ("COPY (SELECT 1) TO PROGRAM 'hush';", "? COPY … SELECT 1"),
        ("DO $$BEGIN; END$$;", "? DO … … BEGIN"),
    ] {
        assert_eq!(rewritten(script)[0], left, "{script}");
        assert!(!rewritten(script).join("").contains("hush"), "{script}");
    }
    // What begins in a quotation and never ends is nothing, nor is what an unknown escape could hide.
    for script in
        ["CREATE ROLE \"a;", "COMMENT ON ROLE a IS 'b;", "COMMENT ON ROLE a IS E'\\'; DROP ROLE b; --';", ""]
    {
        assert_eq!(rewritten(script), [] as [&str; 0], "{script}");
    }
}

#[test]
fn each_statement_says_whose_it_is() {
    let of = |script: &str| statement(&statements(script)[0]).unwrap().unwrap();
    assert_eq!(of("CREATE ROLE a;").subject, Subject::NewRole("a".into()));
    // It gives the rights of the group to the member.
    assert_eq!(of("GRANT a TO b;").subject, Subject::Role("b".into()));
    assert_eq!(of("GRANT SET ON PARAMETER x TO b;").subject, Subject::Role("b".into()));
    assert!(of("ALTER ROLE a WITH SUPERUSER;").mighty && !of("ALTER ROLE a WITH LOGIN;").mighty);
    assert_eq!(of("GRANT a TO b WITH INHERIT TRUE GRANTED BY c;").sql[2], r#"GRANT "a" TO "b";"#);
}

#[test]
fn whatever_a_script_contains_names_and_strings_stay_in_their_quotes() {
    let seeds = [
        "CREATE ROLE \"a\"\"b\";\nALTER ROLE app WITH LOGIN PASSWORD 'x''y' VALID UNTIL 'z';",
        "COMMENT ON ROLE app IS E'it''s\\\\';GRANT a TO b WITH ADMIN OPTION GRANTED BY c;",
        "CREATE TABLESPACE ts OWNER app LOCATION '/t';ALTER TABLESPACE ts SET (a=1.5);",
    ];
    crate::base::fuzz::feed(&seeds, |script| {
        for sql in rewritten(script) {
            // Reading it again finds the same single statement.
            if !sql.is_empty() && !sql.starts_with('?') && !sql.contains('\\') {
                assert_eq!(rewritten(&sql), [sql.as_str()], "{script}");
            }
        }
    });
}
