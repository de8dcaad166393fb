//! Stores whose ETags are not MD5s, and stores that keep other bytes than they were sent.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::super::{Claim, Made, Metadata, S3Config, Source};
use super::*;
use crate::base::retry::Policy;
use crate::base::shutdown::Shutdown;

/// A store in memory that keeps one object.
#[derive(Default)]
struct Store {
    /// Its ETags are 32 hexadecimal digits and no MD5s, as if everything was encrypted.
    encrypts: bool,
    /// How many of the next bodies it changes. It says so by the ETag alone.
    changes: usize,
    /// The status and code that a GET is refused with.
    unreadable: Option<(u16, &'static str)>,
    /// Another run's object takes the place of the next object that is read.
    is_replaced: bool,
    parts: BTreeMap<String, (String, Vec<u8>)>,
    object: Option<(Vec<u8>, String)>,
    run: String,
    requests: Vec<String>,
}

impl Store {
    fn etag(&self, bytes: &[u8]) -> String {
        let md5 = hex(Md5::digest(bytes).into());
        // A key of its own for each body.
        let other = hex(Md5::digest(format!("{md5} {}", self.requests.len())).into());
        format!("\"{}\"", if self.encrypts { other } else { md5 })
    }

    fn take(&mut self, mut body: Vec<u8>) -> Vec<u8> {
        if self.changes > 0 {
            self.changes -= 1;
            body[0] ^= 1;
        }
        body
    }

    /// Status, headers and body of an answer.
    fn answer(
        &mut self,
        head: &str,
        headers: &BTreeMap<&str, &str>,
        body: Vec<u8>,
    ) -> (u16, String, Vec<u8>) {
        let (method, query) = (head.split(' ').next().unwrap(), head.split('?').nth(1).unwrap_or_default());
        let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber="));
        let lists_uploads = method == "GET" && query.contains("uploads");
        let name = if lists_uploads { "LIST" } else { method };
        self.requests.push(format!("{name}{}", part.unwrap_or_default()));
        if let Some(run) = headers.get("x-amz-meta-run-id") {
            self.run = (*run).to_owned();
        }
        match (method, part) {
            ("PUT", Some(number)) => {
                let body = self.take(body);
                let etag = self.etag(&body);
                // As a proxy that compresses makes it.
                let answer = format!("ETag: W/{etag}\r\n");
                self.parts.insert(number.to_owned(), (etag, body));
                (200, answer, Vec::new())
            }
            ("PUT", None) => {
                let body = self.take(body);
                let etag = self.etag(&body);
                self.object = Some((body, self.run.clone()));
                (200, format!("ETag: {etag}\r\n"), Vec::new())
            }
            ("POST", _) if query.contains("uploads") => {
                let id =
                    "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
                (200, String::new(), id.into())
            }
            ("POST", _) => {
                let wanted = String::from_utf8(body).unwrap().replace("&quot;", "\"");
                if !self.parts.values().all(|(etag, _)| wanted.contains(&format!("<ETag>{etag}</ETag>"))) {
                    return (400, String::new(), b"<Error><Code>InvalidPart</Code></Error>".into());
                }
                let whole = self.parts.values().flat_map(|(_, bytes)| bytes.clone()).collect();
                self.object = Some((whole, self.run.clone()));
                (200, String::new(), b"<CompleteMultipartUploadResult/>".into())
            }
            ("DELETE", _) => {
                self.object = None;
                (204, String::new(), Vec::new())
            }
            ("GET", _) if lists_uploads => {
                let upload = "<Upload><Key>k</Key><UploadId>u</UploadId><Initiated>2026-11-24T03:00:00Z</Initiated></Upload>";
                let upload = if self.object.is_none() { upload } else { "" };
                let list = format!("<ListMultipartUploadsResult>{upload}</ListMultipartUploadsResult>");
                (200, String::new(), list.into())
            }
            ("GET", _) => {
                if let Some((status, code)) = self.unreadable {
                    return (status, String::new(), format!("<Error><Code>{code}</Code></Error>").into());
                }
                let (bytes, _) = self.object.clone().unwrap();
                if self.is_replaced {
                    self.object = Some((b"another's".into(), "another".into()));
                }
                let range = headers["range"].strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                let (start, end): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
                if start >= bytes.len() {
                    return (416, String::new(), Vec::new());
                }
                let end = bytes.len().min(end + 1);
                let range =
                    format!("Content-Range: bytes {start}-{}/{}\r\nETag: x\r\n", end - 1, bytes.len());
                (206, range, bytes[start..end].into())
            }
            _ => match &self.object {
                None => (404, String::new(), Vec::new()),
                Some((bytes, run)) => {
                    let etag = self.etag(bytes);
                    (200, format!("ETag: {etag}\r\nx-amz-meta-run-id: {run}\r\n"), bytes.clone())
                }
            },
        }
    }
}

fn client(store: Store) -> (Client, Arc<Mutex<Store>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = S3Config::of_a_test(listener.local_addr().unwrap().port());
    let store = Arc::new(Mutex::new(store));
    let shared = Arc::clone(&store);
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let head = reader.by_ref().lines().map_while(|line| line.ok());
            let head: Vec<String> = head.take_while(|line| !line.is_empty()).collect();
            let Some(first) = head.first() else { continue };
            let headers: BTreeMap<_, _> = head.iter().filter_map(|line| line.split_once(": ")).collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            if headers.contains_key("expect") {
                connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let (status, extra, body) = shared.lock().unwrap().answer(first, &headers, body);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\nConnection: close\r\n{extra}Content-Length: {length}\r\n\r\n"
            );
            connection.write_all(answer.as_bytes()).unwrap();
            let body = if first.starts_with("HEAD") { &[] } else { &body[..] };
            // A client that does not like what it sees goes away.
            let _ = connection.write_all(body);
        }
    });
    let wait = Duration::from_millis(10);
    let retries = Policy { tries: 3, first_wait: wait, longest_wait: wait };
    (Client { retries, ..Client::new(&config, Shutdown::default()) }, store)
}

