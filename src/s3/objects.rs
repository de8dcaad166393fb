//! Single objects: stored, looked at, listed, deleted.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rusty_s3::actions::ListObjectsV2;
use ureq::http::header::CONTENT_LENGTH;

use super::request::{date, describe, Body};
use super::{Client, Fault, Metadata, Part, Result};

/// An object of the bucket, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// What S3 says of an object without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes.
    pub size: u64,
    /// What the object says about itself: see [`Metadata`].
    pub metadata: BTreeMap<String, String>,
    /// What time it was at S3 when it answered, if it says so.
    pub date: Option<DateTime<Utc>>,
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

    /// What S3 says of an object, or `None` if there is none.
    ///
    /// # Errors
    /// S3's refusal, or an answer without a size.
    pub fn head_object(&self, key: &str) -> Result<Option<Head>> {
        let action = || self.bucket.head_object(Some(&self.credentials), key);
        let answer = self.retry(|| self.send("HeadObject", key, action(), &Body::None));
        let headers = match answer {
            Ok(answer) => answer.headers,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(size) = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok())
        else {
            return Err(self.error("HeadObject", key, Fault::unreadable("it has no Content-Length")));
        };
        let metadata = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-amz-meta-")?;
            Some((name.to_owned(), value.to_str().ok()?.to_owned()))
        });
        Ok(Some(Head { size, metadata: metadata.collect(), date: date(&headers) }))
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
