//! Looks at single objects and deletes them.

use chrono::{DateTime, Utc};
use ureq::http::header::CONTENT_LENGTH;
use ureq::http::HeaderMap;

use super::limits::Limit;
use super::request::{date, Body};
use super::{Client, Fault, Result};

/// What HEAD returns for an object.
#[derive(Clone, Debug)]
pub struct Head {
    /// The size in bytes.
    pub size: u64,
    pub(super) headers: HeaderMap,
}

impl Head {
    /// A value from the object's metadata.
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.headers.get(format!("x-amz-meta-{name}"))?.to_str().ok()
    }

    /// S3's time when it answered, if the answer contains it.
    pub fn date(&self) -> Option<DateTime<Utc>> {
        date(&self.headers)
    }
}

impl Client {
    /// Looks at an object. Returns `None` if there is none.
    pub fn head_object(&self, key: &str) -> Result<Option<Head>> {
        self.retry_small(|limit| self.head_once(limit, key))
    }

    /// The same, but it tries only once.
    pub(super) fn head_once(&self, limit: Limit, key: &str) -> Result<Option<Head>> {
        let name = "HeadObject";
        let keys = self.keys(name, key)?;
        let action = self.bucket.head_object(Some(&keys), key);
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

    /// Deletes one object. As in S3, it is no error if the object does not exist.
    pub fn delete_object(&self, key: &str) -> Result<()> {
        let name = "DeleteObject";
        let deleted = self.retry_small(|limit| {
            let keys = self.keys(name, key)?;
            self.send(limit, name, key, self.bucket.delete_object(Some(&keys), key), &Body::None)
        });
        match deleted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
