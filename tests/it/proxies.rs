//! The way to S3 leads through a company's proxy: a tunnel to https, and forwarded requests to http.

use std::fs;
use std::time::Duration;

use crate::backup::assert_restores;
use crate::credentials::{as_web_identity, role, token_file};
use crate::daemon::large;
use crate::support::free_port;
use crate::support::http_proxy::HttpProxy;
use crate::support::pgkeep::Pgkeep;
use crate::support::platform::{Platform, PROOF};
use crate::support::postgres::{self, SHOP};
use crate::support::receiver::Receiver;
use crate::support::s3;
use crate::support::tls::{in_front_of, Authority};

const PASSWORD: &str = "proxy/hush";

#[test]
fn https_goes_through_a_tunnel() {
    let authority = Authority::new();
    let s3 = s3::Server::over_tls(authority.vouch("localhost", 2100));
    let ca = tempfile::NamedTempFile::new().expect("a file");
    fs::write(ca.path(), &authority.pem).expect("the certificate");
    let proxy = HttpProxy::start(Some(s3.port()), Some(&format!("me:{PASSWORD}")));
    let server = postgres::server();
    let database = server.database("tunnel");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("S3_CA_FILE", ca.path().to_str().expect("UTF-8"))
        .with("HTTPS_PROXY", &format!("http://me:proxy%2Fhush@127.0.0.1:{}", proxy.port))
        // It is not for https.
        .with("http_proxy", "socks5://127.0.0.1:9");
    pgkeep.succeed(&["backup"]);
    assert_restores(&s3, &database);
    let expected = format!("CONNECT localhost:{} HTTP/1.1", s3.port());
    let seen = proxy.requests();
    assert!(!seen.is_empty() && seen.iter().all(|line| *line == expected), "{seen:?}");
    // To a proxy that speaks TLS itself.
    let port = in_front_of(proxy.port, authority.vouch("localhost", 2100));
    let over_tls = format!("https://me:proxy%2Fhush@localhost:{port}");
    pgkeep.clone().with("HTTPS_PROXY", &over_tls).succeed(&["verify"]);
    let seen_before = seen.len();
    let seen = proxy.requests();
    assert!(seen.len() > seen_before && seen.iter().all(|line| *line == expected), "{seen:?}");
    // Around it.
    pgkeep.with("no_proxy", "localhost").succeed(&["list"]);
    assert_eq!(proxy.requests().len(), seen.len());
}

#[test]
fn http_is_forwarded_and_needs_no_tunnel() {
    let s3 = s3::Server::start();
    let proxy = HttpProxy::start(None, Some(&format!("me:{PASSWORD}")));
    // Several parts, each after the server's 100 Continue.
    let database = large("forwarded");
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("HTTP_PROXY", &format!("http://me:proxy%2Fhush@127.0.0.1:{}", proxy.port));
    pgkeep.succeed(&["backup"]);
    let there = s3.requests("", "").len();
    assert_restores(&s3, &database);
    pgkeep.succeed(&["verify"]);
    let seen = proxy.requests();
    assert!(there > 4 && seen.len() == s3.requests("", "").len(), "{seen:?}");
    assert!(seen.iter().all(|line| line.contains(&format!(" {}/", s3.url))), "{seen:?}");
}

#[test]
fn a_proxy_that_refuses_or_is_away_is_named_with_the_endpoint_and_the_remedy() {
    let authority = Authority::new();
    let tls = s3::Server::over_tls(authority.vouch("localhost", 2100));
    let plain = s3::Server::start();
    let closed = HttpProxy::start(Some(tls.port()), Some("me:other"));
    let narrow = HttpProxy::start(None, None);
    for (s3, variable, port, says, tries) in [
        (
            &tls,
            "HTTPS_PROXY",
            closed.port,
            "wants another user and password (407): HTTPS_PROXY=http://user",
            1,
        ),
        (
            &plain,
            "http_proxy",
            closed.port,
            "wants another user and password (407): http_proxy=http://user",
            1,
        ),
        (&tls, "https_proxy", narrow.port, "the proxy refuses (403): it has to allow", 1),
        (&plain, "ALL_PROXY", free_port(), "Connection refused", 5),
    ] {
        let pgkeep = Pgkeep::new("nobodys", s3)
            .with(variable, &format!("http://me:proxy%2Fhush@127.0.0.1:{port}"))
            .with("BACKUP_LOG_LEVEL", "debug");
        let log = pgkeep.fail(&["list"]).log;
        let way = format!("(at {} through the proxy http://127.0.0.1:{port} of {variable})", s3.url);
        assert!(log.contains(says) && log.contains(&way), "{log}");
        assert_eq!(log.contains("try 1 of 5"), tries == 5, "{log}");
        assert!(!log.contains("hush") && !log.contains("bWU6"), "{log}");
        assert!(s3.requests("", "").is_empty());
    }
}

