//! Stopping: the first signal lets the running backup finish, the second one ends it at once.

use std::fs;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::process::{kill_process_group, Pid, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::logging;

/// After a second signal everything has this long to abort the upload and unwind.
const FORCED_EXIT_AFTER: Duration = Duration::from_secs(4);
/// pg_dump has this long to end by itself after SIGTERM, and to cancel its query on the server.
const CHILD_GRACE: Duration = Duration::from_secs(1);
/// At a forced exit the last lines of the log have this long to be read.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The signals that ask to stop: the system's, Ctrl-C, and a terminal that was closed. The last one is left alone if
/// whoever started pgkeep has it ignored, as nohup(1) does.
fn stopping() -> Vec<i32> {
    let mut signals = vec![SIGTERM, SIGINT];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    signals
}

/// Whether the system ignores a signal (proc_pid_status(5), SigIgn).
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGHUP => "SIGHUP",
        _ => "SIGTERM",
    }
}

/// Ends the program at a signal, as the default is; but as PID 1, which it is in a container, a program has
/// no default.
///
/// # Errors
/// Where the handlers cannot be installed.
pub fn end_at_signals() -> io::Result<()> {
    for signal in stopping() {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Makes a file that reaches the limit of its size an error of the write, as a full disk is, where the default is
/// to end the program with a signal (setrlimit(2), RLIMIT_FSIZE).
///
/// # Errors
/// Where the handler cannot be installed.
pub fn survive_file_size_limit() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// The signals received so far, and the children that a forced stop has to end. Clones share them.
#[derive(Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
    /// So many signals force nothing yet.
    forgiven: usize,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { shared: Arc::default(), forgiven: 1 }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    signals: Vec<i32>,
    /// And how many signals each of them is forgiven.
    children: Vec<(Pid, usize)>,
}

impl Shutdown {
    /// Handles SIGTERM, SIGINT and SIGHUP from now on, on a thread of its own.
    ///
    /// # Errors
    /// Where the handlers cannot be installed.
    pub fn install() -> io::Result<Self> {
        let shutdown = Shutdown::default();
        let mut signals = Signals::new(stopping())?;
        let handler = shutdown.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                handler.received(signal);
            }
        })?;
        Ok(shutdown)
    }

    /// For work that is broken off by the first signal already: a restore can be begun again.
    pub fn impatient(&self) -> Self {
        Shutdown { shared: Arc::clone(&self.shared), forgiven: 0 }
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        !self.lock().signals.is_empty()
    }

    /// The exit status of a forced stop (128 and the signal's number), once there was a second signal; of
    /// impatient work, a first one.
    pub fn forced(&self) -> Option<i32> {
        self.lock().signals.get(self.forgiven).map(|signal| 128 + signal)
    }

    /// Sleeps for `length`, or until a stop is asked for; true if none was.
    pub fn sleep(&self, length: Duration) -> bool {
        self.sleep_while(length, |state| state.signals.is_empty())
    }

    /// Sleeps for `length` also after a first signal, as a running backup does between two tries; true
    /// if nothing was forced.
    pub fn sleep_unless_forced(&self, length: Duration) -> bool {
        self.sleep_while(length, |state| state.signals.len() <= self.forgiven)
    }

    /// Until the answer is dropped, a forced stop ends the process group `leader` too.
    pub fn watch(&self, leader: Pid) -> Watched {
        let mut state = self.lock();
        state.children.push((leader, self.forgiven));
        if state.signals.len() > self.forgiven {
            // Born after the signal, and so not seen by it.
            let _ = kill_process_group(leader, Signal::TERM);
        }
        Watched { shutdown: self.clone(), leader }
    }

    fn sleep_while(&self, length: Duration, go_on: impl Fn(&State) -> bool) -> bool {
        let end = Instant::now() + length;
        let mut state = self.lock();
        while go_on(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    fn received(&self, signal: i32) {
        let (count, name) = (self.lock().signals.len() + 1, name(signal));
        // Said before anybody wakes, because the program may end at once. Nobody waits for the log's reader.
        match count {
            1 => {
                info!("{name}: stopping as soon as a running backup is done; a second signal ends it at once")
            }
            2 => warn!("second signal ({name}): ending everything now"),
            _ => {}
        }
        self.lock().signals.push(signal);
        self.shared.changed.notify_all();
        if count > 2 {
            return;
        }
        self.kill_children(Signal::TERM, count - 1);
        let shutdown = self.clone();
        // On its own thread: further signals go on being received.
        let follow_up = thread::Builder::new().spawn(move || shutdown.follow_up(count, 128 + signal));
        if follow_up.is_err() {
            self.follow_up(count, 128 + signal);
        }
    }

    /// Ends what a signal has asked to end, and did not.
    fn follow_up(&self, count: usize, status: i32) {
        thread::sleep(CHILD_GRACE);
        self.kill_children(Signal::KILL, count - 1);
        if count == 2 {
            thread::sleep(FORCED_EXIT_AFTER.saturating_sub(CHILD_GRACE));
            // Still here: somebody waits for the network. The spool has no name, so it goes with the process.
            warn!("not done in time: exiting; an upload that was not aborted is swept by a later run");
            logging::flush(LAST_LINES);
            std::process::exit(status);
        }
    }

    /// Those that are forgiven no more than this.
    fn kill_children(&self, signal: Signal, forgiven: usize) {
        for &(leader, _) in self.lock().children.iter().filter(|(_, patience)| *patience <= forgiven) {
            let _ = kill_process_group(leader, signal);
        }
    }

    /// The state is valid after every statement, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A child that a forced stop ends; see [`Shutdown::watch`].
pub struct Watched {
    shutdown: Shutdown,
    leader: Pid,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.shutdown.lock().children.retain(|(leader, _)| *leader != self.leader);
    }
}
