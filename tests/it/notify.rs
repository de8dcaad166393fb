//! Who hears of an event: heartbeats and a webhook, good ones and bad ones.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::free_port;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, SHOP};
use crate::support::receiver::{Answer, Receiver};
use crate::support::s3::{self, Fault};

const TOKEN: &str = "5bf66975-hush-4bf5";

/// A database with a bucket, and pgkeep for it.
fn shop() -> (s3::Server, String, Pgkeep) {
    let s3 = s3::Server::start();
    let database = postgres::server().database("shop");
    let pgkeep = Pgkeep::new(&database, &s3);
    (s3, database, pgkeep)
}

/// A value has what the schema says: what the schema uses of JSON Schema, and no more.
fn assert_fits(value: &Value, schema: &Value) {
    let fields = value.as_object().expect("an object");
    let known = schema["properties"].as_object().expect("properties");
    assert_eq!(schema["additionalProperties"], false);
    for name in schema["required"].as_array().expect("required") {
        assert!(fields.contains_key(name.as_str().expect("a name")), "{name} is missing: {value}");
    }
    for (name, field) in fields {
        let rule = known.get(name).unwrap_or_else(|| panic!("{name} is not in the schema"));
        let is = match field {
            Value::Null => "null",
            Value::String(_) => "string",
            Value::Number(number) if number.is_u64() && rule["type"].to_string().contains("integer") => {
                "integer"
            }
            Value::Number(_) => "number",
            _ => "of no type that is used",
        };
        let types = match &rule["type"] {
            Value::Array(types) => types.clone(),
            one => vec![one.clone()],
        };
        assert!(types.contains(&Value::from(is)), "{name} is {is}: {value}");
        if let Some(words) = rule["enum"].as_array() {
            assert!(words.contains(field), "{name}: {value}");
        }
        if let (Some(most), Some(text)) = (rule["maxLength"].as_u64(), field.as_str()) {
            assert!(text.chars().count() as u64 <= most, "{name}: {value}");
        }
        if let ("date-time", Some(text)) = (rule["format"].as_str().unwrap_or_default(), field.as_str()) {
            assert!(text.parse::<chrono::DateTime<chrono::Utc>>().is_ok(), "{name}: {value}");
        }
    }
}

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.schema.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the schema")).expect("JSON")
}

#[test]
fn a_webhook_gets_each_event_as_the_schema_says() {
    let (s3, database, pgkeep) = shop();
    postgres::server().psql(&database, SHOP);
    let receiver = Receiver::start();
    let pgkeep = pgkeep
        .with("BACKUP_WEBHOOK_URL", &format!("{}/hook/{TOKEN}", receiver.url))
        .with("BACKUP_WEBHOOK_EVENTS", "all")
        .with("BACKUP_WEBHOOK_HEADERS", "Authorization: Bearer hush\nX-Team: shop");
    pgkeep.succeed(&["backup"]);
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    pgkeep.fail(&["backup"]);
    let told = receiver.told();
    assert!(told.iter().all(|told| told.line == format!("POST /hook/{TOKEN}")), "{told:?}");
    for header in ["authorization: bearer hush\r\n", "x-team: shop\r\n", "content-type: application/json\r\n"]
    {
        assert!(told[0].headers.contains(header), "{told:?}");
    }
    let events = receiver.json();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("a kind")).collect();
    assert_eq!(kinds, ["backup_started", "backup_succeeded", "backup_started", "backup_failed"]);
    for event in &events {
        assert_fits(event, &schema());
        assert_eq!(event["database"], *database);
        assert_eq!(event["server"], format!("127.0.0.1:{}", postgres::server().port));
        assert_eq!(event["version"], env!("CARGO_PKG_VERSION"));
    }
    let (success, failure) = (&events[1], &events[3]);
    let key = &s3.backups()[0];
    assert_eq!(success["key"], **key);
    assert_eq!(success["bytes"], s3.objects()[key]);
    assert!(success["dumped_bytes"].as_u64() > success["bytes"].as_u64(), "{success}");
    assert!(failure["error"].as_str().expect("an error").contains("AccessDenied"), "{failure}");
    let text = failure["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("backup of database \"{database}\" failed: cannot upload")), "{text}");
}

