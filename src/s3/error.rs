//! Errors: how S3, or the network on the way to it, refused a request.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use super::xml;
use crate::base::logging::one_line;
use crate::base::retry::Retryable;
use crate::base::secret::{Redactor, MASK};

/// At most this many characters of a text from outside are shown. S3's own messages are shorter.
const LONGEST_TEXT: usize = 1_000;
/// At most this many characters of an error code are shown. S3's longest code is shorter.
const LONGEST_CODE: usize = 60;
/// At most this many characters are shown of an answer that is not S3's.
const LONGEST_PAGE: usize = 200;
/// Hexadecimal digits of a signature.
const SIGNATURE: usize = 64;
/// The name of a signed parameter is at most this long.
const LONGEST_NAME: usize = 40;

/// A failed request: the operation, the object, and S3's own words if it answered.
#[derive(Debug)]
pub struct S3Error {
    /// S3's name of the operation, such as `UploadPart`.
    pub operation: &'static str,
    /// `s3://bucket/key`.
    pub place: String,
    /// What went wrong.
    pub fault: Fault,
}

/// The ways in which a request fails.
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
        /// Whether another try can succeed.
        transient: bool,
    },
    /// The platform gives no credentials to sign the request with, or they have expired.
    NoCredentials {
        /// Why.
        reason: String,
        /// Whether another try can succeed.
        transient: bool,
    },
}

impl S3Error {
    /// S3's error code, if S3 answered.
    pub fn code(&self) -> Option<&str> {
        self.fault.code()
    }

    /// Names the part that the request was about.
    pub(super) fn of_part(mut self, number: u32) -> Self {
        self.place = format!("{number} of {}", self.place);
        self
    }

    /// Prevents another try, if there is no time for one.
    pub(super) fn for_good(mut self) -> Self {
        if let Fault::Unanswered { transient, .. } | Fault::NoCredentials { transient, .. } = &mut self.fault
        {
            *transient = false;
        }
        self
    }

    /// Whether S3 refused to replace an object because the request said not to
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>).
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.fault, Fault::Refused { status: 412, .. })
            || matches!(self.code(), Some("PreconditionFailed" | "ConditionalRequestConflict"))
    }

    /// Whether the store may have refused the request because it does not know a header, or because a header
    /// got lost.
    pub(super) fn may_be_of_a_header(&self) -> bool {
        matches!(self.fault, Fault::Refused { status: 400 | 501, .. } if !self.is_transient())
            || self.code() == Some("SignatureDoesNotMatch")
    }

    /// Whether the object has to be restored from an archive before it can be read.
    pub fn is_archived(&self) -> bool {
        self.code() == Some("InvalidObjectState")
    }

    /// Whether the object (or upload) is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self.fault, Fault::Refused { status: 404, ref code, .. } if code != "NoSuchBucket")
    }
}

impl Retryable for S3Error {
    /// Transient are: faults of the connection, faults of the server (5xx, also inside a 200), and its wish
    /// to slow down. Of the 4xx, only those that another try can change.
    fn is_transient(&self) -> bool {
        match &self.fault {
            Fault::Unanswered { transient, .. } | Fault::NoCredentials { transient, .. } => *transient,
            Fault::Refused { status, code, .. } => {
                let by_code = [
                    "SlowDown",
                    "RequestTimeout",
                    "InternalError",
                    "ServiceUnavailable",
                    "OperationAborted",
                    // The bytes changed on the way: Content-MD5 (or the transfer's length) showed it.
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
            Fault::Unanswered { .. } | Fault::NoCredentials { .. } => None,
        }
    }
}

impl fmt::Display for S3Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.operation, self.place)?;
        match &self.fault {
            Fault::Refused { status, code, message, .. } => write!(f, "{status} {code}: {message}"),
            Fault::Unanswered { reason, .. } | Fault::NoCredentials { reason, .. } => f.write_str(reason),
        }
    }
}

impl std::error::Error for S3Error {}