const MIB: usize = 1 << 20;

/// Three parts of which a range has pieces of two.
fn parts() -> Vec<Part> {
    let bytes: Vec<u8> = (0..=250).cycle().take(5 * MIB / 2).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    let source = Arc::new(Source::new(file, "/".into()));
    let part = |(at, bytes): (usize, &[u8])| Part {
        number: at as u32 + 1,
        md5: Md5::digest(bytes).into(),
        length: bytes.len() as u64,
        offset: at as u64 * MIB as u64,
        source: Arc::clone(&source),
    };
    bytes.chunks(MIB).enumerate().map(part).collect()
}

type Ended = std::result::Result<Made, String>;

fn put(client: &Client) -> Ended {
    let made = client.put_new(&Claim::new("k"), &parts()[0], &Metadata::new());
    made.map_err(|error| format!("{error:#}"))
}

fn upload(client: &Client) -> Ended {
    let claim = Claim::new("k");
    let id = client.create_multipart_upload("k", &claim.mark(&Metadata::new())).unwrap();
    let sent =
        parts().iter().map(|part| client.upload_part("k", &id, part, || true)).collect::<Result<Vec<_>>>();
    client.complete_new(&claim, &id, &sent.unwrap()).map_err(|error| format!("{error:#}"))
}

fn requests(store: &Mutex<Store>) -> String {
    std::mem::take(&mut store.lock().unwrap().requests).join(" ")
}

#[test]
fn bytes_that_are_right_are_a_backup_whatever_their_etag_is() {
    let (client, store) = client(Store { encrypts: true, ..Store::default() });
    assert_eq!(put(&client), Ok(Made::Whole));
    assert_eq!(requests(&store), "HEAD PUT GET HEAD");
    assert!(client.has_odd_etags());
    store.lock().unwrap().object = None;
    assert_eq!(upload(&client), Ok(Made::Whole));
    // No part is sent twice, as its ETag is no news. Three ranges are read back, and that only once.
    assert_eq!(requests(&store), "POST PUT1 PUT2 PUT3 LIST HEAD POST LIST HEAD GET GET GET");
    // If parts come first, the first one asks.
    let (client, store) = self::client(Store { encrypts: true, ..Store::default() });
    assert_eq!(upload(&client), Ok(Made::Whole));
    assert_eq!(requests(&store), "POST PUT1 PUT1 PUT2 PUT3 LIST HEAD POST LIST HEAD GET GET GET");
    assert!(store.lock().unwrap().object.is_some());
}