#[test]
fn only_what_calls_for_somebody_is_told_unless_more_is_asked_for() {
    let (s3, _, pgkeep) = shop();
    let receiver = Receiver::start();
    let pgkeep = pgkeep.with("BACKUP_WEBHOOK_URL", &receiver.url);
    pgkeep.succeed(&["backup"]);
    assert!(receiver.told().is_empty(), "{:?}", receiver.told());
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    pgkeep.fail(&["backup"]);
    assert_eq!(receiver.json()[0]["event"], "backup_failed");
    // Not asked for, not told.
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    pgkeep.with("BACKUP_WEBHOOK_EVENTS", "recovered, drill_failed").fail(&["backup"]);
    assert_eq!(receiver.told().len(), 1);
}

#[test]
fn a_heartbeat_hears_how_a_backup_begins_and_ends() {
    let (s3, _, pgkeep) = shop();
    let receiver = Receiver::start();
    let url = format!("{}/ping/{TOKEN}?create=1", receiver.url);
    let pgkeep = pgkeep.with("BACKUP_HEARTBEAT_URL", &url);
    pgkeep.succeed(&["backup"]);
    let line = |ending: &str| format!("POST /ping/{TOKEN}{ending}?create=1");
    assert_eq!(receiver.lines(), [line("/start"), line("")]);
    let body = &receiver.told()[1].body;
    assert!(body.contains("succeeded: ") && body.contains(&s3.backups()[0]), "{body}");
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    pgkeep.fail(&["backup"]);
    assert_eq!(receiver.lines()[2..], [line("/start"), line("/fail")]);
    assert!(receiver.told()[3].body.contains("AccessDenied"), "{:?}", receiver.told());
    // The service does not know it, and says so with a good status.
    receiver.answer(Answer::ok("OK (not found)"));
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("answered 200 OK: OK (not found)"), "{log}");
}

#[test]
fn an_uptime_kuma_monitor_hears_status_message_and_duration() {
    let (s3, database, pgkeep) = shop();
    let receiver = Receiver::start();
    // As its page shows the URL.
    let url = format!("{}/api/push/{TOKEN}?status=up&msg=OK&ping=", receiver.url);
    let pgkeep = pgkeep.with("BACKUP_HEARTBEAT_URL", &url);
    pgkeep.succeed(&["backup"]);
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    pgkeep.fail(&["backup"]);
    let lines = receiver.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, status, what) in [(&lines[0], "up", "succeeded"), (&lines[1], "down", "failed")] {
        let start = format!(
            "GET /api/push/{TOKEN}?status={status}&msg=backup+of+database+%22{database}%22+{what}%3A+"
        );
        assert!(line.starts_with(&start), "{line}");
        assert_eq!(line.matches("msg=").count(), 1, "{line}");
    }
    let ping = lines[0].rsplit_once("&ping=").expect("a ping").1;
    assert!(ping.parse::<u32>().is_ok() && lines[1].ends_with("&ping="), "{lines:?}");
}

#[test]
fn a_drill_has_a_heartbeat_of_its_own() {
    let (s3, _, pgkeep) = shop();
    let (backups, drills) = (Receiver::start(), Receiver::start());
    pgkeep.succeed(&["backup"]);
    let pgkeep = pgkeep
        .with("BACKUP_DRILL_CONNECTION_STRING", &postgres::server().connection("postgres"))
        .with("BACKUP_HEARTBEAT_URL", &backups.url)
        .with("BACKUP_DRILL_HEARTBEAT_URL", &format!("{}/drill/", drills.url));
    pgkeep.succeed(&["verify", "--drill"]);
    s3.plant(&s3.backups()[0], b"this is no backup");
    pgkeep.fail(&["verify", "--drill"]);
    let expected = ["/drill/start", "/drill/", "/drill/start", "/drill/fail"];
    assert_eq!(drills.lines(), expected.map(|path| format!("POST {path}")));
    assert!(backups.told().is_empty());
}

