//! The listener for `/metrics` and `/healthz`: one thread for all connections. None of them can make it wait.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::debug;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::http::{answer, Page, LONGEST_REQUEST};
use crate::base::logging;

/// At most this many connections. If there are more, the oldest is closed.
const MOST_CONNECTIONS: usize = 16;
/// This long a connection may take, with all that it asks and gets.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the answer, at most this much of what the client still sends is read. To close before would make
/// the client lose the answer.
const MOST_IGNORED: usize = 64 * 1024;
/// If no connection can be accepted (too many open files), the next try comes after this time.
const NOT_NOW: Duration = Duration::from_secs(1);

/// Listens, and answers on a thread of its own until the process ends.
///
/// # Errors
/// The address cannot be had, or there is no thread.
pub(super) fn start(address: SocketAddr, page: impl Fn(&str) -> Option<Page> + Send + 'static) -> Result<()> {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .with_context(|| format!("BACKUP_METRICS_LISTEN: cannot listen on {address}"))?;
    thread::Builder::new().name("metrics".into()).spawn(move || {
        // Backups go on without it.
        if let Err(failure) = serve(&listener, &page) {
            logging::failure("the metrics are not served any more", &failure);
        }
    })?;
    Ok(())
}

struct Connection {
    stream: TcpStream,
    end: Instant,
    request: Vec<u8>,
    /// What is not sent yet of the answer.
    answer: Option<Vec<u8>>,
    ignored: usize,
}

fn serve(listener: &TcpListener, page: &dyn Fn(&str) -> Option<Page>) -> Result<()> {
    let mut connections: Vec<Connection> = Vec::new();
    loop {
        let waits = connections.iter().map(Connection::waits_for).collect::<Vec<_>>();
        let mut polled = vec![PollFd::new(listener, PollFlags::IN)];
        polled.extend(connections.iter().zip(waits).map(|(it, flags)| PollFd::new(&it.stream, flags)));
        let end = connections.iter().map(|connection| connection.end).min();
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // A millisecond more, so that it does not wake too early and turn.
        let left = left.map(|left| Timespec::try_from(left + Duration::from_millis(1))).transpose()?;
        match poll(&mut polled, left.as_ref()) {
            Err(Errno::INTR) => continue,
            polled => polled.context("cannot wait for connections")?,
        };
        let ready: Vec<bool> = polled.iter().map(|of| !of.revents().is_empty()).collect();
        drop(polled);
        let now = Instant::now();
        let mut ready = ready.into_iter();
        let new = ready.next().unwrap_or_default();
        connections.retain_mut(|connection| {
            let ready = ready.next().unwrap_or_default();
            now < connection.end && (!ready || connection.go_on(page).unwrap_or(false))
        });
        if new {
            match listener.accept() {
                Ok((stream, _)) => {
                    if connections.len() == MOST_CONNECTIONS {
                        connections.remove(0);
                    }
                    stream.set_nonblocking(true)?;
                    let (request, answer) = (Vec::new(), None);
                    connections.push(Connection { stream, end: now + PATIENCE, request, answer, ignored: 0 });
                }
                Err(problem) if is_early(&problem) => {}
                Err(problem) => {
                    debug!("no connection for metrics is accepted: {problem}");
                    thread::sleep(NOT_NOW);
                }
            }
        }
    }
}

impl Connection {
    fn waits_for(&self) -> PollFlags {
        match &self.answer {
            Some(left) if !left.is_empty() => PollFlags::OUT,
            _ => PollFlags::IN,
        }
    }

    /// Reads or writes once. Returns whether there is more to do.
    fn go_on(&mut self, page: &dyn Fn(&str) -> Option<Page>) -> io::Result<bool> {
        let mut buffer = [0; LONGEST_REQUEST];
        let done = match &mut self.answer {
            None => self.stream.read(&mut buffer[..LONGEST_REQUEST - self.request.len()]).map(|read| {
                self.request.extend(&buffer[..read]);
                self.answer = answer(&self.request, page);
                read > 0
            }),
            Some(left) if !left.is_empty() => self.stream.write(left).and_then(|written| {
                left.drain(..written);
                if left.is_empty() {
                    self.stream.shutdown(Shutdown::Write)?;
                }
                Ok(written > 0)
            }),
            Some(_) => self.stream.read(&mut buffer).map(|read| {
                self.ignored += read;
                read > 0 && self.ignored < MOST_IGNORED
            }),
        };
        match done {
            Err(problem) if is_early(&problem) => Ok(true),
            done => done,
        }
    }
}

/// Whether the same may work in the next turn.
fn is_early(problem: &io::Error) -> bool {
    matches!(problem.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted)
}
