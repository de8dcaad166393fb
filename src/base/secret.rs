//! Values that must never be printed.

use std::fmt;

/// What stands in a log line where a secret would be.
pub const MASK: &str = "***";

/// A password or key. It has no `Display`, and its `Debug` is the mask, so that no log line or error can
/// carry it by accident; [`Secret::expose`] is the one way to the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that was read from the configuration.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself: for a signature or a child's environment, never for a text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Replaces secrets in texts that come from outside: a child's messages, an answer of S3.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    secrets: Vec<Secret>,
}

impl Redactor {
    /// Empty secrets are ignored: they stand everywhere.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mut secrets: Vec<Secret> =
            secrets.into_iter().filter(|secret| !secret.expose().is_empty()).collect();
        // The longest first, so that a secret within another leaves no rest of it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Redactor { secrets }
    }

    /// The same, and a further secret.
    pub fn and(self, secret: Option<&Secret>) -> Self {
        Self::new(self.secrets.into_iter().chain(secret.cloned()))
    }

    /// The text with the mask wherever one of the secrets stood.
    pub fn clean(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), MASK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_by_debug_and_wherever_it_stands() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "***");
        let redactor = Redactor::new([Secret::new("ab"), Secret::new("abc"), Secret::new("")]);
        assert_eq!(redactor.clean("x abc ab y"), "x *** *** y");
    }
}