#[test]
fn the_daemon_tells_that_backups_work_again_and_when_the_next_one_is() {
    let (s3, database, pgkeep) = shop();
    let receiver = Receiver::start();
    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    let mut running =
        pgkeep.with("BACKUP_INTERVAL", "* * * * *").with("BACKUP_WEBHOOK_URL", &receiver.url).start(&[]);
    receiver.wait(2);
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    let [failed, recovered] = &receiver.json()[..] else { panic!("{:?}", receiver.told()) };
    assert_eq!((&failed["event"], &recovered["event"]), (&"backup_failed".into(), &"recovered".into()));
    let text = recovered["text"].as_str().expect("a text");
    assert!(text.starts_with(&format!("backups of database \"{database}\" work again: ")), "{text}");
    assert_eq!(recovered["key"], *s3.backups()[0]);
    for event in [failed, recovered] {
        assert_fits(event, &schema());
        let next = event["next"].as_str().expect("the next fire time");
        assert!(next.ends_with(":00Z") && next > event["time"].as_str().expect("a time"), "{event}");
    }
}

#[test]
fn a_receiver_that_is_busy_is_told_again_and_one_that_refuses_is_not() {
    let (s3, _, pgkeep) = shop();
    for (answers, tries) in [
        (vec![Answer::Status("500 Oops", "", "busy".into()), Answer::ok("ok")], 2),
        (vec![Answer::Status("429 Slow Down", "Retry-After: 1\r\n", String::new()), Answer::ok("ok")], 2),
        (vec![Answer::Cut, Answer::Cut, Answer::ok("ok")], 3),
        (vec![Answer::Status("503 Away", "", String::new()); 9], 3),
        (vec![Answer::Status("404 Not Found", "", "no_team".into())], 1),
    ] {
        let receiver = Receiver::start();
        let ends_well = matches!(answers.last(), Some(Answer::Status("200 OK", ..)));
        answers.into_iter().for_each(|answer| receiver.answer(answer));
        s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
        let url = format!("{}/{TOKEN}", receiver.url);
        let log = pgkeep.clone().with("BACKUP_WEBHOOK_URL", &url).fail(&["backup"]).log;
        assert_eq!(receiver.told().len(), tries, "{log}");
        let unheard = format!("nobody was told of backup_failed: the webhook at {} answered ", receiver.url);
        assert_eq!(log.contains(&unheard), !ends_well, "{log}");
        assert!(!log.contains(TOKEN), "{log}");
    }
}

#[test]
fn a_receiver_that_is_not_there_is_named_and_the_backup_succeeds() {
    let (s3, _, pgkeep) = shop();
    let url = format!("http://127.0.0.1:{}", free_port());
    let log = pgkeep.with("BACKUP_HEARTBEAT_URL", &format!("{url}/{TOKEN}")).succeed(&["backup"]).log;
    let line = format!("nobody was told of backup_succeeded: the heartbeat at {url} did not answer: ");
    assert!(log.contains(&line) && !log.contains(TOKEN), "{log}");
    assert_eq!(s3.backups().len(), 1);
}

#[test]
fn a_redirect_is_not_followed() {
    let (s3, _, pgkeep) = shop();
    let (receiver, elsewhere) = (Receiver::start(), Receiver::start());
    let location = format!("Location: {}/elsewhere\r\n", elsewhere.url);
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        receiver.answer(Answer::Status(status, location.clone().leak(), String::new()));
        s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
        let log = pgkeep.clone().with("BACKUP_WEBHOOK_URL", &receiver.url).fail(&["backup"]).log;
        assert!(log.contains("name the address that it leads to") && !log.contains("elsewhere"), "{log}");
    }
    assert!(elsewhere.told().is_empty());
    assert_eq!(receiver.told().len(), 4);
}

