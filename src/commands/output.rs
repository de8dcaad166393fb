//! Standard output. Its reader may stop before pgkeep does (`pgkeep list | head`).

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use crate::store::Doubt;

/// Prints a line. If the reader has stopped reading, that is no failure.
///
/// # Errors
/// The line cannot be written for another reason, such as a full disk.
pub fn line(line: Arguments<'_>) -> io::Result<()> {
    text(&format!("{line}\n"))
}

/// Prints a text of whole lines, like [`line()`].
///
/// # Errors
/// The same as for [`line()`].
pub fn text(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(problem) if problem.kind() != ErrorKind::BrokenPipe => Err(problem),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints why nothing is deleted, with `of` before each line, and the warning about backups of the future.
///
/// # Errors
/// The same as for [`line`].
pub fn doubts(of: &str, doubts: &[Doubt], warning: Option<&str>) -> io::Result<()> {
    for doubt in doubts {
        line(format_args!("{of}pruning is held back: {doubt}"))?;
    }
    warning.map_or(Ok(()), |warning| line(format_args!("{of}warning: {warning}")))
}
