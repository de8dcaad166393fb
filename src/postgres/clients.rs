//! PostgreSQL's client programs: which ones are installed, and which one fits a server.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context, Result};
use log::debug;

use super::{Server, QUICK};
use crate::base::process;

/// Where distributions keep the clients of several major versions side by side: Alpine, Debian, Red Hat.
const LAYOUTS: [(&str, &str); 3] =
    [("/usr/libexec/postgresql", ""), ("/usr/lib/postgresql/", "/bin"), ("/usr/pgsql-", "/bin")];
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
        let mut found: Vec<Programs> = Vec::new();
        let mut broken = None;
        let complete = |directory: &PathBuf| {
            ["pg_dump", "psql"].iter().all(|program| fs::metadata(directory.join(program)).is_ok())
        };
        for directory in directories.into_iter().filter(complete) {
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
    use super::*;

    fn programs(major: u32) -> Programs {
        Programs { directory: PathBuf::new(), version: format!("{major}.1"), major }
    }

    fn server(major: u32) -> Server {
        Server { version: format!("{major}.2"), major, database_size: 0 }
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
