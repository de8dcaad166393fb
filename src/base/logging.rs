//! Log lines on standard error, one line for each event: `2026-11-23T03:00:00.123Z [INFO ] message`, or a JSON
//! object.

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Error;
use chrono::Utc;
use log::{error, log, log_enabled, Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, Value};
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};
use time::macros::format_description;

use super::json_line::{self, JsonLines};
use super::outbox::Outbox;
use super::units;

/// Longer lines are cut in the middle.
pub(super) const LONGEST_LINE: usize = 16 * 1024;
/// Longer chains of causes are cut too.
const LONGEST_CHAIN: usize = 4 * 1024;
/// At an orderly end, this is how long the remaining lines may wait for their reader.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Goes back to the beginning of a terminal's line and clears the line (ECMA-48, CR and EL).
pub(super) const CLEAR: &str = "\r\x1b[K";

static OUTBOX: Outbox = Outbox::new();
/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As text, for people.
    #[default]
    Text,
    /// As a JSON object, for programs.
    Json,
}

impl Format {
    /// All values.
    pub const ALL: [Format; 2] = [Format::Text, Format::Json];

    /// The variable's value.
    pub fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
        }
    }
}

/// Starts logging at `level` and turns panics into log lines. Only pgkeep's own lines are shown: the HTTP
/// client's lines would contain signed URLs. A thread writes the lines. Dropping the result waits for the
/// remaining lines.
pub fn start(level: LevelFilter, format: Format) -> Started {
    JSON.store(format == Format::Json, Ordering::Relaxed);
    let config = ConfigBuilder::new()
        .set_time_format_custom(format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        ))
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_level_padding(LevelPadding::Right)
        .add_filter_allow_str("pgkeep")
        .build();
    OUTBOX.deliver();
    let lines = Lines { terminal: io::stderr().is_terminal(), line: Vec::new() };
    let logger: Box<dyn Log> = match format {
        Format::Text => Box::new(OneLine(WriteLogger::new(level, config, lines))),
        Format::Json => Box::new(JsonLines(level)),
    };
    // Fails only if a logger is set already. That one then stays.
    if log::set_boxed_logger(logger).is_ok() {
        log::set_max_level(level);
    }
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let message = format!("panic in thread {}: {info}", thread.name().unwrap_or("unnamed"));
        record(Level::Error, &message, Map::new(), Some(&Backtrace::force_capture()));
    }));
    Started(())
}

/// The log is open. Dropping this waits a few seconds until the last lines are read.
#[must_use]
pub struct Started(());

impl Drop for Started {
    fn drop(&mut self) {
        flush(LAST_LINES);
    }
}

/// Waits until every line is written, but no longer than `most`: for an exit that drops nothing.
pub fn flush(most: Duration) {
    OUTBOX.flush(most);
}

/// Replaces the live line of a terminal. The live line has no line feed at its end; log lines overwrite it.
pub fn show_live(line: &str) {
    OUTBOX.live(format!("{CLEAR}{line}").into_bytes());
}

/// The chain of causes of a failure, for a log line or a field of a file. Texts from outside can be long. A
/// long chain is cut in the middle: its beginning says what failed, its end says why.
pub fn chain(failure: &Error) -> String {
    units::shortened(format!("{failure:#}"), LONGEST_CHAIN)
}

/// What a failure tells a program: the chain in one text, and each of its causes, from the step to the root.
pub fn fields(failure: &Error) -> Map<String, Value> {
    let causes: Vec<String> =
        failure.chain().map(|cause| units::shortened(cause.to_string(), LONGEST_CHAIN)).collect();
    Map::from_iter([("error".into(), chain(failure).into()), ("causes".into(), causes.into())])
}

/// Logs a failure once, at the top: what failed, the chain of causes, the stack trace of the first cause.
pub fn failure(what: &str, failure: &Error) {
    let message = format!("{what}: {}", chain(failure));
    record(Level::Error, &message, fields(failure), Some(failure.backtrace()));
}

/// Logs a message with what a program would like to know about it. As text, it is the message alone, and a
/// line for each frame of the trace.
pub fn record(level: Level, message: &str, mut fields: Map<String, Value>, trace: Option<&Backtrace>) {
    let frames = trace.map(frames).unwrap_or_default();
    if !JSON.load(Ordering::Relaxed) {
        log!(level, "{message}");
        for frame in frames {
            error!("  in {frame}");
        }
    } else if log_enabled!(level) {
        if !frames.is_empty() {
            fields.insert("trace".into(), frames.into());
        }
        deliver(json_line::line(level, message, fields));
    }
}

/// Sends a whole line to standard error.
pub(super) fn deliver(line: Vec<u8>) {
    OUTBOX.line(line);
}

/// The line that tells how many lines nobody has read.
pub(super) fn lost(lines: u64) -> Vec<u8> {
    let message = format!("{lines} lines of the log were lost: nobody read them");
    if JSON.load(Ordering::Relaxed) {
        return json_line::line(Level::Warn, &message, Map::new());
    }
    format!("{} [WARN ] {message}\n", Utc::now().format("%Y-%m-%dT%H:%M:%S%.3fZ")).into_bytes()
}

/// The frames of pgkeep's own functions. The frames of the runtime and the libraries add nothing.
fn frames(trace: &Backtrace) -> Vec<String> {
    let text = trace.to_string();
    let mut lines = text.lines().map(str::trim).peekable();
    let mut frames = Vec::new();
    while let Some(line) = lines.next() {
        let place = lines.next_if(|next| next.starts_with("at "));
        let Some((_, function)) = line.split_once(": ") else { continue };
        if function.contains("pgkeep::")
            && !["logging::", "anyhow::"].iter().any(|not| function.contains(not))
        {
            frames.push(format!("{function} {}", place.unwrap_or_default()));
        }
    }
    frames
}

/// Escapes control characters and limits the length of the line. So a text from outside can neither start a
/// log line nor control a terminal.
struct OneLine<L>(L);

impl<L: Log> Log for OneLine<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let line = units::shortened(one_line(record.args().to_string().trim_end()), LONGEST_LINE);
        let (metadata, module) = (record.metadata().clone(), record.module_path());
        self.0.log(
            &Record::builder().metadata(metadata).module_path(module).args(format_args!("{line}")).build(),
        );
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Collects the pieces of a line and sends the whole line.
struct Lines {
    /// Whether this is a terminal, where a live line may have to be cleared first.
    terminal: bool,
    line: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.terminal && self.line.is_empty() {
            self.line.extend(CLEAR.as_bytes());
        }
        self.line.extend(bytes);
        if self.line.ends_with(b"\n") {
            OUTBOX.line(mem::take(&mut self.line));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes what would start a line or control a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => line.push(c),
            // A line feed becomes \n. Some viewers also break lines at the two Unicode line separators.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_starts_no_line_of_its_own() {
        assert_eq!(one_line("a\nb\r\u{1b}[31m\u{2028}é\tc"), "a\\nb\\r\\u{1b}[31m\\u{2028}é\tc");
    }
}
