//! The requests of a multipart upload
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>).

use log::warn;
use rusty_s3::actions::CompleteMultipartUpload;
use rusty_s3::S3Action;

use super::error::error_document;
use super::etag::Sent;
use super::limits::Limit;
use super::request::{describe, Body};
use super::{xml, Client, Fault, Metadata, Part, Result, S3Error};

impl Client {
    pub(super) fn create_multipart_upload(&self, key: &str, metadata: &Metadata) -> Result<String> {
        let name = "CreateMultipartUpload";
        self.retry_small(|limit| {
            let keys = self.keys(name, key)?;
            let mut action = self.bucket.create_multipart_upload(Some(&keys), key);
            describe(&mut action, metadata);
            self.properties.apply(&mut action);
            let answer = self.send(limit, name, key, action, &Body::Bytes(b""));
            let answer = answer.map_err(|error| self.properties.explain(error))?;
            let id = xml::parse(&answer.body)
                .and_then(|document| document.named("InitiateMultipartUploadResult"))
                .and_then(|result| {
                    Ok(result.text_of("UploadId").ok_or("it has no UploadId")?.trim().to_owned())
                });
            id.map_err(|problem| self.error(name, key, Fault::unreadable(&problem)))
        })
    }

    /// Uploads a part.
    pub(super) fn upload_part(
        &self,
        key: &str,
        upload: &str,
        part: &Part,
        go_on: impl Fn() -> bool,
    ) -> Result<Sent> {
        let (name, number) = ("UploadPart", u16::try_from(part.number).unwrap_or(u16::MAX));
        let send = |limit| {
            let keys = self.keys(name, key)?;
            let action = self.bucket.upload_part(Some(&keys), key, number, upload);
            let answer = self.send(limit, name, key, action, &Body::Part(part))?;
            self.etag(name, key, part, &answer.headers)
        };
        let attempt = |limit| {
            let etag = send(limit)?;
            if !etag.differs || self.has_odd_etags() {
                return Ok(etag);
            }
            // The store may ignore Content-MD5, and then this is the only sign that other bytes arrived.
            warn!("{name} {number} of {}: {}; the part is sent once more", self.place(key), etag.doubt(part));
            let etag = send(limit)?;
            if etag.differs {
                self.note_odd_etags();
            }
            Ok(etag)
        };
        let etag = self.retry_within(self.limits.upload(part.length), go_on, |limit| {
            attempt(limit).map_err(|error: S3Error| error.of_part(part.number))
        })?;
        Ok(Sent { number: part.number, etag, md5: part.md5, length: part.length })
    }

    /// Makes the object from these parts, in this order. Tries only once. On request, it makes
    /// the object only if there is none under this key.
    pub(super) fn complete_multipart_upload(
        &self,
        limit: Limit,
        key: &str,
        upload: &str,
        parts: &[Sent],
        only_new: bool,
    ) -> Result<()> {
        let name = "CompleteMultipartUpload";
        let keys = self.keys(name, key)?;
        let action = || {
            let etags = parts.iter().map(|part| part.etag.text.as_str());
            self.bucket.complete_multipart_upload(Some(&keys), key, upload, etags)
        };
        let body = CompleteMultipartUpload::body(action());
        let mut action = action();
        if only_new {
            action.headers_mut().insert("if-none-match", "*");
        }
        let answer = self.send(limit, name, key, action, &Body::Bytes(body.as_bytes()))?;
        // S3 may send a 200 first and fail afterwards, so the body decides.
        if let Some((code, message)) = error_document(&answer.body) {
            let fault = Fault::Refused { status: 200, code, message, retry_after: None };
            return Err(self.error(name, key, fault));
        }
        let result = xml::parse(&answer.body).and_then(|it| it.named("CompleteMultipartUploadResult"));
        result.map(drop).map_err(|problem| self.error(name, key, Fault::unreadable(&problem)))
    }

    /// Deletes the parts of an upload. If the upload does not exist any more, that is no error.
    pub fn abort_multipart_upload(&self, key: &str, upload: &str) -> Result<()> {
        let name = "AbortMultipartUpload";
        let aborted = self.retry_small(|limit| {
            let keys = self.keys(name, key)?;
            let action = self.bucket.abort_multipart_upload(Some(&keys), key, upload);
            self.send(limit, name, key, action, &Body::None)
        });
        match aborted {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
