//! Log lines on standard error, one line for each event: `2026-11-23T03:00:00.123Z INFO message`.

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::panic;
use std::time::Duration;

use anyhow::Error;
use log::{error, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};
use time::macros::format_description;

use super::outbox::Outbox;
use super::units;

/// Longer lines are cut in the middle.
const LONGEST_LINE: usize = 16 * 1024;
/// Longer chains of causes are cut too.
const LONGEST_CHAIN: usize = 4 * 1024;
/// At an orderly end, this is how long the remaining lines may wait for their reader.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Goes back to the beginning of a terminal's line and clears the line (ECMA-48, CR and EL).
const CLEAR: &str = "\r\x1b[K";

static OUTBOX: Outbox = Outbox::new();

/// Starts logging at `level` and turns panics into log lines. Only pgkeep's own lines are shown: the HTTP
/// client's lines would contain signed URLs. A thread writes the lines. Dropping the result waits for the
/// remaining lines.
pub fn start(level: LevelFilter) -> Started {
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
    // Fails only if a logger is set already. That one then stays.
    if log::set_boxed_logger(Box::new(OneLine(WriteLogger::new(level, config, lines)))).is_ok() {
        log::set_max_level(level);
    }
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        error!("panic in thread {}: {info}", thread.name().unwrap_or("unnamed"));
        trace(&Backtrace::force_capture());
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

/// Logs a failure once, at the top: what failed, the chain of causes, the stack trace of the first cause.
pub fn failure(what: &str, failure: &Error) {
    error!("{what}: {}", chain(failure));
    trace(failure.backtrace());
}

/// Logs the frames of pgkeep's own functions. The frames of the runtime and the libraries add nothing.
pub fn trace(trace: &Backtrace) {
    let text = trace.to_string();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let place = lines.next_if(|next| next.starts_with("at "));
        let Some((_, function)) = line.split_once(": ") else { continue };
        if function.contains("pgkeep::")
            && !["logging::", "anyhow::"].iter().any(|not| function.contains(not))
        {
            error!("  in {function} {}", place.unwrap_or_default());
        }
    }
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
