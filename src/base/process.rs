//! Child processes: what they get, what they say, and how they end.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Error, Result};
use log::{debug, info, warn, Level};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::{ioctl_fionbio, retry_on_intr};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{kill_process_group, waitid, Pid, Signal, WaitId, WaitIdOptions};

use super::messages::Messages;
use super::patience::{Patience, LOOKS};
use super::secret::Redactor;
use super::shutdown::{Shutdown, Watched};
use super::units;

/// The largest size that Linux allows every user (/proc/sys/fs/pipe-max-size).
const PIPE_SIZE: usize = 1 << 20;
/// A child that is told to end has this much time to cancel its query on the server.
const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// A child's output is passed on in pieces of at most this size.
const PIECE: usize = 64 * 1024;
/// If not even SIGKILL ends a child in this time (a disk does not answer), it is left behind.
const KILL_GRACE: Duration = Duration::from_secs(10);
/// How often to check whether a child has ended: soon at first, then less often.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// What a child gets from the environment, besides libpq's variables (`PG…`) and the locale (`LC_…`): where
/// programs and temporary files are, the user, the time zone, and where TLS and Kerberos keep their files.
const PASSED_ON: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "OPENSSL_CONF",
    "KRB5_CONFIG",
    "KRB5CCNAME",
];

/// A program with the environment of a child of pgkeep.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| is_passed_on(name)));
    command
}

fn is_passed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.starts_with("PG") || name.starts_with("LC_") || PASSED_ON.contains(&name)
}

/// Starts a child in its own process group, so that Ctrl-C on a terminal does not reach it. Its messages are
/// logged at `level`. A forced `shutdown` ends it, and so does a silence longer than `patience`.
pub fn start(
    name: &'static str,
    level: Level,
    mut command: Command,
    stdin: Stdio,
    redactor: Redactor,
    shutdown: &Shutdown,
    patience: Patience,
) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let group = Pid::from_child(&child);
    let watched = shutdown.watch(group);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked for as pipes");
    };
    // Only these ends do not block; the child's ends block as usual. With a larger pipe, the child and pgkeep
    // switch less often. A container may forbid it.
    ioctl_fionbio(&stdout, true)?;
    let _ = fcntl_setpipe_size(&stdout, PIPE_SIZE);
    let stdin = child.stdin.take();
    if let Some(stdin) = &stdin {
        ioctl_fionbio(stdin, true)?;
        let _ = fcntl_setpipe_size(stdin, PIPE_SIZE);
    }
    let messages = Messages::relay(name, level, stderr, redactor)?;
    Ok(Process { name, child, group, stdin, stdout, messages, patience, watched: Some(watched) })
}

/// What a program prints that is called with one argument and needs no server, such as its version.
///
/// # Errors
/// If it cannot be started, fails, or is silent for `limit`.
pub fn ask(name: &'static str, program: &Path, argument: &str, limit: Duration) -> Result<String> {
    let mut command = command(program);
    command.arg(argument);
    let (redactor, shutdown, patience) = (Redactor::default(), Shutdown::default(), Patience::of(limit));
    start(name, Level::Debug, command, Stdio::null(), redactor, &shutdown, patience)?
        .answer()
        .with_context(|| format!("{} {argument}", program.display()))
}

/// A running child. Dropped before its end, it is killed with its whole process group.
pub struct Process {
    name: &'static str,
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    messages: Messages,
    patience: Patience,
    /// Set until the child has ended.
    watched: Option<Watched>,
}

impl Process {
    /// The child's process id. It is also the id of its group.
    pub fn id(&self) -> Pid {
        self.group
    }

