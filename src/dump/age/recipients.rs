//! Public keys, as age takes them.

use std::fmt;

/// What public keys begin with. Plugins' keys begin with `age1` too.
const SSH: [&str; 2] = ["ssh-ed25519", "ssh-rsa"];
const AGE: &str = "age1";
/// What secret keys begin with, in lower case.
const SECRETS: [&str; 4] = ["age-secret-key-", "age-plugin-", "-----begin", "-----end"];
/// They all become arguments of age, and each one lengthens every backup.
const MOST: usize = 64;
/// A longer key is cut where it is shown: age's own keys have this length.
const SHOWN: usize = 62;

/// Those who can read what is encrypted. There is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients(Vec<String>);

impl Recipients {
    /// Reads keys that white space separates. A key of SSH has spaces in itself, and goes to the end of its line. A
    /// line that begins with # is a comment.
    ///
    /// # Errors
    /// What is wrong with the text. It does not show what may be a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower.split_whitespace().any(|word| SECRETS.iter().any(|secret| word.starts_with(secret))) {
            return Err(
                "has a secret key, which should not be on this host: give its public key (age-keygen -y FILE prints it)"
                    .into(),
            );
        }
        let mut keys = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let mut rest = line;
            while let Some(word) = rest.split_whitespace().next() {
                let (key, behind) = if SSH.contains(&word) {
                    (ssh_key(rest)?, "")
                } else if word.starts_with(AGE) && word.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                    (word.to_owned(), rest[word.len()..].trim_start())
                } else {
                    let number = keys.len() + 1;
                    return Err(format!("has a key, the one at place {number}, that is neither age1… nor ssh-ed25519 … nor ssh-rsa …"));
                };
                if !keys.contains(&key) {
                    keys.push(key);
                }
                rest = behind;
            }
        }
        match keys.len() {
            0 => Err("has no key".into()),
            1..=MOST => Ok(Recipients(keys)),
            number => Err(format!("has {number} keys, and at most {MOST} are possible")),
        }
    }

    /// The arguments that name them to age.
    pub(super) fn arguments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|key| ["-r", key])
    }
}

/// A key of SSH, without its comment.
fn ssh_key(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return Err("has an SSH key that ends after its first word".into());
    };
    // In a comment, a key would silently be lost.
    if words.any(|word| word.starts_with(AGE) || SSH.contains(&word)) {
        return Err(
            "has a key behind an SSH key: an SSH key takes the rest of its line, so end the line behind it"
                .into(),
        );
    }
    Ok(format!("{kind} {key}"))
}

impl fmt::Display for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, key) in self.0.iter().enumerate() {
            let cut = if key.len() > SHOWN { "…" } else { "" };
            let shown: String = key.chars().take(SHOWN).collect();
            write!(f, "{}{shown}{cut}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_separated_by_white_space_and_those_of_ssh_by_lines() {
        let keys = |text: &str| Recipients::parse(text).unwrap().0;
        assert_eq!(keys("age1abc"), ["age1abc"]);
        assert_eq!(
            keys(" age1abc\tage1yubikey1q \r\n\n age1pq1x "),
            ["age1abc", "age1yubikey1q", "age1pq1x"]
        );
        let ssh = "# laptop\nssh-ed25519  AAAAC3 me@my laptop\nage1abc ssh-rsa AAAAB3\nage1abc";
        assert_eq!(keys(ssh), ["ssh-ed25519 AAAAC3", "age1abc", "ssh-rsa AAAAB3"]);
        let arguments: Vec<String> = Recipients::parse(ssh).unwrap().arguments().map(str::to_owned).collect();
        assert_eq!(arguments, ["-r", "ssh-ed25519 AAAAC3", "-r", "age1abc", "-r", "ssh-rsa AAAAB3"]);
    }

    #[test]
    fn what_is_no_public_key_is_refused_and_not_shown() {
        for (text, says) in [
            ("# nothing", "has no key"),
            ("hush", "place 1"),
            ("age1abc hush", "place 2"),
            ("age1abc,age1abd", "place 1"),
            ("age1abc -p", "place 2"),
            ("AGE-SECRET-KEY-1HUSH", "public key"),
            ("age1abc\n# created\nage-secret-key-1hush", "public key"),
            ("AGE-PLUGIN-YUBIKEY-1HUSH", "public key"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nhush", "public key"),
            ("ssh-ed25519", "first word"),
            ("ssh-ed25519 AAAA hush age1abc", "end the line behind it"),
            ("ssh-dss AAAA hush", "place 1"),
        ] {
            let problem = Recipients::parse(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
            assert!(!problem.to_lowercase().contains("hush"), "{problem}");
        }
        let many = |number: usize| (0..number).map(|number| format!("age1{number}\n")).collect::<String>();
        assert!(Recipients::parse(&many(64)).is_ok());
        assert!(Recipients::parse(&many(65)).unwrap_err().contains("65 keys"));
    }

    #[test]
    fn long_keys_are_shown_by_their_beginning() {
        let shown = Recipients::parse(&format!("age1abc age1{}", "q".repeat(1900))).unwrap().to_string();
        assert_eq!(shown, format!("age1abc, age1{}…", "q".repeat(58)));
    }

    #[test]
    fn whatever_is_given_as_keys_becomes_arguments_that_are_keys() {
        crate::base::fuzz::feed(&["age1abc\nssh-ed25519 AAAA me", "# a\nage1yubikey1q age1b"], |text| {
            if let Ok(keys) = Recipients::parse(text) {
                assert!(keys.0.iter().all(|key| key.starts_with("age1") || key.starts_with("ssh-")));
            }
        });
    }
}
