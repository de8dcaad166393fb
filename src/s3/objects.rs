//! Single objects: looked at, deleted.

use chrono::{DateTime, Utc};
use ureq::http::header::CONTENT_LENGTH;
use ureq::http::HeaderMap;

use super::limits::Limit;
use super::request::{date, Body};
use super::{Client, Fault, Result};

/// What HEAD tells of an object.
#[derive(Clone, Debug)]
pub struct Head {
    /// Bytes.
    pub size: u64,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// A value of its metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.headers.get(format!("x-amz-meta-{name}"))?.to_str().ok()
    }

    /// What time it was at S3 when it answered, if it says so.
    pub fn date(&self) -> Option<DateTime<Utc>> {
        date(&self.headers)
    }
}

impl Client {
    /// Looks at an object; `None` if there is none.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn head_object(&self, key: &str) -> Result<Option<Head>> {
        self.retry_small(|limit| self.head_once(limit, key))
    }

    /// The same with a single try.
    pub(super) fn head_once(&self, limit: Limit, key: &str) -> Result<Option<Head>> {
        let name = "HeadObject";
        let action = self.bucket.head_object(Some(&self.credentials), key);
        let answer = match self.send(limit, name, key, action, &Body::None) {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        let size = answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        match size {
            Some(size) => Ok(Some(Head { size, headers: answer.headers })),
            None => Err(self.error(name, key, Fault::unreadable("it has no Content-Length"))),
        }
    }

    /// Deletes one object. One that is not there is no error, as in S3.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn delete_object(&self, key: &str) -> Result<()> {
        let action = || self.bucket.delete_object(Some(&self.credentials), key);
        let deleted = self.retry_small(|limit| self.send(limit, "DeleteObject", key, action(), &Body::None));
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
