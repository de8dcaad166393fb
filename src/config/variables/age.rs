//! The rows about encryption.

use std::fs::File;

use super::{Absent, Variable};
use crate::dump::age::{Identity, Recipients};

pub(super) const RECIPIENTS: Variable = Variable {
    name: "BACKUP_AGE_RECIPIENTS",
    absent: Absent::Off("the backups are not encrypted"),
    example: "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
    doc: "the public keys of those who can read the backups, which age encrypts before they leave this host: age1… (plugins' \
          too) by white space or lines; ssh-ed25519 and ssh-rsa, each at the end of a line; see Encryption",
    aliases: &[
        "BACKUP_AGE_RECIPIENT",
        "BACKUP_AGE_PUBLIC_KEY",
        "BACKUP_RECIPIENTS",
        "BACKUP_ENCRYPTION_KEY",
        "BACKUP_ENCRYPTION",
    ],
    set: |to, text| Recipients::parse(text).map(|it| to.recipients = Some(it)),
    show: |of| of.recipients.as_ref().map_or(String::new(), Recipients::to_string),
};

pub(super) const IDENTITY_FILE: Variable = Variable {
    name: "BACKUP_AGE_IDENTITY_FILE",
    absent: Absent::Off("encrypted backups can be made, and not read"),
    example: "/run/secrets/pgkeep-key.txt",
    doc: "the path of the file with the secret key, for restore, verify, get and drills. Only age reads it. A host that only \
          makes backups does not need it, and should not have it",
    aliases: &["BACKUP_AGE_IDENTITY", "BACKUP_AGE_KEY", "BACKUP_AGE_SECRET_KEY", "BACKUP_IDENTITY"],
    set: |to, text| identity(text).map(|it| to.identity = Some(it)),
    show: |of| of.identity.as_ref().map_or(String::new(), |identity| identity.0.display().to_string()),
};

/// A file that can be read. It is not read here.
fn identity(text: &str) -> Result<Identity, String> {
    // The text may be the key itself.
    if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") || text.contains("-----BEGIN") {
        return Err("has a secret key, and not the path of the file that holds it".into());
    }
    let file = File::open(text).and_then(|file| file.metadata());
    match file {
        Ok(file) if file.is_file() => Ok(Identity(text.into())),
        Ok(_) => Err(format!("names {text}, which is not a file")),
        Err(problem) => Err(format!("names {text}, which cannot be read: {problem}")),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{only_problem, read};

    const KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

    #[test]
    fn a_key_that_is_none_is_a_problem_and_a_secret_key_is_not_shown() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let path = path.path().to_str().unwrap();
        let config = read(&[("BACKUP_AGE_RECIPIENTS", KEY), ("BACKUP_AGE_IDENTITY_FILE", path)]).unwrap();
        for line in [format!("BACKUP_AGE_RECIPIENTS = {KEY}"), format!("BACKUP_AGE_IDENTITY_FILE = {path}")] {
            assert!(config.lines.contains(&line), "{line}: {:?}", config.lines);
        }
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        for (name, value, says) in [
            ("BACKUP_AGE_RECIPIENTS", "hush", "for example BACKUP_AGE_RECIPIENTS=age1"),
            ("BACKUP_AGE_RECIPIENTS", "AGE-SECRET-KEY-1HUSH", "secret key"),
            ("BACKUP_AGE_IDENTITY_FILE", "AGE-SECRET-KEY-1HUSH", "secret key"),
            ("BACKUP_AGE_IDENTITY_FILE", "/nowhere/key.txt", "cannot be read"),
            ("BACKUP_AGE_IDENTITY_FILE", "/tmp", "not a file"),
        ] {
            let problem = only_problem(&[(name, value)]);
            assert!(problem.starts_with(name) && problem.contains(says), "{problem}");
            assert!(!problem.to_lowercase().contains("hush"), "{problem}");
        }
    }

    #[test]
    fn a_drill_needs_the_key_of_encrypted_backups() {
        let drill = [
            ("BACKUP_AGE_RECIPIENTS", KEY),
            ("BACKUP_DRILL_INTERVAL", "0 6 * * *"),
            ("BACKUP_DRILL_CONNECTION_STRING", "postgresql://app@drill"),
        ];
        assert!(only_problem(&drill).starts_with("BACKUP_AGE_IDENTITY_FILE is missing"));
        let warnings = read(&[("BACKUP_AGE_IDENTITY", "AGE-SECRET-KEY-1HUSH")]).unwrap().warnings;
        assert!(warnings[0].contains("did you mean BACKUP_AGE_IDENTITY_FILE"), "{warnings:?}");
        assert!(!warnings[0].contains("HUSH"), "{warnings:?}");
    }
}
