//! One database and its backups: made by a process that lives on, and by ones that are killed.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, wrapped};
use crate::support::proxy::Proxy;
use crate::support::s3;
use crate::trouble::{Peer, Trouble};

/// A round that lasts longer hangs: the longest waits are of five tries, each of half a minute without an answer.
const LONGEST_ROUND: Duration = Duration::from_secs(600);
/// What a process is given whose children stand still: short, and still longer than they need to say something.
const STALL: &str = "2s";
/// The same, as it is told.
const STALL_TOLD: &str = "2.0 s";
/// What is told by a backup that meets another one.
const OTHER: &str = "another pgkeep backs up this database to the same place";
/// Connections that are kept for the next request, at most.
const IDLE_CONNECTIONS: usize = 8;

pub struct Keeper {
    pub database: String,
    pub pgkeep: Pgkeep,
    /// The worker's own, without the pages of its program, in bytes after each backup.
    pub memory: Vec<u64>,
    worker: Worker,
    /// Descriptors that are no connections, after the first backup.
    files: Option<usize>,
}

/// How a round ended.
pub struct Outcome {
    /// The key that was told, or the failure; of a process that was ended nothing is known.
    pub told: Result<Option<String>, String>,
    /// The key that another pgkeep told, which backed up beside this one.
    pub beside: Option<String>,
    /// What was logged in this round.
    pub log: String,
    /// Whether the trouble came in time, as far as this knows.
    pub met: bool,
}

impl Outcome {
    fn new(told: Result<Option<String>, String>, log: String) -> Self {
        Outcome { told, beside: None, log, met: true }
    }
}

/// A process that backs up once for each line that it reads.
struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: Arc<Mutex<String>>,
}

impl Keeper {
    pub fn new(name: &str, tables: &str, s3: &s3::Server, to_s3: &Proxy, to_postgres: &Proxy) -> Self {
        let server = postgres::server();
        server.create_database(name);
        server.psql(name, tables);
        let port = |port| format!("port={port}");
        let connection = server.connection(name).replace(&port(server.port), &port(to_postgres.port));
        let pgkeep = Pgkeep::new(name, s3)
            .with("POSTGRES_CONNECTION_STRING", &connection)
            .with("S3_URL", &format!("http://127.0.0.1:{}", to_s3.port))
            .with("BACKUP_COMPRESSION_LEVEL", "1")
            .with("BACKUP_RETENTION_DAYS", "30")
            // As main.rs sets it.
            .with("RUST_BACKTRACE", "1");
        let worker = Worker::start(&pgkeep);
        Keeper { database: name.to_owned(), pgkeep, memory: Vec::new(), worker, files: None }
    }

    /// A backup by the process that lives on, and trouble from beside.
    pub fn run_beside(
        &mut self,
        trouble: Option<Trouble>,
        to_s3: &Arc<Proxy>,
        to_postgres: &Proxy,
    ) -> Outcome {
        let running = Arc::new(AtomicBool::new(true));
        let pid = self.worker.child.id();
        let beside: Box<dyn FnOnce() + Send> = match trouble {
            Some(Trouble::S3(harm)) => {
                to_s3.harm(harm);
                Box::new(|| {})
            }
            Some(Trouble::Postgres(harm, question)) => {
                if !question {
                    to_postgres.spare(postgres::CONNECTIONS);
                }
                to_postgres.harm(harm);
                Box::new(|| {})
            }
            Some(Trouble::S3Away(after, time)) => {
                let to_s3 = Arc::clone(to_s3);
                Box::new(move || {
                    thread::sleep(after);
                    to_s3.set_away(true);
                    to_s3.cut();
                    thread::sleep(time);
                    to_s3.set_away(false);
                })
            }
            Some(Trouble::KillDump(after)) => {
                let running = Arc::clone(&running);
                Box::new(move || kill_when(&running, after, || child(pid, "pg_dump")))
            }
            Some(Trouble::KillServer(after)) => {
                let running = Arc::clone(&running);
                Box::new(move || kill_when(&running, after, || connection(pid)))
            }
            Some(Trouble::EndConnection(after)) => {
                let running = Arc::clone(&running);
                Box::new(move || {
                    when(
                        || running.load(Ordering::Relaxed),
                        || connection(pid),
                        |server| {
                            thread::sleep(after);
                            postgres::server()
                                .psql("postgres", &format!("SELECT pg_terminate_backend({server})"));
                        },
                    );
                })
            }
            _ => Box::new(|| {}),
        };
        let beside = thread::spawn(beside);
        let outcome = self.worker.back_up();
        running.store(false, Ordering::Relaxed);
        beside.join().expect("what happened beside");
        outcome
    }

