//! Keys for age, and an age that is ill.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::pgkeep::Pgkeep;

/// A pair of keys.
pub struct Keys {
    directory: tempfile::TempDir,
    /// The public key.
    pub recipient: String,
}

impl Keys {
    /// Makes one. `None`, and a line that says so, where age is not installed.
    pub fn new() -> Option<Self> {
        if program("age").is_none() || program("age-keygen").is_none() {
            eprintln!("SKIPPED: age is not installed, so encryption is not tried; `make test` installs it");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("pgkeep-keys-").tempdir().expect("a directory");
        let made = Command::new("age-keygen").arg("-o").arg(directory.path().join("key.txt")).output();
        assert!(made.expect("age-keygen").status.success());
        let public = Command::new("age-keygen").arg("-y").arg(directory.path().join("key.txt")).output();
        let recipient = String::from_utf8(public.expect("age-keygen").stdout).expect("UTF-8");
        Some(Keys { directory, recipient: recipient.trim().to_owned() })
    }

    /// The file with the secret key.
    pub fn file(&self) -> String {
        self.directory.path().join("key.txt").to_str().expect("UTF-8").to_owned()
    }

    /// The same pgkeep, which encrypts for this key.
    pub fn encrypts(&self, pgkeep: Pgkeep) -> Pgkeep {
        pgkeep.with("BACKUP_AGE_RECIPIENTS", &self.recipient)
    }

    /// The same pgkeep, which decrypts with this key.
    pub fn opens(&self, pgkeep: &Pgkeep) -> Pgkeep {
        pgkeep.clone().with("BACKUP_AGE_IDENTITY_FILE", &self.file())
    }

    /// Decrypts a file by hand, as README says, into a file beside the keys.
    pub fn decrypt(&self, sealed: &Path) -> PathBuf {
        let opened = self.directory.path().join("backup.gz");
        let mut age = Command::new("age");
        age.args(["-d", "-i", &self.file(), "-o"]).arg(&opened).arg(sealed);
        assert!(age.stdin(Stdio::null()).status().expect("age").success());
        opened
    }
}

/// The same pgkeep, whose age runs `script`, in which `$REAL "$@"` is the real one. The directory holds it.
pub fn wrapped(script: &str, pgkeep: Pgkeep) -> (Pgkeep, tempfile::TempDir) {
    let directory = tempfile::Builder::new().prefix("pgkeep-age-").tempdir().expect("a directory");
    let (path, real) = (directory.path().join("age"), program("age").expect("age"));
    fs::write(&path, format!("#!/bin/sh\nREAL='{}'\n{script}\n", real.display())).expect("the wrapper");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    let rest = std::env::var("PATH").unwrap_or_default();
    (pgkeep.with("PATH", &format!("{}:{rest}", directory.path().display())), directory)
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|of| of.join(name)).find(|program| program.exists())
}
