//! Promise 3: every wait ends. Servers that say nothing, children that do nothing, readers that read nothing.

use std::fs::File;
use std::io::{pipe, PipeReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{kill_process, Pid, Signal};

use crate::failures::assert_nothing_left;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, wrapped, wrapped_pg_dump, PausedDump, Server, SHOP};
use crate::support::proxy::{Harm, Proxy};
use crate::support::s3;
use crate::support::wait_for;

/// Short, and still far longer than any of these programs needs to say something.
const STALL: &str = "5s";

/// A configuration whose patience is short.
fn impatient(pgkeep: &Pgkeep, bin: &tempfile::TempDir) -> Pgkeep {
    let bin = bin.path().to_str().expect("UTF-8");
    pgkeep
        .clone()
        .with("BACKUP_STALL_TIMEOUT", STALL)
        .with("BACKUP_LOCK_TIMEOUT", "1s")
        .with("BACKUP_PG_BIN", bin)
}

/// Backs up with a pg_dump that is wrapped in `script`; the log. It leaves nothing behind in S3 and on the server.
fn fail_on(server: &Server, script: &str) -> String {
    let (database, s3) = (server.database("stalled"), s3::Server::start());
    server.psql(&database, &noise(8));
    let bin = wrapped_pg_dump(script);
    let pgkeep =
        Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &server.connection(&database));
    let log = impatient(&pgkeep, &bin).fail(&["backup"]).log;
    assert_nothing_left(&s3);
    let connected = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'");
    wait_for("the end of all connections", || (server.psql("postgres", &connected) == "0").then_some(()));
    log
}

#[test]
fn a_pg_dump_that_is_frozen_is_ended_and_told() {
    let log = fail_on(postgres::server(), "kill -STOP $$");
    let said = "backup failed: pg_dump wrote nothing for 5.0 s and was ended (BACKUP_STALL_TIMEOUT): the server has no process for it";
    assert!(log.contains(said), "{log}");
}

#[test]
fn a_pg_dump_that_is_frozen_in_its_middle_is_ended_with_its_server_process() {
    // While a server process waits for its client, no database can be dropped on its server.
    let server = Server::start(postgres::bin());
    let log = fail_on(&server, r#"$REAL "$@" | (head -c 100000; sleep 600)"#);
    let said = "pg_dump wrote nothing for 5.0 s and was ended (BACKUP_STALL_TIMEOUT): its server process is active, \
                waiting for Client ClientWrite, for ";
    assert!(log.contains(said), "{log}");
}

#[test]
fn a_pg_dump_whose_server_waits_is_ended_with_its_query() {
    let log = fail_on(postgres::server(), r#"exec psql -Xqd "$2" -c 'SELECT pg_sleep(3600)'"#);
    assert!(log.contains("its server process is active, waiting for Timeout PgSleep, for "), "{log}");
}

#[test]
fn a_pg_dump_whose_server_works_is_waited_for() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("working");
    server.psql(&database, SHOP);
    // Nothing is written meanwhile.
    let bin = wrapped_pg_dump(
        r#"psql -Xqd "$2" -v ON_ERROR_STOP=1 -c "DO 'BEGIN WHILE clock_timestamp() < now() + interval ''15 s'' LOOP
               PERFORM count(*) FROM generate_series(1, 10000); END LOOP; END'" || exit
           exec $REAL "$@""#,
    );
    let log = impatient(&Pgkeep::new(&database, &s3), &bin).succeed(&["backup"]).log;
    assert!(
        log.contains("pg_dump wrote nothing for 5.0 s, and goes on: its server process is active, for "),
        "{log}"
    );
    assert_eq!(s3.backups().len(), 1);
}

#[test]
fn a_server_that_says_nothing_to_a_question_is_given_up_and_asked_once() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("silent");
    let proxy = Proxy::to(server.port);
    let connection = server.connection(&database).replace(&server.port.to_string(), &proxy.port.to_string());
    // Up to the answer to an empty question.
    let mut psql = server.client("psql", &database);
    assert!(psql.env("PGPORT", proxy.port.to_string()).args(["-Xc", ";"]).status().expect("psql").success());
    let carried =
        wait_for("the end of the connection", || Some(proxy.carried()).filter(|carried| *carried > 0));
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_STALL_TIMEOUT", STALL);
    for (stall, own) in [(carried - 5, ""), (0, " connect_timeout=0")] {
        proxy.harm(Harm::Stall(stall));
        let pgkeep = pgkeep.clone().with("POSTGRES_CONNECTION_STRING", &format!("{connection}{own}"));
        let log = pgkeep.fail(&["backup"]).log;
        let said = format!(
            "backup failed: cannot reach database \"{database}\": psql wrote nothing for 5.0 s and was ended"
        );
        assert!(log.contains(&said), "{log}");
        assert!(!log.contains("try 1 of 3"), "{log}");
        assert_eq!(proxy.calm(), [Harm::Stall(stall)]);
    }
    assert_nothing_left(&s3);
}

