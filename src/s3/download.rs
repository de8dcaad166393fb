//! Reading an object in ranges, several at a time.
//!
//! S3, or the way to it, limits the speed of a connection, so one alone is slow where S3 is far away. Each range has a
//! request and a thread of its own, which goes on where its connection broke. What a range brings waits in its
//! channel until the ranges before it were read; the channel has room for the whole range, so that no connection
//! stands still because the reader is slow.

use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use log::warn;
use rusty_s3::actions::GetObject;
use rusty_s3::S3Action;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::BodyReader;

use super::request::Body;
use super::{Client, Fault, Result, S3Error};

const OPERATION: &str = "GetObject";

/// Bytes of a range. Many connections with small ranges are faster than few with large ones that take the same memory;
/// still smaller ranges would spend their time waiting for answers.
const RANGE: u64 = 1 << 20;
/// Ranges that are on their way or wait to be read, at most: 12 MB of memory, and as fast as `aws s3 cp`.
pub(super) const AT_ONCE: usize = 12;
/// Bytes that a range's thread passes on at a time; a range is a multiple of it.
const PIECE: u64 = 128 * 1024;
/// How often a reader that waits looks for a forced stop.
const TICK: Duration = Duration::from_millis(100);

/// An object's bytes. A connection that breaks is replaced by one for the rest of its range; only an object that is
/// still the same is gone on with. Dropping it ends its threads, as soon as their connections bring something.
pub struct Download {
    object: Arc<Object>,
    /// The object's size in bytes.
    pub size: u64,
    /// The answer that told the size, and the range that it brings, until that range's thread begins.
    first: Option<(Range<u64>, BodyReader<'static>)>,
    /// Where the next range begins that no thread has.
    next: u64,
    /// The ranges on their way, in order: where each ends, and its pieces.
    under_way: VecDeque<(u64, Receiver<Result<Vec<u8>>>)>,
    /// The piece that is being read, and how much of it was.
    piece: Vec<u8>,
    consumed: usize,
    /// How many bytes of the object the pieces so far had.
    received: u64,
}

/// What the ranges of an object have in common.
struct Object {
    client: Client,
    key: String,
    size: u64,
    etag: Option<String>,
    /// Nobody reads it any more.
    abandoned: AtomicBool,
}

/// A range on its way.
struct Fetch {
    object: Arc<Object>,
    /// What of it is still to come.
    left: Range<u64>,
    /// The answer that brings it, if there is one already.
    body: Option<BodyReader<'static>>,
}

impl Client {
    /// Begins to read an object. The one request for its first range also tells its size, so that a small object needs
    /// no other; a server that knows no ranges sends the whole object instead, and that is read as a single one.
    ///
    /// # Errors
    /// S3's refusal, or an answer without the object's size.
    pub fn download(&self, key: &str) -> Result<Download> {
        let ask = |range: Option<&Range<u64>>| {
            self.retry(|| self.request(OPERATION, key, self.get(key, range), &Body::None))
        };
        let answer = match ask(Some(&(0..RANGE))) {
            // An empty object has no first byte.
            Err(S3Error { fault: Fault::Refused { status: 416, .. }, .. }) => ask(None)?,
            answer => answer?,
        };
        let (size, range) =
            extent(&answer).map_err(|what| self.error(OPERATION, key, Fault::unreadable(&what)))?;
        let etag = text(answer.headers(), ETAG.as_str()).map(str::to_owned);
        let abandoned = AtomicBool::new(false);
        let object = Object { client: self.clone(), key: key.to_owned(), size, etag, abandoned };
        Ok(Download {
            object: Arc::new(object),
            size,
            next: range.end,
            first: Some((range, answer.into_body().into_reader())),
            under_way: VecDeque::new(),
            piece: Vec::new(),
            consumed: 0,
            received: 0,
        })
    }

