//! `/metrics`, `/healthz` and the file for node_exporter.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, SHOP};
use crate::support::s3::{self, Fault};
use crate::support::{free_port, wait_for};
use crate::whole_server::{pgkeep_for, server_with};

/// The whole answer to a request. A server that says nothing for a minute fails the test.
fn ask(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the listener");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(request).expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn get(port: u16, path: &str) -> String {
    ask(port, format!("GET {path} HTTP/1.1\r\nHost: pgkeep\r\n\r\n").as_bytes())
}

/// What Prometheus's own tool says about a text; nothing if it is content.
fn promtool(text: &str) -> String {
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let Ok(mut child) = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        eprintln!("SKIPPED: promtool check metrics; Prometheus is not installed");
        return String::new();
    };
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("the text is sent");
    let output = child.wait_with_output().expect("promtool");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The number of a sample.
fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_scrape_tells_of_each_backup_and_hostile_clients_do_not_disturb_it() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("scraped");
    server.psql(&database, SHOP);
    let port = free_port();
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("BACKUP_INTERVAL", "* * * * *")
        .with("BACKUP_METRICS_LISTEN", &format!("127.0.0.1:{port}"));
    let mut running = pgkeep.start(&[]);
    let of = |name: &str| format!("pgkeep_{name}{{database=\"{database}\"}}");
    running.wait_for_log("backup failed: cannot upload the backup");
    let failure = format!("pgkeep_failures_total{{database=\"{database}\",step=\"upload\"}}");
    let failed = wait_for("the failure's metrics", || {
        let text = get(port, "/metrics");
        (value(&text, &failure) == Some(1.0)).then_some(text)
    });
    assert_eq!(value(&failed, &of("last_attempt_success")), Some(0.0), "{failed}");
    assert_eq!(value(&failed, &of("backups")), Some(0.0), "{failed}");
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 503 "));

    // Connections that say nothing, or too slowly, and more of them than there is room for.
    let silent: Vec<TcpStream> =
        (0..40).map(|_| TcpStream::connect(("127.0.0.1", port)).expect("a connection")).collect();
    for mut stream in &silent {
        // It may be closed already.
        let _ = stream.write_all(b"GET /metrics HT");
    }
    assert!(get(port, "/metrics").starts_with("HTTP/1.1 200 "));
    assert!(ask(port, &b"GET /metrics HTTP/1.1\r\na: ".repeat(400)[..8192]).starts_with("HTTP/1.1 4"));
    assert!(ask(port, b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\na=b").starts_with("HTTP/1.1 405 "));
    assert!(get(port, "/").starts_with("HTTP/1.1 404 "));
    for mut stream in silent {
        let mut rest = Vec::new();
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let ended = stream.read_to_end(&mut rest);
        let timed_out = ended.is_err_and(|problem| problem.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out && rest.is_empty(), "a silent client keeps its connection");
    }

    running.wait_for_log("backup succeeded");
    let made = wait_for("the success's metrics", || {
        let text = get(port, "/metrics");
        (value(&text, &of("backups")) == Some(1.0)).then_some(text)
    });
    let size = s3.objects().into_values().sum::<u64>() as f64;
    for (name, expected) in
        [("last_attempt_success", 1.0), ("last_size_bytes", size), ("backups_bytes", size), ("running", 0.0)]
    {
        assert_eq!(value(&made, &of(name)), Some(expected), "{name}: {made}");
    }
    let (_, text) = made.split_once("\r\n\r\n").expect("a body");
    assert_eq!(promtool(text), "");
    assert!(get(port, "/healthz").contains("healthy: the newest backup is of"));

    // An address in use is an error at the start.
    let second = Pgkeep::new(&server.database("second"), &s3)
        .with("BACKUP_INTERVAL", "0 0 1 1 *")
        .with("BACKUP_METRICS_LISTEN", &format!("127.0.0.1:{port}"));
    let log = second.fail(&["run"]).log;
    assert!(log.contains(&format!("BACKUP_METRICS_LISTEN: cannot listen on 127.0.0.1:{port}: ")), "{log}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert_eq!(pgkeep.spool.path().read_dir().expect("the spool's directory").count(), 0);
}

#[test]
fn the_alerts_and_the_dashboard_ask_for_metrics_that_exist_and_the_alerts_fire() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let source = include_str!("../../src/daemon/metrics.rs");
    for name in ["prometheus-alerts.yml", "prometheus-alerts.test.yml", "grafana-dashboard.json"] {
        let text = fs::read_to_string(docs.join(name)).expect("a document");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|word| word.starts_with("pgkeep_")) {
            assert!(source.contains(&format!("\"{word}\"")), "{name} asks for {word}");
        }
    }
    let rules = docs.join("prometheus-alerts.test.yml");
    match Command::new("promtool").args(["test", "rules"]).arg(rules).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => eprintln!("SKIPPED: promtool test rules; Prometheus is not installed"),
    }
}

