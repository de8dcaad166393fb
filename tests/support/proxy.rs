//! A proxy on the way to a server, which does to connections what networks do on their bad days. It knows nothing
//! of what it carries, so it stands before S3 as well as before PostgreSQL.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// So many pieces of an answer trickle; the rest comes as it is.
const TRICKLED: u32 = 60;

/// What becomes of a connection. The numbers count the bytes that pass before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Both ends are cut as soon as the connection is made.
    Drop,
    /// Both ends are cut behind so many bytes to the server.
    CutUp(u64),
    /// Both ends are cut behind so many bytes to the client.
    CutDown(u64),
    /// The client hears that nothing more comes; what it sends still arrives.
    HalfClose(u64),
    /// Nothing more comes to the client, and it is not told.
    Stall(u64),
    /// Nothing comes to the client for two seconds.
    Pause(u64),
    /// Bytes to the client come a few at a time.
    Trickle,
    /// What the server says next, it says twice.
    Repeat(u64),
}

#[derive(Default)]
struct Shared {
    /// What the next connections meet.
    next: VecDeque<Option<Harm>>,
    /// What connections have met.
    met: Vec<Harm>,
    /// Bytes to the client of the last connection that ended.
    carried: u64,
    /// Nobody is there: connections are closed at once.
    away: bool,
    /// Not kept open by this: an end that is only shut down still takes what comes, and never reads it.
    open: Vec<Weak<TcpStream>>,
}

/// A listener on a free port.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// Begins to carry connections to a port of this machine.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let own = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let proxy = Proxy { port: own, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let harm = {
                    let mut shared = shared.lock().unwrap();
                    let harm = shared.next.pop_front().flatten();
                    if shared.away || harm == Some(Harm::Drop) {
                        shared.met.extend(harm);
                        continue;
                    }
                    harm
                };
                // A server that is down: the client finds its connection closed.
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (client, server) = (Arc::new(client), Arc::new(server));
                shared.lock().unwrap().open.extend([Arc::downgrade(&client), Arc::downgrade(&server)]);
                let up = Way { harm, up: true, shared: Arc::clone(&shared) };
                let down = Way { harm, up: false, shared: Arc::clone(&shared) };
                let (from, to) = (Arc::clone(&client), Arc::clone(&server));
                thread::spawn(move || up.carry(&from, &to));
                thread::spawn(move || down.carry(&server, &client));
            }
        });
        proxy
    }

    /// The next connection meets this; the one after the next, where this was said before, and so on.
    pub fn harm(&self, harm: Harm) {
        self.shared.lock().unwrap().next.push_back(Some(harm));
    }

    /// The next `connections` meet nothing.
    pub fn spare(&self, connections: usize) {
        self.shared.lock().unwrap().next.extend((0..connections).map(|_| None));
    }

    /// How many bytes the client of the last connection got.
    pub fn carried(&self) -> u64 {
        self.shared.lock().unwrap().carried
    }

    /// Whether nobody is there.
    pub fn set_away(&self, away: bool) {
        self.shared.lock().unwrap().away = away;
    }

    /// How many connections were carried.
    pub fn connections(&self) -> usize {
        self.shared.lock().unwrap().open.len() / 2
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        for stream in self.shared.lock().unwrap().open.drain(..).filter_map(|stream| stream.upgrade()) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Does no more harm; answers with what was done since the last time.
    pub fn calm(&self) -> Vec<Harm> {
        let mut shared = self.shared.lock().unwrap();
        shared.next.clear();
        std::mem::take(&mut shared.met)
    }
}

/// One direction of a connection.
struct Way {
    harm: Option<Harm>,
    up: bool,
    shared: Arc<Mutex<Shared>>,
}

impl Way {
    fn carry(self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        let mut passed = 0;
        while let Ok(read) = from.read(&mut buffer) {
            if read == 0 {
                if !self.up {
                    self.shared.lock().unwrap().carried = passed;
                }
                // The other direction goes on, as with a real one.
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            let end = passed + read as u64;
            let turn = self.turn().filter(|turn| (passed..end).contains(turn));
            let before = turn.map_or(read, |turn| usize::try_from(turn - passed).expect("within the buffer"));
            if self.harm == Some(Harm::Trickle) && !self.up && passed == 0 {
                self.note();
                if trickle(to, &buffer[..read]).is_err() {
                    break;
                }
            } else if to.write_all(&buffer[..before]).is_err() {
                break;
            }
            if turn.is_some() {
                self.note();
                match self.harm {
                    Some(Harm::HalfClose(_)) => {
                        let _ = to.shutdown(Shutdown::Write);
                        // What still comes is read, and goes nowhere.
                        while from.read(&mut buffer).is_ok_and(|read| read > 0) {}
                        return;
                    }
                    Some(Harm::Stall(_)) => {
                        // What still comes is read, and goes nowhere.
                        while from.read(&mut buffer).is_ok_and(|read| read > 0) {}
                        break;
                    }
                    Some(Harm::Pause(_)) => thread::sleep(Duration::from_secs(2)),
                    Some(Harm::Repeat(_)) => {
                        let _ = to.write_all(&buffer[before..read]);
                    }
                    _ => break,
                }
                if to.write_all(&buffer[before..read]).is_err() {
                    break;
                }
            }
            passed = end;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Behind how many bytes of this direction the harm is done.
    fn turn(&self) -> Option<u64> {
        match self.harm? {
            Harm::CutUp(at) if self.up => Some(at),
            Harm::CutDown(at)
            | Harm::HalfClose(at)
            | Harm::Stall(at)
            | Harm::Pause(at)
            | Harm::Repeat(at)
                if !self.up =>
            {
                Some(at)
            }
            _ => None,
        }
    }

    fn note(&self) {
        self.shared.lock().unwrap().met.extend(self.harm);
    }
}

/// How far away a server is.
#[derive(Clone, Copy)]
pub struct Distance {
    pub round_trip: Duration,
    /// Of each connection, in each direction.
    pub bytes_per_second: f64,
}

impl Distance {
    /// Begins to carry connections to a port of this machine, as if that were so far away; the port to connect to.
    pub fn to(self, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let own = listener.local_addr().expect("its address").port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (client, server) = (Arc::new(client), Arc::new(server));
                // TCP's own round trip, before the first request is sent.
                let open = Instant::now() + self.round_trip;
                self.carry(Arc::clone(&client), Arc::clone(&server), open);
                self.carry(server, client, open);
            }
        });
        own
    }

    fn carry(self, from: Arc<TcpStream>, to: Arc<TcpStream>, open: Instant) {
        // More than what a window of TCP would hold is not on its way.
        let (sent, pieces) = mpsc::sync_channel(128);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(read) = (&*from).read(&mut buffer) {
                if read == 0 || sent.send((Instant::now(), buffer[..read].to_vec())).is_err() {
                    break;
                }
            }
        });
        thread::spawn(move || self.deliver(&pieces, &to, open));
    }

    fn deliver(self, pieces: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream, open: Instant) {
        let mut free = open;
        for (sent, piece) in pieces {
            free = free.max(sent) + Duration::from_secs_f64(piece.len() as f64 / self.bytes_per_second);
            thread::sleep((free + self.round_trip / 2).saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

fn trickle(mut to: &TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let (slow, rest) = bytes.split_at(bytes.len().min(TRICKLED as usize * 7));
    for piece in slow.chunks(7) {
        to.write_all(piece)?;
        thread::sleep(Duration::from_millis(10));
    }
    to.write_all(rest)
}