#[test]
fn a_receiver_that_never_answers_delays_no_backup() {
    let (s3, _, pgkeep) = shop();
    let (silent, endless) = (Receiver::start(), Receiver::start());
    silent.always(Answer::Nothing);
    endless.always(Answer::Endless);
    let log = pgkeep
        .with("BACKUP_HEARTBEAT_URL", &format!("{}/{TOKEN}", silent.url))
        .with("BACKUP_WEBHOOK_URL", &format!("{}/{TOKEN}", endless.url))
        .with("BACKUP_WEBHOOK_EVENTS", "all")
        .succeed(&["backup"])
        .log;
    assert_eq!(s3.backups().len(), 1);
    // The start was told to nobody yet when the backup was done.
    let (done, late) = (log.find("backup succeeded: "), log.find("did not answer: no answer within 10.0 s"));
    assert!(done.is_some() && late.is_some() && done < late, "{log}");
    // At the end there are 15 seconds for three tries of ten, and for the success behind them.
    let given_up =
        format!("the heartbeat at {} does not answer in time: 2 notifications not told", silent.url);
    assert!(log.contains(&given_up), "{log}");
    assert_eq!(silent.told().len(), 2);
    // Its status is good, and nobody needs the rest.
    assert_eq!(endless.told().len(), 2, "{log}");
    assert!(!log.contains("webhook") && !log.contains(TOKEN), "{log}");
}

#[test]
fn a_daemon_with_a_receiver_that_never_answers_still_stops() {
    let (_s3, _, pgkeep) = shop();
    let receiver = Receiver::start();
    receiver.always(Answer::Nothing);
    let pgkeep = pgkeep
        .with("BACKUP_INTERVAL", "0 0 1 1 *")
        .with("BACKUP_ON_START", "true")
        .with("BACKUP_HEARTBEAT_URL", &receiver.url);
    let mut running = pgkeep.start(&[]);
    running.wait_for_log("backup succeeded: ");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert!(running.log().contains("does not answer in time: "), "{}", running.log());
    assert!(receiver.told().len() <= 2, "{:?}", receiver.lines());

    // A second signal waits no longer.
    let mut running = pgkeep.start(&["backup"]);
    running.wait_for_log("backup succeeded: ");
    running.signal(Signal::TERM);
    running.wait_for_log("SIGTERM: stopping");
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    assert!(!running.log().contains("try 1 of 3 failed"), "{}", running.log());
}

#[test]
fn nothing_that_is_told_or_logged_has_a_secret() {
    let (s3, _, pgkeep) = shop();
    let (webhook, heartbeat) = (Receiver::start(), Receiver::start());
    // It says again what it was asked for.
    webhook.always(Answer::Status("403 Forbidden", "", format!("no /hook/{TOKEN} with hush-header")));
    let pgkeep = pgkeep
        .with("BACKUP_WEBHOOK_URL", &format!("{}/hook/{TOKEN}", webhook.url))
        .with("BACKUP_WEBHOOK_EVENTS", "all")
        .with("BACKUP_WEBHOOK_HEADERS", "Authorization: Bearer hush-header")
        .with("BACKUP_HEARTBEAT_URL", &format!("{}/{TOKEN}", heartbeat.url));
    let mut log = String::new();
    for fault in [Fault::Answer(403, s3::SECRET_KEY), Fault::Echo(3)] {
        s3.fail(9, "PUT", "", fault);
        log += &pgkeep.fail(&["backup"]).log;
        s3.calm();
    }
    assert_eq!(log.matches("answered 403 Forbidden: no *** with ***").count(), 4, "{log}");
    let bodies: String =
        [&webhook, &heartbeat].iter().flat_map(|of| of.told()).map(|told| told.body).collect();
    assert_eq!(bodies.matches("failed: cannot upload the backup").count(), 6, "{bodies}");
    for secret in [postgres::PASSWORD, s3::SECRET_KEY, s3::ACCESS_KEY, TOKEN, "hush", "X-Amz-Signature"] {
        assert!(!log.contains(secret) && !bodies.contains(secret), "{secret}: {log}\n{bodies}");
    }
    // What was asked of S3 by its error's code.
    s3.fail(9, "", "", Fault::Answer(403, "HushHushHush"));
    pgkeep.with("S3_SECRET_KEY", "HushHushHush").fail(&["backup"]);
    for told in [webhook.told().pop(), heartbeat.told().pop()] {
        let body = told.expect("the failure").body;
        assert!(body.contains("403 ***") && !body.contains("Hush"), "{body}");
    }
}

