//! A throwaway PostgreSQL server on a free port, one for the whole process.
//!
//! A small shell beside it waits for this process to end, however it ends, and then stops the server and
//! removes its files: nothing is left behind, not even after a kill -9.

use std::env;
use std::fs;
use std::os::unix::fs::{chown, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::OnceLock;

use super::{free_port, wait_for};

/// The superuser's password; every other test of passwords makes a role of its own. Without a character
/// that any form of a connection string escapes, so that it is found wherever it leaks.
pub const PASSWORD: &str = "superusers-secret";

/// Characters that mean something in a URI, in a keyword/value string, in a shell or in SQL.
pub const HARD_PASSWORD: &str = r#"@:/?#%&='"\ "#;

/// So many connections a backup makes before pg_dump's: in one it asks all its questions, and with another it finds out
/// whether a pooler shares backends.
pub const CONNECTIONS: usize = 2;

/// Where this machine's server programs are.
pub fn bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| {
        let path = env::var_os("PATH").unwrap_or_default();
        let side_by_side = (10..30).rev().flat_map(|major| {
            [format!("/usr/lib/postgresql/{major}/bin"), format!("/usr/libexec/postgresql{major}")]
        });
        side_by_side
            .map(PathBuf::from)
            .chain(env::split_paths(&path))
            .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")])
            .find(|directory| directory.join("initdb").exists() && directory.join("postgres").exists())
            .expect("initdb and postgres are not installed: `make test` installs them")
    })
}

/// A running server.
pub struct Server {
    pub port: u16,
    bin: PathBuf,
    /// Its end is the watching shell's cue.
    _watch: ChildStdin,
}

/// The process's own server, started on first use.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(bin()))
}

/// Has a shell wait until what is returned is dropped, or this process ends in any way; it then ends the server `id` by a
/// signal and removes its directory.
pub fn end_with_this_process(id: u32, signal: &str, directory: &Path) -> ChildStdin {
    let mut watch = Command::new("sh")
        .args([
            "-c",
            r#"cat >/dev/null; kill -"$1" "$2"; while kill -0 "$2" && ! grep -q "^State:.Z" "/proc/$2/status"; do sleep 0.05; done; rm -rf "$3""#,
            "sh",
            signal,
            &id.to_string(),
        ])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh");
    watch.stdin.take().expect("its standard input")
}

/// PostgreSQL refuses to run as root: then it runs as `postgres`, which its package makes.
pub fn user() -> Option<(u32, u32)> {
    let id = |what: &[&str]| {
        let output = Command::new("id").args(what).output().expect("id");
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
    };
    (id(&["-u"]) == Some(0)).then(|| {
        let ids = id(&["-u", "postgres"]).zip(id(&["-g", "postgres"]));
        ids.expect("root cannot run PostgreSQL, and there is no user postgres")
    })
}

/// A directory for a server, which is its user's.
fn directory() -> PathBuf {
    let directory =
        tempfile::Builder::new().prefix("pgkeep-postgres-").tempdir().expect("a directory").keep();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("its mode");
    if let Some((uid, gid)) = user() {
        chown(&directory, Some(uid), Some(gid)).expect("its owner");
    }
    directory
}

/// One of the programs in `bin`, as the user that a server runs as.
fn run(bin: &Path, program: &str, directory: &Path) -> Command {
    let mut command = Command::new(bin.join(program));
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
    command.current_dir(directory).env("LC_ALL", "C").env_remove("PGPASSWORD");
    command
}

