//! Makes a new object under a free key. Two runs that choose the same key do not harm each other.
//!
//! S3 has no lock, but two things help. A store may refuse to replace an object (`If-None-Match: *`,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>), and each object carries
//! the id of the run that made it. So a run checks the key before it makes its object, asks the store to make
//! it only if there is none, and checks again. Success means that the object is of this run. A run deletes
//! only what carries its id.
//!
//! Some stores ignore the precondition. There, the later of two runs can replace the object of the earlier
//! one, if the later run checked the key before that object appeared. So the earlier run has to check again
//! after the later one is done. Both runs back up the same database, so both take about the same time. That
//! is why a run waits before it checks again: as long as it took from its first check to its object.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, Context};
use log::{debug, warn};
use rusty_s3::S3Action;

use super::limits::Limit;
use super::request::{describe, Body};
use super::{Client, Head, Metadata, Part, Result, S3Error};

/// The metadata name for a run's id.
const RUN_ID: &str = "run-id";

/// Before a run checks again, it waits at most this long.
const LONGEST_SETTLING: Duration = Duration::from_secs(30);

/// A key, and the run that will make the object.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The object's key.
    pub key: String,
    run: String,
}

/// How making an object ended, if nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The object is there, it is of this run, and it is whole.
    Whole,
    /// Somebody else has the key. What is there was not touched.
    Taken,
}

/// The object that should be there.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    claim: &'a Claim,
    size: u64,
    /// Set if the object has a single part: the bytes of the part then decide its ETag.
    part: Option<&'a Part>,
}

impl Claim {
    /// Claims a key for a run that begins now.
    pub fn new(key: &str) -> Self {
        Claim { key: key.to_owned(), run: format!("{:032x}", fastrand::u128(..)) }
    }

    /// Another key for the same run.
    pub fn at(&self, key: &str) -> Self {
        Claim { key: key.to_owned(), run: self.run.clone() }
    }

    /// The metadata of the run's object, with the run's id.
    pub(super) fn mark(&self, metadata: &Metadata) -> Metadata {
        metadata.iter().cloned().chain([(RUN_ID, self.run.clone())]).collect()
    }

    fn is_of(&self, found: &Head) -> bool {
        found.metadata(RUN_ID) == Some(&self.run)
    }
}

impl Client {
    /// Stores a new object of a single part. If the key is taken, nothing changes.
    ///
    /// # Errors
    /// S3 refuses, or S3 has other bytes than were sent. Then nothing of the object is left, unless the error
    /// says so. There is one exception: if S3 acknowledged the object but cannot be asked for it afterwards,
    /// a whole object stays.
    pub fn put_new(&self, claim: &Claim, part: &Part, metadata: &Metadata) -> anyhow::Result<Made> {
        let (name, key) = ("PutObject", &claim.key);
        let metadata = claim.mark(metadata);
        let wanted = Wanted { claim, size: part.length, part: Some(part) };
        self.make(wanted, |limit, only_new| {
            let keys = self.keys(name, key)?;
            let mut action = self.bucket.put_object(Some(&keys), key);
            describe(&mut action, &metadata);
            self.properties.apply(&mut action);
            if only_new {
                action.headers_mut().insert("if-none-match", "*");
            }
            let answer = self.send(limit, name, key, action, &Body::Part(part));
            let answer = answer.map_err(|error| self.properties.explain(error))?;
            self.check_etag(name, key, part, &answer.headers).map(drop)
        })
    }

    /// Makes a new object of `size` bytes from an upload's parts with these ETags, in this order.
    ///
    /// # Errors
    /// The same as for [`Client::put_new`].
    pub(super) fn complete_new(
        &self,
        claim: &Claim,
        upload: &str,
        etags: &[String],
        size: u64,
    ) -> anyhow::Result<Made> {
        self.make(Wanted { claim, size, part: None }, |limit, only_new| {
            self.complete_multipart_upload(limit, &claim.key, upload, etags, only_new)
        })
    }

    fn make(&self, wanted: Wanted<'_>, send: impl Fn(Limit, bool) -> Result<()>) -> anyhow::Result<Made> {
        let limit = self.limits.upload(wanted.part.map_or(0, |part| part.length));
        match self.retry_within(limit, || true, |limit| self.make_once(limit, wanted, &send)) {
            Ok(Some(made)) => Ok(made),
            Ok(None) => self.prove(wanted),
            Err(failure) => self.make_sure(wanted, failure),
        }
    }

