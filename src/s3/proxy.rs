//! A proxy on the way to an endpoint: of S3, of STS, or of somebody who is told of events.
//!
//! To an https endpoint it opens a tunnel (CONNECT). ureq does this. To an http endpoint it forwards requests
//! that name their whole URL
//! (<https://www.rfc-editor.org/rfc/rfc9112.html#name-absolute-form>): many proxies open no tunnel to such a
//! port. ureq does not do this, so here a transport changes the first line of its requests.

use std::fmt;

use base64::prelude::{Engine, BASE64_STANDARD};
use ureq::config::{Config, ConfigBuilder};
use ureq::http::Uri;
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};
use ureq::{Agent, Error, ProxyProtocol};
use url::Url;

use crate::base::secret::Secret;

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    /// `http://host:port` or `https://host:port`.
    pub url: Url,
    /// Its user and password, if it wants them.
    pub credentials: Option<(String, Secret)>,
}

/// The words for messages. They contain neither user nor password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the proxy {} of {}", self.url.origin().ascii_serialization(), self.variable)
    }
}

/// The HTTP client for an endpoint, through the proxy if there is one. A proxy to an http endpoint gets one
/// request on each connection.
pub fn agent(proxy: Option<&Proxy>, endpoint: &Url, config: ConfigBuilder<AgentScope>) -> Agent {
    match proxy {
        Some(proxy) if endpoint.scheme() == "http" => {
            let config = config.proxy(None).max_idle_connections(0).max_idle_connections_per_host(0);
            proxy.forwarding(config.build(), endpoint)
        }
        // Without this, ureq looks into the environment itself.
        _ => config.proxy(proxy.and_then(Proxy::tunnel)).build().new_agent(),
    }
}

/// What the proxy, if there is one, has to do with a request that has no answer, and whether another try can
/// succeed.
pub fn unanswered(proxy: Option<&Proxy>, problem: &Error) -> Option<(String, bool)> {
    match problem {
        Error::HostNotFound => proxy.map(|_| ("the proxy's host name cannot be resolved".into(), true)),
        Error::ConnectProxyFailed(reason) => Some(proxy?.no_tunnel(reason)),
        _ => None,
    }
}

/// ` through the proxy …`, if there is one.
pub fn through(proxy: Option<&Proxy>) -> String {
    proxy.map_or(String::new(), |proxy| format!(" through {proxy}"))
}

impl Proxy {
    /// The proxy as ureq knows it, for tunnels.
    fn tunnel(&self) -> Option<ureq::Proxy> {
        let kind = if self.url.scheme() == "https" { ProxyProtocol::Https } else { ProxyProtocol::Http };
        let mut proxy = ureq::Proxy::builder(kind).host(self.url.host_str()?);
        if let Some(port) = self.url.port_or_known_default() {
            proxy = proxy.port(port);
        }
        if let Some((user, password)) = &self.credentials {
            proxy = proxy.username(user).password(password.expose());
        }
        proxy.build().ok()
    }

    /// An HTTP client whose requests the proxy forwards to `endpoint`. No connection may be used twice.
    fn forwarding(&self, config: Config, endpoint: &Url) -> Agent {
        let authorization = self.authorization();
        let authorization =
            authorization.map(|basic| format!("proxy-authorization: Basic {}\r\n", basic.expose()));
        let forward = Forward {
            origin: endpoint.origin().ascii_serialization(),
            authorization: Secret::new(authorization.unwrap_or_default()),
        };
        let resolver =
            Instead { proxy: self.url.as_str().parse().ok(), resolver: DefaultResolver::default() };
        Agent::with_parts(config, ().chain(TcpConnector::default()).chain(forward), resolver)
    }

    /// User and password as they are sent.
    fn authorization(&self) -> Option<Secret> {
        let (user, password) = self.credentials.as_ref()?;
        Some(Secret::new(BASE64_STANDARD.encode(format!("{user}:{}", password.expose()))))
    }

