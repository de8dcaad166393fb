//! ListMultipartUploads, which rusty-s3 lacks.

use chrono::{DateTime, Utc};
use rusty_s3::S3Action;

use super::list::each_page;
use super::request::Body;
use super::xml::{self, Element};
use super::{Client, Fault, Result};

/// An upload that was neither completed nor aborted. It is invisible, and it costs money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingUpload {
    /// The key that its object would have.
    pub key: String,
    /// S3's id of the upload.
    pub id: String,
    /// When the upload began, by S3's clock.
    pub initiated: DateTime<Utc>,
}

#[derive(Default)]
struct Page {
    uploads: Vec<PendingUpload>,
    /// The key and upload id after which the next page begins.
    next: Option<(String, String)>,
}

impl Client {
    /// The uploads whose key begins with `prefix` and that are running or were left by a crash
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>).
    ///
    /// # Errors
    /// S3 refuses. Not every S3-compatible server supports this operation.
    pub fn list_multipart_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let name = "ListMultipartUploads";
        let mut uploads = Vec::new();
        let lost = |problem: &str| self.error(name, prefix, Fault::unreadable(problem));
        each_page(lost, |marker: Option<&(String, String)>| {
            let page = self.retry_small(|limit| {
                // A GET of the empty key addresses the bucket. The query makes it this operation.
                let keys = self.keys(name, prefix)?;
                let mut action = self.bucket.get_object(Some(&keys), "");
                action.query_mut().insert("uploads", "");
                action.query_mut().insert("prefix", prefix.to_owned());
                if let Some((key, id)) = marker {
                    action.query_mut().insert("key-marker", key.clone());
                    action.query_mut().insert("upload-id-marker", id.clone());
                }
                let answer = self.send(limit, name, prefix, action, &Body::None)?;
                parse(&answer.body).map_err(|problem| lost(&problem))
            })?;
            uploads.extend(page.uploads);
            Ok(page.next)
        })?;
        Ok(uploads)
    }
}

fn parse(body: &str) -> std::result::Result<Page, String> {
    let root = xml::parse(body)?.named("ListMultipartUploadsResult")?;
    let next = match root.text_of("IsTruncated") {
        Some("true") => root.text_of("NextKeyMarker").zip(root.text_of("NextUploadIdMarker")),
        _ => None,
    };
    let uploads = root.all("Upload").map(upload).collect::<Option<_>>();
    Ok(Page {
        uploads: uploads.ok_or("an Upload lacks Key, UploadId or Initiated")?,
        next: next.map(|(key, id)| (key.to_owned(), id.to_owned())),
    })
}

fn upload(element: &Element) -> Option<PendingUpload> {
    let initiated = DateTime::parse_from_rfc3339(element.text_of("Initiated")?.trim()).ok()?;
    Some(PendingUpload {
        key: element.text_of("Key")?.to_owned(),
        id: element.text_of("UploadId")?.to_owned(),
        initiated: initiated.to_utc(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_its_uploads_and_the_next_page() {
        let page = parse(
            "<ListMultipartUploadsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>b</Bucket>\
             <NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker><IsTruncated>true</IsTruncated>\
             <Upload><Key>k</Key><UploadId>i</UploadId><Initiated>2026-11-22T01:02:03.000Z</Initiated></Upload>\
             </ListMultipartUploadsResult>",
        )
        .unwrap();
        let initiated = "2026-11-22T01:02:03Z".parse().unwrap();
        assert_eq!(page.uploads, [PendingUpload { key: "k".into(), id: "i".into(), initiated }]);
        assert_eq!(page.next, Some(("k".into(), "i".into())));
    }

    #[test]
    fn anything_else_is_refused() {
        assert!(parse("<ListMultipartUploadsResult/>").unwrap().uploads.is_empty());
        assert!(parse("<html/>").is_err());
        assert!(parse("nonsense").is_err());
        assert!(parse("<ListMultipartUploadsResult><Upload/></ListMultipartUploadsResult>").is_err());
    }

    #[test]
    fn whatever_is_answered_is_read_or_refused() {
        let seed = "<ListMultipartUploadsResult><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker>\
                    <IsTruncated>true</IsTruncated><Upload><Key>k</Key><UploadId>i</UploadId>\
                    <Initiated>2026-11-22T01:02:03.000Z</Initiated></Upload></ListMultipartUploadsResult>";
        crate::base::fuzz::feed(&[seed], |body| drop(parse(body)));
    }
}
