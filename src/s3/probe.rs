//! Small requests that show whether larger ones would succeed: for `pgkeep check`.

use chrono::{DateTime, Utc};
use rusty_s3::S3Action;
use ureq::http::Request;

use super::request::{date, Body};
use super::{xml, Client, Fault, Metadata, Result};

impl Client {
    /// The time at S3, if the answer contains it. The request is not signed. It shows that S3 can be reached,
    /// and it works even if the local clock is too wrong for signatures.
    pub fn server_time(&self) -> Result<Option<DateTime<Utc>>> {
        let request = Request::builder().method("HEAD").uri(self.bucket.base_url().as_str());
        let answer = self
            .run(request, (), self.limits.small())
            .map_err(|problem| self.error("HeadBucket", "", self.transport_fault(&problem)))?;
        Ok(date(answer.headers()))
    }

    /// Begins a multipart upload and aborts it.
    pub fn try_multipart_upload(&self, key: &str) -> Result<()> {
        let upload = self.create_multipart_upload(key, &Metadata::new())?;
        self.abort_multipart_upload(key, &upload)
    }

    /// Whether the bucket keeps deleted objects
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html>).
    ///
    /// # Errors
    /// S3 refuses. Not every S3-compatible server supports this operation.
    pub fn keeps_versions(&self) -> Result<bool> {
        let status =
            self.ask_bucket("GetBucketVersioning", "versioning", "VersioningConfiguration", "Status");
        Ok(status?.as_deref() == Some("Enabled"))
    }

    /// Whether objects of the bucket can be locked against deletion
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html>).
    ///
    /// # Errors
    /// S3 refuses. Not every S3-compatible server supports this operation.
    pub fn locks_objects(&self) -> Result<bool> {
        let (name, root) = ("GetObjectLockConfiguration", "ObjectLockConfiguration");
        match self.ask_bucket(name, "object-lock", root, "ObjectLockEnabled") {
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => Ok(false),
            answer => Ok(answer?.as_deref() == Some("Enabled")),
        }
    }

    /// The text of an element in one of the bucket's settings. The root of the document is checked, because a
    /// server that does not know the query may return something else.
    fn ask_bucket(
        &self,
        name: &'static str,
        query: &'static str,
        root: &str,
        element: &'static str,
    ) -> Result<Option<String>> {
        let answer = self.retry_small(|limit| {
            // A GET of the empty key addresses the bucket. The query makes it this operation.
            let keys = self.keys(name, "")?;
            let mut action = self.bucket.get_object(Some(&keys), "");
            action.query_mut().insert(query, "");
            self.send(limit, name, "", action, &Body::None)
        })?;
        let settings = xml::parse(&answer.body).and_then(|document| document.named(root));
        let settings = settings.map_err(|problem| self.error(name, "", Fault::unreadable(&problem)))?;
        Ok(settings.text_of(element).map(|text| text.trim().to_owned()))
    }
}
