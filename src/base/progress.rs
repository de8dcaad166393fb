//! Shows the progress of long work: on a terminal in one line that changes, otherwise in a log line from time
//! to time.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use log::info;

use crate::base::logging;
use crate::base::units;

const LIVE_INTERVAL: Duration = Duration::from_millis(500);
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Shows `line`, which gets the time since the start, until the returned sender is dropped.
pub fn report(line: impl Fn(Duration) -> String + Send + 'static) -> io::Result<Sender<()>> {
    let (running, ended) = mpsc::channel::<()>();
    let started = Instant::now();
    let live = io::stderr().is_terminal();
    let interval = if live { LIVE_INTERVAL } else { LOG_INTERVAL };
    thread::Builder::new().name("progress".into()).spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(interval) {
            let line = line(started.elapsed());
            if live {
                logging::show_live(&line);
            } else {
                info!("{line}");
            }
        }
        if live {
            logging::show_live("");
        }
    })?;
    Ok(running)
}

/// `12.3 MB/s`.
pub fn rate(bytes: u64, elapsed: Duration) -> String {
    units::bytes((bytes as f64 / elapsed.as_secs_f64().max(0.001)) as u64) + "/s"
}
