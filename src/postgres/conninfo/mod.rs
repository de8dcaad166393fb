//! PostgreSQL connection strings, taken apart so that the password is passed on separately.
//!
//! Both forms of libpq are read as libpq reads them: the URI and the keyword/value string
//! (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>). Children get the
//! keyword/value form without the password. They get the password as `PGPASSWORD`.

mod keywords;
mod read;

use std::fmt::Write;

use self::keywords::ONLY_BY_ARGUMENT;
use crate::base::secret::{Secret, MASK};

/// What to do if a piece of a password would be read as something else.
const ESCAPE: &str = "an @, : or / within the user or password of a URI has to be written %40, %3A or %2F";

/// A connection string. `Debug` and [`Conninfo::masked`] show it without its password.
#[derive(Clone)]
pub struct Conninfo {
    /// Keywords and values in their order, without the password. No keyword appears twice.
    settings: Vec<(String, String)>,
    password: Option<Secret>,
}

impl Conninfo {
    /// Reads a URI (`postgresql://…`, `postgres://…`) or a keyword/value string.
    ///
    /// # Errors
    /// A sentence that says what is wrong and where. It never quotes the string, because any piece of it may
    /// be a piece of the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut conninfo = Conninfo { settings: Vec::new(), password: None };
        for (keyword, value) in read::settings(text.trim_start())? {
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
                refuse_hidden_password(&keyword, &value)?;
                conninfo.set(&keyword, &value);
            }
        }
        Ok(conninfo)
    }

    /// The value of a keyword. None if it is absent or empty; libpq treats an empty value as absent.
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

    /// The keyword/value form without the password. It is safe in an argument list.
    pub fn without_password(&self) -> String {
        let mut text = String::new();
        for (keyword, value) in &self.settings {
            let separator = if text.is_empty() { "" } else { " " };
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            // Writing to a String cannot fail.
            let _ = write!(text, "{separator}{keyword}='{value}'");
        }
        text
    }

    /// The keyword/value form with the mask in place of the password, for a log line.
    pub fn masked(&self) -> String {
        let password = self.password.as_ref().map(|_| format!(" password={MASK}"));
        self.without_password() + &password.unwrap_or_default()
    }
}

/// Children get some values as arguments, and messages show them. Such a value must not be a connection
/// string itself, because that could contain another password.
///
/// # Errors
/// A sentence that does not quote the value.
pub fn refuse_hidden_password(keyword: &str, value: &str) -> Result<(), String> {
    let with_user = |uri: &str| uri.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    let nested = with_user(value) || keyword == "dbname" && is_connection_string(value);
    if nested {
        return Err(format!(
            "the value of {keyword} is a connection string itself, and its password would be shown: write its parts"
        ));
    }
    // A socket may be in any directory, or have an abstract name that begins with @.
    let is_socket = |host: &str| host.starts_with(['/', '@']);
    if matches!(keyword, "host" | "hostaddr")
        && value.split(',').any(|host| host.contains('@') && !is_socket(host))
    {
        return Err(format!("a host contains an @, which may be a piece of the password; {ESCAPE}"));
    }
    Ok(())
}

/// Whether somebody meant a connection string, even if it cannot be read. A database's name may contain a =.
fn is_connection_string(name: &str) -> bool {
    let by_keywords = || read::settings(name.trim()).is_ok_and(|settings| !settings.is_empty());
    let mut behind = name.split("password").skip(1);
    read::behind_scheme(name.trim()).is_some()
        || by_keywords()
        || behind.any(|rest| rest.trim_start().starts_with('='))
}

impl std::fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.masked())
    }
}

#[cfg(test)]
mod tests;
