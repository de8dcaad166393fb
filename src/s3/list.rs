//! Lists the objects of a bucket, page by page.

use std::collections::HashSet;
use std::hash::Hash;
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;

use super::request::Body;
use super::xml::{self, Element};
use super::{Client, Fault, Result, S3Error};

/// Enough for ten million keys.
const MOST_PAGES: usize = 10_000;
/// The limit for all pages together.
const LONGEST: Duration = Duration::from_secs(3600);

/// An object of the bucket, as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The key.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
}

#[derive(Debug, Default)]
struct Page {
    objects: Vec<Object>,
    /// The token that asks for the next page.
    next: Option<String>,
}

impl Client {
    /// Returns all objects whose key begins with `prefix`, in the order of their keys, however many there
    /// are.
    ///
    /// # Errors
    /// S3 refuses, or its answer is not a listing.
    pub fn list_objects(&self, prefix: &str) -> Result<Vec<Object>> {
        let name = "ListObjectsV2";
        let mut objects = Vec::new();
        let lost = |problem: &str| self.error(name, prefix, Fault::unreadable(problem));
        each_page(lost, |token: Option<&String>| {
            let page = self.retry_small(|limit| {
                let keys = self.keys(name, prefix)?;
                let mut action = self.bucket.list_objects_v2(Some(&keys));
                action.with_prefix(prefix);
                if let Some(token) = token {
                    action.with_continuation_token(token.as_str());
                }
                let answer = self.send(limit, name, prefix, action, &Body::None)?;
                parse(&answer.body).map_err(|problem| lost(&problem))
            })?;
            objects.extend(page.objects);
            Ok(page.next)
        })?;
        Ok(objects)
    }
}

/// Reads pages until a page names no next one. If a server never comes to an end, this stops with the error
/// that `lost` describes.
pub(super) fn each_page<T: Clone + Eq + Hash>(
    lost: impl Fn(&str) -> S3Error,
    mut read: impl FnMut(Option<&T>) -> Result<Option<T>>,
) -> Result<()> {
    let started = Instant::now();
    let mut seen = HashSet::new();
    let mut next = None;
    while seen.len() < MOST_PAGES && started.elapsed() < LONGEST {
        next = read(next.as_ref())?;
        match &next {
            None => return Ok(()),
            Some(token) if !seen.insert(token.clone()) => return Err(lost("its pages go in a circle")),
            Some(_) => {}
        }
    }
    Err(lost("its pages come to no end"))
}

/// Reads a page (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>).
fn parse(body: &str) -> std::result::Result<Page, String> {
    let root = xml::parse(body)?.named("ListBucketResult")?;
    let next = match (root.text_of("IsTruncated"), root.text_of("NextContinuationToken")) {
        (Some("false"), _) => None,
        (_, Some(token)) => Some(token.to_owned()),
        (Some(_), None) => return Err("it is one of several pages, and does not name the next one".into()),
        (None, None) => None,
    };
    let encoded = root.text_of("EncodingType") == Some("url");
    let objects = root.all("Contents").map(|object| read(object, encoded)).collect::<Option<_>>();
    Ok(Page { objects: objects.ok_or("an object lacks Key or Size")?, next })
}

fn read(object: &Element, encoded: bool) -> Option<Object> {
    let (key, size) = (object.text_of("Key")?, object.text_of("Size")?.trim().parse().ok()?);
    Some(Object { key: if encoded { decode(key) } else { key.to_owned() }, size })
}

/// Decodes a key. AWS encodes it as forms do, with a plus for a space; other stores encode everything. If the
/// result is not valid text, the key stays as it is. It is then no backup's key.
fn decode(key: &str) -> String {
    let spaced = key.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map_or_else(|_| key.to_owned(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "b/app/app_2026-11-23_03-00-09.sql.gz";

    fn keys(listing: &str) -> Vec<String> {
        parse(listing).unwrap().objects.into_iter().map(|object| object.key).collect()
    }

    #[test]
    fn a_page_is_read_whatever_its_namespace() {
        for namespace in [
            " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
            // Google's namespace.
            " xmlns='http://doc.s3.amazonaws.com/2006-03-01'",
            "",
        ] {
            let page = parse(&format!(
                "<?xml version='1.0' encoding='UTF-8'?><ListBucketResult{namespace}><Name>b</Name><IsTruncated>true</IsTruncated>\
                 <Contents><Key>{KEY}</Key><Size>12</Size></Contents><NextContinuationToken>t</NextContinuationToken>\
                 </ListBucketResult>"
            ));
            let page = page.unwrap();
            assert_eq!(page.objects, [Object { key: KEY.into(), size: 12 }]);
            assert_eq!(page.next.as_deref(), Some("t"));
        }
        assert!(parse("<ListBucketResult/>").unwrap().objects.is_empty());
    }

    #[test]
    fn a_key_that_xml_cannot_have_hides_no_other() {
        let listing = |key: &str, encoding: &str| {
            format!(
                "<ListBucketResult>{encoding}<Contents><Key>{key}</Key><Size>1</Size></Contents>\
                 <Contents><Key>{KEY}</Key><Size>1</Size></Contents></ListBucketResult>"
            )
        };
        let url = "<EncodingType>url</EncodingType>";
        for (key, encoding, read) in [
            ("a&#x1;b", "", "a\u{fffd}b"),
            ("a\u{1}b", "", "a\u{fffd}b"),
            ("a&amp;b+c%20d", "", "a&b+c%20d"),
            ("a%01b", url, "a\u{1}b"),
            ("a+b%2Bc%2fd", url, "a b+c/d"),
            ("a%ff+%zz", url, "a%ff+%zz"),
        ] {
            assert_eq!(keys(&listing(key, encoding)), [read, KEY]);
        }
    }

    #[test]
    fn what_would_hide_backups_is_refused() {
        for listing in [
            "<html/>",
            "nonsense",
            "<Error><Code>x</Code></Error>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
            "<ListBucketResult><Contents><Key>k</Key><Size>many</Size></Contents></ListBucketResult>",
        ] {
            assert!(parse(listing).is_err(), "{listing}");
        }
        // A token on the last page is ignored.
        let last = "<ListBucketResult><IsTruncated>false</IsTruncated>\
                    <NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
        assert_eq!(parse(last).unwrap().next, None);
    }

    #[test]
    fn pages_without_an_end_are_an_error() {
        let lost = |problem: &str| S3Error {
            operation: "ListObjectsV2",
            place: "s3://b/".into(),
            fault: Fault::unreadable(problem),
        };
        let follow = |next: fn(u32) -> Option<u32>| {
            let mut pages = 0;
            let end = each_page(lost, |token: Option<&u32>| {
                pages += 1;
                Ok(next(token.copied().unwrap_or_default()))
            });
            (pages, end.map_err(|error| error.to_string()))
        };
        assert_eq!(follow(|page| (page < 9).then_some(page + 1)), (10, Ok(())));
        let (pages, end) = follow(|page| Some((page + 1) % 3));
        assert!(pages == 4 && end.clone().unwrap_err().contains("go in a circle"), "{pages} {end:?}");
        let (pages, end) = follow(|page| Some(page + 1));
        assert!(pages == MOST_PAGES && end.clone().unwrap_err().contains("no end"), "{pages} {end:?}");
    }

    #[test]
    fn whatever_is_answered_is_read_or_refused() {
        let seed = "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><Contents><Key>a+b%20</Key>\
                    <Size>1</Size></Contents><NextContinuationToken>t</NextContinuationToken></ListBucketResult>";
        crate::base::fuzz::feed(&[seed], |body| drop(parse(body)));
    }
}
