//! PostgreSQL's client programs: which ones are installed, and which one fits a server.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use log::debug;

use super::{Server, QUICK};
use crate::base::process;

/// Where distributions keep the clients of several major versions side by side: Alpine, Debian, Red Hat.
const LAYOUTS: [(&str, &str); 3] =
    [("/usr/libexec/postgresql", ""), ("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];
/// What Debian has as /usr/bin/pg_dump: a script that starts a client of one of the directories above.
const WRAPPER: &str = "pg_wrapper";
/// The major versions to look for there.
const MAJORS: std::ops::RangeInclusive<u32> = 10..=30;

/// A directory with `psql` and `pg_dump` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Where they are.
    pub directory: PathBuf,
    /// Such as `16.4`.
    pub version: String,
    /// Such as 16.
    pub major: u32,
}

/// The installed clients, the newest first. There is at least one.
#[derive(Clone, Debug)]
pub struct Clients(Vec<Programs>);

/// The first major version with the setting transaction_timeout. Clients from this version on set it in each dump.
const HAS_TRANSACTION_TIMEOUT: u32 = 17;

impl Programs {
    /// Whether the dumps of this client stop psql and pg_restore on this server: they set transaction_timeout, and
    /// the server does not have it.
    pub fn set_what_lacks(&self, server: &Server) -> bool {
        self.major >= HAS_TRANSACTION_TIMEOUT && server.major < HAS_TRANSACTION_TIMEOUT
    }
}

impl Clients {
    /// Looks for clients in `only` (`BACKUP_PG_BIN`). If that is not set, looks where distributions put them,
    /// and on `PATH`. A program that is silent for `stall_timeout` does not count.
    pub fn find(only: Option<&Path>, stall_timeout: Duration) -> Result<Self> {
        let directories: Vec<PathBuf> = match only {
            Some(directory) => vec![directory.to_owned()],
            None => {
                let side_by_side = LAYOUTS.iter().flat_map(|(before, behind)| {
                    MAJORS.map(move |major| PathBuf::from(format!("{before}{major}{behind}")))
                });
                let path = env::var_os("PATH").unwrap_or_default();
                side_by_side.chain(env::split_paths(&path)).collect()
            }
        };
        Clients::among(directories, stall_timeout)
    }

    /// Asks the clients in these directories for their versions, each client once: starting one takes time.
    fn among(directories: Vec<PathBuf>, stall_timeout: Duration) -> Result<Self> {
        let mut asked: Vec<PathBuf> = Vec::new();
        let mut found: Vec<Programs> = Vec::new();
        let mut broken = None;
        for directory in directories {
            // Links are followed: /bin may be /usr/bin.
            let [Ok(file), Ok(_)] = ["pg_dump", "psql"].map(|program| directory.join(program).canonicalize())
            else {
                continue;
            };
            if asked.contains(&file) || (file.ends_with(WRAPPER) && !found.is_empty()) {
                continue;
            }
            // A program of another name may be one for all: which version it is may depend on how it was called.
            if file.ends_with("pg_dump") {
                asked.push(file);
            }
            match version_of(&directory, QUICK.min(stall_timeout)) {
                Ok(programs) if found.iter().all(|known| known.major != programs.major) => {
                    found.push(programs)
                }
                Ok(_) => {}
                Err(problem) => {
                    debug!("left alone: {problem:#}");
                    broken = Some(problem);
                }
            }
        }
        if found.is_empty() {
            if let Some(problem) = broken {
                return Err(problem.context("PostgreSQL's client does not work"));
            }
            bail!(
                "no pg_dump and psql found: install PostgreSQL's client (postgresql-client), or set BACKUP_PG_BIN to \
                 the directory that has them"
            );
        }
        found.sort_by_key(|programs| std::cmp::Reverse(programs.major));
        Ok(Clients(found))
    }

    /// The newest client: it understands every dump and every server.
    pub fn newest(&self) -> &Programs {
        &self.0[0]
    }

    /// All clients, the newest first.
    pub fn all(&self) -> &[Programs] {
        &self.0
    }

    /// The clients to dump this server with: of the server's own major version, or else of the next newer
    /// one. An older pg_dump refuses a newer server
    /// (<https://www.postgresql.org/docs/current/app-pgdump.html#APP-PGDUMP-NOTES>).
    ///
    /// # Errors
    /// All clients are older than the server.
    pub fn for_server(&self, server: &Server) -> Result<&Programs> {
        let fitting = self.0.iter().filter(|programs| programs.major >= server.major);
        fitting.min_by_key(|programs| programs.major).with_context(|| {
            format!(
                "the server is PostgreSQL {}, but the newest client here is {}: install the client of PostgreSQL {}",
                server.version,
                self.newest().version,
                server.major
            )
        })
    }

    /// The clients to restore an archive with that a pg_dump of this major version wrote: at least as new as
    /// the server and as the archive, because pg_restore refuses what a newer pg_dump wrote. If that version is
    /// not known, or newer than all clients, the newest one may still read the archive.
    ///
    /// # Errors
    /// All clients are older than the server.
    pub fn for_archive(&self, archive: Option<u32>, server: &Server) -> Result<&Programs> {
        let own = self.for_server(server)?;
        let reads = |programs: &&Programs| archive.is_some_and(|archive| programs.major >= archive);
        let mut new_enough = self.0.iter().rev().filter(|programs| programs.major >= own.major);
        Ok(new_enough.find(reads).unwrap_or(self.newest()))
    }
}

/// The major version in a text such as `16.4`.
pub fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn version_of(directory: &Path, limit: Duration) -> Result<Programs> {
    let program = directory.join("pg_dump");
    let text = process::ask("pg_dump", &program, "--version", limit)?;
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let version =
        version.with_context(|| format!("{} --version says \"{}\"", program.display(), text.trim()))?;
    let major = major(version).with_context(|| format!("{}: no major in {version}", program.display()))?;
    Ok(Programs { directory: directory.to_owned(), version: version.to_owned(), major })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn programs(major: u32) -> Programs {
        Programs { directory: PathBuf::new(), version: format!("{major}.1"), major }
    }

    fn server(major: u32) -> Server {
        Server { version: format!("{major}.2"), major, database_size: 0 }
    }

    /// Another process writes the file: one that is open for writing cannot be started, and what a test beside
    /// this one starts has all that is open here for a moment.
    fn script(path: &Path, text: &str) {
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#;
        assert!(Command::new("sh").args(["-c", write]).arg(path).arg(text).status().unwrap().success());
    }

    /// Makes programs that say their version, and note each time that they are asked.
    fn install(bin: &Path, version: &str, pg_dump: &str) {
        fs::create_dir_all(bin).unwrap();
        for name in [pg_dump, "psql"] {
            script(&bin.join(name), &format!("echo >>\"$0.asked\"; echo 'pg_dump (PostgreSQL) {version}'"));
        }
    }

    /// The version of each client that is found, and how often a program was started.
    fn ask(root: &Path, directories: &[&str]) -> (Vec<String>, usize) {
        let directories: Vec<PathBuf> = directories.iter().map(|name| root.join(name)).collect();
        let clients = Clients::among(directories.clone(), QUICK).unwrap();
        let mut started = 0;
        for directory in directories.iter().filter(|directory| !directory.is_symlink()) {
            started +=
                fs::read_to_string(directory.join("pg_dump.asked")).map_or(0, |text| text.lines().count());
        }
        (clients.all().iter().map(|programs| programs.version.clone()).collect(), started)
    }

    #[test]
    fn each_client_is_asked_once() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        install(&at("16"), "16.4", "pg_dump");
        install(&at("17"), "17.2", "pg_dump");
        symlink("17", at("newest")).unwrap();
        fs::create_dir(at("links")).unwrap();
        ["pg_dump", "psql"].iter().for_each(|it| symlink(at("17").join(it), at("links").join(it)).unwrap());
        let found = ask(root.path(), &["nowhere", "16", "17", "newest", "links"]);
        assert_eq!(found, (vec!["17.2".to_owned(), "16.4".to_owned()], 2));
    }

    #[test]
    fn debians_wrapper_is_asked_only_if_no_client_is_found_before_it() {
        for (directories, version, started) in
            [(vec!["bin"], "15.3", 1), (vec!["16", "bin", "sbin"], "16.4", 1)]
        {
            let root = tempfile::tempdir().unwrap();
            let at = |name: &str| root.path().join(name);
            install(&at("16"), "16.4", "pg_dump");
            install(&at("bin"), "15.3", WRAPPER);
            symlink(WRAPPER, at("bin").join("pg_dump")).unwrap();
            symlink("bin", at("sbin")).unwrap();
            assert_eq!(
                ask(root.path(), &directories),
                (vec![version.to_owned()], started),
                "{directories:?}"
            );
        }
    }

    #[test]
    fn a_program_for_all_versions_is_asked_under_each_of_its_names() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        script(&at("any"), r#"echo "pg_dump $(basename "$(dirname "$0")").1""#);
        for name in ["16", "17"] {
            fs::create_dir(at(name)).unwrap();
            ["pg_dump", "psql"].iter().for_each(|it| symlink(at("any"), at(name).join(it)).unwrap());
        }
        assert_eq!(ask(root.path(), &["16", "17"]).0, ["17.1", "16.1"]);
    }

    #[test]
    fn the_servers_own_major_is_chosen_else_the_next_newer() {
        let clients = Clients(vec![programs(18), programs(17), programs(15)]);
        for (of, chosen) in [(15, 15), (16, 17), (17, 17), (18, 18), (14, 15)] {
            assert_eq!(clients.for_server(&server(of)).unwrap().major, chosen);
        }
        let problem = clients.for_server(&server(19)).unwrap_err().to_string();
        assert!(problem.contains("19.2") && problem.contains("18.1"), "{problem}");
    }
    #[test]
    fn an_archive_is_read_by_a_client_as_new_as_it_is() {
        let clients = Clients(vec![programs(18), programs(17), programs(15)]);
        for (archive, of, chosen) in [
            (Some(15), 15, 15),
            (Some(15), 17, 17),
            (Some(16), 15, 17),
            (Some(18), 15, 18),
            // Which one reads it is not known.
            (Some(19), 15, 18),
            (None, 15, 18),
        ] {
            assert_eq!(clients.for_archive(archive, &server(of)).unwrap().major, chosen, "{archive:?}, {of}");
        }
        assert!(clients.for_archive(Some(15), &server(19)).is_err());
    }

    #[test]
    fn a_version_begins_with_its_major() {
        for (version, expected) in [("16.4", Some(16)), ("19beta1", Some(19)), ("", None), ("x", None)] {
            assert_eq!(major(version), expected);
        }
    }
}
