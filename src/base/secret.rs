//! Values that must never be printed.

use std::fmt;

/// A log line shows this in place of a secret.
pub const MASK: &str = "***";

/// A password or key. It has no `Display`, and its `Debug` shows only the mask, so no log line or error can
/// contain it by accident. [`Secret::expose`] is the only way to the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that was read from the configuration.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself. It is for a signature or a child's environment, never for a text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Replaces secrets in texts from outside: a child's messages, or S3's answer.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    secrets: Vec<Secret>,
}

impl Redactor {
    /// Ignores empty secrets: an empty text matches everywhere.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Self {
        let mut secrets: Vec<Secret> =
            secrets.into_iter().filter(|secret| !secret.expose().is_empty()).collect();
        // The longest comes first: if one secret contains another, no rest of it stays visible.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Redactor { secrets }
    }

    /// The same redactor with one more secret.
    pub fn and(self, secret: Option<&Secret>) -> Self {
        Self::new(self.secrets.into_iter().chain(secret.cloned()))
    }

    /// The text with each secret replaced by the mask.
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
