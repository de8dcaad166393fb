//! One request: it is signed and sent, its answer is read, and it is tried again.

use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::prelude::{Engine, BASE64_STANDARD};
use chrono::{DateTime, Utc};
use log::debug;
use md5::{Digest, Md5};
use rusty_s3::{Credentials, S3Action};
use ureq::http::header::{CONTENT_LENGTH, DATE, EXPECT, LOCATION, RETRY_AFTER};
use ureq::http::request::Builder;
use ureq::http::{HeaderMap, Request, Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody, SendBody, Timeout};

use super::limits::{Limit, Limits};
use super::{download, proxy, strange, Client, Fault, Metadata, Part, Result, S3Config, S3Error};
use crate::base::retry::Policy;
use crate::base::shutdown::Shutdown;

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

type Answered = std::result::Result<Response<ureq::Body>, ureq::Error>;

/// A body on its way. A forced stop breaks it off, so that no object appears which nobody waits for.
struct Sending<'a> {
    source: &'a mut dyn Read,
    shutdown: &'a Shutdown,
    begun: bool,
}

impl Read for Sending<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.shutdown.forced().is_some() {
            return Err(io::Error::other("stopped by a signal"));
        }
        self.begun = true;
        self.source.read(buffer)
    }
}

/// Whether a request failed because it asked first. A server may say so (RFC 9110, 10.1.1). A proxy may close
/// the connection before it wants any of the body.
fn is_of_expect(answer: &Answered, begun: bool) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match answer {
        Ok(answer) => answer.status() == StatusCode::EXPECTATION_FAILED,
        Err(ureq::Error::Io(problem)) => {
            let closed = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
            !begun && closed.contains(&problem.kind())
        }
        Err(_) => false,
    }
}

