//! How long a request may take. Without limits, a backup could wait for ever and nobody would notice.
//!
//! Each single read and write has a time limit, so a dead connection is noticed soon. A server that sends a
//! byte from time to time stays within that limit. So a request also has a limit in total, and all its tries
//! share it: the second try gets what is left. The waits between tries do not count.

use std::time::{Duration, Instant};

use super::{Client, Result};

/// How long one request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    /// The limit of each single read.
    pub silence: Duration,
    /// The limit of all tries together. None if the answer's body can have any length.
    pub total: Option<Duration>,
}

/// The values that limits are made of. The tests use smaller ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The limit of each single read or write, in a request that S3 answers at once.
    pub stall: Duration,
    /// The wait for an answer. S3 may need minutes to join the parts of a large object before it answers
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html>). Other stores
    /// also write a body to several places before they acknowledge it.
    pub answer: Duration,
    /// The limit of a request that sends and receives little: a page of a listing has at most two megabytes.
    pub small: Duration,
    /// Bytes per second. Four parts at a time need a line of 256 kbit/s. A part of 16 MiB gets half an hour.
    pub slowest_upload: u64,
}

impl Limits {
    pub const USUAL: Limits = Limits {
        stall: Duration::from_secs(30),
        answer: Duration::from_secs(300),
        small: Duration::from_secs(120),
        slowest_upload: 8 << 10,
    };

    /// The limit of a request that sends and receives little.
    pub fn small(&self) -> Limit {
        Limit { silence: self.stall, total: Some(self.small) }
    }

    /// The limit of a request that makes an object or part from this many bytes: the time of two late
    /// answers, plus the transfer.
    pub fn upload(&self, bytes: u64) -> Limit {
        let way = Duration::from_secs(bytes / self.slowest_upload);
        Limit { silence: self.answer, total: Some(self.answer * 2 + way) }
    }

    /// The limit of a request whose answer can have any length. Whoever reads the answer has to make sure
    /// that it ends.
    pub fn download(&self) -> Limit {
        Limit { silence: self.stall, total: None }
    }
}

impl Limit {
    /// The stricter of two limits.
    pub fn within(self, other: Limit) -> Limit {
        let total = self.total.into_iter().chain(other.total).min();
        Limit { silence: self.silence.min(other.silence), total }
    }

    fn without(self, spent: Duration) -> Limit {
        Limit { total: self.total.map(|total| total.saturating_sub(spent)), ..self }
    }
}

impl Client {
    /// Retries what may succeed the next time. Each try gets what the earlier tries have left of the limit.
    pub(super) fn retry_within<T>(
        &self,
        limit: Limit,
        go_on: impl Fn() -> bool,
        attempt: impl Fn(Limit) -> Result<T>,
    ) -> Result<T> {
        let mut left = limit;
        let sleep = |wait| self.shutdown.sleep_unless_forced(wait) && go_on();
        self.retries.run(sleep, || {
            let started = Instant::now();
            let result = attempt(left);
            left = left.without(started.elapsed());
            let no_time_left = left.total == Some(Duration::ZERO);
            result.map_err(|error| if no_time_left { error.for_good() } else { error })
        })
    }

