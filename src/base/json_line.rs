//! Log lines as JSON objects, one for each event (`BACKUP_LOG_FORMAT=json`).

use std::io::{self, IsTerminal};

use chrono::{SecondsFormat, Utc};
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, Value};

use super::logging::{self, LONGEST_LINE};
use super::units;

/// Texts are first cut to this length, then to half of it and so on, until the line is short enough.
const LONGEST_TEXT: usize = 4 * 1024;
/// Not even a text of control characters, which take six bytes each, fills a line then.
const SHORTEST_TEXT: usize = 64;
/// Of a cut list, one entry stays for this many bytes that a text may have.
const BYTES_PER_ENTRY: usize = 32;

/// Writes what the `log` macros are given as JSON.
pub(super) struct JsonLines(pub(super) LevelFilter);

impl Log for JsonLines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.0 && metadata.target().starts_with("pgkeep")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            logging::deliver(line(record.level(), &record.args().to_string(), Map::new()));
        }
    }

    fn flush(&self) {}
}

/// One line: the time, the level, the message, and what else is known.
pub(super) fn line(level: Level, message: &str, fields: Map<String, Value>) -> Vec<u8> {
    let mut object = Map::new();
    let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
    object.insert("time".into(), time.into());
    object.insert("level".into(), level.as_str().to_lowercase().into());
    object.insert("message".into(), message.trim_end().into());
    object.extend(fields);
    let mut text = String::new();
    let mut most = LONGEST_TEXT;
    while most >= SHORTEST_TEXT {
        object.values_mut().for_each(|value| cut(value, most));
        text = escaped(&Value::Object(object.clone()));
        if text.len() < LONGEST_LINE {
            break;
        }
        most /= 2;
    }
    // On a terminal, a live line may have to be overwritten.
    let clear = if io::stderr().is_terminal() { logging::CLEAR } else { "" };
    format!("{clear}{text}\n").into_bytes()
}

/// Cuts the texts and lists in a value, not the JSON around them.
fn cut(value: &mut Value, most: usize) {
    match value {
        Value::String(text) => *text = units::shortened(std::mem::take(text), most),
        Value::Array(values) => {
            values.truncate(most / BYTES_PER_ENTRY);
            values.iter_mut().for_each(|value| cut(value, most));
        }
        _ => {}
    }
}

/// JSON escapes only a part of what controls a terminal or breaks a line. All of it is within texts here.
fn escaped(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match c {
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;
    use serde_json::json;

    fn parsed(line: &[u8]) -> Value {
        let text = std::str::from_utf8(line).expect("UTF-8");
        assert!(text.len() <= LONGEST_LINE, "{} bytes", text.len());
        let object = text.strip_suffix('\n').expect("a line feed");
        let bare = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        assert!(!object.contains(bare), "{object}");
        serde_json::from_str(object).expect("JSON")
    }

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn a_line_is_an_object_that_has_the_message_as_it_was() {
        let message = "psql:\n\"no\"\t\u{1b}[31m \u{85}\u{2028}é\u{7f}";
        let line = parsed(&line(Level::Warn, message, fields(json!({"bytes": 7, "causes": ["a\n"]}))));
        assert_eq!(line["message"], message);
        assert_eq!((&line["level"], &line["bytes"]), (&json!("warn"), &json!(7)));
        assert_eq!(line["causes"], json!(["a\n"]));
        let time = line["time"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<chrono::DateTime<Utc>>().is_ok(), "{time}");
    }

    #[test]
    fn a_long_line_loses_the_middle_of_its_texts_and_stays_json() {
        for piece in ["a", "é", "\u{1}", "\u{2028}", "🐘"] {
            let text = format!("begin {} end", piece.repeat(50_000));
            let causes = vec![text.clone(); 1000];
            let line = parsed(&line(Level::Error, &text, fields(json!({"error": text, "causes": causes}))));
            for field in ["message", "error"] {
                let text = line[field].as_str().unwrap();
                assert!(text.starts_with("begin ") && text.ends_with(" end"), "{text}");
            }
            assert!(line["causes"][0].as_str().unwrap().starts_with("begin "));
        }
    }

    #[test]
    fn whatever_is_said_the_line_is_json() {
        fuzz::feed(&["backup failed: \u{1b}[31m\"no\"", "{\"message\": \"\\ud800\"}"], |text| {
            let message = parsed(&line(Level::Info, text, Map::new()));
            assert_eq!(message["message"], text.trim_end());
        });
    }
}
