//! What each service gets for which news.

use serde_json::Value;

use super::*;
use crate::notify::send::Body;

fn news(kind: Kind) -> News {
    News {
        kind,
        database: "shop".into(),
        server: None,
        key: None,
        bytes: None,
        dumped_bytes: None,
        took: Some(Duration::from_millis(1234)),
        error: None,
        next: None,
        time: DateTime::UNIX_EPOCH,
        text: "a sentence".into(),
    }
}

fn address(url: &str) -> Address {
    Address::parse(url).unwrap()
}

/// Where the webhook's request goes, and its JSON.
fn posted(url: &str, format: Option<Format>, news: &News) -> (String, Value) {
    let to = address(url);
    let request = webhook::request(&to, format.unwrap_or_else(|| Format::of(&to)), news, "host");
    let Body::Json(body) = request.body else { panic!("no JSON") };
    (request.url.expose().to_owned(), serde_json::from_str(&body).unwrap())
}

#[test]
fn each_service_gets_its_own_form_by_its_host() {
    for (url, format) in [
        ("https://hooks.slack.com/services/T/B/X", Format::Json),
        ("https://discord.com/api/webhooks/1/x", Format::Json),
        ("https://chat.googleapis.com/v1/spaces/A/messages?key=k&token=t", Format::Text),
        ("https://ntfy.sh/shop", Format::Ntfy),
        ("https://NTFY.example.com/shop", Format::Ntfy),
        ("http://ntfy:8080/shop", Format::Ntfy),
        ("http://gotify/message?token=x", Format::Gotify),
        ("https://acme.webhook.office.com/webhookb2/x", Format::Teams),
        ("https://prod-1.westeurope.logic.azure.com:443/workflows/x", Format::Teams),
        ("https://x.environment.api.powerplatform.com/powerautomate/x", Format::Teams),
        ("https://evil.example/chat.googleapis.com", Format::Json),
    ] {
        assert_eq!(Format::of(&address(url)), format, "{url}");
    }
}

#[test]
fn ntfy_gets_the_topic_in_the_body_and_a_priority() {
    for (kind, priority) in [(Kind::BackupFailed, 5), (Kind::PruneHeldBack, 4), (Kind::Recovered, 3)] {
        let (url, json) = posted("https://ntfy.sh/shop-alerts/?auth=x", None, &news(kind));
        assert_eq!(url, "https://ntfy.sh/?auth=x");
        assert_eq!((&json["topic"], &json["message"]), (&"shop-alerts".into(), &"a sentence".into()));
        assert_eq!(json["priority"], priority);
        assert!(json["title"].as_str().unwrap().ends_with(": shop"), "{json}");
    }
    assert!(webhook::check(&address("https://ntfy.sh/"), Format::Ntfy).is_err());
    assert!(webhook::check(&address("https://hooks.example.com/"), Format::Json).is_ok());
}

#[test]
fn gotify_teams_and_strict_chats_get_what_they_know_and_no_more() {
    let url = "https://push.example.com/message?token=x";
    let (to, json) = posted(url, Some(Format::Gotify), &news(Kind::DrillFailed));
    assert_eq!(to, url);
    let expected =
        serde_json::json!({ "title": "drill FAILED: shop", "message": "a sentence", "priority": 8 });
    assert_eq!(json, expected);
    let (_, json) = posted(url, Some(Format::Text), &news(Kind::DrillFailed));
    assert_eq!(json, serde_json::json!({ "text": "a sentence" }));
    let (_, json) = posted(url, Some(Format::Teams), &news(Kind::DrillFailed));
    assert_eq!((&json["type"], json["attachments"].as_array().unwrap().len()), (&"message".into(), 1));
    let card = &json["attachments"][0];
    assert_eq!(card["contentType"], "application/vnd.microsoft.card.adaptive");
    assert_eq!(card["content"]["type"], "AdaptiveCard");
    assert_eq!(card["content"]["body"][1]["text"], "a sentence");
}

#[test]
fn a_long_error_fits_every_chat_and_calls_nobody() {
    let text = "@everyone <!channel> <@U123> é".repeat(1000);
    let (_, json) = posted("https://h/x", None, &News { text, ..news(Kind::BackupFailed) });
    let length = |name: &str| json[name].as_str().unwrap().encode_utf16().count();
    assert!(
        (1_000..2_000).contains(&length("content")) && (3_000..4_000).contains(&length("text")),
        "{json}"
    );
    for call in ["@everyone", "<!", "<@"] {
        assert!(!json["text"].as_str().unwrap().contains(call), "{json}");
    }
}

/// The lines of the requests that a heartbeat gets, and the length of the body.
fn beat(url: &str, runs: Runs, news: &News, others_failed: bool) -> Option<(String, usize)> {
    let request = heartbeat::request(&address(url), runs, news, others_failed)?;
    let length = if let Body::Text(text) = &request.body { text.len() } else { 0 };
    Some((request.url.expose().to_owned(), length))
}