impl Fault {
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Fault::Refused { code, .. } => Some(code),
            Fault::Unanswered { .. } | Fault::NoCredentials { .. } => None,
        }
    }

    /// Adds what to do about it.
    pub(super) fn with_remedy(mut self, remedy: Option<String>) -> Self {
        if let (Fault::Refused { message, .. }, Some(remedy)) = (&mut self, remedy) {
            *message += &format!("; {remedy}");
        }
        self
    }

    /// Reads an answer that is not a success. `body` is S3's `<Error>` document, or a text that a proxy
    /// wrote. The answer to HEAD has no body
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>).
    pub(super) fn refused(
        status: u16,
        retry_after: Option<Duration>,
        body: &str,
        redactor: &Redactor,
    ) -> Self {
        let (code, message) = error_document(body).unwrap_or_else(|| {
            let meaning =
                ureq::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            let said = body.trim();
            let message = match (status, said) {
                (403, "") => {
                    "the credentials may not do this (the answer to a HEAD request says no more)".into()
                }
                (_, "") => "the answer says no more".into(),
                // Half a secret at the cut would not be recognised later.
                _ => format!("the answer is not S3's: {}", cleaned(said, redactor, LONGEST_PAGE)),
            };
            (meaning.unwrap_or("Error").replace(' ', ""), message)
        });
        Fault::Refused { status, code, message, retry_after }
    }

    /// The same error without secrets, printable, and short enough for a log line. A code of S3's own stays as
    /// it is, because it decides what happens next. A code that contains a secret is nobody's.
    pub(super) fn presentable(mut self, redactor: &Redactor) -> Self {
        let tidy = |text: &mut String, longest| *text = cleaned(text, redactor, longest);
        match &mut self {
            Fault::Refused { code, message, .. } => {
                tidy(code, LONGEST_CODE);
                tidy(message, LONGEST_TEXT);
            }
            Fault::Unanswered { reason, .. } | Fault::NoCredentials { reason, .. } => {
                tidy(reason, LONGEST_TEXT)
            }
        }
        self
    }

    pub(super) fn unreadable(what: &str) -> Self {
        Fault::Unanswered { reason: format!("cannot read the answer as S3's: {what}"), transient: false }
    }
}

/// Code and message of an `<Error>` document, whatever its namespace.
pub(super) fn error_document(body: &str) -> Option<(String, String)> {
    let root = xml::parse(body).ok()?;
    // Some servers put it inside an ErrorResponse.
    let error = if root.name == "Error" { &root } else { root.all("Error").next()? };
    let text = |name| error.text_of(name).map(str::trim).filter(|text| !text.is_empty());
    let mut message = text("Message").unwrap_or("no message").to_owned();
    // A redirect contains the bucket's endpoint.
    if let Some(endpoint) = text("Endpoint") {
        message += &format!(" (endpoint {endpoint})");
    }
    if let Some(region) = text("Region") {
        message += &format!(" (region {region})");
    }
    Some((text("Code")?.to_owned(), message))
}

/// A text from outside as it may be shown.
fn cleaned(text: &str, redactor: &Redactor, longest: usize) -> String {
    cut(&one_line(&mask_signatures(&redactor.clean(text))), longest)
}

/// Cuts a text to at most this many characters.
fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Masks the signed part of URLs, because a proxy's error page repeats the URL of the request.
fn mask_signatures(text: &str) -> String {
    let separates = |c: char| c.is_whitespace() || "\"'<>".contains(c);
    let words = text.split_inclusive(separates).map(|word| match signed_from(word.as_bytes()) {
        Some(start) => {
            let behind = &word[word.trim_end_matches(separates).len()..];
            Cow::from(format!("{}{MASK}{behind}", &word[..start]))
        }
        None => Cow::from(word),
    });
    words.collect()
}

/// Where in a word the first signed parameter of a URL begins, or a signature alone.
fn signed_from(word: &[u8]) -> Option<usize> {
    let mut digits = 0;
    (0..word.len()).find_map(|at| {
        digits = if word[at].is_ascii_hexdigit() { digits + 1 } else { 0 };
        (digits == SIGNATURE).then(|| at + 1 - SIGNATURE).or(is_parameter(&word[at..]).then_some(at))
    })
}

