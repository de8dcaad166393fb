//! Small requests that show whether larger ones would go well: for `pgkeep check`.

use chrono::{DateTime, Utc};
use roxmltree::Document;
use rusty_s3::S3Action;
use ureq::http::Request;

use super::request::{date, Body, STALL_TIMEOUT};
use super::{Client, Fault, Metadata, Result};

impl Client {
    /// What time it is at S3, where it says so. The request is not signed: it shows that S3 can be reached, and
    /// works with a clock that is too wrong for signatures.
    ///
    /// # Errors
    /// Where S3 cannot be reached.
    pub fn server_time(&self) -> Result<Option<DateTime<Utc>>> {
        let request = Request::builder().method("HEAD").uri(self.bucket.base_url().as_str());
        let answer = self
            .run(request, (), STALL_TIMEOUT)
            .map_err(|problem| self.error("HeadBucket", "", self.transport_fault(&problem)))?;
        Ok(date(answer.headers()))
    }

    /// Stores a few bytes.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn put_bytes(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let action = || self.bucket.put_object(Some(&self.credentials), key);
        self.retry(|| self.send("PutObject", key, action(), &Body::Bytes(bytes))).map(drop)
    }

    /// Reads an object of a few bytes of text.
    ///
    /// # Errors
    /// S3's refusal.
    pub fn get_text(&self, key: &str) -> Result<String> {
        let action = || self.bucket.get_object(Some(&self.credentials), key);
        Ok(self.retry(|| self.send("GetObject", key, action(), &Body::None))?.body)
    }

    /// Begins a multipart upload and gives it up.
    ///
    /// # Errors
    /// S3's refusal of the one or the other.
    pub fn try_multipart_upload(&self, key: &str) -> Result<()> {
        let upload = self.create_multipart_upload(key, &Metadata::new())?;
        self.abort_multipart_upload(key, &upload)
    }

    /// Whether the bucket keeps what is deleted
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketVersioning.html>).
    ///
    /// # Errors
    /// S3's refusal; not every S3-compatible server has this operation.
    pub fn keeps_versions(&self) -> Result<bool> {
        let status =
            self.ask_bucket("GetBucketVersioning", "versioning", "VersioningConfiguration", "Status");
        Ok(status?.as_deref() == Some("Enabled"))
    }

    /// Whether objects of the bucket can be locked against deletion
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectLockConfiguration.html>).
    ///
    /// # Errors
    /// S3's refusal; not every S3-compatible server has this operation.
    pub fn locks_objects(&self) -> Result<bool> {
        let (name, root) = ("GetObjectLockConfiguration", "ObjectLockConfiguration");
        match self.ask_bucket(name, "object-lock", root, "ObjectLockEnabled") {
            Err(error) if error.code() == Some("ObjectLockConfigurationNotFoundError") => Ok(false),
            answer => Ok(answer?.as_deref() == Some("Enabled")),
        }
    }

    /// The text of an element of one of the bucket's settings, which is a document of this root: servers that
    /// do not know the query may answer with something else.
    fn ask_bucket(
        &self,
        name: &'static str,
        query: &'static str,
        root: &str,
        element: &str,
    ) -> Result<Option<String>> {
        let answer = self.retry(|| {
            // A GET of the empty key addresses the bucket; the query makes it this operation.
            let mut action = self.bucket.get_object(Some(&self.credentials), "");
            action.query_mut().insert(query, "");
            self.send(name, "", action, &Body::None)
        })?;
        let unreadable = |problem: &str| self.error(name, "", Fault::unreadable(problem));
        let document = Document::parse(&answer.body).map_err(|problem| unreadable(&problem.to_string()))?;
        let found = document.root_element().tag_name().name();
        if found != root {
            return Err(unreadable(&format!("it is a {found}")));
        }
        let element = document.descendants().find(|node| node.tag_name().name() == element);
        Ok(element.and_then(|node| node.text()).map(str::to_owned))
    }
}
