//! The metrics, in Prometheus's text format: rendered from the status, and nothing else.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::{DateTime, Utc};

use super::status::Status;
use crate::jobs::Step;

/// An earlier file of metrics is much shorter.
const LONGEST: u64 = 1024 * 1024;

/// A number, with another label and its value, if there is one.
type Sample = (Option<(&'static str, &'static str)>, f64);

/// A metric of each database.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    values: fn(&Status) -> Vec<Sample>,
}

const ATTEMPT: &str = "pgkeep_last_attempt_success";
const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

const FAMILIES: [Family; 14] = [
    Family {
        name: "pgkeep_last_success_timestamp_seconds",
        kind: GAUGE,
        help: "When the dump of the newest backup in the bucket began.",
        values: |of| one(of.newest.as_ref().map(|newest| seconds(newest.time))),
    },
    Family {
        name: "pgkeep_last_attempt_timestamp_seconds",
        kind: GAUGE,
        help: "When the last backup ended, whether or not it succeeded.",
        values: |of| one(of.record.attempt.map(|(time, _)| seconds(time))),
    },
    Family {
        name: ATTEMPT,
        kind: GAUGE,
        help: "Whether the last backup succeeded (1) or failed (0).",
        values: |of| one(of.record.attempt.map(|(_, success)| f64::from(success))),
    },
    Family {
        name: "pgkeep_last_duration_seconds",
        kind: GAUGE,
        help: "How long the last successful backup took.",
        values: |of| one(of.record.took.map(|took| took.as_secs_f64())),
    },
    Family {
        name: "pgkeep_last_size_bytes",
        kind: GAUGE,
        help: "The size of the newest backup in the bucket.",
        values: |of| one(of.record.size.map(|size| size as f64)),
    },
    Family {
        name: "pgkeep_last_dump_bytes",
        kind: GAUGE,
        help: "The size of the last successful backup's dump before compression.",
        values: |of| one(of.record.dumped.map(|dumped| dumped as f64)),
    },
    Family {
        name: "pgkeep_attempts_total",
        kind: COUNTER,
        help: "Backups since the daemon's start, by result.",
        values: |of| {
            let failed: u64 = of.record.failed.values().sum();
            vec![
                (Some(("result", "success")), of.record.succeeded as f64),
                (Some(("result", "failure")), failed as f64),
            ]
        },
    },
    Family {
        name: "pgkeep_failures_total",
        kind: COUNTER,
        help: "Failed backups since the daemon's start, by the step that failed.",
        values: |of| {
            let failures = |step: Step| (Some(("step", step.name())), of.record.failures(step) as f64);
            Step::ALL.into_iter().map(failures).collect()
        },
    },
    Family {
        name: "pgkeep_backups",
        kind: GAUGE,
        help: "Backups in the bucket. Of a database that came after the daemon's start, it is known after the next one.",
        values: |of| one(of.record.kept.map(|(number, _)| number as f64)),
    },
    Family {
        name: "pgkeep_backups_bytes",
        kind: GAUGE,
        help: "The size of all backups in the bucket, if their number is known.",
        values: |of| one(of.record.kept.map(|(_, bytes)| bytes as f64)),
    },
    Family {
        name: "pgkeep_next_attempt_timestamp_seconds",
        kind: GAUGE,
        help: "When the schedule fires next.",
        values: |of| one(of.next_fire.map(seconds)),
    },
    Family {
        name: "pgkeep_running",
        kind: GAUGE,
        help: "Whether a backup is running (1) or not (0).",
        values: |of| one(Some(f64::from(of.running_since.is_some()))),
    },
    Family {
        name: "pgkeep_drill_last_success_timestamp_seconds",
        kind: GAUGE,
        help: "When the last successful drill ended.",
        values: |of| one(of.record.drilled.map(|(time, _)| seconds(time))),
    },
    Family {
        name: "pgkeep_drill_duration_seconds",
        kind: GAUGE,
        help: "How long the last successful drill took, from the bucket to the last index.",
        values: |of| one(of.record.drilled.map(|(_, took)| took.as_secs_f64())),
    },
];
/// What a run that ends at once does not know.
const OF_THE_DAEMON: [&str; 2] = ["pgkeep_running", "pgkeep_next_attempt_timestamp_seconds"];

