//! Reading an object, going on where a connection broke.

use std::io::{self, Read};

use log::warn;
use rusty_s3::S3Action;
use ureq::http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG};
use ureq::http::{HeaderMap, StatusCode};
use ureq::BodyReader;

use super::request::Body;
use super::{Client, Fault, Result, S3Error};

const OPERATION: &str = "GetObject";

/// An object's bytes. A connection that breaks is replaced by one for the rest; only an object that is still
/// the same is gone on with.
pub struct Download {
    client: Client,
    key: String,
    /// The object's size in bytes.
    pub size: u64,
    etag: Option<String>,
    position: u64,
    body: BodyReader<'static>,
}

impl Client {
    /// Begins to read an object.
    ///
    /// # Errors
    /// S3's refusal, or an answer without the object's size.
    pub fn download(&self, key: &str) -> Result<Download> {
        let answer = self.retry(|| {
            let action = self.bucket.get_object(Some(&self.credentials), key);
            self.request(OPERATION, key, action, &Body::None)
        })?;
        let Some(size) = text(answer.headers(), CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok())
        else {
            return Err(self.error(OPERATION, key, Fault::unreadable("it has no Content-Length")));
        };
        let etag = text(answer.headers(), ETAG.as_str()).map(str::to_owned);
        let body = answer.into_body().into_reader();
        Ok(Download { client: self.clone(), key: key.to_owned(), size, etag, position: 0, body })
    }
}

impl Download {
    /// Asks for the rest, and reads the first bytes of it: a try that brings nothing is a failed one.
    fn resume(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let (client, position, size) = (&self.client, self.position, self.size);
        let (body, read) = client.retry(|| {
            let mut action = client.bucket.get_object(Some(&client.credentials), &self.key);
            // RFC 9110, 14.1.2 and 13.1.1.
            action.headers_mut().insert("range", format!("bytes={position}-"));
            if let Some(etag) = &self.etag {
                action.headers_mut().insert("if-match", etag.clone());
            }
            let answer = client.request(OPERATION, &self.key, action, &Body::None);
            let answer = answer.map_err(|error| self.explain(error))?;
            let range = text(answer.headers(), CONTENT_RANGE.as_str()).unwrap_or("none");
            if answer.status() != StatusCode::PARTIAL_CONTENT
                || range != format!("bytes {position}-{}/{size}", size - 1)
            {
                let what =
                    format!("asked for the bytes from {position} of {size}, it sends the range {range}");
                return Err(client.error(OPERATION, &self.key, Fault::unreadable(&what)));
            }
            let mut body = answer.into_body().into_reader();
            match body.read(buffer) {
                Ok(0) => Err(self.broken("the connection ended")),
                Ok(read) => Ok((body, read)),
                Err(problem) => Err(self.broken(&problem.to_string())),
            }
        })?;
        self.body = body;
        Ok(read)
    }

    fn broken(&self, reason: &str) -> S3Error {
        let reason = format!("broken off at byte {} of {}: {reason}", self.position, self.size);
        self.client.error(OPERATION, &self.key, Fault::Unanswered { reason, transient: true })
    }

    fn explain(&self, error: S3Error) -> S3Error {
        match error.fault {
            Fault::Refused { status: 412, .. } => {
                let reason = "the object was replaced by another one while it was read".into();
                self.client.error(OPERATION, &self.key, Fault::Unanswered { reason, transient: false })
            }
            _ => error,
        }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.size || buffer.is_empty() {
            return Ok(0);
        }
        let read = match self.body.read(buffer) {
            Ok(read) if read > 0 => read,
            ended => {
                let reason = ended.err().map_or("the connection ended".into(), |problem| problem.to_string());
                warn!("{}; going on from there", self.broken(&reason));
                self.resume(buffer).map_err(io::Error::other)?
            }
        };
        self.position += read as u64;
        if self.position > self.size {
            let fault = Fault::unreadable("it is longer than its Content-Length");
            return Err(io::Error::other(self.client.error(OPERATION, &self.key, fault)));
        }
        Ok(read)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
