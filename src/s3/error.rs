//! What S3 or the way to it said no with.

use std::fmt;
use std::time::Duration;

use crate::base::retry::Retryable;

/// A failed request: which operation on which object, and S3's own words where it answered.
#[derive(Debug)]
pub struct S3Error {
    /// S3's name of the operation, such as `UploadPart`.
    pub operation: &'static str,
    /// `s3://bucket/key`.
    pub place: String,
    /// What went wrong.
    pub fault: Fault,
}

/// The two ways a request fails.
#[derive(Debug)]
pub enum Fault {
    /// S3 refused it.
    Refused {
        /// The HTTP status.
        status: u16,
        /// S3's error code, such as `NoSuchBucket`.
        code: String,
        /// S3's message.
        message: String,
        /// How long S3 asks to wait.
        retry_after: Option<Duration>,
    },
    /// There was no answer, or none that makes sense.
    Unanswered {
        /// Why.
        reason: String,
        /// Whether another try can go well.
        transient: bool,
    },
}

impl S3Error {
    /// S3's error code, where it answered.
    pub fn code(&self) -> Option<&str> {
        match &self.fault {
            Fault::Refused { code, .. } => Some(code),
            Fault::Unanswered { .. } => None,
        }
    }

    /// Names the part that the request was about.
    pub(super) fn of_part(mut self, number: u32) -> Self {
        self.place = format!("{number} of {}", self.place);
        self
    }

    /// Whether the object (or upload) is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.fault, Fault::Refused { status: 404, ref code, .. } if code != "NoSuchBucket")
    }
}

impl Retryable for S3Error {
    /// Faults of the connection, of the server (5xx, also within a 200), and its wish to slow down; of the
    /// 4xx only those that another try can change.
    fn is_transient(&self) -> bool {
        match &self.fault {
            Fault::Unanswered { transient, .. } => *transient,
            Fault::Refused { status, code, .. } => {
                let by_code = [
                    "SlowDown",
                    "RequestTimeout",
                    "InternalError",
                    "ServiceUnavailable",
                    "OperationAborted",
                    // The bytes changed on their way: Content-MD5 (or the transfer's length) told.
                    "BadDigest",
                    "IncompleteBody",
                ];
                matches!(status, 408 | 429 | 500 | 502..=599) || by_code.contains(&code.as_str())
            }
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self.fault {
            Fault::Refused { retry_after, .. } => retry_after,
            Fault::Unanswered { .. } => None,
        }
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.operation, self.place)?;
        match &self.fault {
            Fault::Refused { status, code, message, .. } => write!(f, "{status} {code}: {message}"),
            Fault::Unanswered { reason, .. } => f.write_str(reason),
        }
    }
}

impl std::error::Error for S3Error {}

impl Fault {
    /// Reads an answer that is not a success. `body` is S3's `<Error>` document, or whatever a proxy in
    /// between wrote; HEAD has none
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
    pub(super) fn refused(status: u16, retry_after: Option<Duration>, body: &str) -> Self {
        let (code, message) = error_document(body).unwrap_or_else(|| {
            let meaning =
                ureq::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let said = body.trim();
            let message = match (status, said) {
                (403, "") => {
                    "the credentials may not do this (the answer to a HEAD request says no more)".into()
                }
                (_, "") => "the answer says no more".into(),
                _ => format!("the answer is not S3's: {}", said.chars().take(200).collect::<String>()),
            };
            (meaning.unwrap_or("Error").replace(' ', ""), message)
        });
        Fault::Refused { status, code, message, retry_after }
    }

    pub(super) fn unreadable(what: &str) -> Self {
        Fault::Unanswered { reason: format!("cannot read the answer as S3's: {what}"), transient: false }
    }
}

/// Code and message of an `<Error>` document, whatever its namespace.
pub(super) fn error_document(body: &str) -> Option<(String, String)> {
    let document = roxmltree::Document::parse(body).ok()?;
    let root = document.root_element();
    let error = root.descendants().find(|node| node.tag_name().name() == "Error")?;
    let text = |name: &str| {
        let node = error.children().find(|node| node.tag_name().name() == name)?;
        node.text().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let mut message = text("Message").unwrap_or_else(|| "no message".into());
    // A redirect names where the bucket is.
    if let Some(endpoint) = text("Endpoint") {
        message += &format!(" (endpoint {endpoint})");
    }
    if let Some(region) = text("Region") {
        message += &format!(" (region {region})");
    }
    Some((text("Code")?, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> S3Error {
        let fault = Fault::refused(status, None, body);
        S3Error { operation: "PutObject", place: "s3://b/k".into(), fault }
    }

    #[test]
    fn s3s_own_code_and_message_are_told() {
        let body = "<?xml version=\"1.0\"?><Error xmlns=\"urn:any\"><Code>NoSuchBucket</Code>\
                    <Message>The specified bucket does not exist</Message></Error>";
        assert_eq!(
            refused(404, body).to_string(),
            "PutObject s3://b/k: 404 NoSuchBucket: The specified bucket does not exist"
        );
        assert!(!refused(404, body).is_not_found());
        assert!(refused(404, "").is_not_found());
    }

    #[test]
    fn what_is_not_s3s_answer_is_shown_in_part() {
        assert_eq!(
            refused(502, "<html>Bad gateway").to_string(),
            "PutObject s3://b/k: 502 BadGateway: the answer is not S3's: <html>Bad gateway"
        );
    }

    #[test]
    fn only_what_can_change_is_tried_again() {
        let code = |code: &str| format!("<Error><Code>{code}</Code></Error>");
        for (status, body, transient) in [
            (500, code("InternalError"), true),
            (503, code("SlowDown"), true),
            (429, String::new(), true),
            // The status alone decides where a proxy answers.
            (500, String::new(), true),
            (502, "<html>Bad gateway".into(), true),
            (504, String::new(), true),
            (403, String::new(), false),
            (200, code("InternalError"), true),
            (400, code("RequestTimeout"), true),
            (400, code("BadDigest"), true),
            (501, code("NotImplemented"), false),
            (403, code("SignatureDoesNotMatch"), false),
            (404, code("NoSuchUpload"), false),
            (400, code("EntityTooSmall"), false),
            (301, code("PermanentRedirect"), false),
        ] {
            assert_eq!(refused(status, &body).is_transient(), transient, "{status} {body}");
        }
    }

    #[test]
    fn whatever_is_answered_becomes_a_text_of_bounded_length() {
        let seeds = [
            "<?xml version=\"1.0\"?><Error xmlns=\"urn:any\"><Code>NoSuchBucket</Code><Message>no</Message></Error>",
            "<Error><Code>PermanentRedirect</Code><Endpoint>e</Endpoint><Region>r</Region></Error>",
            "<!DOCTYPE x [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><Error><Code>&b;</Code></Error>",
            "<html><body>Bad gateway",
        ];
        crate::base::fuzz::feed(&seeds, |body| {
            let text = refused(503, body).to_string();
            assert!(text.starts_with("PutObject s3://b/k: ") && text.len() < 100_000, "{}", text.len());
        });
    }
}
