//! Which proxy leads to an endpoint (of S3, of STS, or of somebody who is told of events): the variables that curl
//! and most other programs read (<https://everything.curl.dev/usingcurl/proxies/env.html>).

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::Url;

use super::reader::Reader;
use super::text;
use crate::base::secret::Secret;
use crate::s3::Proxy;

/// The variables for an endpoint with this scheme. The first one that is set counts.
fn variables(scheme: &str) -> [&'static str; 4] {
    match scheme {
        "http" => ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
        _ => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    }
}

/// The proxy for an endpoint, if there is one. What is wrong with it becomes a problem. A proxy that is not for
/// this endpoint may be anything.
pub(super) fn of(from: &mut Reader, endpoint: &Url) -> Option<Proxy> {
    choose(endpoint, |name| from.inherited(name)).unwrap_or_else(|(name, what)| {
        from.problem(name, &what, &format!("for example {name}=http://proxy.example.com:3128"));
        None
    })
}

/// The same, or the variable and what is wrong with its value. `get` returns a variable's value.
fn choose(
    endpoint: &Url,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Option<Proxy>, (&'static str, String)> {
    let first = |names: &[&'static str]| names.iter().find_map(|name| Some((*name, get(name)?)));
    let exempt = first(&["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| is_exempt(&list, endpoint));
    let Some((variable, value)) = first(&variables(endpoint.scheme())).filter(|_| !exempt) else {
        return Ok(None);
    };
    let proxy = read(variable, &value).map_err(|problem| (variable, problem))?;
    if endpoint.scheme() == "http" && proxy.url.scheme() == "https" {
        let problem = "names an https proxy, and pgkeep takes only an http proxy to an http endpoint";
        return Err((variable, problem.into()));
    }
    Ok(Some(proxy))
}

/// Reads the address of a proxy. An error does not show it.
fn read(variable: &'static str, value: &str) -> Result<Proxy, String> {
    let value = text::trim(value).0;
    let value = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let no_address =
        "is not the address of a proxy (an @, : or / within its user or password has to be written %40, \
                      %3A or %2F)";
    let mut url = Url::parse(&value).map_err(|_| no_address)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!(
            "names a proxy of the kind {}, and pgkeep takes only http and https",
            url.scheme()
        ));
    }
    // Behind the host there may be a piece of the password.
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(no_address.into());
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
    let user = decode(url.username()).map_err(|_| no_address)?;
    let password = decode(url.password().unwrap_or_default()).map_err(|_| no_address)?;
    let credentials = (!user.is_empty() || !password.is_empty()).then(|| (user, Secret::new(password)));
    // This cannot fail: there is a host.
    let _ = (url.set_username(""), url.set_password(None));
    Ok(Proxy { variable, url, credentials })
}

/// Whether NO_PROXY contains the endpoint. Its entries are separated by commas or white space: `*` (every
/// host), a domain with all hosts in it, an IP address, or a network such as `10.0.0.0/8`. An entry with a port
/// is only for that port.
fn is_exempt(list: &str, endpoint: &Url) -> bool {
    let host = endpoint.host_str().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.');
    let address = host.parse::<IpAddr>().ok();
    let entries = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty());
    let mut entries = entries.map(split_port);
    entries.any(|(name, port)| {
        let port_fits = port.is_none() || port == endpoint.port_or_known_default();
        let host_fits = match address {
            _ if name == "*" => true,
            Some(address) => covers(name, address),
            None => is_within(host, name),
        };
        port_fits && host_fits
    })
}

/// `host:port` and `[address]:port`. An IPv6 address without brackets has no port.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if name.ends_with(']') || !name.contains(':') => (name, port.parse().ok()),
        _ => (entry, None),
    };
    (name.trim_matches(['[', ']']), port)
}

fn is_within(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.to_ascii_lowercase(), domain.to_ascii_lowercase());
    let domain = domain.trim_start_matches('*').trim_matches('.');
    !domain.is_empty()
        && host.strip_suffix(domain).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether an address or network contains the address.