/// The HTTP client, with its limits.
pub(super) fn agent(config: &S3Config) -> Agent {
    let roots = config.authorities.clone().map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
    let endpoint = config.bucket.base_url();
    let built = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .http_status_as_error(false)
        // A redirected PUT cannot be sent again, and a signature is for one host.
        .max_redirects(0)
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        // A download's next ranges reuse the connections of earlier ranges.
        .max_idle_connections(download::AT_ONCE)
        .max_idle_connections_per_host(download::AT_ONCE)
        .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")));
    proxy::agent(config.proxy.as_ref(), endpoint, built)
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
        let body = String::from_utf8_lossy(&text).into_owned();
        if strange::is_html(&body) {
            return Err(self.error(operation, key, Fault::unreadable(strange::IS_HTML)));
        }
        Ok(Answer { headers: answer.headers().clone(), body })
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
        if let Some(md5) = md5 {
            action.headers_mut().insert("content-md5", BASE64_STANDARD.encode(md5));
        }
        let signed: Vec<_> = action.headers_mut().iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        let send = |expect: bool| {
            let mut request = Request::builder().method(A::METHOD.to_str());
            if md5.is_some() {
                // If no length is given, the body is sent in chunks, and S3 does not accept those.
                request = request.header(CONTENT_LENGTH, length);
            }
            for (name, value) in &signed {
                request = request.header(name.as_str(), value.as_str());
            }
            if expect {
                request = request.header(EXPECT, "100-continue");
            }
            self.transmit(request.uri(action.sign(SIGNATURE_VALIDITY).as_str()), body, limit)
        };
        let expect = length >= EXPECT_FROM && !self.learned.without_expect.load(Ordering::Relaxed);
        let (mut answer, begun) = send(expect);
        if expect && is_of_expect(&answer, begun) {
            debug!("{operation} {}: sent once more without Expect: 100-continue", self.place(key));
            answer = send(false).0;
            self.learned.without_expect.fetch_or(answer.is_ok(), Ordering::Relaxed);
        }
        let mut answer =
            answer.map_err(|problem| self.error(operation, key, self.transport_fault(&problem)))?;
        let status = answer.status();
        debug!("{operation} {}: {status}", self.place(key));
        if !status.is_success() {
            let retry_after =
                answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let text = self.read_refusal(&mut answer);
            if let Some(proxy) = self.proxy.as_ref().filter(|_| status.as_u16() == 407) {
                let (what, transient) = proxy.refusal(407);
                return Err(self.error(operation, key, self.unanswered(&what, transient)));
            }
            let retry_after = retry_after.map(Duration::from_secs);
            let fault = Fault::refused(status.as_u16(), retry_after, &text, &self.keyring.redactor());
            if fault.code() == Some("ExpiredToken") && self.keyring.have_expired() {
                let reason = format!("S3 says that the platform's credentials have expired ({status})");
                return Err(self.error(operation, key, Fault::NoCredentials { reason, transient: true }));
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let asked = self.bucket.base_url().as_str();
            let remedy = strange::remedy(status.as_u16(), asked, location, &text);
            return Err(self.error(operation, key, fault.with_remedy(remedy)));
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

    /// Sends the request with its body. Also returns whether any of the body was sent.
    fn transmit(&self, request: Builder, body: &Body<'_>, limit: Limit) -> (Answered, bool) {
        let (mut bytes, mut part);
        let source: &mut dyn Read = match body {
            Body::None => return (self.run(request, (), limit), false),
            Body::Bytes(all) => {
                bytes = *all;
                &mut bytes
            }
            Body::Part(all) => {
                part = all.reader();
                &mut part
            }
        };
        let mut sending = Sending { source, shutdown: &self.shutdown, begun: false };
        let answer = self.run(request, SendBody::from_reader(&mut sending), limit);
        (answer, sending.begun)
    }

    pub(super) fn run(&self, request: Builder, body: impl AsSendBody, limit: Limit) -> Answered {
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

    /// What to sign a request with. Keys may expire, so each try asks for them anew.
    pub(super) fn keys(&self, operation: &'static str, key: &str) -> Result<Credentials> {
        self.keyring.current().map_err(|fault| self.error(operation, key, fault))
    }

    pub(super) fn error(&self, operation: &'static str, key: &str, fault: Fault) -> S3Error {
        let thaw = (operation == "GetObject" && fault.code() == Some("InvalidObjectState")).then(|| {
            let endpoint =
                self.endpoint().map_or(String::new(), |url| format!(" --endpoint-url '{}'", url.as_str()));
            format!(
                "it is in an archive, and has to be restored from there first, which may take hours: \
                 aws s3api restore-object{endpoint} --region {} --bucket {} --key {key} --restore-request Days=7",
                self.region(),
                self.bucket.name()
            )
        });
        let fault = fault.with_remedy(thaw);
        S3Error { operation, place: self.place(key), fault: fault.presentable(&self.keyring.redactor()) }
    }

    /// Says what happened on the way, and where to. The signed URL must not appear in the text.
    pub(super) fn transport_fault(&self, problem: &ureq::Error) -> Fault {
        let (what, transient) = match problem {
            // rustls reports a certificate that it does not trust as invalid data. No other try can change
            // that.
            ureq::Error::Io(problem) if problem.kind() == io::ErrorKind::InvalidData => {
                let host = self.bucket.base_url().host_str().unwrap_or_default();
                let remedy = strange::tls_remedy(&problem.to_string(), host, self.bucket.name());
                (format!("no trusted connection: {problem}; {remedy}"), false)
            }
            // A TLS alert is no line of HTTP.
            ureq::Error::Protocol(_)
                if self.bucket.base_url().scheme() == "http"
                    && problem.to_string().contains("invalid HTTP version") =>
            {
                let means = "a port that speaks TLS answers so, and then S3_URL has to begin with https://";
                (format!("the answer is no HTTP: {means}"), true)
            }
            _ => proxy::unanswered(self.proxy.as_ref(), problem).unwrap_or_else(|| describe_failure(problem)),
        };
        self.unanswered(&what, transient)
    }

    /// There is no answer of S3's. The places where something may be wrong are named.
    fn unanswered(&self, what: &str, transient: bool) -> Fault {
        let endpoint = self.bucket.base_url().origin().ascii_serialization();
        let through = proxy::through(self.proxy.as_ref());
        Fault::Unanswered { reason: format!("{what} (at {endpoint}{through})"), transient }
    }
}

/// What happened to a request that has no answer, and whether another try can succeed. The text does not show
/// the address, which may be signed.
pub(super) fn describe_failure(problem: &ureq::Error) -> (String, bool) {
    match problem {
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

#[cfg(test)]
mod tests;
