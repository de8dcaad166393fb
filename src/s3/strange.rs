//! What answers mean that are not S3's own: of a proxy, of a console, or of a port that speaks otherwise.

/// What to do about a refusal, as far as its status and text show.
pub(super) fn remedy(status: u16, asked: &str, location: Option<&str>, body: &str) -> Option<String> {
    // Of nginx, and of servers in Go.
    let wants_tls = ["plain HTTP request was sent to HTTPS port", "HTTP request to an HTTPS server"];
    Some(match (status, location) {
        (413, _) => {
            "the store, or a proxy in front of it, limits the size of a body: it has to take a whole part, \
                     at least 16 MiB (nginx: client_max_body_size)"
                .into()
        }
        (300..=399, Some(location)) => {
            let location = location.split('?').next().unwrap_or_default();
            let why = match asked.starts_with("http://") && location.starts_with("https://") {
                true => "S3_URL has to begin with https://",
                false => "see S3_REGION and S3_URL: the bucket is somewhere else",
            };
            format!("it redirects to {location}: {why}")
        }
        _ if wants_tls.iter().any(|text| body.contains(text)) => {
            "this port speaks TLS: S3_URL has to begin with https://".into()
        }
        // A gateway shows a page if the server behind it is away.
        (500.., _) => return None,
        _ if is_html(body) => IS_HTML.into(),
        _ => return None,
    })
}

pub(super) const IS_HTML: &str =
    "an HTML page came back: is S3_URL a console's address rather than the S3 API's?";

/// Whether a text is a page for people.
pub(super) fn is_html(text: &str) -> bool {
    let start = text.trim_start().get(..14).unwrap_or(text.trim_start()).to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

/// What to do about a connection that TLS refuses.
pub(super) fn tls_remedy(problem: &str, host: &str, bucket: &str) -> &'static str {
    if problem.contains("InvalidContentType") {
        "this port speaks plain HTTP: S3_URL has to begin with http://, or name another port"
    } else if problem.contains("not valid for name") && bucket.contains('.') && host.starts_with(bucket) {
        "no certificate covers a bucket with dots in its name: S3_ADDRESSING_STYLE=path"
    } else {
        "S3_CA_FILE names the certificate of a private authority"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_answer_is_told_with_its_remedy() {
        let elsewhere = Some("https://s3.eu.example.com/b/k?X-Amz-Signature=0");
        let html = "<html><head><title>413 Request Entity Too Large</title></head></html>";
        for (status, asked, location, body, says) in [
            (413, "https://s3/", None, html, "client_max_body_size"),
            (
                301,
                "http://s3/",
                elsewhere,
                "",
                "to https://s3.eu.example.com/b/k: S3_URL has to begin with https",
            ),
            (307, "https://s3/", elsewhere, "", "to https://s3.eu.example.com/b/k: see S3_REGION and S3_URL"),
            (
                400,
                "http://s3/",
                None,
                "Client sent an HTTP request to an HTTPS server.\n",
                "begin with https://",
            ),
            (
                400,
                "http://s3/",
                None,
                "<html>The plain HTTP request was sent to HTTPS port",
                "begin with https://",
            ),
            (403, "https://s3/", None, "\n<!DOCTYPE html><html>", "a console's address"),
        ] {
            let remedy = remedy(status, asked, location, body).unwrap();
            assert!(remedy.contains(says) && !remedy.contains("X-Amz"), "{remedy}");
        }
        for (status, body) in
            [(502, html), (301, ""), (403, "<Error><Code>AccessDenied</Code></Error>"), (404, "")]
        {
            assert_eq!(remedy(status, "https://s3/", None, body), None);
        }
    }

    #[test]
    fn a_connection_that_tls_refuses_is_told_with_its_remedy() {
        let name = "invalid peer certificate: certificate not valid for name \"my.b.s3.example.com\"";
        for (problem, host, bucket, says) in [
            ("received corrupt message of type InvalidContentType", "s3.example.com", "b", "plain HTTP"),
            (name, "my.b.s3.example.com", "my.b", "S3_ADDRESSING_STYLE=path"),
            (name, "s3.example.com", "my.b", "S3_CA_FILE"),
            (name, "b.s3.example.com", "b", "S3_CA_FILE"),
            ("invalid peer certificate: UnknownIssuer", "my.b.s3.example.com", "my.b", "S3_CA_FILE"),
        ] {
            assert!(tls_remedy(problem, host, bucket).contains(says), "{problem} {host} {bucket}");
        }
    }
}
