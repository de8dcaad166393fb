//! Who is at the other end: a certificate that is not right is refused, whatever is configured.

use std::fs;

use crate::backup::assert_restores;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, SHOP};
use crate::support::s3;
use crate::support::tls::{self_signed, Authority};

/// A file for S3_CA_FILE and SSL_CERT_FILE.
fn file(pem: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), pem).expect("the certificate");
    file
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let authority = Authority::new();
    let s3 = s3::Server::over_tls(authority.vouch("localhost", 2100));
    let (server, ca) = (postgres::server(), file(&authority.pem));
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3);
    // Not unasked.
    let log = pgkeep.fail(&["list"]).log;
    assert!(log.contains("no trusted connection") && log.contains("UnknownIssuer"), "{log}");
    assert!(log.contains("S3_CA_FILE"), "{log}");
    let path = ca.path().to_str().expect("UTF-8");
    pgkeep.clone().with("S3_CA_FILE", path).succeed(&["backup"]);
    assert_restores(&s3, &database);
    for (name, value) in [("SSL_CERT_FILE", path), ("S3_CA", &authority.pem)] {
        pgkeep.clone().with(name, value).succeed(&["list"]);
    }
    // It is the only one then.
    let other = file(&Authority::new().pem);
    let pgkeep = pgkeep.with("S3_CA_FILE", other.path().to_str().expect("UTF-8"));
    let log = pgkeep.fail(&["list"]).log;
    assert!(log.contains("UnknownIssuer"), "{log}");
}

#[test]
fn a_certificate_that_is_not_right_is_refused_with_the_reason_at_once() {
    let authority = Authority::new();
    let ca = file(&authority.pem);
    let path = ca.path().to_str().expect("UTF-8");
    for (identity, reason) in [
        (authority.vouch("localhost", 2021), "expired"),
        (authority.vouch("s3.example.com", 2100), "not valid for name \"localhost\""),
        (self_signed("localhost"), "UnknownIssuer"),
    ] {
        let s3 = s3::Server::over_tls(identity);
        let pgkeep = Pgkeep::new("nobodys", &s3);
        for name in ["S3_CA_FILE", "SSL_CERT_FILE"] {
            let log = pgkeep.clone().with(name, path).fail(&["list"]).log;
            assert!(log.contains("no trusted connection") && log.contains(reason), "{reason}: {log}");
            assert!(!log.contains("try 1 of"), "{log}");
        }
        assert!(s3.requests("GET", "").is_empty(), "it was spoken to");
    }
}

#[test]
fn a_plain_server_at_an_https_address_is_told() {
    let s3 = s3::Server::start();
    let url = s3.url.replace("http:", "https:");
    let log = Pgkeep::new("nobodys", &s3).with("S3_URL", &url).fail(&["list"]).log;
    assert!(log.contains("no trusted connection") && log.contains("this port speaks plain HTTP"), "{log}");
}

#[test]
fn a_tls_server_at_a_plain_address_is_told() {
    let s3 = s3::Server::over_tls(Authority::new().vouch("localhost", 2100));
    let url = s3.url.replace("https:", "http:");
    let log = Pgkeep::new("nobodys", &s3).with("S3_URL", &url).fail(&["list"]).log;
    assert!(log.contains("a port that speaks TLS answers so, and then S3_URL has to begin"), "{log}");
}