#[test]
fn a_heartbeats_signal_is_in_the_path_and_its_query_stays() {
    let url = "https://hc-ping.com/key/slug/?create=1";
    for (kind, to) in [
        (Kind::BackupStarted, Some("https://hc-ping.com/key/slug/start?create=1")),
        (Kind::BackupSucceeded, Some(url)),
        (Kind::BackupFailed, Some("https://hc-ping.com/key/slug/fail?create=1")),
        (Kind::Test, Some("https://hc-ping.com/key/slug/log?create=1")),
        (Kind::Recovered, None),
        (Kind::PruneHeldBack, None),
        (Kind::DrillFailed, None),
    ] {
        let told = beat(url, Runs::Backups, &news(kind), false);
        assert_eq!(told.as_ref().map(|(url, _)| url.as_str()), to, "{kind:?}");
    }
    assert!(beat(url, Runs::Drills, &news(Kind::DrillStarted), false).is_some());
    assert!(beat(url, Runs::Drills, &news(Kind::BackupFailed), false).is_none());
    let long = News { text: "é".repeat(20_000), ..news(Kind::BackupFailed) };
    let (_, length) = beat(url, Runs::Backups, &long, false).unwrap();
    assert!((9_000..=10_000).contains(&length), "{length}");
}

#[test]
fn an_uptime_kuma_url_keeps_what_is_not_pgkeeps() {
    let url = "https://kuma/status/api/push/x?status=up&a=b&msg=OK&ping=";
    let success = beat(url, Runs::Backups, &news(Kind::BackupSucceeded), false).unwrap().0;
    assert_eq!(success, "https://kuma/status/api/push/x?a=b&status=up&msg=a+sentence&ping=1234");
    assert!(beat(url, Runs::Backups, &news(Kind::BackupStarted), false).is_none());
    let long = News { text: "\u{1f4be}".repeat(9_000), ..news(Kind::BackupFailed) };
    let (failure, _) = beat(url, Runs::Backups, &long, false).unwrap();
    assert!(failure.contains("status=down&msg=") && failure.len() < 4_000, "{failure}");
}

#[test]
fn a_good_status_can_say_no() {
    for no in ["OK (not found)", "OK (rate limited)", "{\"ok\": false, \"msg\":\"Monitor not found\"}"] {
        assert!(heartbeat::says_no(no), "{no}");
    }
    for yes in ["OK", "", "{\"ok\":true}", "Created"] {
        assert!(!heartbeat::says_no(yes), "{yes}");
    }
}

#[test]
fn one_databases_success_hides_no_failure_of_another() {
    let mut failed = Failed::default();
    let mut hear = |kind, place: &str| failed.hear(kind, place.to_owned());
    assert_eq!(hear(Kind::BackupSucceeded, "a"), (false, false));
    assert_eq!(hear(Kind::BackupFailed, "a"), (false, true));
    assert_eq!(hear(Kind::BackupStarted, "a"), (false, true));
    assert_eq!(hear(Kind::BackupSucceeded, "b"), (false, true));
    // Drills are another matter.
    assert_eq!(hear(Kind::DrillFailed, "b"), (false, true));
    assert_eq!(hear(Kind::DrillSucceeded, "b"), (false, false));
    assert_eq!(hear(Kind::BackupSucceeded, "a"), (true, false));
    assert_eq!(hear(Kind::BackupSucceeded, "a"), (false, false));
    let success = news(Kind::BackupSucceeded);
    assert!(beat("https://h/x", Runs::Backups, &success, true).is_none());
    assert!(beat("https://h/x", Runs::Backups, &news(Kind::BackupFailed), true).is_some());
}

/// Keeps the log's lines.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap().push(record.args().to_string());
    }
    fn flush(&self) {}
}

#[test]
fn what_a_slow_receiver_loses_is_in_the_log() {
    static LINES: Lines = Lines(Mutex::new(Vec::new()));
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let webhook = Some(address(&format!("{url}/token")));
    let receivers = Settings { webhook, events: Kind::CHOICES.to_vec(), ..Settings::default() }.receivers();
    for _ in 0..queue::MOST + 7 {
        receivers[0].queue.push(receivers[0].request(&news(Kind::BackupFailed), false).unwrap());
    }
    let shutdown = Shutdown::default();
    let notifier = Notifier::start(receivers, Times::default(), &shutdown);
    // The last wait is not for this test.
    std::mem::forget(notifier);
    let expected = format!("the webhook at {url} is too slow: 7 notifications lost");
    let started = Instant::now();
    while !LINES.0.lock().unwrap().contains(&expected) {
        assert!(started.elapsed() < Duration::from_secs(60), "{:?}", LINES.0.lock().unwrap());
        thread::sleep(Duration::from_millis(5));
    }
}