fn covers(network: &str, address: IpAddr) -> bool {
    let (base, bits) = match network.split_once('/') {
        Some((base, bits)) => (base, bits.parse().ok()),
        None => (network, Some(u128::BITS)),
    };
    let (Ok(base), Some(bits)) = (base.parse(), bits) else { return false };
    let (differs, width): (u128, u32) = match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) => ((base.to_bits() ^ address.to_bits()).into(), u32::BITS),
        (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits() ^ address.to_bits(), u128::BITS),
        _ => return false,
    };
    differs.checked_shr(width - width.min(bits)).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_curl_reads_it() {
        for (list, endpoint, exempt) in [
            ("", "http://a", false),
            ("*", "http://a.b", true),
            ("x, *", "http://a.b", true),
            ("example.com", "https://example.com", true),
            ("example.com", "https://s3.EXAMPLE.com", true),
            ("EXAMPLE.com.", "https://s3.example.com", true),
            (".example.com", "https://s3.example.com", true),
            (".example.com", "https://example.com", true),
            ("*.example.com", "https://s3.example.com", true),
            ("example.com", "https://badexample.com", false),
            ("s3.example.com", "https://example.com", false),
            ("a b\tc,d", "http://c", true),
            ("a,,b", "http://b", true),
            (",.,*.", "http://b", false),
            ("minio:9000", "http://minio:9000", true),
            ("minio:9000", "http://minio:9001", false),
            ("minio:80", "http://minio", true),
            ("minio:443", "https://minio", true),
            ("10.0.0.1", "http://10.0.0.1:9000", true),
            ("10.0.0.1", "http://10.0.0.10", false),
            ("0.0.1", "http://10.0.0.1", false),
            ("10.0.0.1:9000", "http://10.0.0.1:9000", true),
            ("10.0.0.1:9001", "http://10.0.0.1:9000", false),
            ("10.0.0.0/8", "http://10.200.3.4", true),
            ("10.0.0.0/8", "http://11.0.0.1", false),
            ("192.168.1.128/25", "http://192.168.1.127", false),
            ("0.0.0.0/0", "http://11.0.0.1", true),
            ("10.0.0.0/x", "http://10.0.0.0", false),
            ("::1", "http://[::1]:9000", true),
            ("[::1]", "http://[::1]:9000", true),
            ("[::1]:9000", "http://[::1]:9000", true),
            ("[::1]:9001", "http://[::1]:9000", false),
            ("fd00::/8", "http://[fd12::1]", true),
            ("fd00::/8", "http://[fe80::1]", false),
            ("0.0.0.0/0", "http://[::1]", false),
            ("::/0", "http://[fe80::1]", true),
        ] {
            assert_eq!(is_exempt(list, &Url::parse(endpoint).unwrap()), exempt, "{list:?} {endpoint}");
        }
    }

    fn chosen(endpoint: &str, set: &[(&str, &str)]) -> Result<Option<String>, (&'static str, String)> {
        let get = |name: &str| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Ok(choose(&Url::parse(endpoint).unwrap(), get)?.map(|proxy| {
            let credentials = proxy.credentials.as_ref();
            let credentials = credentials.map(|(user, password)| format!(" {user} {}", password.expose()));
            assert!(!proxy.to_string().contains("hush"), "{proxy}");
            format!("{proxy}{}", credentials.unwrap_or_default())
        }))
    }

    #[test]
    fn the_proxy_of_the_endpoints_own_kind_is_chosen() {
        let (http, https) = ("http://minio:9000", "https://s3.example.com");
        let all = [
            ("ALL_PROXY", "http://all"),
            ("HTTP_PROXY", "plain:3128"),
            ("https_proxy", "http://me:hu%40sh@lower:3128\r\n"),
            ("HTTPS_PROXY", "http://upper"),
        ];
        let proxy = |text: &str| Ok(Some(format!("the proxy {text}")));
        assert_eq!(chosen(https, &all), proxy("http://lower:3128 of https_proxy me hu@sh"));
        assert_eq!(chosen(http, &all), proxy("http://plain:3128 of HTTP_PROXY"));
        assert_eq!(chosen(https, &all[..2]), proxy("http://all of ALL_PROXY"));
        assert_eq!(chosen(https, &all[1..2]), Ok(None));
        assert_eq!(chosen(https, &[("HTTPS_PROXY", "x"), ("NO_PROXY", "example.com")]), Ok(None));
        assert_eq!(chosen(https, &[("HTTPS_PROXY", "https://x")]), proxy("https://x of HTTPS_PROXY"));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_and_not_shown() {
        for value in [
            "socks5://me:hush@proxy",
            "http://me:pa/hush@proxy",
            "http://me:12/hush@proxy",
            "http://me:1?hush@proxy",
            "http://me:%ffhush@proxy",
            "http://",
        ] {
            let (variable, problem) =
                chosen("https://s3.example.com", &[("HTTPS_PROXY", value)]).unwrap_err();
            assert_eq!(variable, "HTTPS_PROXY", "{value}");
            assert!(!problem.contains("hush"), "{problem}");
            // Another endpoint does not care.
            assert_eq!(chosen("http://minio", &[("HTTPS_PROXY", value)]), Ok(None));
        }
        assert!(chosen("http://minio", &[("HTTP_PROXY", "https://proxy")]).is_err());
    }
}
