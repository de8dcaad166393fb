//! The log's way to standard error: a bounded queue and a thread that writes. Logging never waits for the
//! reader: a pipe that nobody empties stops neither a backup nor a signal.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::logging;

/// At most this many texts wait for a reader. If there are more, the oldest is dropped.
const MOST_TEXTS: usize = 2000;
const MOST_BYTES: usize = 256 * 1024;
/// If somebody has made the terminal or pipe non-blocking, the next try comes after this time.
const NOT_READY: Duration = Duration::from_millis(10);

/// Texts that wait to be written.
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    texts: VecDeque<Text>,
    bytes: usize,
    /// Log lines that were dropped because nobody read them.
    lost: u64,
    /// Whether a thread writes. Without a thread, each text is written at once.
    delivers: bool,
    /// Whether a text has left the queue but is not yet fully written.
    writing: bool,
}

/// A text that is written in one piece.
struct Text {
    bytes: Vec<u8>,
    /// Whether a newer live text replaces this one.
    live: bool,
}

impl Outbox {
    /// An empty outbox.
    pub const fn new() -> Self {
        let state = State { texts: VecDeque::new(), bytes: 0, lost: 0, delivers: false, writing: false };
        Outbox { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Starts a thread that writes to standard error. If no thread can be started, texts are written
    /// directly.
    pub fn deliver(&'static self) {
        let mut state = self.lock();
        let deliver = || loop {
            let text = self.take();
            write(&mut io::stderr(), &text);
            self.lock().writing = false;
            self.changed.notify_all();
        };
        state.delivers = state.delivers || thread::Builder::new().name("log".into()).spawn(deliver).is_ok();
    }

    /// Adds a line of the log.
    pub fn line(&self, bytes: Vec<u8>) {
        self.push(Text { bytes, live: false });
    }

    /// Adds a live text. The next live text replaces it if it is not yet written.
    pub fn live(&self, bytes: Vec<u8>) {
        self.push(Text { bytes, live: true });
    }

    /// Waits until everything is written, but no longer than `most`.
    pub fn flush(&self, most: Duration) {
        let end = Instant::now() + most;
        let mut state = self.lock();
        while state.writing || state.lost > 0 || !state.texts.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, text: Text) {
        let mut state = self.lock();
        if !state.delivers {
            return write(&mut io::stderr(), &text.bytes);
        }
        state.push(text);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the next text and returns it.
    fn take(&self) -> Vec<u8> {
        let mut state = self.lock();
        loop {
            if let Some(bytes) = state.take() {
                state.writing = true;
                return bytes;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The state is valid after every statement, so a panic elsewhere does not damage it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, text: Text) {
        if text.live && self.texts.back().is_some_and(|last| last.live) {
            self.drop_text(VecDeque::pop_back);
        }
        self.bytes += text.bytes.len();
        self.texts.push_back(text);
        // The newest texts stay: they say how things are now, and why they failed.
        while self.texts.len() > MOST_TEXTS || self.bytes > MOST_BYTES {
            self.drop_text(VecDeque::pop_front);
        }
    }

    fn drop_text(&mut self, pop: impl FnOnce(&mut VecDeque<Text>) -> Option<Text>) {
        if let Some(text) = pop(&mut self.texts) {
            self.bytes -= text.bytes.len();
            self.lost += u64::from(!text.live);
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        if self.lost > 0 {
            return Some(logging::lost(std::mem::take(&mut self.lost)));
        }
        let text = self.texts.pop_front()?;
        self.bytes -= text.bytes.len();
        Some(text.bytes)
    }
}

/// Writes all bytes. If nobody can read them any more, pgkeep has not failed.
fn write(to: &mut impl Write, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(problem) if problem.kind() == ErrorKind::Interrupted => {}
            Err(problem) if problem.kind() == ErrorKind::WouldBlock => thread::sleep(NOT_READY),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(lines: usize, length: usize) -> State {
        let mut state = Outbox::new().state.into_inner().unwrap();
        for number in 0..lines {
            state.push(Text { bytes: format!("{number:<length$}\n").into_bytes(), live: false });
        }
        state
    }

    #[test]
    fn what_nobody_reads_is_bounded_and_counted_and_the_newest_stays() {
        for (length, kept) in [(4, MOST_TEXTS), (1023, MOST_BYTES / 1024)] {
            let mut state = full(kept + 7, length);
            assert_eq!((state.texts.len(), state.lost), (kept, 7));
            assert!(state.bytes <= MOST_BYTES);
            let first = String::from_utf8(state.take().unwrap()).unwrap();
            assert!(first.ends_with("Z [WARN ] 7 lines of the log were lost: nobody read them\n"), "{first}");
            assert!(state.take().unwrap().starts_with(b"7 "));
            let rest = std::iter::from_fn(|| state.take()).last().unwrap();
            assert!(rest.starts_with((kept + 6).to_string().as_bytes()));
            assert_eq!(state.bytes, 0);
        }
    }

    #[test]
    fn a_live_line_gives_way_to_the_next_and_is_no_loss() {
        let mut state = full(1, 1);
        for text in ["a", "b"] {
            state.push(Text { bytes: text.into(), live: true });
        }
        let all: Vec<Vec<u8>> = std::iter::from_fn(|| state.take()).collect();
        assert_eq!(all, [b"0\n".to_vec(), b"b".to_vec()]);
    }

    #[test]
    fn a_flush_ends_whether_or_not_somebody_reads() {
        static BLOCKED: Outbox = Outbox::new();
        BLOCKED.lock().delivers = true;
        BLOCKED.line(b"x".to_vec());
        BLOCKED.flush(Duration::from_millis(50));
        assert!(BLOCKED.take().starts_with(b"x"));
        BLOCKED.lock().writing = false;
        BLOCKED.flush(Duration::from_secs(3600));
    }
}