fn must(command: &mut Command) {
    let output = command.output().expect("a program of PostgreSQL's");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    /// Starts a server with the programs in `bin`.
    pub fn start(bin: &Path) -> Self {
        let directory = directory();
        let password_file = directory.join("password");
        fs::write(&password_file, PASSWORD).expect("the password's file");
        fs::set_permissions(&password_file, fs::Permissions::from_mode(0o644)).expect("its mode");
        let mut initdb = run(bin, "initdb", &directory);
        initdb.args([
            "--username=postgres",
            "--encoding=UTF8",
            "--auth=scram-sha-256",
            "--no-sync",
            "--no-instructions",
        ]);
        must(initdb.arg("--pwfile").arg(&password_file).arg("--pgdata").arg(directory.join("data")));
        Server::start_on(bin, &directory)
    }

    /// Starts a standby of this server.
    pub fn standby(&self) -> Self {
        let directory = directory();
        let mut copy = run(&self.bin, "pg_basebackup", &directory);
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--dbname"]);
        must(copy.arg(self.connection("postgres")).arg("--pgdata").arg(directory.join("data")));
        Server::start_on(&self.bin, &directory)
    }

    /// Starts a server on the data in `directory`.
    fn start_on(bin: &Path, directory: &Path) -> Self {
        let port = free_port();
        let log = fs::File::create(directory.join("log")).expect("the log");
        let server = run(bin, "postgres", directory)
            .arg("-D")
            .arg(directory.join("data"))
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""])
            .args(["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=100"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("postgres");
        // SIGQUIT is the immediate shutdown: nobody needs the data.
        let watch = end_with_this_process(server.id(), "QUIT", directory);
        let server = Server { port, bin: bin.to_owned(), _watch: watch };
        wait_for("PostgreSQL to answer", || server.answers().then_some(()));
        server
    }

    /// Whether it takes connections; not while it recovers.
    pub fn answers(&self) -> bool {
        self.try_psql("postgres", "SELECT 1").status.success()
    }

    /// Makes a database whose name begins with `name` and that no other test has.
    pub fn database(&self, name: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("{name}{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.create_database(&name);
        name
    }

    /// Makes a database of exactly this name.
    pub fn create_database(&self, name: &str) {
        self.psql(
            "postgres",
            &format!("CREATE DATABASE \"{}\" TEMPLATE template0", name.replace('"', "\"\"")),
        );
    }

    /// A connection string for the superuser.
    pub fn connection(&self, database: &str) -> String {
        let password = PASSWORD.replace('\'', r"\'");
        let database = database.replace('\\', r"\\").replace('\'', r"\'");
        format!("host=127.0.0.1 port={} user=postgres password='{password}' dbname='{database}'", self.port)
    }

    /// Runs SQL and answers with what it says, one row a line, columns between `|`.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let output = self.try_psql(database, sql);
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql: {problem}\n{}", sql.chars().take(300).collect::<String>());
        String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
    }

    fn try_psql(&self, database: &str, sql: &str) -> Output {
        let mut psql = self.client("psql", database);
        psql.args(["-XAtqv", "ON_ERROR_STOP=1", "-c", sql]).output().expect("psql")
    }

    /// One of PostgreSQL's programs, connected as the superuser.
    pub fn client(&self, program: &str, database: &str) -> Command {
        // A program that is not PostgreSQL's is the system's.
        let own = self.bin.join(program);
        let mut command = Command::new(if own.exists() { &own } else { Path::new(program) });
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", database)
            .env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Restores a plain backup as README says: gunzip and psql.
    pub fn restore(&self, backup: &Path, into: &str) {
        let mut gunzip = Command::new("gunzip")
            .arg("-c")
            .stdin(fs::File::open(backup).expect("the backup"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("gunzip");
        let psql = self
            .client("psql", into)
            .args(["-Xq", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-o", "/dev/null"])
            .stdin(gunzip.stdout.take().expect("its output"))
            .output()
            .expect("psql");
        assert!(gunzip.wait().expect("gunzip").success(), "gunzip");
        assert!(psql.status.success(), "psql: {}", String::from_utf8_lossy(&psql.stderr));
    }

    /// Every table with its number of rows, and the whole as pg_dump writes it.
    pub fn contents(&self, database: &str) -> (String, String) {
        let tables = self.psql(
            database,
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
             WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1",
        );
        let counts: Vec<String> = tables
            .lines()
            .map(|table| {
                format!("{table}: {}", self.psql(database, &format!("SELECT count(*) FROM {table}")))
            })
            .collect();
        (counts.join("\n"), self.text(database))
    }

    /// The whole as pg_dump writes it.
    pub fn text(&self, database: &str) -> String {
        self.output_of(self.client("pg_dump", database))
    }

    /// The roles and tablespaces as pg_dumpall writes them.
    pub fn globals(&self) -> String {
        let mut pg_dumpall = self.client("pg_dumpall", "postgres");
        pg_dumpall.arg("--globals-only");
        self.output_of(pg_dumpall)
    }

    fn output_of(&self, mut command: Command) -> String {
        let dump = command.output().expect("a dump");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let text = String::from_utf8(dump.stdout).expect("UTF-8");
        // The key of \restrict is random.
        let lines =
            text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// A directory for BACKUP_PG_BIN: the real programs, but a pg_dump that runs `script`, in which `$REAL "$@"` is
/// the real one. For what the real one does only on its worst days.
pub fn wrapped_pg_dump(script: &str) -> tempfile::TempDir {
    wrapped("pg_dump", &format!("case $1 in --version) exec $REAL --version;; esac\n{script}"))
}

/// The same with another program, also where its version is asked for.
pub fn wrapped(program: &str, script: &str) -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("pgkeep-bin-").tempdir().expect("a directory");
    for name in ["psql", "pg_dump", "pg_restore"].iter().filter(|name| **name != program) {
        std::os::unix::fs::symlink(bin().join(name), directory.path().join(name)).expect(name);
    }
    let script = format!("#!/bin/sh\nREAL='{}'\n{script}\n", bin().join(program).display());
    let path = directory.path().join(program);
    fs::write(&path, script).expect("the wrapper");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    directory
}

/// A pg_dump that stops in its middle until it is told to go on.
pub struct PausedDump {
    gate: tempfile::TempDir,
    bin: tempfile::TempDir,
}

impl PausedDump {
    /// `first` is what its shell begins with. It waits in a process of its own, which only a signal to the
    /// whole group reaches, and which ends with this at the latest.
    pub fn new(first: &str) -> Self {
        let gate = tempfile::Builder::new().prefix("pgkeep-gate-").tempdir().expect("a directory");
        let script = format!(
            r#"{first}
               $REAL "$@" >{0}/dump; head -c 60000000 {0}/dump; touch {0}/ready
               (while [ -d {0} ] && ! [ -e {0}/go ]; do sleep 0.05; done)
               tail -c +60000001 {0}/dump"#,
            gate.path().display()
        );
        PausedDump { bin: wrapped_pg_dump(&script), gate }
    }

    /// For BACKUP_PG_BIN.
    pub fn bin(&self) -> &str {
        self.bin.path().to_str().expect("UTF-8")
    }

    /// Waits until the first 60 MB are out, or all where it is less; only the end is missing then.
    pub fn wait(&self) {
        wait_for("the dump", || self.gate.path().join("ready").exists().then_some(()));
    }

    pub fn go_on(&self) {
        fs::write(self.gate.path().join("go"), "").expect("the cue");
    }
}

/// Everything that pg_dump treats specially; `{role}` is a role that exists.
pub const EVERYTHING: &str = include_str!("everything.sql");

/// Tables with something to see: a shop, with constraints, a view, a sequence, and text that needs escaping.
pub const SHOP: &str = r"
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL, joined timestamptz DEFAULT now());
    CREATE TABLE orders (
        id bigserial PRIMARY KEY,
        customer int NOT NULL REFERENCES customers,
        total numeric(10, 2) CHECK (total >= 0),
        note text
    );
    CREATE INDEX ON orders (customer);
    CREATE VIEW totals AS SELECT customer, sum(total) AS total FROM orders GROUP BY customer;
    INSERT INTO customers (name) SELECT 'Zoë ' || n FROM generate_series(1, 500) n;
    INSERT INTO orders (customer, total, note)
        SELECT 1 + n % 500, n / 7.0, E'tab\t, back\\slash, line\nbreak, \\. and -- PostgreSQL database dump complete'
        FROM generate_series(1, 5000) n;
";

/// Rows as applications have them; a million are about 100 MB.
pub fn events(rows: u32) -> String {
    format!(
        "CREATE TABLE events AS
             SELECT n AS id, now() - n * interval '1 second' AS at, md5(n::text) AS session,
                    'visited /products/' || n % 977 || ' from ' || n % 255 || '.0.0.1' AS what
             FROM generate_series(1, {rows}) n;
         ALTER TABLE events ADD PRIMARY KEY (id)"
    )
}

/// Orders as an application's API has them; a million are about 330 MB.
pub fn documents(rows: u32) -> String {
    format!(
        "CREATE TABLE documents AS
             SELECT n AS id, now() - n * interval '7 seconds' AS changed, (n * 7919 % 1000000) / 100.0 AS total,
                    jsonb_build_object('customer', n % 9973, 'name', 'Customer number ' || n % 9973, 'status',
                        (ARRAY['new', 'paid', 'sent', 'returned'])[1 + n % 4], 'lines', jsonb_build_array(
                            jsonb_build_object('article', n * 31 % 4999, 'count', 1 + n % 5, 'price', n % 97 + 0.99),
                            jsonb_build_object('article', n * 37 % 4999, 'count', 1 + n % 3, 'price', n % 89 + 0.49)
                        )) AS document
             FROM generate_series(1, {rows}::bigint) n;
         ALTER TABLE documents ADD PRIMARY KEY (id);
         CREATE INDEX ON documents (changed)"
    )
}

/// Rows that do not compress: `megabytes` of them. Each row has 1,024 parts, and none is in another row too.
pub fn noise(megabytes: u32) -> String {
    format!(
        "CREATE TABLE noise AS
             SELECT n, (SELECT string_agg(sha512((n * 2000 + part)::text::bytea), ''::bytea)
                        FROM generate_series(1, 1024) part) AS bytes
             FROM generate_series(1, {megabytes} * 16) n"
    )
}
