//! Both forms of a connection string, read as libpq reads them. An error never quotes the string.

use super::keywords::KNOWN;
use super::ESCAPE;

type Settings = Vec<(String, String)>;

/// The text after the scheme, if this is a URI.
pub(super) fn behind_scheme(text: &str) -> Option<&str> {
    ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme))
}

/// Returns keywords and values in their order.
///
/// # Errors
/// The text has neither form.
pub(super) fn settings(text: &str) -> Result<Settings, String> {
    match behind_scheme(text) {
        Some(rest) => parse_uri(rest.trim_end()),
        // A value may contain it too.
        None if text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('=')) => {
            Err("it is a URI, but not of PostgreSQL: it has to begin with postgresql://".into())
        }
        None if !text.contains('=') => Err("it is neither a URI nor a keyword/value string".into()),
        None => parse_keywords(text),
    }
}

/// Reads the text after the scheme, cut where libpq's `conninfo_uri_parse_options` cuts it:
/// `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`.
fn parse_uri(rest: &str) -> Result<Settings, String> {
    let mut settings = Vec::new();
    let mut add = |keyword: &str, raw: &str| -> Result<(), String> {
        if !raw.is_empty() {
            settings.push((keyword.to_owned(), percent_decode(raw, keyword)?));
        }
        Ok(())
    };

    // The first @ before any / ends the user: an @ inside a password has to be written %40.
    let user_end = rest.find(['@', '/']).filter(|&at| rest[at..].starts_with('@'));
    let rest = match user_end {
        Some(at) => {
            let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
            add("user", user)?;
            add("password", password)?;
            &rest[at + 1..]
        }
        None => rest,
    };

    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // Both are shown in messages. A parameter may contain an @, because it has a keyword.
    if [authority, database].iter().any(|part| part.contains('@')) {
        return Err(format!(
            "an @ stands in its host or database, and may be a piece of the password; {ESCAPE}"
        ));
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in authority.split(',') {
        let (host, port) = match place.strip_prefix('[') {
            Some(inside) => {
                let (host, behind) = inside
                    .split_once(']')
                    .ok_or("the [ of an IPv6 address has no ] before the next / or ?")?;
                let port = match behind {
                    "" => "",
                    _ => behind.strip_prefix(':').ok_or("only :PORT can follow the ] of an IPv6 address")?,
                };
                (host, port)
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(format!("a port is not a number from 1 to 65535; {ESCAPE}"));
        }
        hosts.push(host);
        ports.push(port);
    }
    if hosts.iter().any(|host| !host.is_empty()) {
        add("host", &hosts.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        add("port", &ports.join(","))?;
    }

    add("dbname", database.strip_prefix('/').unwrap_or(database))?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) =
            parameter.split_once('=').ok_or("a parameter behind the ? has no = between keyword and value")?;
        // JDBC's spelling. libpq knows it too.
        let (keyword, value) =
            if (keyword, value) == ("ssl", "true") { ("sslmode", "require") } else { (keyword, value) };
        let problem = || {
            format!("a parameter behind the ? has no keyword that libpq knows (an & within a value is %26); {ESCAPE}")
        };
        add(&known(&percent_decode(keyword, "a keyword")?, problem)?, value)?;
    }
    Ok(settings)
}

fn percent_decode(raw: &str, of: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = behind;
            continue;
        }
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .ok_or_else(|| {
                format!("in {of}, a % is not followed by two hexadecimal digits (a % itself is %25)")
            })?;
        bytes.push(byte);
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map_err(|_| format!("{of} is not UTF-8 once its % escapes are decoded"))
}

/// Reads `keyword = value` pairs, separated by white space. A value may be in single quotes, and after a
/// backslash the next character is taken as it is.
fn parse_keywords(text: &str) -> Result<Settings, String> {
    let mut settings = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(settings);
        }
        let number = settings.len() + 1;
        let mut keyword = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_ascii_whitespace()) {
            keyword.push(c);
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            return Err(format!(
                "setting {number} has no = behind its keyword (a value with spaces has to stand in single quotes)"
            ));
        }
        while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\\') => value.extend(chars.next()),
                Some('\'') if quoted => break,
                Some(c) if !quoted && c.is_ascii_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => {
                    return Err(format!("the quote that opens the value of setting {number} is not closed"))
                }
                None => break,
            }
        }
        let problem = || {
            format!("setting {number} has no keyword that libpq knows (a value with spaces has to stand in single quotes)")
        };
        settings.push((known(&keyword, problem)?, value));
    }
}

/// A keyword becomes part of messages and of the text that children get.
fn known(keyword: &str, problem: impl Fn() -> String) -> Result<String, String> {
    KNOWN.contains(&keyword).then(|| keyword.to_owned()).ok_or_else(problem)
}
