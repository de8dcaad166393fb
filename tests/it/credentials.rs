//! Credentials that the platform gives, and that end.

use std::fs;
use std::time::Duration;

use chrono::Utc;

use crate::backup::assert_restores;
use crate::support::pgkeep::Pgkeep;
use crate::support::platform::{Ill, Platform, KEYS, PROOF};
use crate::support::postgres::{self, noise, PausedDump, SHOP};
use crate::support::{s3, wait_for};

const HOUR: Duration = Duration::from_secs(3600);

/// A configuration without keys.
pub fn role(s3: &s3::Server, statements: &str) -> (String, Pgkeep) {
    let server = postgres::server();
    let database = server.database("role");
    server.psql(&database, statements);
    let pgkeep = Pgkeep::new(&database, s3).without("S3_ACCESS_KEY").without("S3_SECRET_KEY");
    (database, pgkeep.with("S3_CREDENTIALS", "role"))
}

fn as_instance(pgkeep: &Pgkeep, platform: &Platform) -> Pgkeep {
    pgkeep.clone().with("AWS_EC2_METADATA_SERVICE_ENDPOINT", &platform.url)
}

fn as_container(pgkeep: &Pgkeep, platform: &Platform) -> Pgkeep {
    let url = format!("{}/v1/credentials", platform.url);
    pgkeep.clone().with("AWS_CONTAINER_CREDENTIALS_FULL_URI", &url)
}

pub fn as_web_identity(pgkeep: &Pgkeep, platform: &Platform, token_file: &str) -> Pgkeep {
    pgkeep
        .clone()
        .with("AWS_WEB_IDENTITY_TOKEN_FILE", token_file)
        .with("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pgkeep")
        .with("AWS_ENDPOINT_URL_STS", &platform.url)
}

pub fn token_file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("the token");
    file
}

#[test]
fn each_platform_gives_the_keys_that_a_backup_is_signed_with() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = role(&s3, SHOP);
    let token = token_file(&format!("{PROOF}\n"));
    let path = token.path().to_str().expect("UTF-8");
    let with_token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN", PROOF);
    let with_file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path);
    for number in 0..4 {
        let platform = Platform::start(&[HOUR]);
        let pgkeep = match number {
            0 => as_instance(&pgkeep, &platform),
            1 => as_container(&pgkeep, &platform).with(with_token.0, with_token.1),
            2 => as_container(&pgkeep, &platform).with(with_file.0, with_file.1),
            _ => as_web_identity(&pgkeep, &platform, path),
        };
        // Nobody is there, so whoever asks this proxy gets no keys. STS is not on this host, and a proxy is right.
        let (proxy, by_name) = ("http://127.0.0.1:9", s3.url.replace("127.0.0.1", "localhost"));
        let pgkeep = match number {
            3 => pgkeep,
            _ => pgkeep.with("ALL_PROXY", proxy).with("NO_PROXY", "localhost").with("S3_URL", &by_name),
        };
        s3.clear();
        s3.forget_requests();
        pgkeep.succeed(&["backup"]);
        assert_restores(&s3, &database);
        let signers = s3.signers("", "");
        assert!(!signers.is_empty() && signers.iter().all(|signer| signer == KEYS[0].id), "{signers:?}");
        assert_eq!(platform.ends().len(), 1);
    }
}

#[test]
fn keys_that_end_within_an_upload_are_renewed_and_the_later_parts_signed_with_the_new_ones() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = role(&s3, &noise(40));
    let platform = Platform::start(&[Duration::from_secs(12), HOUR]);
    let dump = PausedDump::new("");
    let pgkeep = as_instance(&pgkeep, &platform).with("BACKUP_PG_BIN", dump.bin());
    let mut running = pgkeep.start(&["backup"]);
    dump.wait();
    wait_for("a part", || (!s3.signers("PUT", "partNumber=1").is_empty()).then_some(()));
    wait_for("the end of the first keys", || (platform.ends()[0] < Utc::now()).then_some(()));
    dump.go_on();
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_restores(&s3, &database);
    let [first, second] = KEYS.map(|key| key.id);
    assert_eq!(s3.signers("POST", "uploads="), [first]);
    assert_eq!(s3.signers("POST", "uploadId="), [second]);
    let parts = s3.signers("PUT", "partNumber=");
    assert_eq!(parts.last().map(String::as_str), Some(second), "{parts:?}");
    assert_eq!(platform.ends().len(), 2);
}

