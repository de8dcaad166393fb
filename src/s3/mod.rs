//! S3: signing, sending, retrying, listing.
//!
//! A handful of verbs, each a method of [`Client`]. Every body goes with its Content-MD5, every failure is
//! an [`S3Error`] that names the operation and the object, and what may go well the next time is tried
//! again. Multipart uploads are in [`upload`].

mod download;
mod error;
mod pending;
mod probe;
pub mod upload;

use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use log::debug;
use md5::{Digest, Md5};
use rusty_s3::actions::{
    CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload, ListObjectsV2,
};
use rusty_s3::{Bucket, Credentials, S3Action};
use ureq::http::header::{CONTENT_LENGTH, ETAG, EXPECT, RETRY_AFTER};
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, SendBody};

pub use self::download::Download;
pub use self::error::{Fault, S3Error};
pub use self::pending::PendingUpload;
use crate::base::retry::Policy;
use crate::base::shutdown::Shutdown;
use crate::config::S3Config;
use crate::dump::spool::Part;

/// How long a signature is valid. It counts from a request's beginning, and only until S3 checks it.
const SIGNATURE_VALIDITY: Duration = Duration::from_secs(3600);
/// For a connection, and for a name's resolution.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For each single read or write: a stalled connection, not a slow one.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// S3 may take minutes to put the parts of a large object together before it answers
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>).
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(300);
/// From this size on S3 is asked whether it takes a body before it is sent: a refusal that arrives while
/// a body is on its way is lost with the connection.
const EXPECT_FROM: u64 = 64 * 1024;
/// A listing of 1,000 keys of 1,024 bytes fits several times over.
const LONGEST_ANSWER: u64 = 8 << 20;

const RETRIES: Policy =
    Policy { tries: 5, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(60) };

type Result<T> = std::result::Result<T, S3Error>;

/// An object of the bucket, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// What an object says about itself: names in lower case, and values; kept as `x-amz-meta-…`
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>).
pub type Metadata = Vec<(&'static str, String)>;

/// One bucket and the right to use it.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    bucket: Bucket,
    credentials: Credentials,
    shutdown: Shutdown,
    retries: Policy,
}

enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    Part(&'a Part),
}

struct Answer {
    headers: HeaderMap,
    body: String,
}