#[test]
fn there_is_a_thread_for_each_receiver_and_none_without_one() {
    let (_s3, _, pgkeep) = shop();
    let receiver = Receiver::start();
    let pgkeep = pgkeep.with("BACKUP_INTERVAL", "0 0 1 1 *");
    let told =
        pgkeep.clone().with("BACKUP_HEARTBEAT_URL", &receiver.url).with("BACKUP_WEBHOOK_URL", &receiver.url);
    for (pgkeep, expected) in [(pgkeep, 0), (told, 2)] {
        let running = pgkeep.start(&[]);
        running.wait_for_log("next backup at");
        let threads = fs::read_dir(format!("/proc/{}/task", running.pid())).expect("its threads");
        let names =
            threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        assert_eq!(names.filter(|name| name.trim() == "notify").count(), expected);
    }
}

#[test]
fn check_sends_a_test_and_says_what_came_back() {
    let (_s3, _, pgkeep) = shop();
    let check = |pgkeep: &Pgkeep| pgkeep.run(&["check", "--notify"]).stdout;
    let none = check(&pgkeep);
    assert!(none.contains("\nwarning  notification: nobody is told of a failure: "), "{none}");
    let (ping, kuma, hook) = (Receiver::start(), Receiver::start(), Receiver::start());
    let pgkeep = pgkeep
        .with("BACKUP_HEARTBEAT_URL", &format!("{}/{TOKEN}", ping.url))
        .with("BACKUP_DRILL_HEARTBEAT_URL", &format!("{}/api/push/{TOKEN}", kuma.url))
        .with("BACKUP_WEBHOOK_URL", &format!("{}/{TOKEN}", hook.url));
    let without = pgkeep.succeed(&["check"]).stdout;
    assert_eq!(without.matches("; check --notify sends a test\n").count(), 3, "{without}");
    assert!(ping.told().is_empty() && kuma.told().is_empty() && hook.told().is_empty());

    kuma.answer(Answer::ok(r#"{"ok": false, "msg": "Monitor not found"}"#));
    let outcome = pgkeep.fail(&["check", "--notify"]);
    for line in [
        format!("\nok       notification: the heartbeat at {} answered 200 OK: OK\n", ping.url),
        format!(
            "\nFAILED   notification: the drill heartbeat at {} answered 200 OK: {{\"ok\": false,",
            kuma.url
        ),
        format!("\nok       notification: the webhook at {} answered 200 OK: OK\n", hook.url),
    ] {
        assert!(outcome.stdout.contains(&line), "{line}: {}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains(TOKEN), "{}", outcome.stdout);
    // Says something, and does not tell the switch that a backup has succeeded.
    assert_eq!(ping.lines(), [format!("POST /{TOKEN}/log")]);
    assert_eq!(hook.json()[0]["event"], "test");
    assert_fits(&hook.json()[0], &schema());
    // Once: whoever waits for an answer does not wait for three.
    hook.always(Answer::Status("500 Oops", "", String::new()));
    let outcome = pgkeep.fail(&["check", "--notify"]);
    assert!(outcome.stdout.contains(" answered 500 Internal Server Error\n"), "{}", outcome.stdout);
    assert_eq!(hook.told().len(), 2);
}
