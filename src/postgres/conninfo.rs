//! PostgreSQL connection strings, taken apart so that the password travels by itself.
//!
//! Both forms of libpq are read as libpq reads them: the URI and the keyword/value string
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>). Children get the
//! keyword/value form without the password; the password reaches them as `PGPASSWORD`.

use std::fmt::Write;

use crate::base::secret::{Secret, MASK};

/// Secrets that libpq takes from the connection string only, which every user of the machine can read in
/// the list of processes.
const ONLY_BY_ARGUMENT: [&str; 4] =
    ["sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"];

/// A connection string. `Debug` and [`Conninfo::masked`] show it without its password.
#[derive(Clone)]
pub struct Conninfo {
    /// Keywords and values in their order, without the password; no keyword twice.
    settings: Vec<(String, String)>,
    password: Option<Secret>,
}

impl Conninfo {
    /// Reads a URI (`postgresql://…`, `postgres://…`) or a keyword/value string.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where, and never quotes the string: any piece of it may be
    /// a piece of the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let uri = ["postgresql://", "postgres://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let settings = match uri {
            Some(rest) => parse_uri(rest)?,
            // A value may contain it as well.
            None if text.split_once("://").is_some_and(|(scheme, _)| !scheme.contains('=')) => {
                return Err("it is a URI, but not of PostgreSQL: it has to begin with postgresql://".into())
            }
            None if !text.contains('=') => {
                return Err("it is neither a URI nor a keyword/value string".into());
            }
            None => parse_keywords(text)?,
        };
        let mut conninfo = Conninfo { settings: Vec::new(), password: None };
        for (keyword, value) in settings {
            if ONLY_BY_ARGUMENT.contains(&keyword.as_str()) {
                return Err(format!(
                    "pgkeep cannot keep {keyword} secret: libpq takes it only from the connection string, \
                     which the list of processes shows"
                ));
            }
            if value.contains('\0') {
                return Err(format!("the value of {keyword} contains a zero byte"));
            }
            if keyword == "password" {
                conninfo.password = (!value.is_empty()).then(|| Secret::new(value));
            } else {
                conninfo.set(&keyword, &value);
            }
        }
        Ok(conninfo)
    }

    /// The value of a keyword, unless it is absent or empty (which libpq takes for absent).
    pub fn get(&self, keyword: &str) -> Option<&str> {
        let (_, value) = self.settings.iter().find(|(known, _)| known == keyword)?;
        (!value.is_empty()).then_some(value)
    }

    /// Sets or replaces the value of a keyword.
    pub fn set(&mut self, keyword: &str, value: &str) {
        match self.settings.iter_mut().find(|(known, _)| known == keyword) {
            Some(setting) => value.clone_into(&mut setting.1),
            None => self.settings.push((keyword.to_owned(), value.to_owned())),
        }
    }

    /// The password, if the string has one.
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The keyword/value form without the password: safe in an argument list.
    pub fn without_password(&self) -> String {
        let mut text = String::new();
        for (keyword, value) in &self.settings {
            let separator = if text.is_empty() { "" } else { " " };
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            // Writing to a String does not fail.
            let _ = write!(text, "{separator}{keyword}='{value}'");
        }
        text
    }

    /// The keyword/value form with the mask in the password's place, for a log line.
    pub fn masked(&self) -> String {
        let password = self.password.as_ref().map(|_| format!(" password={MASK}"));
        self.without_password() + &password.unwrap_or_default()
    }
}

impl std::fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

/// What stands behind the scheme, cut where libpq's `conninfo_uri_parse_options` cuts it:
/// `[user[:password]@][host[:port],…][/dbname][?keyword=value&…]`.
fn parse_uri(rest: &str) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    let mut add = |keyword: &str, raw: &str| -> Result<(), String> {
        if !raw.is_empty() {
            settings.push((keyword.to_owned(), percent_decode(raw, keyword)?));
        }
        Ok(())
    };

    // The first @ before any / ends the user: an @ within a password has to be written %40.
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
            return Err("a port is not a number from 1 to 65535 (an @, : or / within the user or password \
                        has to be written %40, %3A or %2F)"
                .into());
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

    let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    add("dbname", database.strip_prefix('/').unwrap_or(database))?;
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (keyword, value) =
            parameter.split_once('=').ok_or("a parameter behind the ? has no = between keyword and value")?;
        // JDBC's spelling, which libpq knows too.
        let (keyword, value) =
            if (keyword, value) == ("ssl", "true") { ("sslmode", "require") } else { (keyword, value) };
        add(&known_form(&percent_decode(keyword, "a keyword")?)?, value)?;
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

/// `keyword = value` pairs between white space; values may stand in single quotes, and a backslash takes
/// the next character as it is.
fn parse_keywords(text: &str) -> Result<Vec<(String, String)>, String> {
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
        settings.push((known_form(&keyword)?, value));
    }
}

