//! The built binary, run as a user runs it.

use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{kill_process, Pid, Signal};

use super::{platform, postgres, s3, wait_for};

/// The binary beside this test program.
fn binary() -> PathBuf {
    match option_env!("CARGO_BIN_EXE_pgkeep") {
        Some(path) => path.into(),
        // An example: target/<profile>/examples/demo.
        None => {
            std::env::current_exe().expect("this program").ancestors().nth(2).expect("target").join("pgkeep")
        }
    }
}

/// A configuration, and the spool's directory, which has to be empty at the end.
#[derive(Clone)]
pub struct Pgkeep {
    variables: Vec<(String, String)>,
    pub spool: Arc<tempfile::TempDir>,
}

/// What a finished command left.
pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub log: String,
}

impl Pgkeep {
    /// The required variables for a database of the shared server and an S3 server of one's own.
    pub fn new(database: &str, s3: &s3::Server) -> Self {
        Self::to(database, &s3.url, s3::BUCKET)
    }

    /// The same with a bucket of any S3 server.
    pub fn to(database: &str, url: &str, bucket: &str) -> Self {
        let spool = tempfile::Builder::new().prefix("pgkeep-spool-").tempdir().expect("a directory");
        let pgkeep = Pgkeep { variables: Vec::new(), spool: Arc::new(spool) };
        let temp = pgkeep.spool.path().to_str().expect("UTF-8").to_owned();
        pgkeep
            .with("POSTGRES_CONNECTION_STRING", &postgres::server().connection(database))
            .with("S3_URL", url)
            .with("S3_BUCKET", bucket)
            .with("S3_ACCESS_KEY", s3::ACCESS_KEY)
            .with("S3_SECRET_KEY", s3::SECRET_KEY)
            .with("BACKUP_TEMP_DIR", &temp)
            .with("PATH", &std::env::var("PATH").unwrap_or_default())
    }

    /// Sets a variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a variable away.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    /// A command of pgkeep's with this configuration, and nothing else in its environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env_clear().envs(self.variables.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// What a terminal gets of a command; `None` where the system has no `script` to make one.
    pub fn on_a_terminal(&self, arguments: &str) -> Option<String> {
        let line = format!("{} {arguments}", binary().display());
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_clear().envs(self.variables.iter().cloned());
        let output = command.stdin(Stdio::null()).output().ok()?;
        Some(String::from_utf8(output.stdout).expect("UTF-8"))
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().expect("pgkeep");
        self.outcome(output)
    }

    /// Runs a command that has to succeed.
    pub fn succeed(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, 0, "{}", outcome.log);
        outcome
    }

    /// Runs a command that has to fail with status 1.
    pub fn fail(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.status, 1, "{}", outcome.log);
        outcome
    }

    /// Starts a command that goes on by itself.
    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments), self)
    }

    /// The files in the spool's directory, but for the status of a running daemon, which may be writing it anew.
    pub fn left_in_spool(&self) -> Vec<String> {
        let entries = self.spool.path().read_dir().expect("the spool's directory");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| !name.contains(".status.")).collect()
    }

    fn outcome(&self, output: Output) -> Outcome {
        assert_eq!(self.left_in_spool(), [] as [&str; 0]);
        let outcome = Outcome {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            log: String::from_utf8(output.stderr).expect("UTF-8"),
        };
        assert_no_secret(&outcome.stdout);
        assert_no_secret(&outcome.log);
        outcome
    }
}

/// Promise 4, in every test: no secret of the tests' own in anything that pgkeep says.
fn assert_no_secret(text: &str) {
    let own =
        [postgres::PASSWORD, postgres::HARD_PASSWORD, s3::SECRET_KEY, "X-Amz-Signature", platform::PROOF];
    let handed_out = platform::KEYS.into_iter().flat_map(|key| [key.id, key.secret, key.token]);
    for secret in own.into_iter().chain(handed_out) {
        assert!(!text.contains(secret), "a secret in:\n{text}");
    }
}

/// A command that goes on. Dropped, it is killed.
pub struct Running {
    child: Child,
    lines: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// Kept for as long as the spool may be made in it.
    _spool: Arc<tempfile::TempDir>,
}

/// What was waited for in vain, and the log at that time.
struct Waiting<'a> {
    text: &'a str,
    lines: &'a Mutex<String>,
}

impl Display for Waiting<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"; the log:\n{}", self.text, self.lines.lock().unwrap())
    }
}

impl Running {
    /// Starts a command that goes on by itself.
    pub fn start(command: &mut Command, pgkeep: &Pgkeep) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("pgkeep");
        let lines = Arc::new(Mutex::new(String::new()));
        let (stderr, gathered) = (child.stderr.take().expect("its log"), Arc::clone(&lines));
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                gathered.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Running { child, lines, reader: Some(reader), _spool: Arc::clone(&pgkeep.spool) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for a line of the log that contains `text`.
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_for(Waiting { text, lines: &self.lines }, || {
            self.log().lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the signal is sent");
    }

    /// Waits for the end; the exit status.
    pub fn wait(&mut self) -> i32 {
        let waiting = Waiting { text: "the end", lines: &Arc::clone(&self.lines) };
        let status = wait_for(waiting, || self.child.try_wait().expect("its status"));
        self.reader.take().map(JoinHandle::join);
        assert_no_secret(&self.log());
        status.code().unwrap_or(-1)
    }

    /// The process ids of its children.
    pub fn children(&self) -> Vec<u32> {
        let mut threads = String::new();
        // A child belongs to the thread that started it.
        if let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.pid())) {
            for task in tasks.flatten() {
                if let Ok(mut file) = std::fs::File::open(task.path().join("children")) {
                    let _ = file.read_to_string(&mut threads);
                }
            }
        }
        threads.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
