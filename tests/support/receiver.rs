//! A service that is told of events: it records what it is sent, and answers as healthchecks.io, Uptime Kuma,
//! Slack and others do, or as no service should.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::wait_for;

/// What a request gets.
#[derive(Clone, Debug)]
pub enum Answer {
    /// This status line's end, more headers, and a body.
    Status(&'static str, &'static str, String),
    /// Nothing, while the client waits.
    Nothing,
    /// A body that never ends.
    Endless,
    /// The connection is closed without an answer.
    Cut,
}

impl Answer {
    /// `200 OK` with a text.
    pub fn ok(text: &str) -> Self {
        Answer::Status("200 OK", "", text.to_owned())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Told {
    /// Method, path and query.
    pub line: String,
    /// In lower case.
    pub headers: String,
    pub body: String,
}

#[derive(Default)]
struct Shared {
    told: Vec<Told>,
    next: VecDeque<Answer>,
    usual: Option<Answer>,
}

/// The service.
pub struct Receiver {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Receiver {
    /// A service that answers `200 OK`.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let shared = Arc::<Mutex<Shared>>::default();
        let receiver = Receiver { url, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        receiver
    }

    /// The next request gets this; the one after it what is said next.
    pub fn answer(&self, answer: Answer) {
        self.shared.lock().unwrap().next.push_back(answer);
    }

    /// Every further request gets this.
    pub fn always(&self, answer: Answer) {
        self.shared.lock().unwrap().usual = Some(answer);
    }

    /// What it was told so far.
    pub fn told(&self) -> Vec<Told> {
        self.shared.lock().unwrap().told.clone()
    }

    /// Method, path and query of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.told().into_iter().map(|told| told.line).collect()
    }

    /// The JSON of all requests so far.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.told().iter().map(|told| serde_json::from_str(&told.body).expect("JSON")).collect()
    }

    /// Waits for so many requests.
    pub fn wait(&self, count: usize) -> Vec<Told> {
        wait_for(format!("request {count}"), || Some(self.told()).filter(|told| told.len() >= count))
    }
}

fn serve(stream: TcpStream, shared: &Mutex<Shared>) {
    let mut reader = BufReader::new(&stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).is_ok_and(|read| read > 0) {
            continue;
        }
        return;
    }
    let (line, headers) = head.split_once("\r\n").expect("a request line");
    let headers = headers.to_ascii_lowercase();
    let length = headers.lines().find_map(|header| header.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    let body = String::from_utf8(body).expect("UTF-8");
    let answer = {
        let mut shared = shared.lock().unwrap();
        shared.told.push(Told { line, headers, body });
        let usual = shared.usual.clone().unwrap_or_else(|| Answer::ok("OK"));
        shared.next.pop_front().unwrap_or(usual)
    };
    let mut to = &stream;
    let _ = match answer {
        Answer::Status(status, headers, text) => {
            let length = text.len();
            write!(to, "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{text}")
        }
        // Until the client has gone.
        Answer::Nothing => to.read(&mut [0]).map(drop),
        Answer::Endless => {
            let mut written = write!(to, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n");
            while written.is_ok() {
                thread::sleep(Duration::from_millis(1));
                written = to.write_all(&[b'x'; 1000]);
            }
            written
        }
        Answer::Cut => Ok(()),
    };
}