    /// RFC 9110, 14.1.2: the last byte is named, not the one behind it.
    fn get<'a>(&'a self, key: &'a str, range: Option<&Range<u64>>) -> GetObject<'a> {
        let mut action = self.bucket.get_object(Some(&self.credentials), key);
        if let Some(range) = range {
            action.headers_mut().insert("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        action
    }
}

/// The object's size and what of it the first answer brings.
fn extent(answer: &Response<ureq::Body>) -> std::result::Result<(u64, Range<u64>), String> {
    if answer.status() != StatusCode::PARTIAL_CONTENT {
        let size = text(answer.headers(), CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        return size.map(|size| (size, 0..size)).ok_or_else(|| "it has no Content-Length".into());
    }
    let sent = text(answer.headers(), CONTENT_RANGE.as_str()).unwrap_or("none");
    let size = sent.rsplit('/').next().and_then(|size| size.parse().ok()).unwrap_or_default();
    let range = 0..RANGE.min(size);
    if !is_range(sent, &range, size) {
        return Err(format!("asked for the first {RANGE} bytes, it sends the range {sent}"));
    }
    Ok((size, range))
}

/// Whether this Content-Range means exactly that.
fn is_range(sent: &str, range: &Range<u64>, size: u64) -> bool {
    range.end > range.start && sent == format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

impl Download {
    /// Keeps [`AT_ONCE`] ranges under way.
    fn begin_ranges(&mut self) -> Result<()> {
        while self.under_way.len() < AT_ONCE {
            let (left, body) = match self.first.take() {
                Some((range, body)) => (range, Some(body)),
                None if self.next < self.size => (self.next..self.size.min(self.next + RANGE), None),
                None => break,
            };
            let end = left.end;
            let fetch = Fetch { object: Arc::clone(&self.object), left, body };
            // Room for a range. The whole object, which a server without ranges sends, waits for its reader.
            let (sender, pieces) = mpsc::sync_channel((RANGE / PIECE) as usize);
            let thread = thread::Builder::new().name("download".into()).spawn(move || fetch.run(&sender));
            thread.map_err(|problem| self.object.failure(&format!("no thread can be started: {problem}")))?;
            self.under_way.push_back((end, pieces));
            self.next = end;
        }
        Ok(())
    }

    /// Waits for the next piece; an empty one is the object's end.
    fn next_piece(&mut self) -> Result<Vec<u8>> {
        loop {
            self.begin_ranges()?;
            let Some((end, oldest)) = self.under_way.front() else { return Ok(Vec::new()) };
            match oldest.recv_timeout(TICK) {
                Ok(piece) => return piece,
                Err(RecvTimeoutError::Disconnected) if self.received == *end => {
                    self.under_way.pop_front();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.object.failure("the thread that reads has panicked"));
                }
                Err(RecvTimeoutError::Timeout) if self.object.client.shutdown.forced().is_some() => {
                    return Err(self.object.failure("stopped by a signal"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl BufRead for Download {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.consumed == self.piece.len() {
            self.piece = self.next_piece().map_err(io::Error::other)?;
            self.received += self.piece.len() as u64;
            self.consumed = 0;
        }
        Ok(&self.piece[self.consumed..])
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count;
    }
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.object.abandoned.store(true, Ordering::Relaxed);
    }
}

impl Object {
    /// One that no other try changes.
    fn failure(&self, reason: &str) -> S3Error {
        let fault = Fault::Unanswered { reason: reason.into(), transient: false };
        self.client.error(OPERATION, &self.key, fault)
    }
}

impl Fetch {
    /// Sends the range's pieces; ends with the range, with a failure, or when nobody wants them any more.
    fn run(mut self, pieces: &SyncSender<Result<Vec<u8>>>) {
        while !self.left.is_empty() {
            let piece = self.piece();
            let failed = piece.is_err();
            if pieces.send(piece).is_err() || failed {
                return;
            }
        }
        // A connection can be used again only if its answer was read to the end.
        let _ = self.body.map(|mut body| body.read(&mut [0]));
    }

    fn piece(&mut self) -> Result<Vec<u8>> {
        let length = PIECE.min(self.left.end - self.left.start);
        let mut piece = vec![0; length as usize];
        let mut filled = 0;
        while filled < piece.len() {
            let read = self.read(&mut piece[filled..])?;
            filled += read;
            self.left.start += read as u64;
        }
        Ok(piece)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Some(body) = &mut self.body else { return self.ask(buffer) };
        let read = body.read(buffer);
        if self.object.abandoned.load(Ordering::Relaxed) {
            return Err(self.broken("nobody reads it any more"));
        }
        match read {
            Ok(read) if read > 0 => Ok(read),
            ended => {
                warn!("{}; going on from there", self.broken(&reason(ended)));
                self.ask(buffer)
            }
        }
    }

    /// Asks for the rest of the range, as often as the policy of retries lets it.
    fn ask(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let client = &self.object.client;
        let wanted = || !self.object.abandoned.load(Ordering::Relaxed);
        let sleep = |wait| client.shutdown.sleep_unless_forced(wait) && wanted();
        let (body, read) = client.retries.run(sleep, || self.attempt(buffer))?;
        self.body = Some(body);
        Ok(read)
    }

    /// Asks once, and reads the first bytes: a try that brings nothing is a failed one.
    fn attempt(&self, buffer: &mut [u8]) -> Result<(BodyReader<'static>, usize)> {
        let Object { client, key, size, etag, .. } = &*self.object;
        let mut action = client.get(key, Some(&self.left));
        // RFC 9110, 13.1.1: a weak one, as a proxy in between may make of it, is like no other, nor like itself.
        if let Some(etag) = etag.as_ref().filter(|etag| !etag.starts_with("W/")) {
            action.headers_mut().insert("if-match", etag.clone());
        }
        let answer = client.request(OPERATION, key, action, &Body::None);
        let answer = answer.map_err(|error| self.explain(error))?;
        let sent = text(answer.headers(), CONTENT_RANGE.as_str()).unwrap_or("none");
        if answer.status() != StatusCode::PARTIAL_CONTENT || !is_range(sent, &self.left, *size) {
            let what = format!("it sends the range {sent} of {size} bytes");
            return Err(self.error(Fault::unreadable(&what)));
        }
        // Not every server knows If-Match.
        let found = text(answer.headers(), ETAG.as_str());
        if etag.as_deref().zip(found).is_some_and(|(etag, found)| etag != found) {
            return Err(self.replaced());
        }
        let mut body = answer.into_body().into_reader();
        match body.read(buffer) {
            Ok(read) if read > 0 => Ok((body, read)),
            ended => Err(self.broken(&reason(ended))),
        }
    }

    fn explain(&self, error: S3Error) -> S3Error {
        match error.fault {
            // 416: it is shorter now.
            Fault::Refused { status: 412 | 416, .. } => self.replaced(),
            fault => self.error(fault),
        }
    }

    fn replaced(&self) -> S3Error {
        let reason = "the object was replaced by another one while it was read".into();
        self.error(Fault::Unanswered { reason, transient: false })
    }

    fn broken(&self, reason: &str) -> S3Error {
        let reason = format!("broken off at byte {} of {}: {reason}", self.left.start, self.object.size);
        self.error(Fault::Unanswered { reason, transient: true })
    }

    /// Names the bytes that are asked for.
    fn error(&self, fault: Fault) -> S3Error {
        let (Range { start, end }, object) = (&self.left, &self.object);
        let place = format!("bytes {start}-{} of {}", end - 1, object.client.place(&object.key));
        S3Error { operation: OPERATION, place, fault }
    }
}

fn reason(ended: io::Result<usize>) -> String {
    ended.err().map_or("the connection ended".into(), |problem| problem.to_string())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