/// A keyword becomes part of the text that children get, and of messages: only what libpq's can look like.
fn known_form(keyword: &str) -> Result<String, String> {
    let fits = !keyword.is_empty() && keyword.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    fits.then(|| keyword.to_owned())
        .ok_or_else(|| "a keyword is not made of lower-case letters (as host, dbname or sslmode are)".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Option<String>) {
        let conninfo = Conninfo::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        (conninfo.without_password(), conninfo.password().map(|secret| secret.expose().to_owned()))
    }

    #[test]
    fn uris_are_cut_where_libpq_cuts_them() {
        for (uri, settings, password) in [
            ("postgresql://", "", None),
            ("postgres://db", "host='db'", None),
            (
                "postgresql://app:pw@db:5433/shop",
                "user='app' host='db' port='5433' dbname='shop'",
                Some("pw"),
            ),
            ("postgresql://app@/shop?host=/run/pg", "user='app' dbname='shop' host='/run/pg'", None),
            ("postgresql://a,b:1/x", "host='a,b' port=',1' dbname='x'", None),
            ("postgresql://[::1]:5/x", "host='::1' port='5' dbname='x'", None),
            ("postgresql://u:first@h/x?password=second", "user='u' host='h' dbname='x'", Some("second")),
            ("postgresql://h/a%20b%27c?ssl=true", r"host='h' dbname='a b\'c' sslmode='require'", None),
            (
                "postgresql://u:p?q#r@h?application_name=x",
                "user='u' host='h' application_name='x'",
                Some("p?q#r"),
            ),
            (
                "postgresql://u:%40%3A%2F%3F%23%25%26%3D%27%22%5C%20@h/x",
                "user='u' host='h' dbname='x'",
                Some(r#"@:/?#%&='"\ "#),
            ),
        ] {
            assert_eq!(read(uri), (settings.to_owned(), password.map(str::to_owned)), "{uri}");
        }
    }

    #[test]
    fn keyword_strings_have_quotes_and_backslashes() {
        for (text, settings, password) in [
            ("host=db  dbname = shop", "host='db' dbname='shop'", None),
            (r"dbname='a b\'c\\' user=a\ b", r"dbname='a b\'c\\' user='a b'", None),
            ("host=db password='' dbname=x", "host='db' dbname='x'", None),
            (r#"password='@:/?#%&=\'"\\ ' host=db"#, "host='db'", Some(r#"@:/?#%&='"\ "#)),
            ("host=a host=b", "host='b'", None),
            ("host=a password=b://c", "host='a'", Some("b://c")),
        ] {
            assert_eq!(read(text), (settings.to_owned(), password.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_without_quoting_it() {
        for text in [
            "hush",
            "mysql://u:hush@h/x",
            "postgresql://u:hush%4@h/x",
            "postgresql://u:hush/x@h/y",
            "postgresql://u:a@hush:b@h/x",
            "postgresql://[::1/hush",
            "postgresql://h/x?hush",
            "host=h password='hush",
            "host=h password=my hush",
            "host=h hush secret=x",
            "host=h sslpassword=hush",
            "host=h Hush=x",
            "postgresql://u:hush%00@h",
            "postgresql://u:hush%ff@h",
        ] {
            let problem = Conninfo::parse(text).expect_err(text);
            assert!(!problem.contains("hush"), "{text}: {problem}");
        }
    }

    #[test]
    fn the_masked_form_hides_the_password() {
        let conninfo = Conninfo::parse("postgresql://u:hush@h/x?password=hush2").unwrap();
        assert_eq!(conninfo.masked(), "user='u' host='h' dbname='x' password=***");
        assert_eq!(format!("{conninfo:?}"), conninfo.masked());
    }

    fn settings_hold(conninfo: &Conninfo, text: &str) -> bool {
        conninfo.settings.iter().any(|(_, value)| value.contains(text))
    }

    #[test]
    fn whatever_is_given_is_read_or_refused_and_never_told() {
        let seeds = [
            "postgresql://user:HUSH@host:5432/db?sslmode=require&password=HUSH",
            "postgres://u@[::1]:5,[fe80::1]/a%20b",
            r"host=h port=5 user='it\'s' password='HU\\SH' dbname=x",
            "password=HUSH host=h",
        ];
        crate::base::fuzz::feed(&seeds, |text| match Conninfo::parse(text) {
            Ok(conninfo) => {
                // What a child gets is read as the same settings again, and holds no password.
                let again = Conninfo::parse(&format!("{} x=''", conninfo.without_password())).unwrap();
                let settings = again.settings.iter().filter(|(keyword, _)| keyword != "x");
                assert!(settings.eq(conninfo.settings.iter().filter(|(keyword, _)| keyword != "x")));
                // Where no other setting has it too, by a keyword that was spoilt.
                if !settings_hold(&conninfo, "HUSH") {
                    assert!(!conninfo.masked().contains("HUSH"));
                }
            }
            Err(problem) => assert!(!problem.contains("HUSH"), "{problem}"),
        });
    }
}