    /// What no message may contain.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> + '_ {
        let password = self.credentials.as_ref().map(|(_, password)| password.clone());
        [password, self.authorization()].into_iter().flatten()
    }

    /// What its refusal means, and whether another try can succeed.
    pub fn refusal(&self, status: u16) -> (String, bool) {
        let variable = self.variable;
        match status {
            407 => {
                let how = if self.credentials.is_some() { "another" } else { "a" };
                let what = format!(
                    "the proxy wants {how} user and password (407): {variable}=http://user:password@host:port"
                );
                (what, false)
            }
            400..=499 => {
                let what = format!(
                    "the proxy refuses ({status}): it has to allow connections to the endpoint, or NO_PROXY has to \
                     name the endpoint's host"
                );
                (what, false)
            }
            _ => (format!("the proxy cannot reach the endpoint ({status})"), true),
        }
    }

    /// What ureq says of a tunnel that was not opened, such as `proxy server responded 407/407`.
    fn no_tunnel(&self, reason: &str) -> (String, bool) {
        let status = reason.split(|c: char| !c.is_ascii_digit()).find_map(|number| number.parse().ok());
        status.map_or_else(|| (reason.to_owned(), true), |status| self.refusal(status))
    }
}

/// Connects to the proxy, whatever is asked for.
#[derive(Debug)]
struct Instead {
    proxy: Option<Uri>,
    resolver: DefaultResolver,
}

impl Resolver for Instead {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        self.resolver.resolve(self.proxy.as_ref().ok_or(Error::InvalidProxyUrl)?, config, timeout)
    }
}

/// What is added to the head of a request.
#[derive(Clone, Debug)]
struct Forward {
    /// Goes before the path.
    origin: String,
    /// Goes behind the first line.
    authorization: Secret,
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(&self, _: &ConnectionDetails, connection: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(connection.map(|connection| Forwarded { connection, head: Some(self.clone()) }))
    }
}

/// A connection to the proxy, for a single request.
#[derive(Debug)]
struct Forwarded<In> {
    connection: In,
    /// Until the head is sent.
    head: Option<Forward>,
}

impl<In: Transport> Transport for Forwarded<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.connection.buffers()
    }

    fn transmit_output(&mut self, mut amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // A head is much shorter than the buffer, so the first piece contains all of it.
        if let Some(forward) = self.head.take() {
            let output = self.connection.buffers().output();
            let head = forward.head(&output[..amount]).ok_or(Error::InvalidProxyUrl)?;
            amount = head.len();
            output.get_mut(..amount).ok_or(Error::InvalidProxyUrl)?.copy_from_slice(&head);
        }
        self.connection.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.connection.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.connection.is_open()
    }
}

impl Forward {
    /// The head of a request as the proxy needs it.
    fn head(&self, head: &[u8]) -> Option<Vec<u8>> {
        let path = head.iter().position(|byte| *byte == b' ')? + 1;
        let fields = head.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let authorization = self.authorization.expose().as_bytes();
        Some(
            [&head[..path], self.origin.as_bytes(), &head[path..fields], authorization, &head[fields..]]
                .concat(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::shutdown::Shutdown;
    use crate::s3::{Client, S3Config};

    #[test]
    fn what_a_proxy_repeats_shows_neither_the_password_nor_what_was_sent() {
        let url = "http://proxy:3128".parse().unwrap();
        let credentials = Some(("me".to_owned(), Secret::new("hush")));
        let mut config = S3Config::of_a_test(9);
        config.proxy = Some(Proxy { variable: "HTTP_PROXY", url, credentials });
        let page = format!("Authorization: Basic {}, which is hush", BASE64_STANDARD.encode("me:hush"));
        let shown = Client::new(&config, Shutdown::default()).keyring.redactor().clean(&page);
        assert_eq!(shown, "Authorization: Basic ***, which is ***");
    }
}
