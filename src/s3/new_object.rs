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
//! after the later one is done. A run has begun its upload before it checks the key. So the earlier run asks the
//! store for uploads of the key, and waits until there is no other. What is not sent in parts has no
//! upload, and not every store shows uploads. Then a run waits as long as it took from its first check to its
//! object: both runs back up the same database, so both take about the same time.

use std::sync::atomic::Ordering;

use anyhow::{anyhow, bail, Context};
use log::{debug, info, warn};
use rusty_s3::S3Action;

use super::etag::Sent;
use super::limits::Limit;
use super::request::{describe, Body};
use super::rivals::Watch;
use super::{Client, Fault, Head, Metadata, Part, Result, S3Error};

/// The metadata name for a run's id.
const RUN_ID: &str = "run-id";

const OTHER_BYTES: &str = "S3 stored other bytes than were sent";

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
    /// Set if the object is sent at once: the bytes of the part then decide its ETag.
    part: Option<&'a Part>,
    /// The upload that the object is made of, otherwise.
    upload: Option<&'a str>,
    /// The parts that were sent before the object, otherwise.
    sent: &'a [Sent],
}

impl Wanted<'_> {
    /// Whether the store may have other bytes of a part than were sent.
    fn has_doubted_part(&self) -> bool {
        self.sent.iter().any(|part| part.etag.differs)
    }

    /// Length and MD5 of what the object is made of.
    fn bytes(&self) -> Vec<(u64, [u8; 16])> {
        let sent = self.sent.iter().map(|part| (part.length, part.md5));
        self.part.map(|part| (part.length, part.md5)).into_iter().chain(sent).collect()
    }
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
    /// or does not give it back, a whole object stays.
    pub fn put_new(&self, claim: &Claim, part: &Part, metadata: &Metadata) -> anyhow::Result<Made> {
        let (name, key) = ("PutObject", &claim.key);
        let metadata = claim.mark(metadata);
        let wanted = Wanted { claim, size: part.length, part: Some(part), upload: None, sent: &[] };
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
            Ok(self.etag(name, key, part, &answer.headers)?.differs)
        })
    }

    /// Makes a new object from an upload's parts, in this order.
    ///
    /// # Errors
    /// The same as for [`Client::put_new`].
    pub(super) fn complete_new(&self, claim: &Claim, upload: &str, sent: &[Sent]) -> anyhow::Result<Made> {
        let size = sent.iter().map(|part| part.length).sum();
        self.make(Wanted { claim, size, part: None, upload: Some(upload), sent }, |limit, only_new| {
            self.complete_multipart_upload(limit, &claim.key, upload, sent, only_new)?;
            // Whether a part is in doubt is known already, and no other try could send it again.
            Ok(false)
        })
    }

    /// `send` returns whether the store may have other bytes than were sent, which another try can change.
    fn make(&self, wanted: Wanted<'_>, send: impl Fn(Limit, bool) -> Result<bool>) -> anyhow::Result<Made> {
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
        send: impl Fn(Limit, bool) -> Result<bool>,
    ) -> Result<Option<Made>> {
        let watch = Watch::start(self, &wanted.claim.key, wanted.upload, wanted.sent.len());
        let look = || self.head_once(self.limits.small().within(limit), &wanted.claim.key);
        // If there is an object of this run that differs from what was sent, it is replaced.
        let only_new = match look()? {
            None => true,
            Some(found) if !wanted.claim.is_of(&found) => return Ok(Some(Made::Taken)),
            Some(found) if self.is_whole(wanted, &found)? => return Ok(Some(Made::Whole)),
            Some(_) => false,
        };
        let without_conditions = &self.learned.without_conditions;
        let conditional = only_new && !without_conditions.load(Ordering::Relaxed);
        let doubted = match send(limit, conditional) {
            Ok(doubted) => doubted,
            Err(refused) if refused.is_taken() => {
                let whole = match look()? {
                    Some(found) => self.is_whole(wanted, &found)?,
                    None => false,
                };
                return Ok(Some(if whole { Made::Whole } else { Made::Taken }));
            }
            Err(refused) if conditional && refused.may_be_of_a_header() => {
                let doubted = send(limit, false)?;
                debug!("this store knows no preconditions: {refused}");
                without_conditions.store(true, Ordering::Relaxed);
                doubted
            }
            Err(failure) => return Err(failure),
        };
        if doubted && !self.is_as_sent(wanted)? {
            let fault = Fault::Unanswered { reason: OTHER_BYTES.into(), transient: true };
            return Err(self.error("GetObject", &wanted.claim.key, fault));
        }
        watch.settle();
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
        let of_another = |found: &Head| found.metadata(RUN_ID).is_some() && !claim.is_of(found);
        if of_another(&found) {
            return Ok(Made::Taken);
        }
        // From here on it is of this run, or the store keeps no metadata.
        let wrong = if found.size != size {
            anyhow!("S3 stored {} bytes of {place} instead of {size}", found.size)
        } else if !wanted.has_doubted_part() {
            return Ok(Made::Whole);
        } else {
            let read = match self.is_as_sent(wanted) {
                Ok(true) => return Ok(Made::Whole),
                Ok(false) => Ok(anyhow!("{OTHER_BYTES}: {place} was read back")),
                Err(error) => Err(error),
            };
            // Reading may take long.
            match (self.head_object(&claim.key), read) {
                (Ok(Some(now)), _) if of_another(&now) => return Ok(Made::Taken),
                (_, Ok(wrong)) => wrong,
                (_, Err(error)) if self.shutdown.forced().is_some() => error.into(),
                // S3 has checked every part, so the object stays, as if nobody could look at it.
                (_, Err(error)) => return Err(error).context("cannot read back what was uploaded"),
            }
        };
        if !claim.is_of(&found) {
            return Err(
                wrong.context("the upload went wrong; it is not deleted, as it may be somebody else's")
            );
        }
        Err(match self.delete_object(&claim.key) {
            Ok(()) => wrong.context("the upload went wrong, and was deleted again"),
            Err(error) => wrong.context(format!("the upload went wrong and could not be deleted ({error})")),
        })
    }

    /// All tries have failed, but the object may still be there, whole or not.
    fn make_sure(&self, wanted: Wanted<'_>, failure: S3Error) -> anyhow::Result<Made> {
        let place = self.place(&wanted.claim.key);
        match self.head_object(&wanted.claim.key) {
            Ok(Some(found)) if !wanted.claim.is_of(&found) => {}
            Ok(Some(found)) => {
                match self.is_whole(wanted, &found) {
                    Ok(true) => {
                        warn!("{place} is whole in spite of: {failure}");
                        return Ok(Made::Whole);
                    }
                    Ok(false) => {}
                    Err(error) => warn!("{place} cannot be read back: {error}"),
                }
                match self.delete_object(&wanted.claim.key) {
                    Ok(()) => warn!("{place}, which S3 stored and did not acknowledge, was deleted again"),
                    Err(error) => warn!("{place} is not proven whole, and could not be deleted: {error}"),
                }
            }
            Ok(None) => {}
            Err(error) => warn!("whether S3 has stored {place} is not known: {error}"),
        }
        Err(failure.into())
    }

    /// Whether the object is of this run and as it was sent. The answer to the request was lost or named other
    /// bytes, so the ETag is compared too.
    fn is_whole(&self, wanted: Wanted<'_>, found: &Head) -> Result<bool> {
        if !wanted.claim.is_of(found) || found.size != wanted.size {
            return Ok(false);
        }
        let differs = |part| {
            self.etag("HeadObject", &wanted.claim.key, part, &found.headers).map_or(true, |it| it.differs)
        };
        let doubted = wanted.part.is_some_and(differs) || wanted.has_doubted_part();
        Ok(!doubted || self.is_as_sent(wanted)?)
    }

    /// Reads an object back whose ETag leaves a doubt.
    fn is_as_sent(&self, wanted: Wanted<'_>) -> Result<bool> {
        let key = &wanted.claim.key;
        info!("reading back {}: its ETag does not prove its bytes", self.place(key));
        match self.holds(key, &wanted.bytes()) {
            Ok(true) => self.note_odd_etags(),
            Ok(false) => return Ok(false),
            Err(error) if error.is_archived() => {
                warn!("{} cannot be read back, as the store archives it at once", self.place(key));
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