/// Whether this begins with `X-Amz-…=`. If it is encoded once more, the sign after the name is `%3D`.
fn is_parameter(text: &[u8]) -> bool {
    let mut behind = text.iter().take(LONGEST_NAME).skip_while(|c| c.is_ascii_alphanumeric() || **c == b'-');
    text.get(..6).is_some_and(|name| name.eq_ignore_ascii_case(b"x-amz-"))
        && matches!(behind.next(), Some(b'=' | b'%'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    fn refused(status: u16, body: &str) -> S3Error {
        let fault = Fault::refused(status, None, body, &Redactor::default());
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
    fn no_text_is_longer_than_a_log_line_may_be() {
        let long = "é".repeat(500_000);
        for body in [
            format!("<Error><Code>{long}</Code><Message>{long}</Message><Region>{long}</Region></Error>"),
            format!("<html>{long}"),
        ] {
            let fault = refused(400, &body).fault.presentable(&Redactor::default());
            let Fault::Refused { code, message, .. } = fault else { panic!("{fault:?}") };
            assert!(code.chars().count() <= LONGEST_CODE + 1 && message.chars().count() <= LONGEST_TEXT + 1);
        }
    }

    #[test]
    fn a_signed_url_that_is_quoted_loses_its_signature() {
        let signature = "0123456789abcdef".repeat(4);
        let credential = "AKIA%2F20261123%2Fus-east-1%2Fs3%2Faws4_request";
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Signature={signature}"
        );
        let encoded = query.replace('%', "%25").replace('=', "%3D").replace('&', "%26");
        for (text, shown) in [
            (
                format!("<a href=\"http://s3/b/k?partNumber=1&{query}\">no</a>"),
                "<a href=\"http://s3/b/k?partNumber=1&***\">no</a>",
            ),
            (format!("GET /b/k?{} HTTP/1.1", query.replace('&', "&amp;")), "GET /b/k?*** HTTP/1.1"),
            (format!("to=http%3A%2F%2Fs3%3F{encoded} é"), "to=http%3A%2F%2Fs3%3F*** é"),
            (query.to_lowercase(), "***"),
            (format!("{{\"X-Amz-Signature\":\"{signature}\"}}"), "{\"X-Amz-Signature\":\"***\"}"),
            ("Missing header: x-amz-content-sha256".into(), "Missing header: x-amz-content-sha256"),
        ] {
            assert_eq!(mask_signatures(&text), shown);
        }
    }

    #[test]
    fn no_field_of_an_answer_shows_a_secret_or_starts_a_line() {
        let redactor = Redactor::new(["AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENG"].map(Secret::new));
        let signed = format!("http://s3/b?X-Amz-Signature={}", "0123456789abcdef".repeat(4));
        for said in ["AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIK7MDENG", &signed, "a\n2026-11-26 INFO\u{85}"] {
            // At each place of a page that is cut.
            let pages = (LONGEST_PAGE - said.len()..=LONGEST_PAGE).map(|at| "é".repeat(at) + said);
            let documents = ["Code", "Message", "Endpoint", "Region"]
                .map(|name| format!("<Error><{name}>{said}</{name}><Code>Other</Code></Error>"));
            for body in pages.chain(documents) {
                let fault = Fault::refused(403, None, &body, &redactor).presentable(&redactor);
                let text = S3Error { operation: "PutObject", place: "s3://b/k".into(), fault }.to_string();
                let shown = ["AKIA", "wJal", "Signature", "0123", "\n", "\u{85}"].map(|it| text.contains(it));
                assert_eq!(shown, [false; 6], "{text}");
            }
        }
    }

    #[test]
    fn only_what_can_change_is_tried_again() {
        let code = |code: &str| format!("<Error><Code>{code}</Code></Error>");
        for (status, body, transient) in [
            (500, code("InternalError"), true),
            (503, code("SlowDown"), true),
            (429, String::new(), true),
            // If a proxy answers, the status alone decides.
            (500, String::new(), true),
            (502, "<html>Bad gateway".into(), true),
            (504, String::new(), true),
            (403, String::new(), false),
            (200, code("InternalError"), true),
            (400, code("RequestTimeout"), true),
            (400, code("BadDigest"), true),
            (501, code("NotImplemented"), false),
            (409, code("OperationAborted"), true),
            (412, code("PreconditionFailed"), false),
            (409, code("ConditionalRequestConflict"), false),
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
            let fault = refused(503, body).fault.presentable(&Redactor::default());
            let text = S3Error { operation: "PutObject", place: "s3://b/k".into(), fault }.to_string();
            assert!(text.starts_with("PutObject s3://b/k: ") && text.len() < 10_000, "{}", text.len());
        });
    }
}
