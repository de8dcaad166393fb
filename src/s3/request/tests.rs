//! Servers and proxies that take requests otherwise than S3 does.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::Arc;
use std::thread;

use super::super::{Part, S3Config, Source};
use super::*;

/// A client of a server that reads the head of a request and does `to` with the rest. Whether each request
/// asked first comes through the channel.
fn client(to: impl Fn(&[String], &mut TcpStream) + Send + 'static) -> (Client, Receiver<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = S3Config::of_a_test(listener.local_addr().unwrap().port());
    let (sender, seen) = mpsc::channel();
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            // Byte by byte, because what is behind it belongs to `to`.
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head: Vec<String> = String::from_utf8(head).unwrap().lines().map(str::to_owned).collect();
            sender.send(if expects(&head) { "asked" } else { "sent" }).unwrap();
            to(&head, &mut connection);
        }
    });
    let retries = Policy { tries: 1, ..RETRIES };
    (Client { retries, ..Client::new(&config, Shutdown::default()) }, seen)
}

fn expects(head: &[String]) -> bool {
    head.iter().any(|line| line == "expect: 100-continue")
}

fn say(to: &mut TcpStream, status: &str, body: &str) {
    let length = body.len();
    // A client may go away early.
    let _ = write!(
        to,
        "HTTP/1.1 {status}\r\nETag: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

fn read_body(of: &mut TcpStream) {
    let mut left = EXPECT_FROM;
    let mut buffer = [0; 4096];
    while left > 0 {
        left -= of.read(&mut buffer).unwrap() as u64;
    }
}

fn upload(client: &Client) -> Result<()> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(EXPECT_FROM).unwrap();
    let source = Arc::new(Source::new(file, "/".into()));
    let part = Part { number: 1, md5: [0; 16], length: EXPECT_FROM, offset: 0, source };
    client.upload_part("k", "u", &part, || true).map(drop)
}

#[test]
fn what_cannot_be_asked_first_is_sent_without_asking_from_then_on() {
    for closes in [false, true] {
        let (client, seen) = client(move |head, to| {
            if expects(head) {
                if !closes {
                    say(to, "417 Expectation Failed", "");
                }
                return;
            }
            read_body(to);
            say(to, "200 OK", "");
        });
        upload(&client).unwrap();
        upload(&client.clone()).unwrap();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["asked", "sent", "sent"], "{closes}");
    }
}

#[test]
fn what_fails_otherwise_is_not_sent_once_more() {
    // A connection that breaks within the body says nothing, and neither does a refusal.
    for refusal in ["", "403 Forbidden"] {
        let (client, seen) = client(move |head, to| {
            assert!(expects(head));
            if refusal.is_empty() {
                to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
                to.read_exact(&mut [0; 4096]).unwrap();
            } else {
                say(to, refusal, "");
            }
        });
        upload(&client).unwrap_err();
        upload(&client).unwrap_err();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), ["asked", "asked"], "{refusal}");
    }
    // A server that says 417 to everything is asked twice, and then not any more.
    let (client, seen) = client(|_, to| {
        say(to, "417 Expectation Failed", "");
    });
    let error = upload(&client).unwrap_err().to_string();
    assert!(error.contains("417 ExpectationFailed"), "{error}");
    assert_eq!(seen.try_iter().count(), 2);
}
