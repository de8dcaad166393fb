//! ETags, and reading back what they leave in doubt.
//!
//! An ETag is the MD5 of an object or part, unless the store encrypts it
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>). Some stores encrypt and do not say so.
//! S3 has checked the Content-MD5 that it was sent, so an ETag that differs is a question and no verdict: the
//! object is read back, and its bytes decide.

use std::io::BufRead;
use std::sync::atomic::Ordering;

use log::warn;
use md5::{Digest, Md5};
use ureq::http::header::ETAG;
use ureq::http::HeaderMap;

use super::{Client, Fault, Part, Result, S3Error};

/// What the store says about the bytes that it has.
#[derive(Debug)]
pub(super) struct Etag {
    /// As the store gave it, but not weak: a proxy on the way makes an ETag weak, and the store does not know
    /// it then (RFC 9110, 8.8.3).
    pub text: String,
    /// It looks like an MD5, and is another one than the MD5 of what was sent.
    pub differs: bool,
}

/// A part that the store has acknowledged.
#[derive(Debug)]
pub(super) struct Sent {
    pub number: u32,
    pub etag: Etag,
    pub md5: [u8; 16],
    pub length: u64,
}

impl Etag {
    fn read(headers: &HeaderMap, md5: [u8; 16]) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let etag = text(ETAG.as_str())?;
        let etag = etag.strip_prefix("W/").unwrap_or(etag);
        let found = etag.trim_matches('"');
        let looks_like_md5 = found.len() == 32 && found.bytes().all(|byte| byte.is_ascii_hexdigit());
        let encrypted = text("x-amz-server-side-encryption").is_some_and(|kind| kind != "AES256")
            || text("x-amz-server-side-encryption-customer-algorithm").is_some();
        let differs = looks_like_md5 && !encrypted && !found.eq_ignore_ascii_case(&hex(md5));
        Some(Etag { text: etag.to_owned(), differs })
    }

    /// What an ETag that differs may mean.
    pub fn doubt(&self, part: &Part) -> String {
        let (found, sent) = (self.text.trim_matches('"'), hex(part.md5));
        format!(
            "its ETag {found} is not the MD5 of what was sent, {sent}: other bytes arrived, or it is no MD5"
        )
    }
}

impl Client {
    /// The ETag in the answer to a request that sent this part, or that asks for an object of this part alone.
    pub(super) fn etag(
        &self,
        operation: &'static str,
        key: &str,
        part: &Part,
        headers: &HeaderMap,
    ) -> Result<Etag> {
        let none = || self.error(operation, key, Fault::unreadable("it has no ETag"));
        Etag::read(headers, part.md5).ok_or_else(none)
    }

    /// Whether the store's ETags are known not to be MD5s, so that each backup is read back.
    pub fn has_odd_etags(&self) -> bool {
        self.learned.odd_etags.load(Ordering::Relaxed)
    }

    /// Says it once.
    pub(super) fn note_odd_etags(&self) {
        if !self.learned.odd_etags.swap(true, Ordering::Relaxed) {
            warn!(
                "this store's ETags are not MD5s: each backup is read back and compared with what was sent"
            );
        }
    }

    /// Reads an object and compares it with these parts (length and MD5), in this order.
    ///
    /// # Errors
    /// The object cannot be read. No other try can change that, as each range was tried several times.
    pub fn holds(&self, key: &str, parts: &[(u64, [u8; 16])]) -> Result<bool> {
        let mut object = self.download(key).map_err(S3Error::for_good)?;
        if object.size != parts.iter().map(|(length, _)| length).sum::<u64>() {
            return Ok(false);
        }
        for (length, sent) in parts {
            let (mut md5, mut left) = (Md5::new(), *length);
            while left > 0 {
                let piece = object.fill_buf().map_err(|problem| self.unread(key, problem))?;
                let count = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if count == 0 {
                    return Ok(false);
                }
                md5.update(&piece[..count]);
                object.consume(count);
                left -= count as u64;
            }
            if <[u8; 16]>::from(md5.finalize()) != *sent {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn unread(&self, key: &str, problem: std::io::Error) -> S3Error {
        let told = problem.downcast::<S3Error>().unwrap_or_else(|problem| {
            let reason = problem.to_string();
            self.error("GetObject", key, Fault::Unanswered { reason, transient: false })
        });
        told.for_good()
    }
}

fn hex(md5: [u8; 16]) -> String {
    md5.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