    /// Reads what the child writes. 0 means the end.
    ///
    /// # Errors
    /// The child is silent for too long. It is ended then.
    pub fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            match self.stdout.read(into) {
                Ok(read) => return Ok(read),
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {
                    self.wait("wrote nothing", |child, look| {
                        poll_for(&mut [PollFd::new(&child.stdout, PollFlags::IN)], look)
                    })?;
                }
                Err(problem) => {
                    return Err(problem).with_context(|| format!("cannot read from {}", self.name))
                }
            }
        }
    }

    /// Writes to the child's input, if it was started with one. Only [`Process::finish`] closes the input of
    /// a living child, because a child acts upon the end of its input. In all other cases the child is killed
    /// first.
    ///
    /// # Errors
    /// The child has ended ([`is_broken_pipe`]), or it reads nothing for too long. It is ended then.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.input().write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => {
                    self.wait("took nothing of its input", |child, look| {
                        poll_for(&mut [PollFd::new(child.input(), PollFlags::OUT)], look)
                    })?;
                }
                Err(problem) => {
                    return Err(problem).with_context(|| format!("{} ended too early", self.name))
                }
            }
        }
        Ok(())
    }

    /// The same for a child that writes while it reads: `output` gets what it writes until it has taken all
    /// `bytes`.
    ///
    /// # Errors
    /// The same as for [`Process::write_all`]. Errors of `output` are passed on.
    pub fn write_through(
        &mut self,
        mut bytes: &[u8],
        output: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut piece = vec![0; PIECE];
        let would_block = |problem: &io::Error| problem.kind() == io::ErrorKind::WouldBlock;
        while !bytes.is_empty() {
            match self.input().write(bytes) {
                Err(problem) if would_block(&problem) => {}
                Ok(written) => {
                    bytes = &bytes[written..];
                    continue;
                }
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => continue,
                Err(problem) => {
                    return Err(problem).with_context(|| format!("{} ended too early", self.name))
                }
            }
            // It reads again when somebody has taken what it wrote.
            match self.stdout.read(&mut piece) {
                Ok(read @ 1..) => output(&piece[..read])?,
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) if would_block(&problem) => {
                    self.wait("neither took its input nor wrote anything", |child, look| {
                        let input = child.stdin.as_ref().expect("an input that is open");
                        let ends = &mut [
                            PollFd::new(input, PollFlags::OUT),
                            PollFd::new(&child.stdout, PollFlags::IN),
                        ];
                        poll_for(ends, look)
                    })?;
                }
                Ok(0) => {
                    let ended = io::Error::from(io::ErrorKind::BrokenPipe);
                    return Err(ended).with_context(|| format!("{} ended too early", self.name));
                }
                Err(problem) => {
                    return Err(problem).with_context(|| format!("cannot read from {}", self.name))
                }
            }
        }
        Ok(())
    }

    /// Closes the child's input, and passes on what it still writes, until it has ended well.
    ///
    /// # Errors
    /// The same as for [`Process::read`] and [`Process::finish`]. Errors of `output` are passed on.
    pub fn finish_into(mut self, output: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.stdin = None;
        let mut piece = vec![0; PIECE];
        loop {
            match self.read(&mut piece)? {
                0 => return self.finish(),
                read => output(&piece[..read])?,
            }
        }
    }

    fn input(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().expect("an input that is open")
    }

    /// Closes the child's input. Returns all its output if it ends well.
    ///
    /// # Errors
    /// The same as for [`Process::read`] and [`Process::finish`].
    pub fn answer(self) -> Result<String> {
        let mut answer = Vec::new();
        self.finish_into(&mut |bytes| {
            answer.extend_from_slice(bytes);
            Ok(())
        })?;
        // The output is in the database's encoding, which is not always UTF-8. A name in it is only shown to
        // people.
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// Closes the child's input and waits until the child ends.
    ///
    /// # Errors
    /// Any status but 0, with the child's last messages, or a child that does not end.
    pub fn finish(mut self) -> Result<()> {
        self.stdin = None;
        self.wait("did not end", |child, look| child.ends_within(look))?;
        let (status, messages) = self.reap()?;
        if status.success() {
            return Ok(());
        }
        let messages = if messages.is_empty() { "it said nothing".into() } else { messages.join(" | ") };
        bail!("{} failed ({status}): {messages}", self.name)
    }

    /// Calls `ready` with a time to wait, until it returns true. A child that does nothing for longer than
    /// its patience allows is ended.
    fn wait(&mut self, what: &str, mut ready: impl FnMut(&mut Self, Duration) -> Result<bool>) -> Result<()> {
        loop {
            for _ in 0..LOOKS {
                if ready(self, self.patience.look())? {
                    return Ok(());
                }
            }
            let excuse = self.patience.excuse();
            // Asking takes time.
            if ready(self, Duration::ZERO)? {
                return Ok(());
            }
            let silent = format!("{} {what} for {}", self.name, units::duration(self.patience.limit));
            match excuse {
                Ok(reason) => info!("{silent}, and goes on: {reason}"),
                Err(reason) => {
                    self.end();
                    bail!("{silent} and was ended{reason}");
                }
            }
        }
    }

    /// Ends the child so that its query on the server ends too.
    fn end(&mut self) {
        let _ = kill_process_group(self.group, Signal::INT);
        let _ = self.ends_within(CANCEL_GRACE);
        self.kill();
    }

    fn kill(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
        let ended = self.ends_within(KILL_GRACE).and_then(|ended| {
            ensure!(ended, "not even SIGKILL ends process {}", self.group.as_raw_nonzero());
            self.reap()
        });
        if let Err(failure) = ended {
            warn!("{} is left behind: {failure:#}", self.name);
            self.watched = None;
        }
    }

    /// Waits until the child ends. It still has to be reaped.
    fn ends_within(&self, length: Duration) -> Result<bool> {
        let (end, mut pause) = (Instant::now() + length, FIRST_PAUSE);
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        loop {
            let status = retry_on_intr(|| waitid(WaitId::Pid(self.group), ended));
            if status.with_context(|| format!("cannot wait for {}", self.name))?.is_some() {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            thread::sleep(pause.min(left));
            pause = LONGEST_PAUSE.min(2 * pause);
        }
    }

    /// Takes the status of a child that has ended.
    fn reap(&mut self) -> Result<(ExitStatus, Vec<String>)> {
        // Processes that the child started and left behind would keep its standard error open. The group is
        // killed before the child is reaped: until then, nobody else can get the child's id.
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        self.watched = None;
        Ok((status, self.messages.last_words()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.watched.is_some() {
            debug!("ending {} (process group {})", self.name, self.group.as_raw_nonzero());
            self.kill();
        }
    }
}

/// Whether one of these ends of pipes is ready, or becomes ready within a time.
fn poll_for(ends: &mut [PollFd<'_>], length: Duration) -> Result<bool> {
    let length = Timespec::try_from(length)?;
    Ok(retry_on_intr(|| poll(ends, Some(&length)))? > 0)
}

/// Whether a failure means that the other end of a pipe was closed.
pub fn is_broken_pipe(failure: &Error) -> bool {
    let io = failure.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}
