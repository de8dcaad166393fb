//! Asks a platform for credentials. No text says more of an answer than its status and the platform's own
//! code and message, because an answer contains keys.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use ureq::http::{Request, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, AsSendBody};
use url::Url;

use super::super::request::describe_failure;
use super::super::{proxy, Proxy, S3Config};
use super::{Keys, Temporary};
use crate::base::secret::{Redactor, Secret};
use crate::base::units;

/// The services beside this process answer within milliseconds. If nobody is there, this is soon known.
const NEAR_CONNECT: Duration = Duration::from_secs(2);
const NEAR: Duration = Duration::from_secs(5);
/// STS is somewhere in the region.
const FAR_CONNECT: Duration = Duration::from_secs(10);
const FAR: Duration = Duration::from_secs(30);
/// Credentials are a few kilobytes long, and so are tokens.
const LONGEST: u64 = 64 << 10;
/// At most so many bytes of a platform's own words are shown.
const LONGEST_WORDS: usize = 300;

/// Why there are no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub reason: String,
    /// Whether another try can succeed.
    pub transient: bool,
}

/// What is asked, and how far away it is.
pub(super) enum Place<'a> {
    /// On this host. No proxy of another host can reach it.
    Near,
    /// STS: of AWS, or of a private store.
    Sts { endpoint: &'a Url, private: bool, proxy: Option<&'a Proxy> },
}

impl<'a> Place<'a> {
    /// The proxy on the way to it, if there is one.
    pub fn proxy(&self) -> Option<&'a Proxy> {
        match self {
            Place::Near => None,
            Place::Sts { proxy, .. } => *proxy,
        }
    }
}

/// Sends the requests.
pub(super) struct Asker {
    authorities: Option<Arc<Vec<Certificate<'static>>>>,
}

impl Problem {
    /// Another try can succeed.
    pub fn passing(reason: impl Into<String>) -> Self {
        Problem { reason: reason.into(), transient: true }
    }

    pub fn lasting(reason: impl Into<String>) -> Self {
        Problem { reason: reason.into(), transient: false }
    }
}

impl Asker {
    pub fn new(config: &S3Config) -> Self {
        Asker { authorities: config.authorities.clone() }
    }

    /// Keys are asked for every few hours, so no connection is kept.
    fn agent(&self, place: &Place<'_>) -> Agent {
        let authorities = match place {
            Place::Sts { private: true, .. } => self.authorities.clone(),
            Place::Near | Place::Sts { .. } => None,
        };
        let roots = authorities.map_or(RootCerts::PlatformVerifier, RootCerts::Specific);
        let near = matches!(place, Place::Near);
        let config = Agent::config_builder()
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .http_status_as_error(false)
            // The answer to a redirected request would come from somebody else.
            .max_redirects(0)
            .timeout_connect(Some(if near { NEAR_CONNECT } else { FAR_CONNECT }))
            .timeout_global(Some(if near { NEAR } else { FAR }))
            .max_idle_connections(0)
            .user_agent(concat!("pgkeep/", env!("CARGO_PKG_VERSION")));
        match place {
            Place::Near => config.proxy(None).build().new_agent(),
            Place::Sts { endpoint, proxy, .. } => proxy::agent(*proxy, endpoint, config),
        }
    }

    /// Status and text of an answer.
    pub fn send(
        &self,
        place: &Place<'_>,
        request: Request<impl AsSendBody>,
    ) -> Result<(u16, String), Problem> {
        let on_the_way = |(what, transient)| {
            let way = place.proxy().map_or(String::new(), |proxy| format!(" (through {proxy})"));
            Problem { reason: format!("{what}{way}"), transient }
        };
        let problem = |problem: ureq::Error| {
            let of_proxy = proxy::unanswered(place.proxy(), &problem);
            on_the_way(of_proxy.unwrap_or_else(|| describe_failure(&problem)))
        };
        let mut answer = self.agent(place).run(request).map_err(problem)?;
        if let Some(proxy) =
            place.proxy().filter(|_| answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED)
        {
            return Err(on_the_way(proxy.refusal(answer.status().as_u16())));
        }
        let text = answer.body_mut().with_config().limit(LONGEST).read_to_vec().map_err(problem)?;
        Ok((answer.status().as_u16(), String::from_utf8_lossy(&text).into_owned()))
    }
}

/// A refusal, by its status and a few words of the platform's, without `secrets`.
pub(super) fn refusal(status: u16, words: &str, secrets: impl IntoIterator<Item = Secret>) -> Problem {
    let words = units::shortened(Redactor::new(secrets).clean(words.trim()), LONGEST_WORDS);
    let separator = if words.is_empty() { "" } else { ": " };
    let transient = matches!(status, 408 | 429 | 500..=599);
    Problem { reason: format!("it answers {status}{separator}{}", units::printable(&words)), transient }
}

/// The content of a file that the platform replaces from time to time.
pub(super) fn read_token(path: &Path, variable: &str) -> Result<Secret, Problem> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    let problem = match read {
        Ok(_) if text.trim().is_empty() => "is empty".to_owned(),
        Ok(_) => return Ok(Secret::new(text.trim())),
        Err(problem) => format!("cannot be read: {problem}"),
    };
    // It may be about to be replaced.
    Err(Problem::passing(format!("{}, which {variable} names, {problem}", path.display())))
}

/// Reads the JSON that container agents and the instance metadata answer with.
pub(super) fn read_json(text: &str) -> Result<Temporary, Problem> {
    let lacks = |what: &str| Problem::lasting(format!("its answer is not credentials: {what}"));
    let answer: Value = serde_json::from_str(text).map_err(|_| lacks("it is not JSON"))?;
    let field = |name: &str| {
        let text = answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.ok_or_else(|| lacks(&format!("it has no {name}")))
    };
    if let Some(code) = answer.get("Code").and_then(Value::as_str).filter(|code| *code != "Success") {
        let words = units::printable(&units::shortened(code.to_owned(), LONGEST_WORDS));
        return Err(Problem::passing(format!("it says {words}")));
    }
    read(field("AccessKeyId")?, field("SecretAccessKey")?, field("Token")?, field("Expiration")?)
}

/// Keys and the time at which they expire.
pub(super) fn read(id: &str, secret: &str, token: &str, expires: &str) -> Result<Temporary, Problem> {
    let time = DateTime::parse_from_rfc3339(expires.trim());
    let expires: DateTime<Utc> =
        time.map_err(|_| Problem::lasting("its answer is not credentials: Expiration is no time"))?.to_utc();
    let keys = Keys {
        access_key: id.to_owned(),
        secret_key: Secret::new(secret),
        session_token: Some(Secret::new(token)),
    };
    Ok(Temporary { keys, expires })
}
