//! Child processes: what they get, what they say, and how they end.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use anyhow::{bail, Context, Result};
use log::{debug, log, Level};
use rustix::io::retry_on_intr;
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{kill_process_group, waitid, Pid, Signal, WaitId, WaitIdOptions};

use super::statements::Messages;
use crate::base::secret::Redactor;
use crate::base::shutdown::{Shutdown, Watched};

/// As large as Linux allows everybody (/proc/sys/fs/pipe-max-size).
const PIPE_SIZE: usize = 1 << 20;
/// An error shows this many of the first lines of a child's messages, and of the last. The log shows all.
const FIRST_LINES: usize = 4;
const LAST_LINES: usize = 4;
/// Longer lines are cut when read, and cut again when shown, so that half a password at the cut is not shown.
const LONGEST_LINE: u64 = 64 * 1024;
const SHOWN_OF_A_LINE: usize = 4096;
/// What a child gets of the environment, beside libpq's variables (`PG…`) and the locale (`LC_…`): where programs and
/// temporary files are, who it is, the time zone, and where TLS and Kerberos keep their files.
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

/// A program with the environment that a child of pgkeep's gets.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(env::vars_os().filter(|(name, _)| is_passed_on(name)));
    command
}

fn is_passed_on(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    name.starts_with("PG") || name.starts_with("LC_") || PASSED_ON.contains(&name)
}

/// Starts a child in a process group of its own, so that a terminal's Ctrl-C does not reach it. What it says is
/// logged at `level`. A forced `shutdown` ends it.
///
/// # Errors
/// Where the program cannot be started.
pub(super) fn start(
    name: &'static str,
    level: Level,
    mut command: Command,
    stdin: Stdio,
    redactor: Redactor,
    shutdown: &Shutdown,
) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let group = Pid::from_child(&child);
    let watched = shutdown.watch(group);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked for as pipes");
    };
    // With a larger pipe the child and this process take turns less often. A container may forbid it.
    let _ = fcntl_setpipe_size(&stdout, PIPE_SIZE);
    let stdin = child.stdin.take();
    if let Some(stdin) = &stdin {
        let _ = fcntl_setpipe_size(stdin, PIPE_SIZE);
    }
    let messages = thread::Builder::new()
        .name(format!("{name} messages"))
        .spawn(move || relay_messages(name, level, BufReader::new(stderr), &redactor))?;
    Ok(Process { name, child, group, stdin, stdout, messages: Some(messages), watched: Some(watched) })
}

/// A running child. Dropped before its end, it is killed with its whole process group.
pub struct Process {
    name: &'static str,
    child: Child,
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    messages: Option<JoinHandle<Vec<String>>>,
    watched: Option<Watched>,
}

impl Process {
    /// Its process id, which is also its group's.
    pub(super) fn id(&self) -> Pid {
        self.group
    }

    /// What it writes.
    pub fn output(&mut self) -> &mut ChildStdout {
        &mut self.stdout
    }

    /// What it reads, where it was started to. Before it is closed, the child is killed, unless
    /// [`Process::finish`] or [`Process::close_input`] closes it: an end is something that a child acts upon.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.stdin.as_mut().expect("an input that is open")
    }

    /// Tells the child that there is no more to read.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Closes its input and waits for the end.
    ///
    /// # Errors
    /// Any status but 0, with the child's last messages.
    pub fn finish(mut self) -> Result<()> {
        self.close_input();
        let (status, messages) = self.reap()?;
        if status.success() {
            return Ok(());
        }
        let messages = if messages.is_empty() { "it said nothing".into() } else { messages.join(" | ") };
        bail!("{} failed ({status}): {messages}", self.name)
    }

    fn reap(&mut self) -> Result<(ExitStatus, Vec<String>)> {
        let waiting = || format!("cannot wait for {}", self.name);
        // What the child has started and left behind would keep its standard error open. The group goes before
        // the child is reaped, while its id cannot be another's.
        let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::Pid(self.group), ended)).with_context(waiting)?;
        let _ = kill_process_group(self.group, Signal::KILL);
        let status = self.child.wait().with_context(waiting)?;
        self.watched = None;
        let messages = self.messages.take().map(JoinHandle::join);
        Ok((status, messages.and_then(Result::ok).unwrap_or_default()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.watched.is_some() {
            debug!("ending {} (process group {})", self.name, self.group.as_raw_nonzero());
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.reap();
        }
    }
}

/// Whether a failure is that the other end of a pipe was closed.
pub fn is_broken_pipe(failure: &anyhow::Error) -> bool {
    let io = failure.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// Logs what a child says, line by line, and answers with the first and the last lines.
fn relay_messages(name: &str, level: Level, mut messages: impl BufRead, redactor: &Redactor) -> Vec<String> {
    let (mut first, mut last, mut left_out) = (Vec::new(), VecDeque::new(), false);
    let mut statements = Messages::of(name);
    let mut line = Vec::new();
    loop {
        line.clear();
        match messages.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => {
                first.extend(left_out.then(|| "…".to_owned()));
                first.extend(last);
                return first;
            }
            Ok(_) => {}
        }
        let text = redactor.clean(String::from_utf8_lossy(&line).trim_end());
        let text = statements.next(&text).unwrap_or_default();
        if !line.ends_with(b"\n") {
            // The rest is dropped unseen: half a password at its beginning would not be recognised.
            let _ = messages.skip_until(b'\n');
            statements.lost_track();
        }
        let text: String = text.chars().take(SHOWN_OF_A_LINE).collect();
        if text.is_empty() {
            continue;
        }
        log!(level, "{name} says: {text}");
        if first.len() < FIRST_LINES {
            first.push(text);
            continue;
        }
        last.push_back(text);
        if last.len() > LAST_LINES {
            last.pop_front();
            left_out = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    #[test]
    fn messages_are_redacted_and_bounded_and_the_first_and_last_are_kept() {
        let redactor = Redactor::new([Secret::new("hush")]);
        let text = format!("1\n2\n\n3 hush\n4\n{}\n'lost'\ntest: 6", "x".repeat(LONGEST_LINE as usize + 10));
        let relay = |text: &str| relay_messages("test", Level::Debug, text.as_bytes(), &redactor);
        assert_eq!(relay(&text), ["1", "2", "3 ***", "4", &"x".repeat(SHOWN_OF_A_LINE), "test: 6"]);
        assert_eq!(
            relay(&format!("{text}\n7\n8\n9\n")),
            ["1", "2", "3 ***", "4", "…", "test: 6", "7", "8", "9"]
        );
        assert_eq!(relay("test: ALTER ROLE a PASSWORD 'b\nc'"), ["test: ALTER ROLE a PASSWORD ***"]);
    }
}
