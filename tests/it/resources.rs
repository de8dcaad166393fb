//! Too little of something: descriptors, memory, file size, names, rights.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::backup::assert_restores;
use crate::failures::assert_nothing_left;
use rustix::process::Signal;

use crate::support::pgkeep::{Pgkeep, Running};
use crate::support::postgres::{self, noise, PausedDump, SHOP};
use crate::support::proxy::{Harm, Proxy};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

/// A command of pgkeep's, begun by a shell that does something before.
fn behind(pgkeep: &Pgkeep, before: &str, arguments: &[&str]) -> Command {
    let own = pgkeep.command(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{before}; exec \"$@\""), "sh"]).arg(own.get_program()).args(own.get_args());
    command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn log(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn skip(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc").uid() == 0
}

#[test]
fn too_few_descriptors_are_told_and_leave_nothing() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("files");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3);
    let run =
        |most: u32| behind(&pgkeep, &format!("ulimit -n {most}"), &["backup"]).output().expect("pgkeep");
    let needed = (4..40).rev().find(|most| !run(*most).status.success()).expect("a limit") + 1;
    assert!((10..30).contains(&needed), "{needed} descriptors");
    s3.clear();
    assert!(run(needed).status.success());
    assert_restores(&s3, &database);
    s3.clear();
    for most in [needed - 1, needed - 8, 4] {
        let output = run(most);
        assert_eq!(output.status.code(), Some(1), "{}", log(&output));
        assert!(log(&output).contains("Too many open files"), "{most}: {}", log(&output));
        assert_nothing_left(&s3);
    }
}

#[test]
fn a_limit_of_the_file_size_is_told_with_the_place() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("size");
    server.psql(&database, &noise(2));
    let pgkeep = Pgkeep::new(&database, &s3);
    // 512 kB in the blocks of POSIX.
    let output = behind(&pgkeep, "ulimit -f 1024", &["backup"]).output().expect("pgkeep");
    let log = log(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(
        log.contains("File too large") && log.contains(pgkeep.spool.path().to_str().expect("UTF-8")),
        "{log}"
    );
    assert_nothing_left(&s3);
}

/// A control group with a limit of memory, where this machine lets one be made.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn of(bytes: u64) -> Option<Self> {
        let name = format!("pgkeep-test-{}", std::process::id());
        for (root, limit) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = MemoryGroup(Path::new(root).join(&name));
            let file = group.0.join(limit);
            if fs::create_dir(&group.0).is_ok() && file.exists() && fs::write(file, bytes.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn memory_of_32_mb_is_enough_for_all_processes_together() {
    let Some(group) = MemoryGroup::of(32 << 20) else {
        return skip("32 MB of memory, because only root can limit it, where control groups can be made");
    };
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("memory");
    server.psql(&database, &noise(34));
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_THREADS", "2");
    let join = format!("echo $$ >{}", group.0.join("cgroup.procs").display());
    let output = behind(&pgkeep, &join, &["backup"]).output().expect("pgkeep");
    assert!(output.status.success(), "{}", log(&output));
    assert_restores(&s3, &database);
}

#[test]
fn a_name_that_cannot_be_resolved_is_tried_again_until_it_can() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("names");
    let port = s3.url.rsplit_once(':').expect("a port").1;
    let pgkeep = Pgkeep::new(&database, &s3).with("S3_URL", &format!("http://s3.pgkeep.invalid:{port}"));
    // A name space of its own, with other names in it.
    let hosts = tempfile::NamedTempFile::new().expect("a file");
    fs::write(hosts.path(), "127.0.0.1 localhost\n").expect("no such name");
    let mut unshared = Command::new("unshare");
    let own = behind(&pgkeep, &format!("mount --bind {} /etc/hosts", hosts.path().display()), &["backup"]);
    unshared.arg("-m").arg(own.get_program()).args(own.get_args()).env_clear();
    unshared.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if !is_root()
        || !Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|status| status.success())
    {
        return skip("a name that cannot be resolved, because only root can change names for one process");
    }
    let mut running = Running::start(&mut unshared, &pgkeep);
    let line = running.wait_for_log("try 1 of 5 failed");
    assert!(line.contains("failed to lookup address information"), "{line}");
    // The same file, as it was mounted.
    fs::write(hosts.path(), "127.0.0.1 localhost s3.pgkeep.invalid\n").expect("the name");
    assert_eq!(running.wait(), 0, "{}", running.log());
    assert_eq!(s3.backups().len(), 1);
}

