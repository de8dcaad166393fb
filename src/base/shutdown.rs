//! Stopping: the first signal lets the running backup finish, the second one aborts it at once.

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

/// After a second signal, there is this much time to abort the upload and clean up.
const FORCED_EXIT_AFTER: Duration = Duration::from_secs(4);
/// After SIGTERM, pg_dump has this much time to cancel its query on the server and to end by itself.
const CHILD_GRACE: Duration = Duration::from_secs(1);
/// At a forced exit, this is how long the last log lines may wait for their reader.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The signals that ask pgkeep to stop: the system's, Ctrl-C, and a closed terminal. The last one stays
/// ignored if whoever started pgkeep made it ignored, as nohup(1) does.
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

/// Makes a signal end the program. That is the default, but not for PID 1, and in a container the program is
/// PID 1.
pub fn end_at_signals() -> io::Result<()> {
    for signal in stopping() {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::new(AtomicBool::new(true)))?;
    }
    Ok(())
}

/// Makes a write fail if a file reaches its size limit, as on a full disk. By default, a signal would end the
/// program (setrlimit(2), RLIMIT_FSIZE).
pub fn survive_file_size_limit() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// The signals received so far, and the children that a forced stop has to end. Clones share them.
#[derive(Clone)]
pub struct Shutdown {
    shared: Arc<Shared>,
    /// Signals tolerated before work is aborted: 1 = finish first, 0 = abort at once.
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
    /// The children, and how many signals each of them tolerates.
    children: Vec<(Pid, usize)>,
}

impl Shutdown {
    /// From now on, a thread handles SIGTERM, SIGINT and SIGHUP.
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

    /// For work that the first signal aborts: a restore can be started again.
    pub fn impatient(&self) -> Self {
        Shutdown { shared: Arc::clone(&self.shared), forgiven: 0 }
    }

    /// Whether somebody asked pgkeep to stop.
    pub fn requested(&self) -> bool {
        !self.lock().signals.is_empty()
    }

    /// The exit status of a forced stop (128 plus the signal's number), if there was a second signal. For
    /// impatient work, the first signal is enough.
    pub fn forced(&self) -> Option<i32> {
        self.lock().signals.get(self.forgiven).map(|signal| 128 + signal)
    }

    /// Sleeps for `length`, or until a stop is requested. Returns true if none was requested.
    pub fn sleep(&self, length: Duration) -> bool {
        self.sleep_while(length, |state| state.signals.is_empty())
    }

    /// Sleeps for `length`, even after a first signal: a running backup sleeps so between two tries. Returns
    /// true if no stop was forced.
    pub fn sleep_unless_forced(&self, length: Duration) -> bool {
        self.sleep_while(length, |state| state.signals.len() <= self.forgiven)
    }

    /// Until the returned value is dropped, a forced stop also ends the process group `leader`.
    pub fn watch(&self, leader: Pid) -> Watched {
        let mut state = self.lock();
        state.children.push((leader, self.forgiven));
        if state.signals.len() > self.forgiven {
            // The child started after the signal, so the signal's handler did not see it.
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
        // Logged before anybody wakes, because the program may end at once. Nobody waits for the log's
        // reader.
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
        // On its own thread, so that further signals are still received.
        let follow_up = thread::Builder::new().spawn(move || shutdown.follow_up(count, 128 + signal));
        if follow_up.is_err() {
            self.follow_up(count, 128 + signal);
        }
    }

    /// Ends what should have ended after a signal but did not.
    fn follow_up(&self, count: usize, status: i32) {
        thread::sleep(CHILD_GRACE);
        self.kill_children(Signal::KILL, count - 1);
        if count == 2 {
            thread::sleep(FORCED_EXIT_AFTER.saturating_sub(CHILD_GRACE));
            // The program still runs: something waits for the network. The spool has no name, so it
            // disappears with the process.
            warn!("not done in time: exiting; an upload that was not aborted is swept by a later run");
            logging::flush(LAST_LINES);
            std::process::exit(status);
        }
    }

    /// Signals the children that tolerate at most this many signals.
    fn kill_children(&self, signal: Signal, forgiven: usize) {
        for &(leader, _) in self.lock().children.iter().filter(|(_, patience)| *patience <= forgiven) {
            let _ = kill_process_group(leader, signal);
        }
    }

    /// The state is valid after every statement, so a panic elsewhere does not damage it.
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
