//! Names and passwords that mean something elsewhere.

use crate::backup::assert_restores;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, HARD_PASSWORD, SHOP};
use crate::support::s3;

#[test]
fn a_database_may_have_any_name() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let name = r#"a b'c"d/é\e=f"#;
    server.create_database(name);
    server.psql(name, SHOP);
    Pgkeep::new(name, &s3).succeed(&["backup"]);
    assert_restores(&s3, name);
    let escaped = "a.20b.27c.22d.2f.c3.a9.5ce.3df";
    let key = &s3.backups()[0];
    assert!(key.starts_with(&format!("{escaped}/{escaped}_")), "{key}");
}

#[test]
fn a_password_may_have_any_character_in_both_forms() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let literal = HARD_PASSWORD.replace('\'', "''");
    server.psql("postgres", &format!("CREATE ROLE hard LOGIN SUPERUSER PASSWORD '{literal}'"));
    let escaped: String = HARD_PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let quoted = HARD_PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
    for connection in [
        format!("postgresql://hard:{escaped}@127.0.0.1:{}/{database}", server.port),
        format!("postgresql://hard@127.0.0.1:{}/{database}?password={escaped}", server.port),
        format!("host=127.0.0.1 port={} user=hard password='{quoted}' dbname={database}", server.port),
    ] {
        let before = s3.backups().len();
        Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &connection).succeed(&["backup"]);
        assert_eq!(s3.backups().len(), before + 1, "{connection}");
    }
}
