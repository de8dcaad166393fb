//! The log as JSON.

use chrono::{DateTime, Utc};
use serde_json::{json, Value};

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, SHOP};
use crate::support::s3::{self, Fault};
use crate::whole_server::{pgkeep_for, server_with};

/// Every line is an object with a time, a level and a message.
fn objects(log: &str) -> Vec<Value> {
    let objects: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for object in &objects {
        let time = object["time"].as_str().expect("a time");
        assert!(time.parse::<DateTime<Utc>>().is_ok() && time.ends_with('Z'), "{object}");
        assert!(object["level"].is_string() && object["message"].is_string(), "{object}");
    }
    objects
}

fn event<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    objects.iter().find(|object| object["event"] == name).unwrap_or_else(|| panic!("{name}: {objects:#?}"))
}

#[test]
fn as_json_each_line_is_an_object_with_the_fields_of_what_happened() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("told");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_LOG_FORMAT", "json");
    let told = objects(&pgkeep.succeed(&["backup"]).log);
    let succeeded = event(&told, "backup_succeeded");
    let (key, bytes) = s3.objects().into_iter().next().expect("a backup");
    assert_eq!(
        (&succeeded["database"], &succeeded["key"], &succeeded["bytes"], &succeeded["level"]),
        (&database.as_str().into(), &key.into(), &bytes.into(), &"info".into())
    );
    assert!(succeeded["seconds"].as_f64().expect("seconds") > 0.0, "{succeeded}");
    assert!(succeeded["message"].as_str().expect("a message").starts_with("backup succeeded: "));

    s3.fail(1, "PUT", "", Fault::Answer(403, "AccessDenied"));
    let told = objects(&pgkeep.fail(&["backup"]).log);
    let failed = event(&told, "backup_failed");
    assert_eq!((&failed["step"], &failed["level"]), (&"upload".into(), &"error".into()));
    let causes: Vec<&str> = failed["causes"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(causes[0], "cannot upload the backup");
    assert!(causes.last().expect("a cause").contains("AccessDenied"), "{failed}");
    assert_eq!(failed["error"].as_str().expect("an error"), causes.join(": "));
    assert!(failed["trace"][0].as_str().expect("a trace").contains("pgkeep::"), "{failed}");
}

#[test]
fn as_json_the_problems_at_the_start_and_at_the_top_are_objects_too() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = Pgkeep::new(&server.database("wrong"), &s3).with("BACKUP_LOG_FORMAT", "JSON");
    let refused =
        pgkeep.clone().with("S3_PATH", "a\u{1b}[31m b").with("BACKUP_THREADS", "many").run(&["backup"]);
    let told = objects(&refused.log);
    assert_eq!(refused.status, 2);
    assert!(told[0]["message"].as_str().expect("a message").starts_with("S3_PATH "), "{told:?}");
    assert_eq!(told.len(), 2, "{told:?}");
    let told = objects(&pgkeep.fail(&["restore", "2020"]).log);
    let failed = told.last().expect("a line");
    assert!(failed["message"].as_str().expect("a message").starts_with("restore failed: "), "{failed}");
    assert!(failed["causes"].is_array() && failed["trace"].is_array(), "{failed}");
    // What the format is cannot be said in that format.
    let log = pgkeep.with("BACKUP_LOG_FORMAT", "xml").run(&["list"]).log;
    assert!(log.contains("BACKUP_LOG_FORMAT is \"xml\" and not text or json; for example "), "{log}");
}

#[test]
fn as_json_a_run_over_several_databases_tells_which_and_what_came_of_it() {
    let (server, s3) = (server_with(&["a", "b"]), s3::Server::start());
    let pgkeep = pgkeep_for(&server, &s3, "a,b,missing").with("BACKUP_LOG_FORMAT", "json");
    let told = objects(&pgkeep.fail(&["backup"]).log);
    let (started, ended) = (event(&told, "run_started"), event(&told, "run_ended"));
    assert_eq!(started["databases"], json!(["a", "b", "missing"]));
    assert_eq!((&ended["succeeded"], &ended["failed"]), (&json!(2), &json!(["missing"])));
    assert_eq!((&ended["skipped"], &ended["globals"]), (&json!(0), &json!(true)));
    assert!(ended["bytes"].as_u64() > Some(0) && ended["seconds"].is_f64(), "{ended}");
    assert!(started["database"].is_null() && ended["database"].is_null(), "{ended}");
    let failed = event(&told, "backup_failed");
    assert_eq!((&failed["database"], &failed["step"]), (&json!("missing"), &json!("connect")));
    let message = failed["message"].as_str().expect("a message");
    assert!(message.starts_with("database \"missing\": backup failed: "), "{failed}");
    let of: Vec<_> =
        told.iter().filter(|of| of["event"] == "backup_succeeded").map(|of| &of["database"]).collect();
    for name in ["a", "b", ".globals"] {
        assert!(of.contains(&&json!(name)), "{name}: {of:?}");
    }
}