impl Client {
    /// A client for the configured bucket. A forced `shutdown` ends its retries.
    pub fn new(config: &S3Config, shutdown: Shutdown) -> Self {
        let roots = config.authorities.clone().map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // A redirected PUT cannot be replayed, and a signature is for one host.
            .max_redirects(0)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(STALL_TIMEOUT))
            .timeout_per_write(Some(STALL_TIMEOUT))
            .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Client {
            agent,
            bucket: config.bucket.clone(),
            credentials: Credentials::new(&config.access_key, config.secret_key.expose()),
            shutdown,
            retries: RETRIES,
        }
    }

    /// The same client, trying everything once only.
    pub fn without_retries(&self) -> Self {
        Client { retries: Policy { tries: 1, ..RETRIES }, ..self.clone() }
    }

    /// `s3://bucket/key`.
    pub fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket.name())
    }

    /// Stores an object of a single part, replacing one of the same key.
    ///
    /// # Errors
    /// S3's refusal, or a wrong checksum of what arrived.
    pub fn put_object(&self, key: &str, part: &Part, metadata: &Metadata) -> Result<()> {
        let action = || {
            let mut action = self.bucket.put_object(Some(&self.credentials), key);
            describe(&mut action, metadata);
            action
        };
        self.retry(|| {
            let answer = self.send("PutObject", key, action(), &Body::Part(part))?;
            self.check_etag("PutObject", key, part, &answer.headers).map(drop)
        })
    }

    /// The size of an object in bytes, or `None` where there is none.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn head_object(&self, key: &str) -> Result<Option<u64>> {
        let action = || self.bucket.head_object(Some(&self.credentials), key);
        let answer = self.retry(|| self.send("HeadObject", key, action(), &Body::None));
        match answer {
            Ok(answer) => {
                match answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()) {
                    Some(size) => Ok(Some(size)),
                    None => Err(self.error("HeadObject", key, Fault::unreadable("it has no Content-Length"))),
                }
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects whose key begins with `prefix`, in the order of their keys, however many there are.
    ///
    /// # Errors
    /// S3's refusal, or an answer that is not a listing.
    pub fn list_objects(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.retry(|| {
                let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
                action.with_prefix(prefix);
                if let Some(token) = &token {
                    action.with_continuation_token(token.as_str());
                }
                let answer = self.send("ListObjectsV2", prefix, action, &Body::None)?;
                ListObjectsV2::parse_response(&answer.body).map_err(|problem| {
                    self.error("ListObjectsV2", prefix, Fault::unreadable(&problem.to_string()))
                })
            })?;
            for object in page.contents {
                objects.push(Object { key: object.key, size: object.size.unwrap_or(0) });
            }
            match page.next_continuation_token {
                // A server that answers with the same page for ever.
                Some(next) if token.as_ref() == Some(&next) => {
                    let fault = Fault::unreadable("the next page's token is this page's");
                    return Err(self.error("ListObjectsV2", prefix, fault));
                }
                Some(next) => token = Some(next),
                None => return Ok(objects),
            }
        }
    }

    /// Deletes one object. One that is not there is no error, as in S3.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn delete_object(&self, key: &str) -> Result<()> {
        let action = || self.bucket.delete_object(Some(&self.credentials), key);
        let deleted = self.retry(|| self.send("DeleteObject", key, action(), &Body::None));
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn create_multipart_upload(&self, key: &str, metadata: &Metadata) -> Result<String> {
        let name = "CreateMultipartUpload";
        self.retry(|| {
            let mut action = self.bucket.create_multipart_upload(Some(&self.credentials), key);
            describe(&mut action, metadata);
            let answer = self.send(name, key, action, &Body::Bytes(b""))?;
            let parsed = CreateMultipartUpload::parse_response(&answer.body)
                .map_err(|problem| self.error(name, key, Fault::unreadable(&problem.to_string())))?;
            Ok(parsed.upload_id().to_owned())
        })
    }

    /// Uploads a part and answers with its ETag.
    fn upload_part(&self, key: &str, upload: &str, part: &Part, go_on: impl Fn() -> bool) -> Result<String> {
        let number = u16::try_from(part.number).unwrap_or(u16::MAX);
        let sleep = |wait| self.shutdown.sleep_unless_forced(wait) && go_on();
        let attempt = || {
            let action = self.bucket.upload_part(Some(&self.credentials), key, number, upload);
            let answer = self.send("UploadPart", key, action, &Body::Part(part))?;
            self.check_etag("UploadPart", key, part, &answer.headers)
        };
        self.retries.run(sleep, || attempt().map_err(|error| error.of_part(part.number)))
    }

    /// Makes the object out of the parts with these ETags, in their order.
    fn complete_multipart_upload(&self, key: &str, upload: &str, etags: &[String]) -> Result<()> {
        let name = "CompleteMultipartUpload";
        let action = || {
            let etags = etags.iter().map(String::as_str);
            self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload, etags)
        };
        let body = CompleteMultipartUpload::body(action());
        self.retry(|| {
            let answer = self.send(name, key, action(), &Body::Bytes(body.as_bytes()))?;
            // S3 may begin a 200 and fail afterwards: the body decides.
            if let Some((code, message)) = error::error_document(&answer.body) {
                let fault = Fault::Refused { status: 200, code, message, retry_after: None };
                return Err(self.error(name, key, fault));
            }
            CompleteMultipartUploadResponse::parse(&answer.body)
                .map_err(|problem| self.error(name, key, Fault::unreadable(&problem.to_string())))?;
            Ok(())
        })
    }

    /// Throws away an upload's parts. One that is not there any more is no error.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn abort_multipart_upload(&self, key: &str, upload: &str) -> Result<()> {
        let name = "AbortMultipartUpload";
        let action = || self.bucket.abort_multipart_upload(Some(&self.credentials), key, upload);
        match self.retry(|| self.send(name, key, action(), &Body::None)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    fn retry<T>(&self, attempt: impl FnMut() -> Result<T>) -> Result<T> {
        self.retries.run(|wait| self.shutdown.sleep_unless_forced(wait), attempt)
    }

    /// Signs and sends one request, and reads the answer to its end, so that the connection can be used
    /// again.
    fn send<'a, A: S3Action<'a>>(
        &self,
        operation: &'static str,
        key: &str,
        action: A,
        body: &Body<'_>,
    ) -> Result<Answer> {
        let mut answer = self.request(operation, key, action, body)?;
        let body = self.read_text(operation, key, &mut answer)?;
        Ok(Answer { headers: answer.headers().clone(), body })
    }

    /// Signs and sends one request; the answer is a success, and its body is yet to be read. The action's own
    /// headers are signed.
    fn request<'a, A: S3Action<'a>>(
        &self,
        operation: &'static str,
        key: &str,
        mut action: A,
        body: &Body<'_>,
    ) -> Result<Response<ureq::Body>> {
        let (length, md5): (u64, Option<[u8; 16]>) = match body {
            Body::None => (0, None),
            Body::Bytes(bytes) => (bytes.len() as u64, Some(Md5::digest(bytes).into())),
            Body::Part(part) => (part.length, Some(part.md5)),
        };
        let mut request = Request::builder().method(A::METHOD.to_str());
        if let Some(md5) = md5 {
            action.headers_mut().insert("content-md5", BASE64_STANDARD.encode(md5));
            // Without a given length the body would be sent in chunks, which S3 does not take.
            request = request.header(CONTENT_LENGTH, length);
        }
        for (name, value) in action.headers_mut().iter() {
            request = request.header(name, value);
        }
        if length >= EXPECT_FROM {
            request = request.header(EXPECT, "100-continue");
        }
        let request = request.uri(action.sign(SIGNATURE_VALIDITY).as_str());
        let patience = if operation == "CompleteMultipartUpload" { COMPLETE_TIMEOUT } else { STALL_TIMEOUT };
        let answer = match body {
            Body::None => self.run(request, (), patience),
            Body::Bytes(bytes) => self.run(request, *bytes, patience),
            Body::Part(part) => self.run(request, SendBody::from_reader(&mut part.reader()), patience),
        };
        let mut answer =
            answer.map_err(|problem| self.error(operation, key, self.transport_fault(&problem)))?;
        let status = answer.status();
        debug!("{operation} {}: {status}", self.place(key));
        if !status.is_success() {
            let retry_after =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let text = self.read_text(operation, key, &mut answer)?;
            let fault = Fault::refused(status.as_u16(), retry_after.map(Duration::from_secs), &text);
            return Err(self.error(operation, key, fault));
        }
        Ok(answer)
    }

    fn read_text(
        &self,
        operation: &'static str,
        key: &str,
        answer: &mut Response<ureq::Body>,
    ) -> Result<String> {
        let bytes = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        let bytes = bytes.map_err(|problem| self.error(operation, key, self.transport_fault(&problem)))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn run(
        &self,
        request: Builder,
        body: impl AsSendBody,
        patience: Duration,
    ) -> std::result::Result<Response<ureq::Body>, ureq::Error> {
        let request = self.agent.configure_request(request.body(body)?).timeout_per_read(Some(patience));
        self.agent.run(request.build())
    }

    /// The ETag of an unencrypted object or part is its MD5
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>): where it can be compared, it is.
    fn check_etag(
        &self,
        operation: &'static str,
        key: &str,
        part: &Part,
        headers: &HeaderMap,
    ) -> Result<String> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(etag) = text(ETAG.as_str()) else {
            return Err(self.error(operation, key, Fault::unreadable("it has no ETag")));
        };
        let sent: String = part.md5.iter().map(|byte| format!("{byte:02x}")).collect();
        let found = etag.trim_matches('"');
        let looks_like_md5 = found.len() == 32 && found.bytes().all(|byte| byte.is_ascii_hexdigit());
        let encrypted = text("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256")
            || text("x-amz-server-side-encryption-customer-algorithm").is_some();
        if looks_like_md5 && !encrypted && !found.eq_ignore_ascii_case(&sent) {
            let reason = format!("S3 stored other bytes than were sent: MD5 {found} instead of {sent}");
            return Err(self.error(operation, key, Fault::Unanswered { reason, transient: true }));
        }
        Ok(etag.to_owned())
    }

    fn error(&self, operation: &'static str, key: &str, fault: Fault) -> S3Error {
        S3Error { operation, place: self.place(key), fault }
    }

    /// Says what happened on the way, and where to. The signed URL must not get into the text.
    fn transport_fault(&self, problem: &ureq::Error) -> Fault {
        use std::io::ErrorKind;
        let (what, transient) = match problem {
            // rustls reports a certificate that it does not trust as invalid data: no try will change it.
            ureq::Error::Io(problem) if problem.kind() == ErrorKind::InvalidData => {
                let remedy = "S3_CA_FILE names the certificate of a private authority";
                (format!("no trusted connection: {problem}; {remedy}"), false)
            }
            ureq::Error::Io(problem) => (problem.to_string(), true),
            ureq::Error::Timeout(of) => (format!("no progress in time ({of})"), true),
            ureq::Error::HostNotFound => ("the host name cannot be resolved".into(), true),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                ("the address cannot be requested".into(), false)
            }
            ureq::Error::BodyExceedsLimit(_) => ("the answer is too long to be S3's".into(), false),
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) => (problem.to_string(), false),
            _ => (problem.to_string(), true),
        };
        let endpoint = self.bucket.base_url().origin().ascii_serialization();
        Fault::Unanswered { reason: format!("{what} (at {endpoint})"), transient }
    }
}

/// Adds the metadata to a request that makes an object. A header is printable ASCII, and its signature is of
/// single spaces
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>).
fn describe<'a>(action: &mut impl S3Action<'a>, metadata: &Metadata) {
    for (name, value) in metadata {
        let plain = value.replace(|c: char| !c.is_ascii_graphic() && c != ' ', "?");
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        action.headers_mut().insert(format!("x-amz-meta-{name}"), plain);
    }
    action.headers_mut().insert("content-type", "application/gzip");
}