    /// A backup by a process of its own, which is killed.
    pub fn kill(&self, after: Duration) -> Outcome {
        let mut running = self.pgkeep.start(&["backup"]);
        thread::sleep(after);
        running.signal(Signal::KILL);
        running.wait();
        Outcome::new(Ok(None), running.log())
    }

    /// A backup by a process of its own, which is asked to stop, once or twice.
    pub fn stop(&self, after: Duration, now: bool) -> Outcome {
        let mut running = self.pgkeep.start(&["backup"]);
        running.wait_for_log("backup started");
        thread::sleep(after / 4);
        let statuses: &[i32] = if now { &[0, 143] } else { &[0] };
        for _ in 0..=u8::from(now) {
            // It may have ended by itself; nobody has asked for its status yet, so that its id is its own.
            running.signal(Signal::TERM);
            thread::sleep(Duration::from_millis(20));
        }
        let status = running.wait();
        let log = running.log();
        assert!(statuses.contains(&status), "status {status}:\n{log}");
        Outcome::new(if status == 0 { Ok(None) } else { Err(log.clone()) }, log)
    }

    /// A backup by the process that lives on, and another one at the same time: at least one of them succeeds, and
    /// one that fails says that it met the other.
    pub fn pair(&mut self) -> Outcome {
        let mut other = self.pgkeep.start(&["backup"]);
        let mut outcome = self.worker.back_up();
        let (status, log) = (other.wait(), other.log());
        let logs = format!("{}the other one:\n{log}", outcome.log);
        outcome.beside = (status == 0).then(|| key_of(&log));
        // What has been there for some seconds is swept, if one of them starts so late.
        let excused = |log: &str| {
            log.contains(OTHER) || log.contains("NoSuchUpload") && logs.contains("aborted the upload")
        };
        assert!(outcome.told.is_ok() || outcome.beside.is_some(), "both failed: {logs}");
        assert!(outcome.told.is_ok() || excused(&outcome.log), "failed for no reason: {logs}");
        assert!(status == 0 || status == 1 && excused(&log), "status {status}, for no reason: {logs}");
        outcome.met = logs.contains(OTHER);
        Outcome { log: logs, ..outcome }
    }

    /// A backup by a process of its own, one of whose children stands still, and goes on if `thaw` says so. What
    /// stands still for good is ended, and the backup is refused.
    pub fn freeze(&self, peer: Peer, thaw: Option<Duration>) -> Outcome {
        let mark = tempfile::tempdir().expect("a directory");
        // Once: the next question is asked.
        let bin = wrapped(
            "psql",
            &format!(
                r#"case "$*" in *dbname=*) mkdir {}/asked 2>/dev/null && kill -STOP $$;; esac; exec $REAL "$@""#,
                mark.path().display()
            ),
        );
        // A pg_dump that waits for a lock may be silent, too.
        let mut pgkeep =
            self.pgkeep.clone().with("BACKUP_STALL_TIMEOUT", STALL).with("BACKUP_LOCK_TIMEOUT", "1s");
        if let Peer::Question = peer {
            pgkeep = pgkeep.with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
        }
        let mut running = pgkeep.start(&["backup"]);
        let (pid, ended) = (running.pid(), Arc::new(AtomicBool::new(false)));
        let alive = Arc::clone(&ended);
        let beside = thread::spawn(move || {
            let going_on = || !alive.load(Ordering::Relaxed);
            if let Peer::Dump(after) = peer {
                when(
                    going_on,
                    || child(pid, "pg_dump"),
                    |dump| {
                        thread::sleep(after);
                        signal_if(child(pid, "pg_dump") == Some(dump), dump, Signal::STOP);
                    },
                );
            }
            let mut met = false;
            when(
                going_on,
                || children(pid).into_iter().find(|pid| is_stopped(*pid)),
                |frozen| {
                    met = true;
                    if let Some(time) = thaw {
                        thread::sleep(time);
                        signal_if(children(pid).contains(&frozen), frozen, Signal::CONT);
                    }
                },
            );
            met
        });
        let status = running.wait();
        ended.store(true, Ordering::Relaxed);
        let (met, log) = (beside.join().expect("what happened beside"), running.log());
        let told = match status {
            0 => Ok(Some(key_of(&log))),
            1 => Err(log.clone()),
            _ => panic!("status {status}:\n{log}"),
        };
        assert!(
            told.is_ok() || log.contains(&format!("wrote nothing for {STALL_TOLD}")),
            "failed for no reason: {log}"
        );
        assert!(told.is_err() || !met || thaw.is_some(), "a frozen {peer:?} made a backup: {log}");
        Outcome { met, ..Outcome::new(told, log) }
    }