fn one(value: Option<f64>) -> Vec<Sample> {
    value.map(|value| (None, value)).into_iter().collect()
}

fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp() as f64
}

/// The status of each database with its labels. If none of several databases is known yet, there is one status
/// without a name.
type Each = BTreeMap<String, Status>;

fn each(database: &str, status: &Status) -> Each {
    let of_all = status.each();
    match of_all.is_empty() {
        true => [(labels(database), status.clone())].into(),
        false => of_all.into_iter().map(|(name, of)| (labels(&name), of)).collect(),
    }
}

/// All metrics of the daemon. `database` is its name if there is only one.
pub(super) fn render(database: &str, status: &Status) -> String {
    let mut text = format!(
        "# HELP pgkeep_build_info The version of pgkeep.\n# TYPE pgkeep_build_info gauge\n\
         pgkeep_build_info{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    let each = each(database, status);
    for family in &FAMILIES {
        text += &family.render(each.iter().flat_map(|(labels, of)| samples(family, labels, of)).collect());
    }
    text
}

impl Family {
    fn render(&self, samples: Vec<String>) -> String {
        let Family { name, kind, help, .. } = self;
        match samples.is_empty() {
            true => String::new(),
            false => format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{}\n", samples.join("\n")),
        }
    }
}

fn samples(family: &Family, labels: &str, status: &Status) -> Vec<String> {
    let sample = |(label, value): Sample| {
        let more = label.map_or(String::new(), |(name, value)| format!(",{name}=\"{value}\""));
        format!("{}{{{labels}{more}}} {value}", family.name)
    };
    (family.values)(status).into_iter().map(sample).collect()
}

fn labels(database: &str) -> String {
    let escaped = database.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("database=\"{escaped}\"")
}

/// Writes what one run knows into a file for node_exporter's textfile collector: whole or not at all. What
/// this run does not know, such as the last success if it failed, stays as the earlier file has it.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, database: &str, status: &Status) -> io::Result<()> {
    let mut earlier = String::new();
    if let Ok(file) = fs::File::open(path) {
        // What makes no sense is replaced.
        let _ = file.take(LONGEST).read_to_string(&mut earlier);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut new = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    new.write_all(after(&earlier, database, status).as_bytes())?;
    // node_exporter is another user, and there is no secret in it.
    new.as_file().set_permissions(Permissions::from_mode(0o644))?;
    new.persist(path)?;
    Ok(())
}

/// A file's new text. Counters are left out: no run knows of the others.
fn after(earlier: &str, database: &str, status: &Status) -> String {
    let each = match &status.databases {
        None => each(database, status),
        Some(_) => each_of_run(earlier, status),
    };
    let mut text = String::new();
    for family in FAMILIES.iter().filter(|of| of.kind == GAUGE && !OF_THE_DAEMON.contains(&of.name)) {
        let mut all = Vec::new();
        for (labels, of) in &each {
            let now = samples(family, labels, of);
            let begin = format!("{}{{{labels}}} ", family.name);
            let before = earlier.lines().filter(|line| now.is_empty() && line.starts_with(&begin));
            all.extend(before.map(str::to_owned));
            all.extend(now);
        }
        text += &family.render(all);
    }
    text
}

/// A run over several databases that could not begin has failed for each that the earlier file has.
fn each_of_run(earlier: &str, status: &Status) -> Each {
    let mut all = each("", status);
    if status.record.attempt.is_some() {
        let begin = format!("{ATTEMPT}{{");
        let named = earlier.lines().filter_map(|line| Some(line.strip_prefix(&begin)?.rsplit_once("} ")?.0));
        for labels in named {
            all.entry(labels.to_owned()).or_insert_with(|| status.clone());
        }
        if all.len() > 1 {
            // Nothing that has a name.
            all.remove(&labels(""));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::{databases_of, Newest};
    use crate::jobs::Event;
    use std::time::Duration;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_000_000 + second, 0).unwrap()
    }

    fn succeeded() -> Status {
        let newest = Some(Newest { time: at(0), key: "k".into() });
        let mut status = Status { newest, ..Status::default() };
        status.record.attempt = Some((at(5), true));
        status.record.took = Some(Duration::from_millis(4200));
        status
    }

    #[test]
    fn what_is_known_is_rendered_and_what_is_not_known_is_left_out() {
        let text = render("a\"b\\c\nd", &succeeded());
        let labels = "database=\"a\\\"b\\\\c\\nd\"";
        assert!(text.contains(&format!("pgkeep_last_success_timestamp_seconds{{{labels}}} 1795000000\n")));
        assert!(text.contains(&format!("pgkeep_last_duration_seconds{{{labels}}} 4.2\n")), "{text}");
        assert!(text.contains(&format!("pgkeep_failures_total{{{labels},step=\"dump\"}} 0\n")), "{text}");
        assert!(!text.contains("pgkeep_last_size_bytes"), "{text}");
    }

    #[test]
    fn in_a_file_a_failed_run_keeps_the_earlier_success() {
        let before = after("", "shop", &succeeded());
        let mut failed = Status::default();
        failed.record.attempt = Some((at(9), false));
        let now = after(&before, "shop", &failed);
        for line in [
            "pgkeep_last_success_timestamp_seconds{database=\"shop\"} 1795000000\n",
            "pgkeep_last_duration_seconds{database=\"shop\"} 4.2\n",
            "pgkeep_last_attempt_timestamp_seconds{database=\"shop\"} 1795000009\n",
            "pgkeep_last_attempt_success{database=\"shop\"} 0\n",
        ] {
            assert!(now.contains(line), "{now}");
        }
        assert!(!after(&before, "other", &failed).contains("last_success"));
    }

    #[test]
    fn a_run_that_could_not_begin_has_failed_for_each_database_of_the_file() {
        let run_failed = || Event::RunFailed { step: Step::Connect, failure: anyhow::anyhow!("no server") };
        let one = r#"{"last_success": {"time": "2026-11-23T03:00:00Z", "key": "k"},
                      "record": {"last_attempt": {"time": "2026-11-23T03:00:05Z", "success": true}}}"#;
        let databases = |text: &str| Some(databases_of(&serde_json::from_str(text).unwrap()));
        let both = format!(r#"{{"a": {one}, "b\"}} }}": {one}, ".globals": {one}}}"#);
        let made = Status { databases: databases(&both), ..Status::default() };
        let before = after("", "postgres", &made);
        let mut failed = Status { databases: databases(r#"{".globals": {}}"#), ..Status::default() };
        failed.hear_of(None, &run_failed());
        let now = after(&before, "postgres", &failed);
        for name in ["a", "b\\\"} }", ".globals"] {
            for (metric, value) in
                [("last_success_timestamp_seconds", "1795402800"), ("last_attempt_success", "0")]
            {
                let line = format!("pgkeep_{metric}{{database=\"{name}\"}} {value}\n");
                assert!(now.contains(&line), "{line}: {now}");
            }
        }
        assert!(!now.contains("postgres") && !now.contains("\"\""), "{now}");
        // Nobody knows the databases yet: the failure counts all the same.
        let mut unknown = Status { databases: databases("{}"), ..Status::default() };
        unknown.hear_of(None, &run_failed());
        let text = render("", &unknown);
        assert!(text.contains("pgkeep_failures_total{database=\"\",step=\"connect\"} 1\n"), "{text}");
        unknown.databases = databases(&both);
        unknown.hear_of(None, &run_failed());
        let text = render("", &unknown);
        assert!(text.contains("pgkeep_failures_total{database=\"a\",step=\"connect\"} 1\n"), "{text}");
    }
}
