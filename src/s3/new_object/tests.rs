//! What becomes of an object, whatever the store does with it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::{S3Config, Source};
use super::*;
use crate::base::shutdown::Shutdown;

/// What the store does with an object that it receives.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Deed {
    Store,
    StoreLess,
    StoreWithoutMetadata,
    StoreLessWithoutMetadata,
    /// Another run then replaces the object.
    Lose,
    /// No object is made, but another run's object appears.
    Refuse(&'static str),
    /// Refuses a request that has a precondition.
    RefuseConditions,
}

#[derive(Default)]
struct Store {
    /// Size and run.
    object: Option<(u64, Option<String>)>,
    requests: Vec<String>,
}

const SIZE: u64 = 10;

fn client(deed: Deed, object: Option<(u64, Option<String>)>) -> (Client, Arc<Mutex<Store>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = S3Config::of_a_test(listener.local_addr().unwrap().port());
    let store = Arc::new(Mutex::new(Store { object, ..Store::default() }));
    let shared = Arc::clone(&store);
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut reader = BufReader::new(connection.try_clone().unwrap());
            let head: Vec<String> = reader
                .by_ref()
                .lines()
                .map_while(|line| line.ok())
                .take_while(|line| !line.is_empty())
                .collect();
            let headers: BTreeMap<_, _> = head.iter().filter_map(|line| line.split_once(": ")).collect();
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            reader.read_exact(&mut vec![0; length]).unwrap();
            let method = head[0].split_once(' ').unwrap().0;
            let mut store = shared.lock().unwrap();
            let (answer, body) = store.answer(deed, method, &headers);
            store.requests.push(format!("{method}{}", headers.get("if-none-match").unwrap_or(&"")));
            let length =
                if method == "HEAD" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let answer = format!("HTTP/1.1 {answer}\r\nETag: x\r\nConnection: close\r\n{length}\r\n{body}");
            connection.write_all(answer.as_bytes()).unwrap();
        }
    });
    (Client::new(&config, Shutdown::default()), store)
}

impl Store {
    fn answer(&mut self, deed: Deed, method: &str, headers: &BTreeMap<&str, &str>) -> (String, String) {
        let refusal = |code| ("400 No".to_owned(), format!("<Error><Code>{code}</Code></Error>"));
        let other = Some((SIZE, Some("another".into())));
        match (method, &self.object) {
            ("HEAD", None) => return ("404 No".into(), String::new()),
            ("HEAD", Some((size, run))) => {
                let run = run.iter().map(|run| format!("\r\nx-amz-meta-run-id: {run}")).collect::<String>();
                return (format!("200 OK\r\nContent-Length: {size}{run}"), String::new());
            }
            ("DELETE", _) => self.object = None,
            _ => {
                let run = headers.get("x-amz-meta-run-id").map(|&run| run.to_owned());
                self.object = match deed {
                    Deed::Store => Some((SIZE, run)),
                    Deed::StoreLess => Some((SIZE - 1, run)),
                    Deed::StoreWithoutMetadata => Some((SIZE, None)),
                    Deed::StoreLessWithoutMetadata => Some((SIZE - 1, None)),
                    Deed::Lose => other,
                    Deed::RefuseConditions if !headers.contains_key("if-none-match") => Some((SIZE, run)),
                    Deed::RefuseConditions => return refusal("NotImplemented"),
                    Deed::Refuse(code) => {
                        self.object = other;
                        return refusal(code);
                    }
                };
            }
        }
        ("200 OK".into(), String::new())
    }
}

fn put(client: &Client) -> std::result::Result<Made, String> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE).unwrap();
    let source = Arc::new(Source::new(file, "/".into()));
    let part = Part { number: 1, md5: [0; 16], length: SIZE, offset: 0, source };
    client.put_new(&Claim::new("k"), &part, &Metadata::new()).map_err(|error| format!("{error:#}"))
}

#[test]
fn success_is_an_object_of_this_run_and_no_others_is_deleted() {
    let [taken, whole] = [Made::Taken, Made::Whole].map(Ok::<_, String>);
    let other = |size| Some((size, Some("another".to_owned())));
    for (deed, object, made, requests) in [
        (Deed::Store, None, &whole, "HEAD PUT* HEAD"),
        (Deed::Store, other(SIZE), &taken, "HEAD"),
        (Deed::Store, Some((SIZE, None)), &taken, "HEAD"),
        (Deed::Lose, None, &taken, "HEAD PUT* HEAD"),
        (Deed::Refuse("PreconditionFailed"), None, &taken, "HEAD PUT* HEAD"),
        (Deed::Refuse("ConditionalRequestConflict"), None, &taken, "HEAD PUT* HEAD"),
        (Deed::Refuse("EntityTooLarge"), None, &Err("400 EntityTooLarge".into()), "HEAD PUT* PUT HEAD"),
        (Deed::StoreLess, None, &Err("was deleted again".into()), "HEAD PUT* HEAD DELETE"),
        (Deed::StoreWithoutMetadata, None, &whole, "HEAD PUT* HEAD"),
        (Deed::StoreLessWithoutMetadata, None, &Err("it is not deleted".into()), "HEAD PUT* HEAD"),
    ] {
        let (client, store) = client(deed, object);
        let found = put(&client);
        match (&found, made) {
            (Err(error), Err(said)) => assert!(error.contains(said.as_str()), "{deed:?}: {error}"),
            _ => assert_eq!(found, *made, "{deed:?}"),
        }
        assert_eq!(store.lock().unwrap().requests.join(" "), requests, "{deed:?}");
    }
}

#[test]
fn a_store_without_preconditions_is_asked_for_one_once() {
    let (client, store) = client(Deed::RefuseConditions, None);
    assert_eq!(put(&client), Ok(Made::Whole));
    store.lock().unwrap().object = None;
    assert_eq!(put(&client.clone()), Ok(Made::Whole));
    assert_eq!(store.lock().unwrap().requests.join(" "), "HEAD PUT* PUT HEAD HEAD PUT HEAD");
}