#[test]
fn keys_that_s3_calls_expired_are_renewed_at_once() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = role(&s3, SHOP);
    let platform = Platform::start(&[HOUR]);
    s3.fail(1, "PUT", "", s3::Fault::Answer(400, "ExpiredToken"));
    let log = as_instance(&pgkeep, &platform).succeed(&["backup"]).log;
    assert!(
        log.contains("the platform's credentials have expired (400 Bad Request); the next one in"),
        "{log}"
    );
    assert_restores(&s3, &database);
    assert_eq!(s3.signers("PUT", ""), [KEYS[1].id]);
}

#[test]
fn a_platform_that_fails_for_a_moment_is_asked_again() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = role(&s3, SHOP);
    let platform = Platform::start(&[HOUR]);
    platform.ail(1, Ill::Refuses(500));
    platform.ail(1, Ill::Silent);
    let pgkeep = as_container(&pgkeep, &platform).with("AWS_CONTAINER_AUTHORIZATION_TOKEN", PROOF);
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(
        log.contains("no credentials from the container (AWS_CONTAINER_CREDENTIALS_*) at http://127."),
        "{log}"
    );
    assert!(log.contains("it answers 500: ") && log.contains("try 2 of 5 failed"), "{log}");
    assert_restores(&s3, &database);
}

#[test]
fn check_says_which_platform_gives_no_credentials_and_why() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = role(&s3, SHOP);
    let platform = Platform::start(&[HOUR]);
    let (wrong, right) = (token_file("of somebody else"), token_file(PROOF));
    let [wrong, right] = [&wrong, &right].map(|file| file.path().to_str().expect("UTF-8"));
    let with_token = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
    let nobody = "http://127.0.0.1:9";
    for (pgkeep, ill, says) in [
        (
            as_container(&pgkeep, &platform).with(with_token, wrong),
            None,
            "it answers 401: Unauthorized wrong token",
        ),
        (
            as_container(&pgkeep, &platform).with(with_token, "/nowhere"),
            None,
            "/nowhere, which AWS_CONTAINER_AUTH",
        ),
        (as_container(&pgkeep, &platform).with(with_token, right), Some(Ill::Garbage), "it is not JSON"),
        (
            as_web_identity(&pgkeep, &platform, wrong),
            None,
            "it answers 400: ExpiredTokenException Token expired",
        ),
        (
            as_web_identity(&pgkeep, &platform, right),
            Some(Ill::Refuses(403)),
            "as arn:aws:iam::123456789012:role/pgkeep",
        ),
        (as_instance(&pgkeep, &platform), Some(Ill::Refuses(403)), "it answers 403"),
        (pgkeep.clone().with("AWS_EC2_METADATA_SERVICE_ENDPOINT", nobody), None, "HttpPutResponseHopLimit"),
    ] {
        if let Some(ill) = ill {
            platform.ail(1, ill);
        }
        let report = pgkeep.fail(&["check"]).stdout;
        let line = report.lines().find(|line| line.contains("no credentials from")).unwrap_or(&report);
        assert!(line.contains("S3 list") && line.contains(says), "{says}: {report}");
        assert!(line.ends_with("; see S3_CREDENTIALS") && report.contains("for the same reason"), "{report}");
        platform.cure();
    }
    assert_eq!(s3.signers("", ""), [] as [&str; 0]);
}

#[test]
fn a_given_session_token_is_sent_and_a_wrong_one_refused() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = role(&s3, SHOP);
    let pgkeep = pgkeep
        .with("S3_CREDENTIALS", "keys")
        .with("S3_ACCESS_KEY", KEYS[0].id)
        .with("S3_SECRET_KEY", KEYS[0].secret);
    let log = pgkeep.clone().with("S3_SESSION_TOKEN", KEYS[1].token).fail(&["backup"]).log;
    assert!(log.contains("InvalidToken"), "{log}");
    pgkeep.with("S3_SESSION_TOKEN", KEYS[0].token).succeed(&["backup"]);
    assert_restores(&s3, &database);
}

#[test]
fn the_daemon_says_at_its_start_who_gives_the_keys() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = role(&s3, SHOP);
    let platform = Platform::start(&[HOUR]);
    let running = as_instance(&pgkeep, &platform).with("BACKUP_INTERVAL", "0 3 1 1 *").start(&["run"]);
    running.wait_for_log("the keys for S3 come from the EC2 instance metadata at http://127.0.0.1:");
}