#[test]
fn the_start_tells_the_proxy_and_refuses_one_of_another_kind() {
    let s3 = s3::Server::start();
    let proxy = HttpProxy::start(None, None);
    let pgkeep = Pgkeep::new("nobodys", &s3).with("BACKUP_INTERVAL", "0 3 * * *");
    let running =
        pgkeep.clone().with("all_proxy", &format!("me:{}@127.0.0.1:{}", "hush", proxy.port)).start(&["run"]);
    let line = running.wait_for_log("the bucket is reached through");
    let expected = format!("through the proxy http://127.0.0.1:{} of all_proxy", proxy.port);
    assert!(line.ends_with(&expected), "{line}");
    let outcome = pgkeep.with("HTTP_PROXY", "socks5h://me:hush@127.0.0.1:1080").run(&["list"]);
    assert_eq!(outcome.status, 2, "{}", outcome.log);
    assert!(outcome.log.contains("HTTP_PROXY names a proxy of the kind socks5h"), "{}", outcome.log);
    assert!(!outcome.log.contains("hush"), "{}", outcome.log);
}

#[test]
fn s3_sts_and_receivers_take_the_same_proxy_in_the_same_way() {
    let (s3, receiver) = (s3::Server::start(), Receiver::start());
    let platform = Platform::start(&[Duration::from_secs(3600)]);
    let (_, pgkeep) = role(&s3, SHOP);
    let token = token_file(PROOF);
    let pgkeep = as_web_identity(&pgkeep, &platform, token.path().to_str().expect("UTF-8"))
        .with("BACKUP_WEBHOOK_URL", &format!("{}/hook", receiver.url))
        .with("BACKUP_WEBHOOK_EVENTS", "all");
    let proxy = HttpProxy::start(None, Some(&format!("me:{PASSWORD}")));
    let through =
        |port: u16| pgkeep.clone().with("HTTP_PROXY", &format!("http://me:proxy%2Fhush@127.0.0.1:{port}"));
    through(proxy.port).succeed(&["backup"]);
    let seen = proxy.requests();
    for url in [&s3.url, &platform.url, &receiver.url] {
        assert!(seen.iter().any(|line| line.contains(&format!(" {url}/"))), "{url}: {seen:?}");
    }
    through(proxy.port).with("NO_PROXY", "10.0.0.0/8, 127.0.0.0/8").succeed(&["backup"]);
    assert_eq!(proxy.requests().len(), seen.len());
    // Each of them is refused in the same words.
    let closed = HttpProxy::start(None, Some("me:other"));
    let log = through(closed.port).with("NO_PROXY", &s3.url[7..]).fail(&["backup"]).log;
    let (named, wants) = (
        format!("through the proxy http://127.0.0.1:{} of HTTP_PROXY", closed.port),
        "the proxy wants another user and password (407): HTTP_PROXY=http://user",
    );
    assert!(log.contains(&format!("did not answer {named}: {wants}")), "{log}");
    assert!(log.contains(&format!(": {wants}:password@host:port ({named})")), "{log}");
    assert!(!log.contains("hush") && !log.contains("bWU6"), "{log}");
    // Wrong for all of them is wrong once.
    let outcome = pgkeep.with("HTTP_PROXY", "socks5h://me:hush@127.0.0.1:1080").run(&["backup"]);
    assert_eq!(outcome.status, 2, "{}", outcome.log);
    assert_eq!(outcome.log.matches("names a proxy of the kind socks5h").count(), 1, "{}", outcome.log);
}
