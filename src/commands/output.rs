//! Standard output, which may end before pgkeep does (`pgkeep list | head`).

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// Prints a line. A reader who has enough is no failure.
///
/// # Errors
/// If the line cannot be written for another reason, such as a full disk.
pub fn line(text: Arguments<'_>) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(problem) if problem.kind() != ErrorKind::BrokenPipe => Err(problem),
        Ok(()) | Err(_) => Ok(()),
    }
}