#[test]
fn a_backup_writes_its_metrics_to_a_file_and_a_failed_one_keeps_the_last_success() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("filed");
    server.psql(&database, SHOP);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pgkeep.prom");
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_METRICS_FILE", file.to_str().expect("UTF-8"));
    let of = |name: &str| format!("pgkeep_{name}{{database=\"{database}\"}}");
    pgkeep.succeed(&["backup"]);
    let succeeded = fs::read_to_string(&file).expect("the metrics");
    let last = value(&succeeded, &of("last_success_timestamp_seconds"));
    assert!(last.is_some(), "{succeeded}");
    s3.fail(9, "GET", "", Fault::Answer(403, "AccessDenied"));
    pgkeep.fail(&["backup"]);
    let failed = fs::read_to_string(&file).expect("the metrics");
    assert_eq!(value(&failed, &of("last_success_timestamp_seconds")), last, "{failed}");
    assert_eq!(value(&failed, &of("last_attempt_success")), Some(0.0), "{failed}");
    assert_eq!(promtool(&failed), "");
    // Others may read it, and nothing is left beside it.
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o644);
    assert_eq!(directory.path().read_dir().expect("the directory").count(), 1);
    let log = pgkeep.with("BACKUP_METRICS_FILE", "/nowhere/pgkeep.prom").run(&["list"]).log;
    assert!(
        log.contains("BACKUP_METRICS_FILE names /nowhere/pgkeep.prom, and there is no such directory"),
        "{log}"
    );
}

#[test]
fn each_of_several_databases_has_its_own_metrics() {
    let (server, s3) = (server_with(&["a", "b"]), s3::Server::start());
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pgkeep.prom");
    let port = free_port();
    let pgkeep = pgkeep_for(&server, &s3, "a,b,missing")
        .with("BACKUP_METRICS_FILE", file.to_str().expect("UTF-8"))
        .with("BACKUP_INTERVAL", "0 0 1 1 *")
        .with("BACKUP_ON_START", "true")
        .with("BACKUP_METRICS_LISTEN", &format!("127.0.0.1:{port}"));
    let success = |text: &str| {
        let of = |name: &str| value(text, &format!("pgkeep_last_attempt_success{{database=\"{name}\"}}"));
        ["a", "b", "missing", ".globals", "postgres"].map(of)
    };
    let expected = [Some(1.0), Some(1.0), Some(0.0), Some(1.0), None];
    let mut running = pgkeep.start(&[]);
    running.wait_for_log("2 of 3 databases backed up");
    let text = get(port, "/metrics");
    assert_eq!(success(&text), expected, "{text}");
    for (sample, number) in [
        ("pgkeep_attempts_total{database=\"b\",result=\"success\"}", 1.0),
        ("pgkeep_failures_total{database=\"missing\",step=\"connect\"}", 1.0),
        ("pgkeep_backups{database=\"a\"}", 1.0),
        ("pgkeep_backups{database=\"missing\"}", 0.0),
    ] {
        assert_eq!(value(&text, sample), Some(number), "{sample}: {text}");
    }
    let (_, text) = text.split_once("\r\n\r\n").expect("a body");
    assert_eq!(promtool(text), "");
    let healthz = get(port, "/healthz");
    assert!(healthz.starts_with("HTTP/1.1 503 "), "{healthz}");
    assert!(healthz.contains("unhealthy: 1 of 4 not well; missing: no backup is known"), "{healthz}");
    let told = pgkeep.succeed(&["status"]).stdout;
    let (_, missing) = told.split_once("database        missing\n").expect("each database by its name");
    assert!(missing.starts_with("last run        failed at "), "{told}");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);

    pgkeep.fail(&["backup"]);
    let made = fs::read_to_string(&file).expect("the metrics");
    assert_eq!(success(&made), expected, "{made}");
    assert_eq!(promtool(&made), "");
    // A run that cannot begin has failed for each of them.
    let nowhere = format!("host=127.0.0.1 port={} user=postgres", free_port());
    pgkeep.clone().with("POSTGRES_CONNECTION_STRING", &(nowhere + " dbname=postgres")).fail(&["backup"]);
    let failed = fs::read_to_string(&file).expect("the metrics");
    assert_eq!(success(&failed), [Some(0.0), Some(0.0), Some(0.0), Some(0.0), None], "{failed}");
    let last = "pgkeep_last_success_timestamp_seconds{database=\"a\"}";
    assert!(value(&made, last).is_some() && value(&failed, last) == value(&made, last), "{failed}");
}
