//! Log lines: `2026-11-23T03:00:00.123Z INFO message`, one line an event, on standard error.

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal};
use std::panic;

use anyhow::Error;
use log::{error, LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, LevelPadding, WriteLogger};
use time::macros::format_description;

/// Starts logging at `level` and makes panics log lines. Only pgkeep's own lines are shown: those of the
/// HTTP client would carry signed URLs.
pub fn start(level: LevelFilter) {
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
    let inner = WriteLogger::new(level, config, io::stderr());
    let logger = OneLine { inner, terminal: io::stderr().is_terminal() };
    // Fails only where a logger is set already, which then goes on.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
    panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        error!("panic in thread {}: {info}", thread.name().unwrap_or("unnamed"));
        trace(&Backtrace::force_capture());
    }));
}

/// Replaces the live line of a terminal, which no line feed ends; log lines take its place.
pub fn show_live(line: &str) {
    // The beginning of the line, and nothing behind it (ECMA-48, EL).
    eprint!("\r\x1b[K{line}");
}

/// Logs a failure once, at the top: what failed, the chain of causes, the stack trace of the first cause.
pub fn failure(what: &str, failure: &Error) {
    error!("{what}: {failure:#}");
    trace(failure.backtrace());
}

/// Logs the frames of pgkeep's own functions: the runtime's and the libraries' say nothing more.
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

/// Escapes control characters, so that a text from outside can neither start a log line of its own nor
/// steer a terminal.
struct OneLine<L> {
    inner: L,
    /// A live line may have to make room.
    terminal: bool,
}

impl<L: Log> Log for OneLine<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let line = one_line(record.args().to_string().trim_end());
        let (metadata, module) = (record.metadata().clone(), record.module_path());
        if self.terminal && self.enabled(&metadata) {
            show_live("");
        }
        self.inner.log(
            &Record::builder().metadata(metadata).module_path(module).args(format_args!("{line}")).build(),
        );
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// Escapes what would begin a line or steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => line.push(c),
            // A line feed as \n; the two Unicode line separators break lines in some viewers too.
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
