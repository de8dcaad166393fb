//! Reading an object in ranges, several at a time.
//!
//! S3, or the network on the way, limits the speed of one connection. So a single connection is slow if S3 is
//! far away. Each range has its own request and its own thread, which goes on if its connection breaks. The
//! bytes of a range wait in its channel until the ranges before it were read. The channel has room for the
//! whole range, so no connection stops because the reader is slow.

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
use rusty_s3::{Credentials, S3Action};
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::BodyReader;

use super::request::Body;
use super::{Client, Fault, Result, S3Error};

const OPERATION: &str = "GetObject";

/// Bytes of a range. With the same memory, many connections with small ranges are faster than few with large
/// ones. Even smaller ranges would spend their time waiting for answers.
const RANGE: u64 = 1 << 20;
/// At most this many ranges are downloading or wait to be read. This takes 12 MB of memory and is as fast as
/// `aws s3 cp`.
pub(super) const AT_ONCE: usize = 12;
/// A range's thread passes on this many bytes at a time. A range is a multiple of this.
const PIECE: u64 = 128 * 1024;
/// How often a waiting reader checks for a forced stop.
const TICK: Duration = Duration::from_millis(100);

/// An object's bytes. If a connection breaks, a new one brings the rest of its range, but only if the object
/// is still the same. Dropping the download ends its threads as soon as their connections bring something.
pub struct Download {
    object: Arc<Object>,
    /// The object's size in bytes.
    pub size: u64,
    /// The answer that contained the size, and the range that it brings, until that range's thread starts.
    first: Option<(Range<u64>, BodyReader<'static>)>,
    /// Where the next range begins that has no thread yet.
    next: u64,
    /// The ranges that are downloading, in order: the end of each range, and its pieces.
    under_way: VecDeque<(u64, Receiver<Result<Vec<u8>>>)>,
    /// The piece that is being read, and how much of it was read.
    piece: Vec<u8>,
    consumed: usize,
    /// How many bytes of the object were in the pieces so far.
    received: u64,
}

/// What the ranges of an object share.
struct Object {
    client: Client,
    key: String,
    size: u64,
    etag: Option<String>,
    /// Set when nobody reads the object any more.
    abandoned: AtomicBool,
}

/// A range that is downloading.
struct Fetch {
    object: Arc<Object>,
    /// The rest of the range, which is still to come.
    left: Range<u64>,
    /// The answer that brings the rest, if there is one already.
    body: Option<BodyReader<'static>>,
}

impl Client {
    /// Begins to read an object. The request for its first range also returns its size, so a small object
    /// needs only one request. A server that does not support ranges sends the whole object, which is then
    /// read as a single range.
    ///
    /// # Errors
    /// S3 refuses, or its answer does not contain the object's size.
    pub fn download(&self, key: &str) -> Result<Download> {
        let ask = |range: Option<&Range<u64>>| {
            self.retry(|| {
                let keys = self.keys(OPERATION, key)?;
                self.request(OPERATION, key, self.get(&keys, key, range), &Body::None)
            })
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

    /// Reads the last `count` bytes of an object that has `size` bytes.
    ///
    /// # Errors
    /// S3 refuses, or does not support ranges.
    pub fn last_bytes(&self, key: &str, size: u64, count: u64) -> Result<Vec<u8>> {
        let (client, key, abandoned) = (self.clone(), key.to_owned(), AtomicBool::new(false));
        let object = Arc::new(Object { client, key, size, etag: None, abandoned });
        Fetch { object, left: size.saturating_sub(count)..size, body: None }.piece()
    }

    /// RFC 9110, 14.1.2: the range names its last byte, not the byte after it.
    fn get<'a>(&'a self, keys: &'a Credentials, key: &'a str, range: Option<&Range<u64>>) -> GetObject<'a> {
        let mut action = self.bucket.get_object(Some(keys), key);
        if let Some(range) = range {
            action.headers_mut().insert("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        action
    }
}

/// The object's size, and the range that the first answer brings.
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

/// Whether this Content-Range means exactly this range.
fn is_range(sent: &str, range: &Range<u64>, size: u64) -> bool {
    range.end > range.start && sent == format!("bytes {}-{}/{size}", range.start, range.end - 1)
}

impl Download {
    /// Keeps [`AT_ONCE`] ranges downloading.
    fn begin_ranges(&mut self) -> Result<()> {
        while self.under_way.len() < AT_ONCE {
            let (left, body) = match self.first.take() {
                Some((range, body)) => (range, Some(body)),
                None if self.next < self.size => (self.next..self.size.min(self.next + RANGE), None),
                None => break,
            };
            let end = left.end;
            let fetch = Fetch { object: Arc::clone(&self.object), left, body };
            // Room for one range. A server that does not support ranges sends the whole object, which waits
            // for its reader.
            let (sender, pieces) = mpsc::sync_channel((RANGE / PIECE) as usize);
            let thread = thread::Builder::new().name("download".into()).spawn(move || fetch.run(&sender));
            thread.map_err(|problem| self.object.failure(&format!("no thread can be started: {problem}")))?;
            self.under_way.push_back((end, pieces));
            self.next = end;
        }
        Ok(())
    }

    /// Waits for the next piece. An empty piece is the end of the object.
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
    /// A failure that no other try can change.
    fn failure(&self, reason: &str) -> S3Error {
        let fault = Fault::Unanswered { reason: reason.into(), transient: false };
        self.client.error(OPERATION, &self.key, fault)
    }
}

impl Fetch {
    /// Sends the range's pieces. Ends with the range, with a failure, or when nobody wants the pieces any
    /// more.
    fn run(mut self, pieces: &SyncSender<Result<Vec<u8>>>) {
        while !self.left.is_empty() {
            let piece = self.piece();
            let failed = piece.is_err();
            if pieces.send(piece).is_err() || failed {
                return;
            }
        }
        // A connection can be reused only if its answer was read to the end.
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

    /// Asks for the rest of the range, as often as the retry policy allows.
    fn ask(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let client = &self.object.client;
        let wanted = || !self.object.abandoned.load(Ordering::Relaxed);
        let sleep = |wait| client.shutdown.sleep_unless_forced(wait) && wanted();
        let (body, read) = client.retries.run(sleep, || self.attempt(buffer))?;
        self.body = Some(body);
        Ok(read)
    }

    /// Asks once and reads the first bytes. A try that brings no bytes has failed.
    fn attempt(&self, buffer: &mut [u8]) -> Result<(BodyReader<'static>, usize)> {
        let Object { client, key, size, etag, .. } = &*self.object;
        let keys = client.keys(OPERATION, key)?;
        let mut action = client.get(&keys, key, Some(&self.left));
        // RFC 9110, 13.1.1: a weak ETag matches nothing, not even itself. A proxy may make an ETag weak.
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
        // Not every server supports If-Match.
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
            // 416: the object is shorter now.
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

    /// Adds the requested bytes to the error.
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
