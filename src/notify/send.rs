//! One request to a receiver, and what comes back.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::time::Duration;

use ureq::http::header::{HeaderName, HeaderValue, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use ureq::http::{self, Method, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::Agent;
use url::Url;

use super::news::Kind;
use super::Address;
use crate::base::logging::one_line;
use crate::base::retry::{Policy, Retryable};
use crate::base::secret::{Redactor, Secret};
use crate::base::units;
use crate::s3::{proxy, Proxy};

/// For a whole try, from the host's name to the answer's end.
const TRY: Duration = Duration::from_secs(10);
/// No more of an answer is read.
const LONGEST_ANSWER: u64 = 4 << 10;
/// So much of an answer is shown.
const SHOWN: usize = 200;

/// A shorter value of a header is a number or a word.
const SHORTEST_SECRET: usize = 4;

const TRIES: Policy =
    Policy { tries: 3, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(10) };

/// Headers of the user's. Their values are secrets.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// What a request sends.
pub(super) enum Body {
    None,
    Text(String),
    Json(String),
}

/// A request that waits to be sent.
pub(super) struct Request {
    /// With the receiver's tokens.
    pub url: Secret,
    pub kind: Kind,
    pub body: Body,
}

impl Request {
    pub fn new(url: Url, kind: Kind, body: Body) -> Self {
        Request { url: Secret::new(url), kind, body }
    }
}

/// Sends requests to one receiver.
pub(super) struct Sender {
    agent: Agent,
    /// `the webhook at https://hooks.slack.com`
    pub name: String,
    authorization: Option<HeaderValue>,
    headers: Headers,
    redactor: Redactor,
    proxy: Option<Proxy>,
    says_no: fn(&str) -> bool,
}

/// A try that failed.
pub(super) struct Fault {
    text: String,
    transient: bool,
    retry_after: Option<Duration>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Retryable for Fault {
    fn is_transient(&self) -> bool {
        self.transient
    }
    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl Sender {
    /// `what` is the receiver, and `says_no` finds a refusal in the text of an answer with a good status.
    pub fn new(what: &str, address: &Address, headers: Headers, says_no: fn(&str) -> bool) -> Self {
        let header = |secret: &Secret| {
            let mut value = HeaderValue::from_str(secret.expose()).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let values = headers.iter().filter_map(|(_, value)| value.to_str().ok());
        // The token is behind `Bearer`.
        let secrets = values.flat_map(|value| [value, value.rsplit(' ').next().unwrap_or_default()]);
        let redactor = secrets
            .filter(|secret| secret.len() >= SHORTEST_SECRET)
            .map(Secret::new)
            .chain(address.proxy.iter().flat_map(Proxy::secrets))
            .fold(address.redactor.clone(), |redactor, secret| redactor.and(Some(&secret)));
        Sender {
            agent: agent(address),
            name: format!("the {what} at {}", address.origin()),
            authorization: address.authorization.as_ref().and_then(header),
            headers,
            redactor,
            proxy: address.proxy.clone(),
            says_no,
        }
    }

    /// Sends a request, up to three times. Failed tries but the last are logged.
    pub fn send(&self, request: &Request) -> Result<String, Fault> {
        TRIES.run(
            |wait| {
                std::thread::sleep(wait);
                true
            },
            || self.try_once(request),
        )
    }

    /// Sends a request once. Returns what came back.
    pub fn try_once(&self, request: &Request) -> Result<String, Fault> {
        let method = if matches!(request.body, Body::None) { Method::GET } else { Method::POST };
        let mut builder = http::Request::builder().method(method).uri(request.url.expose());
        let content_type = match &request.body {
            Body::None => None,
            Body::Text(_) => Some("text/plain; charset=utf-8"),
            Body::Json(_) => Some("application/json"),
        };
        let own = |name: &HeaderName| self.headers.iter().any(|(known, _)| known == name);
        if let Some(content_type) = content_type.filter(|_| !own(&CONTENT_TYPE)) {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = self.authorization.clone().filter(|_| !own(&AUTHORIZATION)) {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let answer = match &request.body {
            Body::None => builder.body(()).map_err(ureq::Error::Http).and_then(|it| self.agent.run(it)),
            Body::Text(text) | Body::Json(text) => {
                builder.body(text.as_str()).map_err(ureq::Error::Http).and_then(|it| self.agent.run(it))
            }
        };
        let mut answer = answer.map_err(|problem| self.unanswered(&problem))?;
        if let Some(proxy) =
            self.proxy.as_ref().filter(|_| answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        {
            return Err(self.no_answer(proxy.refusal(answer.status().as_u16())));
        }
        let mut bytes = Vec::new();
        // It may break off or never end, but the status says enough.
        let _ = answer.body_mut().as_reader().take(LONGEST_ANSWER).read_to_end(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let status = answer.status();
        let shown = one_line(self.redactor.clean(&text).trim());
        let shown = format!("{status}: {}", units::shortened(shown, SHOWN));
        let shown = shown.trim_end_matches([':', ' ']);
        if status.is_success() && !(self.says_no)(&text) {
            return Ok(shown.to_owned());
        }
        let remedy = match status.as_u16() {
            300..400 => " (a redirect is not followed: name the address that it leads to)",
            _ => "",
        };
        let retry_after =
            answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Err(Fault {
            text: format!("{} answered {shown}{remedy}", self.name),
            transient: status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429),
            retry_after: retry_after.map(Duration::from_secs),
        })
    }

    /// Says what happened on the way. The URL must not appear in the text.
    fn unanswered(&self, problem: &ureq::Error) -> Fault {
        if let Some(of_proxy) = proxy::unanswered(self.proxy.as_ref(), problem) {
            return self.no_answer(of_proxy);
        }
        self.no_answer(match problem {
            // rustls reports a certificate that it does not trust as invalid data.
            ureq::Error::Io(problem) if problem.kind() == ErrorKind::InvalidData => {
                (format!("no trusted connection: {problem}"), false)
            }
            ureq::Error::Io(problem) => (problem.to_string(), true),
            ureq::Error::Timeout(_) => (format!("no answer within {}", units::duration(TRY)), true),
            ureq::Error::HostNotFound => ("the host name cannot be resolved".to_owned(), true),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                ("the address cannot be requested".to_owned(), false)
            }
            _ => (self.redactor.clean(&problem.to_string()), true),
        })
    }

    fn no_answer(&self, (what, transient): (String, bool)) -> Fault {
        let way = proxy::through(self.proxy.as_ref());
        Fault { text: format!("{} did not answer{way}: {what}", self.name), transient, retry_after: None }
    }
}

/// The HTTP client.
fn agent(address: &Address) -> Agent {
    let config = Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .http_status_as_error(false)
        // The address that a redirect names was not configured, and would learn the headers' secrets.
        .max_redirects(0)
        .timeout_global(Some(TRY))
        // News are rare.
        .max_idle_connections(0)
        .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")));
    proxy::agent(address.proxy.as_ref(), &address.url(), config)
}