    /// The same for a request that sends and receives little.
    pub(super) fn retry_small<T>(&self, attempt: impl Fn(Limit) -> Result<T>) -> Result<T> {
        self.retry_within(self.limits.small(), || true, attempt)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::thread;

    use super::super::{Part, S3Config, Source};
    use super::*;
    use crate::base::retry::Policy;
    use crate::base::shutdown::Shutdown;

    const HURRY: Limits = Limits {
        stall: Duration::from_secs(1),
        answer: Duration::from_secs(1),
        small: Duration::from_secs(2),
        slowest_upload: 1 << 20,
    };
    /// On a free machine the client ends within a few seconds. The servers in these tests go on for minutes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// A client of a server that does `to` with each connection, and the number of connections.
    fn client(limits: Limits, to: fn(&mut TcpStream) -> std::io::Result<()>) -> (Client, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = S3Config::of_a_test(listener.local_addr().unwrap().port());
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                counter.fetch_add(1, Ordering::Relaxed);
                // It ends when the client goes away.
                thread::spawn(move || to(&mut connection));
            }
        });
        let wait = Duration::from_millis(10);
        let retries = Policy { tries: 5, first_wait: wait, longest_wait: wait };
        (Client { limits, retries, ..Client::new(&config, Shutdown::default()) }, connections)
    }

    fn part(length: u64) -> Part {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        let source = Arc::new(Source::new(file, "/".into()));
        Part { number: 1, md5: [0; 16], length, offset: 0, source }
    }

    fn drip(to: &mut TcpStream, what: &str) -> std::io::Result<()> {
        loop {
            to.write_all(what.as_bytes())?;
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn read_head(from: &mut TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(())
    }

    /// Each operation ends with an error that contains this text.
    fn ends(client: &Client, says: &str) {
        let part = part(2 << 20);
        let operations: [(&str, &dyn Fn() -> Result<()>); 7] = [
            ("list", &|| client.list_objects("p").map(drop)),
            ("uploads", &|| client.list_multipart_uploads("p").map(drop)),
            ("head", &|| client.head_object("k").map(drop)),
            ("delete", &|| client.delete_object("k")),
            ("begin", &|| client.create_multipart_upload("k", &Vec::new()).map(drop)),
            ("part", &|| client.upload_part("k", "u", &part, || true).map(drop)),
            ("download", &|| client.download("k").map(drop)),
        ];
        for (name, operation) in operations {
            let started = Instant::now();
            let error = operation().expect_err(name).to_string();
            assert!(started.elapsed() < PATIENCE, "{name} took {:?}: {error}", started.elapsed());
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[test]
    fn a_head_that_trickles_ends() {
        let (client, connections) = client(HURRY, |to| {
            to.write_all(b"HTTP/1.1 200 OK\r\nx-trickle: ")?;
            drip(to, "x")
        });
        ends(&client, "");
        // All tries of an operation share one limit, and the first try uses it up. Only the download differs.
        assert_eq!(connections.load(Ordering::Relaxed), 6 + 5);
    }

    #[test]
    fn a_body_that_trickles_ends() {
        let (client, _) = client(HURRY, |to| {
            read_head(to)?;
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nETag: x\r\n\r\n")?;
            drip(to, "x")
        });
        let started = Instant::now();
        let error = client.list_objects("p").unwrap_err().to_string();
        assert!(
            started.elapsed() < PATIENCE && error.contains("longer than a request of its size may"),
            "{error}"
        );
    }

    #[test]
    fn a_refusal_that_trickles_is_one_all_the_same() {
        let (client, connections) = client(HURRY, |to| {
            read_head(to)?;
            to.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100000\r\n\r\n")?;
            drip(to, "no ")
        });
        ends(&client, ": 403 Forbidden: ");
        assert_eq!(connections.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn an_answer_that_is_always_to_come_ends() {
        for pause in [true, false] {
            let flood: fn(&mut TcpStream) -> _ = |to| loop {
                to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            };
            let trickle: fn(&mut TcpStream) -> _ = |to| drip(to, "HTTP/1.1 100 Continue\r\n\r\n");
            let (client, _) = client(HURRY, if pause { trickle } else { flood });
            ends(&client, "");
        }
    }

    #[test]
    fn a_body_that_is_taken_slowly_ends_although_no_write_stalls() {
        let (client, _) = client(Limits { slowest_upload: 1 << 30, ..HURRY }, |to| {
            let mut buffer = vec![0; 256 << 10];
            while to.read(&mut buffer)? > 0 {
                thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        // More than the system's buffers hold.
        let error = client.upload_part("k", "u", &part(64 << 20), || true).unwrap_err().to_string();
        assert!(error.contains("longer than a request of its size may"), "{error}");
    }

    #[test]
    fn a_second_try_gets_what_the_first_has_left() {
        let (client, connections) = client(HURRY, |to| {
            read_head(to)?;
            thread::sleep(Duration::from_millis(900));
            Ok(())
        });
        client.list_objects("p").unwrap_err();
        assert_eq!(connections.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_body_has_its_answer_late() {
        let limits = Limits { answer: PATIENCE, ..HURRY };
        let (client, connections) = client(limits, |to| {
            read_head(to)?;
            thread::sleep(Duration::from_secs(3));
            to.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: x\r\n\r\n")
        });
        let sent = client.upload_part("k", "u", &part(0), || true).unwrap();
        assert_eq!((sent.etag.text.as_str(), connections.load(Ordering::Relaxed)), ("x", 1));
    }

    #[test]
    fn a_body_gets_time_for_its_size() {
        let minutes = |bytes| Limits::USUAL.upload(bytes).total.unwrap().as_secs() / 60;
        assert_eq!((minutes(0), minutes(16 << 20), minutes(512 << 20)), (10, 44, 1102));
        assert_eq!(Limits::USUAL.upload(0).silence.as_secs(), 300);
        assert_eq!(Limits::USUAL.small().total.unwrap().as_secs(), 120);
    }
}