#[test]
fn a_client_that_does_not_even_tell_its_version_is_given_up() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let bin = wrapped("pg_dump", "exec sleep 3600");
    let pgkeep = Pgkeep::new(&server.database("version"), &s3);
    let log = impatient(&pgkeep, &bin).fail(&["backup"]).log;
    assert!(
        log.contains("PostgreSQL's client does not work") && log.contains("pg_dump wrote nothing for 5.0 s"),
        "{log}"
    );
}

/// A backup in a bucket, and a psql for its restore that freezes before it reads.
fn frozen_restore(name: &str) -> (s3::Server, Pgkeep, tempfile::TempDir) {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database(name);
    // More than a pipe holds.
    server.psql(&database, &noise(4));
    let pgkeep = Pgkeep::new(&database, &s3);
    pgkeep.succeed(&["backup"]);
    let bin = wrapped("psql", r#"case "$*" in *"-o /dev/null"*) kill -STOP $$;; esac; exec $REAL "$@""#);
    let pgkeep = pgkeep.with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    (s3, pgkeep, bin)
}

fn exists(database: &str) -> bool {
    let query = format!("SELECT count(*) FROM pg_database WHERE datname LIKE '{database}%'");
    postgres::server().psql("postgres", &query) != "0"
}

#[test]
fn a_psql_that_is_frozen_in_a_restore_is_ended_and_leaves_no_database() {
    let (_s3, pgkeep, _bin) = frozen_restore("frozen");
    let pgkeep = pgkeep.with("BACKUP_STALL_TIMEOUT", STALL);
    let log = pgkeep.fail(&["restore", "latest", "--database", "frozen_restored"]).log;
    let said = "restore failed: psql wrote nothing for 5.0 s and was ended (BACKUP_STALL_TIMEOUT): ";
    assert!(log.contains(said), "{log}");
    assert!(log.contains("was dropped again"), "{log}");
    assert!(!exists("frozen_restored"));
}

#[test]
fn a_signal_ends_a_restore_whose_psql_is_frozen() {
    let (_s3, pgkeep, _bin) = frozen_restore("iced");
    let mut running = pgkeep.start(&["restore", "latest", "--database", "iced_restored"]);
    wait_for("the frozen psql", || running.children().iter().any(|pid| is_stopped(*pid)).then_some(()));
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(!exists("iced_restored"));
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
}

#[test]
fn an_index_that_takes_long_is_waited_for_in_a_restore() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("index");
    server.psql(
        &database,
        "CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
             DECLARE start timestamptz := clock_timestamp();
             BEGIN WHILE clock_timestamp() < start + interval '2.5 s' LOOP
                 PERFORM count(*) FROM generate_series(1, 10000); END LOOP; RETURN n; END $$;
         CREATE TABLE slowly AS SELECT n FROM generate_series(1, 6) n; CREATE INDEX ON slowly (slow(n))",
    );
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_STALL_TIMEOUT", STALL);
    pgkeep.succeed(&["backup"]);
    let log = pgkeep.succeed(&["restore", "latest", "--database", "index_restored"]).log;
    assert!(
        log.contains("psql wrote nothing for 5.0 s, and goes on: its server process is active, for "),
        "{log}"
    );
    assert_eq!(
        server.psql(
            "index_restored",
            "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relname = 'slowly'"
        ),
        "1"
    );
}

