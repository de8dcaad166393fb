//! One request: it is signed and sent, its answer is read, and it is tried again.

use std::io::Read;
use std::time::{Duration, Instant};

use base64::prelude::{Engine, BASE64_STANDARD};
use chrono::{DateTime, Utc};
use log::debug;
use md5::{Digest, Md5};
use rusty_s3::{Credentials, S3Action};
use ureq::http::header::{CONTENT_LENGTH, DATE, ETAG, EXPECT, RETRY_AFTER};
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request, Response};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, SendBody, Timeout};

use super::limits::{Limit, Limits};
use super::{download, Client, Fault, Metadata, Part, Result, S3Config, S3Error};
use crate::base::retry::Policy;

/// How long a signature is valid. The time counts from the beginning of a request until S3 checks the
/// signature. A signature by keys that expire ends with them, even if that is earlier.
const SIGNATURE_VALIDITY: Duration = Duration::from_secs(3600);
/// For a connection, and also for resolving a name.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From this size on, S3 is asked whether it takes a body before the body is sent. If a refusal arrives while
/// a body is being sent, the refusal is lost with the connection.
const EXPECT_FROM: u64 = 64 * 1024;
/// Several times the size of a listing of 1,000 keys with 1,024 bytes each.
const LONGEST_ANSWER: u64 = 8 << 20;
/// An error document has a few hundred bytes. A longer page of a proxy says nothing more.
const LONGEST_REFUSAL: u64 = 64 << 10;

pub(super) const RETRIES: Policy =
    Policy { tries: 5, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(60) };

