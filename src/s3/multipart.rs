//! The requests of a multipart upload
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>).

use rusty_s3::actions::{CompleteMultipartUpload, CompleteMultipartUploadResponse, CreateMultipartUpload};

use super::error::error_document;
use super::request::{describe, Body};
use super::{Client, Fault, Metadata, Part, Result};

impl Client {
    pub(super) fn create_multipart_upload(&self, key: &str, metadata: &Metadata) -> Result<String> {
        let name = "CreateMultipartUpload";
        self.retry(|| {
            let mut action = self.bucket.create_multipart_upload(Some(&self.credentials), key);
            describe(&mut action, metadata);
            let answer = self.send(name, key, action, &Body::Bytes(b""))?;
            let parsed = CreateMultipartUpload::parse_response(&answer.body)
                .map_err(|problem| self.error(name, key, Fault::unreadable(&problem.to_string())))?;
            Ok(parsed.upload_id().to_owned())
        })
    }

    /// Uploads a part and answers with its ETag.
    pub(super) fn upload_part(
        &self,
        key: &str,
        upload: &str,
        part: &Part,
        go_on: impl Fn() -> bool,
    ) -> Result<String> {
        let number = u16::try_from(part.number).unwrap_or(u16::MAX);
        let sleep = |wait| self.shutdown.sleep_unless_forced(wait) && go_on();
        let attempt = || {
            let action = self.bucket.upload_part(Some(&self.credentials), key, number, upload);
            let answer = self.send("UploadPart", key, action, &Body::Part(part))?;
            self.check_etag("UploadPart", key, part, &answer.headers)
        };
        self.retries.run(sleep, || attempt().map_err(|error| error.of_part(part.number)))
    }

    /// Makes the object out of the parts with these ETags, in their order.
    pub(super) fn complete_multipart_upload(&self, key: &str, upload: &str, etags: &[String]) -> Result<()> {
        let name = "CompleteMultipartUpload";
        let action = || {
            let etags = etags.iter().map(String::as_str);
            self.bucket.complete_multipart_upload(Some(&self.credentials), key, upload, etags)
        };
        let body = CompleteMultipartUpload::body(action());
        self.retry(|| {
            let answer = self.send(name, key, action(), &Body::Bytes(body.as_bytes()))?;
            // S3 may begin a 200 and fail afterwards: the body decides.
            if let Some((code, message)) = error_document(&answer.body) {
                let fault = Fault::Refused { status: 200, code, message, retry_after: None };
                return Err(self.error(name, key, fault));
            }
            CompleteMultipartUploadResponse::parse(&answer.body)
                .map_err(|problem| self.error(name, key, Fault::unreadable(&problem.to_string())))?;
            Ok(())
        })
    }

    /// Throws away an upload's parts. One that is not there any more is no error.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn abort_multipart_upload(&self, key: &str, upload: &str) -> Result<()> {
        let name = "AbortMultipartUpload";
        let action = || self.bucket.abort_multipart_upload(Some(&self.credentials), key, upload);
        match self.retry(|| self.send(name, key, action(), &Body::None)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
