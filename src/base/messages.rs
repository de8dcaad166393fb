//! A child's messages on its standard error. They are logged line by line; the first and the last lines are
//! kept for an error.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{log, Level};

use super::secret::Redactor;
use super::statements::Statements;

/// An error shows this many of the first lines of a child's messages, and of the last lines. The log shows
/// all.
const FIRST_LINES: usize = 4;
const LAST_LINES: usize = 4;
/// Longer lines are cut when read, and cut again when shown, so that half a password at the cut is not shown.
const LONGEST_LINE: u64 = 64 * 1024;
const SHOWN_OF_A_LINE: usize = 4096;
/// After a child's end its last messages are here at once, unless somebody outside its process group holds
/// its standard error open.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The messages of a child, collected on a thread.
pub(super) struct Messages {
    said: Arc<Mutex<Said>>,
    /// The other end of this closes when there is nothing more to read.
    ended: Receiver<()>,
}

#[derive(Default)]
struct Said {
    first: Vec<String>,
    last: VecDeque<String>,
    left_out: bool,
}

impl Messages {
    /// Begins to log what comes `from` the child called `name`, at `level`.
    pub fn relay(
        name: &'static str,
        level: Level,
        from: impl Read + Send + 'static,
        redactor: Redactor,
    ) -> io::Result<Self> {
        let (running, ended) = mpsc::channel();
        let messages = Messages { said: Arc::default(), ended };
        let said = Arc::clone(&messages.said);
        let work = move || {
            let _running: Sender<()> = running;
            gather(name, BufReader::new(from), &redactor, |line| {
                log!(level, "{name} says: {line}");
                lock(&said).push(line);
            });
        };
        thread::Builder::new().name(format!("{name} messages")).spawn(work)?;
        Ok(messages)
    }

    /// The first and the last lines of a child that has ended.
    pub fn last_words(&self) -> Vec<String> {
        // The messages end, or this takes too long: then use what is here.
        let _ = self.ended.recv_timeout(LAST_WORDS);
        lock(&self.said).take()
    }
}

impl Said {
    fn push(&mut self, line: String) {
        if self.first.len() < FIRST_LINES {
            self.first.push(line);
            return;
        }
        self.last.push_back(line);
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
            self.left_out = true;
        }
    }

    fn take(&mut self) -> Vec<String> {
        let Said { mut first, last, left_out } = mem::take(self);
        first.extend(left_out.then(|| "…".to_owned()));
        first.extend(last);
        first
    }
}

/// The lines are whole after every statement, so a panic elsewhere does not damage them.
fn lock(said: &Mutex<Said>) -> MutexGuard<'_, Said> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads lines until the end, redacts and cuts them.
fn gather(name: &str, mut from: impl BufRead, redactor: &Redactor, mut each: impl FnMut(String)) {
    let mut statements = Statements::of(name);
    let mut line = Vec::new();
    loop {
        line.clear();
        match from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = redactor.clean(String::from_utf8_lossy(&line).trim_end());
        let text = statements.next(&text).unwrap_or_default();
        if !line.ends_with(b"\n") {
            // The rest is dropped unseen: half a password at its beginning would not be recognised.
            let _ = from.skip_until(b'\n');
            statements.lost_track();
        }
        let text: String = text.chars().take(SHOWN_OF_A_LINE).collect();
        if !text.is_empty() {
            each(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use std::os::unix::net::UnixStream;

    fn relay(text: &str) -> Vec<String> {
        let redactor = Redactor::new([Secret::new("hush")]);
        let from = io::Cursor::new(text.to_owned());
        Messages::relay("test", Level::Debug, from, redactor).unwrap().last_words()
    }

    #[test]
    fn messages_are_redacted_and_bounded_and_the_first_and_last_are_kept() {
        let text = format!("1\n2\n\n3 hush\n4\n{}\n'lost'\ntest: 6", "x".repeat(LONGEST_LINE as usize + 10));
        assert_eq!(relay(&text), ["1", "2", "3 ***", "4", &"x".repeat(SHOWN_OF_A_LINE), "test: 6"]);
        assert_eq!(
            relay(&format!("{text}\n7\n8\n9\n")),
            ["1", "2", "3 ***", "4", "…", "test: 6", "7", "8", "9"]
        );
        assert_eq!(relay("test: ALTER ROLE a PASSWORD 'b\nc'"), ["test: ALTER ROLE a PASSWORD ***"]);
    }

    #[test]
    fn an_end_that_somebody_holds_open_is_not_waited_for() {
        let (from, mut to) = UnixStream::pair().unwrap();
        let messages = Messages::relay("test", Level::Debug, from, Redactor::default()).unwrap();
        io::Write::write_all(&mut to, b"before\n").unwrap();
        // The other end stays open.
        assert_eq!(messages.last_words(), ["before"]);
        drop(to);
    }
}