/// A command of pgkeep's whose log goes into a pipe of a page that nobody reads. `pg_dump` says more than that.
fn unread(pgkeep: &Pgkeep, arguments: &[&str]) -> (Child, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    let mut command = pgkeep.command(arguments);
    (command.stdout(Stdio::null()).stderr(writer).spawn().expect("pgkeep"), reader)
}

/// 60,000 lines, which no queue holds.
const TALKATIVE: &str = "yes pg_dump has something to say | head -n 60000 >&2";

fn end_of(child: &mut Child) -> ExitStatus {
    wait_for("the end", || child.try_wait().expect("its status"))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the signal is sent");
}

#[test]
fn a_log_that_nobody_reads_stops_neither_a_backup_nor_a_signal() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("unread");
    server.psql(&database, SHOP);
    let bin = wrapped_pg_dump(&format!("{TALKATIVE}; exec $REAL \"$@\""));
    let pgkeep = Pgkeep::new(&database, &s3)
        .with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"))
        .with("BACKUP_INTERVAL", "@yearly")
        .with("BACKUP_ON_START", "true")
        .with("BACKUP_LOG_LEVEL", "debug");
    let (mut daemon, _nobody_reads) = unread(&pgkeep, &["run"]);
    wait_for("the backup", || (s3.backups().len() == 1).then_some(()));
    signal(&daemon, Signal::TERM);
    assert_eq!(end_of(&mut daemon).code(), Some(0));
}

#[test]
fn a_log_that_nobody_reads_does_not_stop_a_second_signal() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("unread");
    server.psql(&database, SHOP);
    let dump = PausedDump::new(TALKATIVE);
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_PG_BIN", dump.bin());
    let (mut backup, _nobody_reads) = unread(&pgkeep, &["backup"]);
    dump.wait();
    // The system may deliver the second one first.
    signal(&backup, Signal::TERM);
    signal(&backup, Signal::INT);
    let code = end_of(&mut backup).code();
    assert!(code == Some(143) || code == Some(130), "{code:?}");
    assert_nothing_left(&s3);
}

#[test]
fn lines_that_nobody_read_are_counted_and_the_newest_are_kept() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("unread");
    server.psql(&database, SHOP);
    let bin = wrapped_pg_dump(&format!("{TALKATIVE}; exec $REAL \"$@\""));
    let pgkeep = Pgkeep::new(&database, &s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let (mut backup, mut reader) = unread(&pgkeep, &["backup"]);
    wait_for("the backup", || (s3.backups().len() == 1).then_some(()));
    let mut log = String::new();
    reader.read_to_string(&mut log).expect("the log");
    assert_eq!(end_of(&mut backup).code(), Some(0));
    assert!(log.lines().next().is_some_and(|first| first.contains("backup started: ")), "{log}");
    let (_, behind) = log.split_once(" lines of the log were lost: nobody read them\n").expect(&log);
    assert!(behind.contains("backup succeeded: ") && behind.len() < 300_000, "{log}");
    assert!(log.lines().all(|line| line.starts_with("20") && line.contains("Z [")), "{log}");
}

/// The writing end of a pipe that nobody can read any more.
fn closed() -> Stdio {
    pipe().expect("a pipe").1.into()
}

/// Runs a command to its end; its log, and whether it ended well.
fn run(command: &mut Command) -> (String, Option<i32>) {
    let output = command.stderr(Stdio::piped()).output().expect("pgkeep");
    (String::from_utf8(output.stderr).expect("UTF-8"), output.status.code())
}

