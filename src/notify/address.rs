//! The URL of a receiver. Whoever knows it can write to the receiver, so all of it but scheme and host is a
//! secret.

use base64::prelude::{Engine, BASE64_STANDARD};
use percent_encoding::percent_decode_str;
use ureq::http::Uri;
use url::Url;

use crate::base::secret::{Redactor, Secret, MASK};
use crate::s3::Proxy;

/// A shorter piece of a path or query is a word such as `push`, and no token.
const SHORTEST_TOKEN: usize = 8;

/// Where a receiver is. There is no `Debug` and no `Display`; [`Address::origin`] may be shown.
#[derive(Clone)]
pub struct Address {
    /// Without user and password.
    url: Secret,
    /// User and password of the URL, as a header's value.
    pub(super) authorization: Option<Secret>,
    origin: String,
    /// Masks what a receiver could repeat of the URL.
    pub(super) redactor: Redactor,
    /// The proxy on the way to it, if there is one.
    pub(super) proxy: Option<Proxy>,
}

impl Address {
    /// Reads an `http://` or `https://` URL.
    ///
    /// # Errors
    /// What is wrong with it, without a piece of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        // No Unicode tables are built in (see idna_adapter in Cargo.toml).
        if !text.is_ascii() {
            return Err(
                "is not all ASCII: write the host in its xn-- form, and the rest percent-encoded".into()
            );
        }
        let mut url = Url::parse(text).map_err(|problem| format!("is not a URL ({problem})"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err("does not begin with http:// or https:// and a host".into());
        }
        if text
            .split(['/', '?', '#'])
            .nth(2)
            .and_then(|host| host.rsplit('@').next())
            .unwrap_or("")
            .contains('%')
        {
            return Err("has a % in its host".into());
        }
        url.set_fragment(None);
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
        let named = !user.is_empty() || !password.is_empty();
        let authorization = named
            .then(|| Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))));
        // These fail only if there is no host.
        let (_, _) = (url.set_username(""), url.set_password(None));
        if url.as_str().parse::<Uri>().is_err() {
            return Err("has characters that no request can carry: write them percent-encoded".into());
        }
        let mut secrets = vec![text.to_owned(), url.to_string(), url[url::Position::BeforePath..].to_owned()];
        let segments = || url.path_segments().into_iter().flatten().filter(|segment| !segment.is_empty());
        let values = url.query_pairs().map(|(_, value)| value.into_owned());
        // A receiver may repeat them as they are written, and as it reads them.
        let pieces = segments().flat_map(|segment| [segment.to_owned(), decode(segment)]).chain(values);
        secrets.extend(pieces.filter(|piece| piece.len() >= SHORTEST_TOKEN));
        // The topic of ntfy is its password, however short.
        secrets.extend(segments().next_back().filter(|last| last.len() > 3).map(str::to_owned));
        secrets.push(password);
        // Masking the slash alone would hide nothing and break every text.
        let secrets = secrets.into_iter().filter(|secret| secret != "/").map(Secret::new);
        let origin = url.origin().ascii_serialization();
        let redactor = Redactor::new(secrets.chain(authorization.clone()));
        Ok(Address { url: Secret::new(url), authorization, origin, redactor, proxy: None })
    }

    /// The URL, to build a request's from.
    pub(super) fn url(&self) -> Url {
        Url::parse(self.url.expose()).expect("was a URL before")
    }

    /// Scheme, host and port, which are no secret.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What the log may show.
    pub fn masked(&self) -> String {
        format!("{}/{MASK}", self.origin)
    }

    /// The host's name in lower case.
    pub(super) fn host(&self) -> String {
        self.url().host_str().unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_and_host_are_shown() {
        let address =
            Address::parse("https://hooks.slack.com/services/T0SECRET/B0SECRET/hushhush?token=hushhush2")
                .unwrap();
        assert_eq!(address.masked(), "https://hooks.slack.com/***");
        let said = "no https://hooks.slack.com/services/T0SECRET/B0SECRET/hushhush?token=hushhush2 \
                    nor /services/T0SECRET/B0SECRET/hushhush?token=hushhush2 (T0SECRET, hushhush, hushhush2)";
        let clean = address.redactor.clean(said);
        assert!(!clean.contains("SECRET") && !clean.contains("hush"), "{clean}");
        // As it is written, and as it is read.
        let address = Address::parse("https://h/hush%2Dhush/x").unwrap();
        assert_eq!(address.redactor.clean("hush%2Dhush hush-hush"), "*** ***");
        // A topic is a password too, and a host alone has none.
        assert_eq!(
            Address::parse("https://ntfy.sh/shop").unwrap().redactor.clean("of shop a/b"),
            "of *** a/b"
        );
        assert_eq!(Address::parse("http://kuma:3001/").unwrap().redactor.clean("a/b"), "a/b");
    }

    #[test]
    fn user_and_password_become_a_header() {
        let address = Address::parse("http://me:h%40sh@kuma:3001/api/push/token").unwrap();
        assert_eq!(address.authorization.as_ref().unwrap().expose(), "Basic bWU6aEBzaA==");
        assert_eq!(address.url().as_str(), "http://kuma:3001/api/push/token");
        assert_eq!(address.redactor.clean("Basic bWU6aEBzaA== h@sh"), "*** ***");
    }

    #[test]
    fn what_is_no_address_is_refused_without_a_piece_of_it() {
        for text in [
            "hush",
            "ftp://host/hush",
            "https:///",
            "https://höst/hush",
            "https://h%C3%B6st/hush",
            "mailto:hush",
        ] {
            let problem = Address::parse(text).err().expect(text);
            assert!(!problem.contains("hush") && !problem.contains("höst"), "{problem}");
        }
    }

    #[test]
    fn whatever_the_url_it_is_taken_or_refused_and_nothing_of_it_is_told() {
        let seeds = [
            "https://u:HUSH@h:9000/HUSHHUSH?a=HUSHHUSH#x",
            "http://[::1]/HUSHHUSH",
            "https://ntfy.sh/%48USH",
        ];
        crate::base::fuzz::feed(&seeds, |text| match Address::parse(text) {
            Ok(address) => assert!(address.url().as_str().parse::<Uri>().is_ok()),
            Err(problem) => assert!(!problem.contains("HUSH"), "{problem}"),
        });
    }
}
