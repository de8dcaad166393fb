//! A real PgBouncer in front of the shared PostgreSQL server.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};

use super::postgres::{self, end_with_this_process, PASSWORD};
use super::{free_port, wait_for};

/// A running pooler.
pub struct PgBouncer {
    port: u16,
    _watch: ChildStdin,
}

impl PgBouncer {
    /// Starts one in this mode (`session`, `transaction`, `statement`), with further lines of its configuration. `None`,
    /// and a line that says so, where it is not installed.
    pub fn start(mode: &str, settings: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
        let Some(program) = directories.map(|of| of.join("pgbouncer")).find(|program| program.exists())
        else {
            eprintln!("SKIPPED: pgbouncer is not installed, so its {mode} mode is not tried; `make test` installs it");
            return None;
        };
        let directory =
            tempfile::Builder::new().prefix("pgkeep-pgbouncer-").tempdir().expect("a directory").keep();
        let (users, configuration) = (directory.join("users"), directory.join("ini"));
        fs::write(&users, format!("\"postgres\" \"{PASSWORD}\"\n")).expect("its users");
        let port = free_port();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n{settings}\n",
            postgres::server().port,
            users.display()
        );
        fs::write(&configuration, text).expect("its configuration");
        let mut command = Command::new(program);
        command.arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command.stderr(fs::File::create(directory.join("log")).expect("the log"));
        // It too refuses to run as root.
        if let Some((uid, gid)) = postgres::user() {
            for path in [&directory, &users, &configuration] {
                chown(path, Some(uid), Some(gid)).expect("its owner");
            }
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().expect("pgbouncer");
        let pooler = PgBouncer { port, _watch: end_with_this_process(child.id(), "KILL", &directory) };
        wait_for("PgBouncer to answer", || {
            pooler.client("postgres").args(["-c", "SELECT 1"]).output().ok()?.status.success().then_some(())
        });
        Some(pooler)
    }

    /// A connection string for the superuser, through the pooler.
    pub fn connection(&self, database: &str) -> String {
        let server = postgres::server();
        server.connection(database).replace(&format!("port={}", server.port), &format!("port={}", self.port))
    }

    /// psql as a client of the pooler.
    pub fn client(&self, database: &str) -> Command {
        let mut psql = postgres::server().client("psql", database);
        psql.env("PGPORT", self.port.to_string()).args(["-XAtqv", "ON_ERROR_STOP=1"]);
        psql
    }

    /// What a client of the pooler reads.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.client(database).args(["-c", sql]).output().expect("psql");
        assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }
}