#[test]
fn an_etag_that_is_right_is_not_read_back() {
    let (client, store) = client(Store::default());
    assert_eq!(put(&client), Ok(Made::Whole));
    store.lock().unwrap().object = None;
    assert_eq!(upload(&client), Ok(Made::Whole));
    assert_eq!(requests(&store), "HEAD PUT HEAD POST PUT1 PUT2 PUT3 LIST HEAD POST LIST HEAD");
    assert!(!client.has_odd_etags());
}

#[test]
fn bytes_that_differ_are_sent_again() {
    for encrypts in [false, true] {
        let (client, store) = client(Store { encrypts, changes: 1, ..Store::default() });
        assert_eq!(put(&client), Ok(Made::Whole));
        // The next try looks again before it replaces what is there.
        let again = if encrypts { " GET" } else { "" };
        assert_eq!(requests(&store), format!("HEAD PUT GET HEAD GET PUT{again} HEAD"));
        assert_eq!(client.has_odd_etags(), encrypts);
    }
    let (client, store) = client(Store { changes: 1, ..Store::default() });
    assert_eq!(upload(&client), Ok(Made::Whole));
    assert_eq!(requests(&store), "POST PUT1 PUT1 PUT2 PUT3 LIST HEAD POST LIST HEAD");
    assert!(!client.has_odd_etags());
}

#[test]
fn bytes_that_stay_different_fail_the_backup_and_are_deleted() {
    for encrypts in [false, true] {
        for send in [put, upload] {
            let (client, store) = client(Store { encrypts, changes: 99, ..Store::default() });
            let error = send(&client).unwrap_err();
            assert!(error.contains("S3 stored other bytes than were sent"), "{error}");
            assert!(store.lock().unwrap().object.is_none(), "{error}");
        }
    }
}

#[test]
fn what_cannot_be_read_back_is_told() {
    for send in [put, upload] {
        let (client, store) =
            client(Store { encrypts: true, unreadable: Some((403, "AccessDenied")), ..Store::default() });
        let error = send(&client).unwrap_err();
        assert!(error.contains("GetObject") && error.contains("403 AccessDenied"), "{error}");
        drop(store);
        // An archive cannot be read at once, which says nothing about its bytes.
        let (client, _) = self::client(Store {
            encrypts: true,
            unreadable: Some((403, "InvalidObjectState")),
            ..Store::default()
        });
        assert_eq!(send(&client), Ok(Made::Whole));
    }
}

#[test]
fn an_object_of_another_run_is_not_judged_by_its_bytes() {
    for send in [put, upload] {
        let (client, store) =
            client(Store { encrypts: true, changes: 99, is_replaced: true, ..Store::default() });
        assert_eq!(send(&client), Ok(Made::Taken));
        assert_eq!(store.lock().unwrap().object.as_ref().unwrap().1, "another");
    }
}

#[test]
fn only_an_etag_that_looks_like_another_md5_is_a_question() {
    let sent = "00".repeat(16);
    let other = "a1".repeat(16);
    for (etag, header, text, differs) in [
        (format!("\"{sent}\""), "", format!("\"{sent}\""), false),
        (format!("W/\"{sent}\""), "", format!("\"{sent}\""), false),
        (sent.clone(), "", sent.clone(), false),
        (format!("\"{other}\""), "", format!("\"{other}\""), true),
        (format!("W/\"{}\"", other.to_uppercase()), "", format!("\"{}\"", other.to_uppercase()), true),
        (format!("\"{other}\""), "aws:kms", format!("\"{other}\""), false),
        (format!("\"{other}\""), "AES256", format!("\"{other}\""), true),
        (format!("\"{other}-1\""), "", format!("\"{other}-1\""), false),
        ("x".into(), "", "x".into(), false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, etag.parse().unwrap());
        if !header.is_empty() {
            headers.insert("x-amz-server-side-encryption", header.parse().unwrap());
        }
        let read = Etag::read(&headers, [0; 16]).unwrap();
        assert_eq!((read.text, read.differs), (text, differs), "{etag} {header}");
    }
    assert!(Etag::read(&HeaderMap::new(), [0; 16]).is_none());
}