/// What a request sends.
pub(super) enum Body<'a> {
    None,
    Bytes(&'a [u8]),
    Part(&'a Part),
}

/// An answer that was read to its end.
pub(super) struct Answer {
    pub headers: HeaderMap,
    pub body: String,
}

/// The HTTP client, with its limits.
pub(super) fn agent(config: &S3Config) -> Agent {
    let roots = config.authorities.clone().map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
    Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .http_status_as_error(false)
        // A redirected PUT cannot be sent again, and a signature is for one host.
        .max_redirects(0)
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        // A download's next ranges reuse the connections of earlier ranges.
        .max_idle_connections(download::AT_ONCE)
        .max_idle_connections_per_host(download::AT_ONCE)
        .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

impl Client {
    pub(super) fn retry<T>(&self, attempt: impl FnMut() -> Result<T>) -> Result<T> {
        self.retries.run(|wait| self.shutdown.sleep_unless_forced(wait), attempt)
    }

    /// Signs and sends one request, and reads the answer to its end, so that the connection can be reused.
    pub(super) fn send<'a, A: S3Action<'a>>(
        &self,
        limit: Limit,
        operation: &'static str,
        key: &str,
        action: A,
        body: &Body<'_>,
    ) -> Result<Answer> {
        let mut answer = self.exchange(limit, operation, key, action, body)?;
        let text = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        let text = text.map_err(|problem| self.error(operation, key, self.transport_fault(&problem)))?;
        Ok(Answer { headers: answer.headers().clone(), body: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Signs and sends one request, and returns an answer that is a success. The body is not yet read.
    /// Whoever reads it has to make sure that it ends.
    pub(super) fn request<'a, A: S3Action<'a>>(
        &self,
        operation: &'static str,
        key: &str,
        action: A,
        body: &Body<'_>,
    ) -> Result<Response<ureq::Body>> {
        self.exchange(self.limits.download(), operation, key, action, body)
    }

    /// Sends a request. Only the action's own headers are signed.
    fn exchange<'a, A: S3Action<'a>>(
        &self,
        limit: Limit,
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
            // If no length is given, the body is sent in chunks, and S3 does not accept those.
            request = request.header(CONTENT_LENGTH, length);
        }
        for (name, value) in action.headers_mut().iter() {
            request = request.header(name, value);
        }
        if length >= EXPECT_FROM {
            request = request.header(EXPECT, "100-continue");
        }
        let request = request.uri(action.sign(SIGNATURE_VALIDITY).as_str());
        let answer = match body {
            Body::None => self.run(request, (), limit),
            Body::Bytes(bytes) => self.run(request, *bytes, limit),
            Body::Part(part) => self.run(request, SendBody::from_reader(&mut part.reader()), limit),
        };
        let mut answer =
            answer.map_err(|problem| self.error(operation, key, self.transport_fault(&problem)))?;
        let status = answer.status();
        debug!("{operation} {}: {status}", self.place(key));
        if !status.is_success() {
            let retry_after =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let text = self.read_refusal(&mut answer);
            let mut fault = Fault::refused(status.as_u16(), retry_after.map(Duration::from_secs), &text);
            if matches!(&fault, Fault::Refused { code, .. } if code == "ExpiredToken")
                && self.keyring.have_expired()
            {
                let reason = format!("S3 says that the platform's credentials have expired ({status})");
                fault = Fault::NoCredentials { reason, transient: true };
            }
            return Err(self.error(operation, key, fault));
        }
        Ok(answer)
    }

    /// Reads what there is of a refusal's text. It may break off or come very slowly, but the status says
    /// enough.
    fn read_refusal(&self, answer: &mut Response<ureq::Body>) -> String {
        let started = Instant::now();
        let mut reader = answer.body_mut().as_reader().take(LONGEST_REFUSAL);
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        while started.elapsed() < self.limits.small {
            match reader.read(&mut buffer) {
                Ok(read @ 1..) => text.extend_from_slice(&buffer[..read]),
                _ => break,
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(super) fn run(
        &self,
        request: Builder,
        body: impl AsSendBody,
        limit: Limit,
    ) -> std::result::Result<Response<ureq::Body>, ureq::Error> {
        let Limits { stall, small, .. } = self.limits;
        let request = self
            .agent
            .configure_request(request.body(body)?)
            .timeout_per_read(Some(limit.silence))
            .timeout_per_write(Some(stall))
            .timeout_recv_response(Some(limit.total.unwrap_or(small)))
            .timeout_global(limit.total);
        self.agent.run(request.build())
    }

    /// The ETag of an unencrypted object or part is its MD5
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>). If it can be compared, it is.
    pub(super) fn check_etag(
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

    /// What to sign a request with. Keys may expire, so each try asks for them anew.
    pub(super) fn keys(&self, operation: &'static str, key: &str) -> Result<Credentials> {
        self.keyring.current().map_err(|fault| self.error(operation, key, fault))
    }

    pub(super) fn error(&self, operation: &'static str, key: &str, fault: Fault) -> S3Error {
        S3Error { operation, place: self.place(key), fault: fault.presentable(&self.keyring.redactor()) }
    }

    /// Says what happened on the way, and where to. The signed URL must not appear in the text.
    pub(super) fn transport_fault(&self, problem: &ureq::Error) -> Fault {
        let (what, transient) = describe_failure(problem);
        let endpoint = self.bucket.base_url().origin().ascii_serialization();
        Fault::Unanswered { reason: format!("{what} (at {endpoint})"), transient }
    }
}

/// What happened to a request that has no answer, and whether another try can succeed. The text does not show
/// the address, which may be signed.
pub(super) fn describe_failure(problem: &ureq::Error) -> (String, bool) {
    use std::io::ErrorKind;
    match problem {
        // rustls reports a certificate that it does not trust as invalid data. No other try can change
        // that.
        ureq::Error::Io(problem) if problem.kind() == ErrorKind::InvalidData => {
            let remedy = "S3_CA_FILE names the certificate of a private authority";
            (format!("no trusted connection: {problem}; {remedy}"), false)
        }
        ureq::Error::Io(problem) => (problem.to_string(), true),
        ureq::Error::Timeout(Timeout::Global) => {
            ("it takes longer than a request of its size may".into(), true)
        }
        ureq::Error::Timeout(of) => (format!("no progress in time ({of})"), true),
        ureq::Error::HostNotFound => ("the host name cannot be resolved".into(), true),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => ("the address cannot be requested".into(), false),
        ureq::Error::BodyExceedsLimit(_) => ("the answer is too long to be S3's".into(), false),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => (problem.to_string(), false),
        _ => (problem.to_string(), true),
    }
}

/// The time at S3, from the headers of an answer.
pub(super) fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let date = headers.get(DATE)?.to_str().ok()?;
    Some(DateTime::parse_from_rfc2822(date).ok()?.to_utc())
}

/// Adds the metadata to a request that makes an object. A header is printable ASCII, and its signature needs
/// single spaces
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>).
pub(super) fn describe<'a>(action: &mut impl S3Action<'a>, metadata: &Metadata) {
    for (name, value) in metadata {
        let plain = value.replace(|c: char| !c.is_ascii_graphic() && c != ' ', "?");
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        action.headers_mut().insert(format!("x-amz-meta-{name}"), plain);
    }
    action.headers_mut().insert("content-type", "application/gzip");
}