    /// Nothing is left in the process that lives on.
    pub fn look_at_worker(&mut self, context: &str) {
        let pid = self.worker.child.id();
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten();
        let links: Vec<_> = links.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let connections = links.iter().filter(|link| link.to_string_lossy().starts_with("socket:")).count();
        assert!(connections <= IDLE_CONNECTIONS, "{links:?}: {context}");
        let files = links.len() - connections;
        assert_eq!(*self.files.get_or_insert(files), files, "{links:?}: {context}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
        let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let memory = memory.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        self.memory.push(memory.expect("its memory") * 1024);
    }
}

impl Worker {
    fn start(pgkeep: &Pgkeep) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let with = pgkeep.command(&[]);
        let variables = with.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.arg("worker").env_clear().envs(variables);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("this program");
        let (log, stderr) = (Arc::new(Mutex::new(String::new())), child.stderr.take().expect("its log"));
        let gathered = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                gathered.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let orders = child.stdin.take().expect("its orders");
        let answers = BufReader::new(child.stdout.take().expect("its answers")).lines();
        Worker { child, orders, answers, log }
    }

    fn back_up(&mut self) -> Outcome {
        self.log.lock().unwrap().clear();
        let (started, pid) = (Instant::now(), Pid::from_child(&self.child));
        let (ended, log) = (Arc::new(AtomicBool::new(false)), Arc::clone(&self.log));
        let watch = Arc::clone(&ended);
        // A hang is told with the log, instead of a test that never ends.
        thread::spawn(move || {
            while !watch.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
                if started.elapsed() > LONGEST_ROUND {
                    eprintln!("soak: a backup hangs:\n{}", log.lock().unwrap());
                    return kill_process(pid, Signal::KILL).expect("the worker");
                }
            }
        });
        self.orders.write_all(b"\n").expect("the order");
        let answer = self.answers.next().expect("an answer").expect("an answer");
        ended.store(true, Ordering::Relaxed);
        // The log comes by another pipe: the last line of a round is known.
        let last = if answer == "failed" { "backup failed: " } else { "backup succeeded: " };
        crate::wait_for(format!("\"{last}\""), || self.log.lock().unwrap().contains(last).then_some(()));
        let log = self.log.lock().unwrap().clone();
        Outcome::new(if answer == "failed" { Err(log.clone()) } else { Ok(Some(answer)) }, log)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Does something with the process that `find` finds, unless the round ends before there is one.
fn when(running: impl Fn() -> bool, find: impl Fn() -> Option<u32>, what: impl FnOnce(u32)) {
    while running() {
        if let Some(pid) = find() {
            return what(pid);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn kill_when(running: &AtomicBool, after: Duration, find: impl Fn() -> Option<u32>) {
    when(
        || running.load(Ordering::Relaxed),
        &find,
        |pid| {
            thread::sleep(after);
            signal_if(find() == Some(pid), pid, Signal::KILL);
        },
    );
}

/// Sends a signal to a process, if it is still the one: it may have ended, and its id be another's.
fn signal_if(still: bool, pid: u32, signal: Signal) {
    if still {
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
        let _ = kill_process(pid, signal);
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" T"))
}

/// The key that the line of a success tells.
fn key_of(log: &str) -> String {
    let line = log.lines().find(|line| line.contains("backup succeeded")).expect("the line");
    let key = line.split_once("s3://").and_then(|(_, place)| place.split_once('/'));
    let key = key.and_then(|(_, key)| key.split_once(".sql.gz")).expect("its key").0;
    format!("{key}.sql.gz")
}

/// A running child that is this program and connects to a database: not one that is asked for its version.
fn child(parent: u32, name: &str) -> Option<u32> {
    children(parent).into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("{name}\0-d\0"))
    })
}

fn children(parent: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let children = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids = |line: String| line.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>();
    children.flat_map(pids).collect()
}

/// The server process of the connection of a running pg_dump, a child of this process.
fn connection(parent: u32) -> Option<u32> {
    child(parent, "pg_dump")?;
    let query = "SELECT min(pid) FROM pg_stat_activity WHERE application_name IN ('pgkeep', 'pg_dump')";
    postgres::server().psql("postgres", query).parse().ok()
}

/// Whether no PostgreSQL client of a backup runs any more, by the port that only this soak's clients are given.
pub fn no_clients(to_postgres: &Proxy) -> bool {
    let argument = format!("port='{}'", to_postgres.port);
    let mut processes = fs::read_dir("/proc").expect("/proc").flatten();
    !processes.any(|process| {
        fs::read(process.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&argument))
    })
}
