//! Single objects: stored, looked at, listed, deleted.

use rusty_s3::actions::ListObjectsV2;
use ureq::http::header::CONTENT_LENGTH;

use super::request::{describe, Body};
use super::{Client, Fault, Metadata, Part, Result};

/// An object of the bucket, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

impl Client {
    /// Stores an object of a single part, replacing one of the same key.
    ///
    /// # Errors
    /// S3's refusal, or a wrong checksum of what arrived.
    pub fn put_object(&self, key: &str, part: &Part, metadata: &Metadata) -> Result<()> {
        let action = || {
            let mut action = self.bucket.put_object(Some(&self.credentials), key);
            describe(&mut action, metadata);
            action
        };
        self.retry(|| {
            let answer = self.send("PutObject", key, action(), &Body::Part(part))?;
            self.check_etag("PutObject", key, part, &answer.headers).map(drop)
        })
    }

    /// The size of an object in bytes, or `None` where there is none.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn head_object(&self, key: &str) -> Result<Option<u64>> {
        let action = || self.bucket.head_object(Some(&self.credentials), key);
        let answer = self.retry(|| self.send("HeadObject", key, action(), &Body::None));
        match answer {
            Ok(answer) => {
                match answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()) {
                    Some(size) => Ok(Some(size)),
                    None => Err(self.error("HeadObject", key, Fault::unreadable("it has no Content-Length"))),
                }
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects whose key begins with `prefix`, in the order of their keys, however many there are.
    ///
    /// # Errors
    /// S3's refusal, or an answer that is not a listing.
    pub fn list_objects(&self, prefix: &str) -> Result<Vec<Object>> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.retry(|| {
                let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
                action.with_prefix(prefix);
                if let Some(token) = &token {
                    action.with_continuation_token(token.as_str());
                }
                let answer = self.send("ListObjectsV2", prefix, action, &Body::None)?;
                ListObjectsV2::parse_response(&answer.body).map_err(|problem| {
                    self.error("ListObjectsV2", prefix, Fault::unreadable(&problem.to_string()))
                })
            })?;
            for object in page.contents {
                objects.push(Object { key: object.key, size: object.size.unwrap_or(0) });
            }
            match page.next_continuation_token {
                // A server that answers with the same page for ever.
                Some(next) if token.as_ref() == Some(&next) => {
                    let fault = Fault::unreadable("the next page's token is this page's");
                    return Err(self.error("ListObjectsV2", prefix, fault));
                }
                Some(next) => token = Some(next),
                None => return Ok(objects),
            }
        }
    }

    /// Deletes one object. One that is not there is no error, as in S3.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn delete_object(&self, key: &str) -> Result<()> {
        let action = || self.bucket.delete_object(Some(&self.credentials), key);
        let deleted = self.retry(|| self.send("DeleteObject", key, action(), &Body::None));
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
