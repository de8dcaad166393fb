//! The main path.

use std::io::Write;
use std::process::Stdio;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, SHOP};
use crate::support::s3;

/// Restores an object without pgkeep, as README says: gunzip and psql.
fn restore(bytes: &[u8], into: &str) {
    let mut gunzip = std::process::Command::new("gunzip")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gunzip");
    let sql = gunzip.stdout.take().unwrap();
    let psql = postgres::server()
        .client("psql", into)
        .args(["-Xq", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-o", "/dev/null"])
        .stdin(sql)
        .stderr(Stdio::piped())
        .spawn()
        .expect("psql");
    gunzip.stdin.take().unwrap().write_all(bytes).expect("gunzip reads");
    assert!(gunzip.wait().unwrap().success(), "gunzip");
    let output = psql.wait_with_output().unwrap();
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_backup_is_an_ordinary_file_that_gunzip_and_psql_restore() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let outcome = Pgkeep::new(&database, &s3).succeed(&["backup"]);
    println!("{}", outcome.log);
    let backups = s3.backups();
    assert_eq!(backups.len(), 1, "{backups:?}");
    let restored = server.database("restored");
    restore(&s3.read(&backups[0]), &restored);
    assert_eq!(server.contents(&restored), server.contents(&database));
}