#[test]
fn a_reader_that_leaves_is_no_failure_and_does_not_skip_the_swap() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("leave");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, &s3);
    pgkeep.succeed(&["backup"]);
    let full = || File::options().write(true).open("/dev/full").expect("/dev/full");
    for stdout in [closed(), full().into()] {
        server.psql(&database, "DROP TABLE orders CASCADE");
        let (log, status) = run(pgkeep.command(&["restore", "latest", "--replace"]).stdout(stdout));
        assert_eq!(status, Some(0), "{log}");
        assert!(
            !log.contains("panic") && log.contains("restore succeeded: 2 tables with 5500 rows"),
            "{log}"
        );
        assert_eq!(server.psql(&database, "SELECT count(*) FROM orders"), "5000");
        // Its name has the second in it.
        thread::sleep(std::time::Duration::from_secs(1));
    }
    for arguments in [&["list"][..], &["list", "--json"], &["--help"], &["--help-variables"], &["check"]] {
        let (log, status) = run(pgkeep.command(arguments).stdout(closed()));
        assert_eq!((log.contains("panic"), status), (false, Some(0)), "{arguments:?}: {log}");
    }
    let (log, status) = run(pgkeep.command(&["--help"]).stdout(full()));
    assert_eq!((log.contains("panic"), status), (false, Some(1)), "{log}");
}

#[test]
fn a_log_that_is_closed_is_no_failure() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = Pgkeep::new(&server.database("closed"), &s3);
    for (arguments, status) in [(&["backup"][..], 0), (&["restore"], 2), (&["restore", "1999"], 1)] {
        let mut command = pgkeep.command(arguments);
        let ended = command.stdout(Stdio::null()).stderr(closed()).status().expect("pgkeep");
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
    assert_eq!(s3.backups().len(), 1);
}

#[test]
fn what_is_said_at_length_is_cut() {
    let log = fail_on(
        postgres::server(),
        "for n in 1 2 3 4 5 6 7 8; do head -c 4000 /dev/zero | tr '\\0' $n >&2; echo >&2; done; exit 1",
    );
    let line = log.lines().find(|line| line.contains("backup failed: ")).expect("the line");
    assert!(line.contains("pg_dump failed (exit status: 1): 1111"), "{line}");
    assert!(line.contains(" kB left out …] ") && line.ends_with("8888"), "{line}");
    assert!(line.len() < 5000, "{}", line.len());
}

#[test]
fn a_terminal_that_is_closed_stops_as_sigterm_does() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = Pgkeep::new(&server.database("hangup"), &s3).with("BACKUP_INTERVAL", "@yearly");
    let mut running = pgkeep.start(&[]);
    running.wait_for_log("next backup at");
    running.signal(Signal::HUP);
    assert_eq!(running.wait(), 0);
    assert!(running.log().contains("SIGHUP: stopping"), "{}", running.log());
    let dump = PausedDump::new("");
    let mut running = pgkeep.with("BACKUP_PG_BIN", dump.bin()).start(&["backup"]);
    dump.wait();
    running.signal(Signal::HUP);
    running.wait_for_log("SIGHUP: stopping");
    running.signal(Signal::HUP);
    assert_eq!(running.wait(), 129, "{}", running.log());
    assert_nothing_left(&s3);
}

#[test]
fn nohup_keeps_a_closed_terminal_from_stopping_it() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let pgkeep = Pgkeep::new(&server.database("nohup"), &s3).with("BACKUP_INTERVAL", "@yearly");
    let own = pgkeep.command(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(own.get_program()).env_clear();
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut running = crate::support::pgkeep::Running::start(&mut command, &pgkeep);
    running.wait_for_log("next backup at");
    running.signal(Signal::HUP);
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 0);
    let log = running.log();
    assert!(log.contains("SIGTERM: stopping") && !log.contains("SIGHUP"), "{log}");
}