    /// `None` if the store has acknowledged the object. An earlier try may have made it even if its answer
    /// was lost.
    fn make_once(
        &self,
        limit: Limit,
        wanted: Wanted<'_>,
        send: impl Fn(Limit, bool) -> Result<()>,
    ) -> Result<Option<Made>> {
        let started = Instant::now();
        let look = || self.head_once(self.limits.small().within(limit), &wanted.claim.key);
        // If there is an object of this run that differs from what was sent, it is replaced.
        let only_new = match look()? {
            None => true,
            Some(found) if !wanted.claim.is_of(&found) => return Ok(Some(Made::Taken)),
            Some(found) if self.is_whole(wanted, &found) => return Ok(Some(Made::Whole)),
            Some(_) => false,
        };
        let conditional = only_new && !self.without_conditions.load(Ordering::Relaxed);
        match send(limit, conditional) {
            Ok(()) => {}
            Err(refused) if refused.is_taken() => {
                let whole = look()?.is_some_and(|found| self.is_whole(wanted, &found));
                return Ok(Some(if whole { Made::Whole } else { Made::Taken }));
            }
            Err(refused) if conditional && refused.may_be_of_a_header() => {
                send(limit, false)?;
                debug!("this store knows no preconditions: {refused}");
                self.without_conditions.store(true, Ordering::Relaxed);
            }
            Err(failure) => return Err(failure),
        }
        self.shutdown.sleep_unless_forced(started.elapsed().min(LONGEST_SETTLING));
        Ok(None)
    }

    /// Checks that the object is there after the store has acknowledged it.
    fn prove(&self, wanted: Wanted<'_>) -> anyhow::Result<Made> {
        let Wanted { claim, size, .. } = wanted;
        let place = self.place(&claim.key);
        let found = self.head_object(&claim.key).context("cannot look at what was uploaded")?;
        let Some(found) = found else {
            bail!("S3 acknowledged the upload of {place}, but does not have it");
        };
        let wrong = anyhow!("S3 stored {} bytes of {place} instead of {size}", found.size);
        match found.metadata(RUN_ID) {
            Some(_) if !claim.is_of(&found) => Ok(Made::Taken),
            // Of this run, or the store keeps no metadata.
            _ if found.size == size => Ok(Made::Whole),
            Some(_) => Err(match self.delete_object(&claim.key) {
                Ok(()) => wrong.context("the upload went wrong, and was deleted again"),
                Err(error) => {
                    wrong.context(format!("the upload went wrong and could not be deleted ({error})"))
                }
            }),
            None => {
                Err(wrong.context("the upload went wrong; it is not deleted, as it may be somebody else's"))
            }
        }
    }

    /// All tries have failed, but the object may still be there, whole or not.
    fn make_sure(&self, wanted: Wanted<'_>, failure: S3Error) -> anyhow::Result<Made> {
        let place = self.place(&wanted.claim.key);
        match self.head_object(&wanted.claim.key) {
            Ok(Some(found)) if !wanted.claim.is_of(&found) => {}
            Ok(Some(found)) if self.is_whole(wanted, &found) => {
                warn!("{place} is whole in spite of: {failure}");
                return Ok(Made::Whole);
            }
            Ok(Some(_)) => match self.delete_object(&wanted.claim.key) {
                Ok(()) => warn!("{place}, which S3 stored and did not acknowledge, was deleted again"),
                Err(error) => warn!("{place} is not proven whole, and could not be deleted: {error}"),
            },
            Ok(None) => {}
            Err(error) => warn!("whether S3 has stored {place} is not known: {error}"),
        }
        Err(failure.into())
    }

    /// Whether the object is of this run and as it was sent, as far as S3 shows. The answer to the request
    /// was lost or named other bytes, so the ETag is compared too.
    fn is_whole(&self, wanted: Wanted<'_>, found: &Head) -> bool {
        let same = |part| self.check_etag("HeadObject", &wanted.claim.key, part, &found.headers).is_ok();
        wanted.claim.is_of(found) && found.size == wanted.size && wanted.part.is_none_or(same)
    }
}

#[cfg(test)]
mod tests {
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
                let length = if method == "HEAD" {
                    String::new()
                } else {
                    format!("Content-Length: {}\r\n", body.len())
                };
                let answer =
                    format!("HTTP/1.1 {answer}\r\nETag: x\r\nConnection: close\r\n{length}\r\n{body}");
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
                    let run =
                        run.iter().map(|run| format!("\r\nx-amz-meta-run-id: {run}")).collect::<String>();
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
}