#[test]
fn an_archive_that_finds_no_room_is_not_even_downloaded() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("room");
    server.psql(&database, &noise(12));
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_FORMAT", "custom");
    pgkeep.succeed(&["backup"]);
    let run = |megabytes: u32, more: &[&str]| {
        let spool = pgkeep.spool.path().display();
        let mount = format!("mount -t tmpfs -o size={megabytes}m none {spool} || exit 99");
        let own =
            behind(&pgkeep, &mount, &[&["restore", "latest", "--database", "room_back"], more].concat());
        let mut unshared = Command::new("unshare");
        unshared.arg("-m").arg(own.get_program()).args(own.get_args()).env_clear();
        unshared.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        unshared.output().ok().filter(|output| output.status.code() != Some(99))
    };
    // The rows are text in the archive, and twice as long as in the backup.
    for more in [["--jobs", "2"], ["--table", "noise"]] {
        s3.forget_requests();
        let Some(output) = run(16, &more).filter(|_| is_root()) else {
            return skip("a disk without room, because only root can mount one");
        };
        let log = log(&output);
        assert_eq!(output.status.code(), Some(1), "{log}");
        let said = format!("need the whole archive, uncompressed, in {}: ", pgkeep.spool.path().display());
        assert!(
            log.contains(&said) && log.contains(" bytes), and only 16.8 MB (16777216 bytes) are free"),
            "{log}"
        );
        assert!(log.contains("BACKUP_TEMP_DIR can name another directory"), "{log}");
        // Its last bytes, which tell its length.
        assert_eq!(s3.requests("GET", "/room").len(), 1, "{:?}", s3.requests("GET", "/room"));
        let output = run(64, &more).expect("a disk with room");
        assert!(output.status.success(), "{}", self::log(&output));
        assert_eq!(server.contents("room_back"), server.contents(&database));
        server.psql("postgres", "DROP DATABASE room_back");
    }
}

#[test]
fn a_connection_to_postgres_that_breaks_in_the_dump_is_told_and_leaves_nothing() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("broken");
    server.psql(&database, &noise(34));
    let proxy = Proxy::to(server.port);
    let connection = server.connection(&database).replace(&server.port.to_string(), &proxy.port.to_string());
    let pgkeep = Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &connection);
    // The connection of pg_dump is cut in the middle of the table.
    proxy.spare(postgres::CONNECTIONS);
    proxy.harm(Harm::CutDown(50_000_000));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("backup failed: pg_dump failed (exit status: 1): "), "{log}");
    assert!(log.contains("server closed the connection unexpectedly"), "{log}");
    assert_eq!(proxy.calm(), [Harm::CutDown(50_000_000)]);
    assert!(!s3.requests("PUT", "partNumber=1").is_empty(), "it was cut too early");
    assert_nothing_left(&s3);
}

#[test]
fn a_table_that_may_not_be_read_is_named() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("rights");
    server.psql(&database, SHOP);
    server.psql(
        &database,
        "CREATE ROLE half LOGIN PASSWORD 'half'; GRANT SELECT ON customers, customers_id_seq TO half",
    );
    let connection = format!("postgresql://half:half@127.0.0.1:{}/{database}", server.port);
    let log =
        Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &connection).fail(&["backup"]).log;
    assert!(log.contains("permission denied for table orders"), "{log}");
    assert_nothing_left(&s3);
}

#[test]
fn a_key_that_may_not_list_is_told_before_the_dump() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("policy");
    s3.fail(9, "GET", "list-type=2", Fault::Answer(403, "AccessDenied"));
    let log = Pgkeep::new(&database, &s3).fail(&["backup"]).log;
    assert!(
        log.contains("cannot look into the bucket: ListObjectsV2") && log.contains("403 AccessDenied"),
        "{log}"
    );
    assert!(s3.requests("PUT", "").is_empty() && s3.requests("POST", "").is_empty());
}

#[test]
fn what_is_written_is_nobody_elses_whatever_the_umask() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("modes");
    for umask in ["000", "777"] {
        // Its own files obey the umask.
        let dump = PausedDump::new("umask 022");
        let pgkeep = Pgkeep::new(&database, &s3)
            .with("BACKUP_PG_BIN", dump.bin())
            .with("BACKUP_ON_START", "true")
            .with("BACKUP_INTERVAL", "@yearly");
        let mut daemon = behind(&pgkeep, &format!("umask {umask}"), &["run"]);
        let mut daemon = Running::start(&mut daemon, &pgkeep);
        let status = wait_for("the status file", || {
            let mut entries = pgkeep.spool.path().read_dir().expect("the directory").flatten();
            entries.find(|entry| entry.file_name().to_string_lossy().ends_with(".json"))
        });
        assert_eq!(status.metadata().expect("the file").permissions().mode() & 0o777, 0o600, "{umask}");
        let spool = wait_for("the spool", || {
            let descriptors =
                fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("descriptors").flatten();
            let place = pgkeep.spool.path().to_str().expect("UTF-8").to_owned();
            descriptors.map(|entry| entry.path()).find(|path| {
                fs::read_link(path).is_ok_and(|link| {
                    let link = link.to_string_lossy();
                    link.starts_with(&place) && link.ends_with("(deleted)")
                })
            })
        });
        assert_eq!(fs::metadata(spool).expect("the spool").permissions().mode() & 0o077, 0, "{umask}");
        daemon.signal(Signal::KILL);
        daemon.wait();
        s3.clear();
    }
}

#[test]
fn any_user_will_do() {
    if !is_root() {
        return skip("another user, because only root can become one");
    }
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("anybody");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3);
    fs::set_permissions(pgkeep.spool.path(), fs::Permissions::from_mode(0o777)).expect("its mode");
    // Nobody of this name is in /etc/passwd, and there is no home.
    let output = pgkeep.command(&["backup"]).uid(54321).gid(54321).output();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "{}", log(&output));
            assert_restores(&s3, &database);
        }
        // The program lies where others may not go.
        Err(problem) => skip(&format!("another user: {problem}")),
    }
}
