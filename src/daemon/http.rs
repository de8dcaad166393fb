//! One HTTP request and its answer, without a socket.

use httparse::{Request, Status, EMPTY_HEADER};

/// No scraper sends more.
pub(super) const LONGEST_REQUEST: usize = 8 * 1024;
const MOST_HEADERS: usize = 64;

/// What is at a path: the status, and the text.
pub(super) type Page = (u16, String);

/// The answer to a request, with the connection's end. `None` if the request is not whole yet. `page` knows
/// what is at a path.
pub(super) fn answer(request: &[u8], page: impl Fn(&str) -> Option<Page>) -> Option<Vec<u8>> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = Request::new(&mut headers);
    let (status, body) = match parsed.parse(request) {
        Ok(Status::Partial) if request.len() < LONGEST_REQUEST => return None,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => (431, "too large".to_owned()),
        Err(problem) => (400, problem.to_string()),
        Ok(Status::Complete(_)) if !matches!(parsed.method, Some("GET" | "HEAD")) => {
            (405, "GET and HEAD only".to_owned())
        }
        Ok(Status::Complete(_)) => {
            let path = parsed.path.unwrap_or_default();
            page(path.split('?').next().unwrap_or_default())
                .unwrap_or_else(|| (404, "there are /metrics and /healthz".to_owned()))
        }
    };
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let body = if body.ends_with('\n') { body } else { body + "\n" };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    let shown = if parsed.method == Some("HEAD") { "" } else { &body };
    Some([head.as_bytes(), shown.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fuzz;

    fn ask(request: &str) -> Option<String> {
        let page = |path: &str| (path == "/healthz").then(|| (503, "unhealthy".to_owned()));
        answer(request.as_bytes(), page).map(|answer| String::from_utf8(answer).unwrap())
    }

    #[test]
    fn only_get_and_head_of_a_known_path_have_an_answer() {
        for (request, begin) in [
            ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 503 "),
            ("HEAD /healthz?a=b HTTP/1.0\r\n\r\n", "HTTP/1.1 503 "),
            ("GET /healthz/ HTTP/1.1\r\n\r\n", "HTTP/1.1 404 "),
            ("POST /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
            ("\0\r\n\r\n", "HTTP/1.1 400 "),
        ] {
            let answer = ask(request).unwrap();
            assert!(answer.starts_with(begin), "{answer}");
            assert_eq!(answer.ends_with("\r\n\r\n"), request.starts_with("HEAD"), "{answer}");
        }
        assert_eq!(ask("GET /healthz HTTP/1.1\r\nHost: a\r\n"), None);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
        let long = format!("GET /{}", "a".repeat(LONGEST_REQUEST));
        for request in [many, long] {
            assert!(ask(&request).unwrap().starts_with("HTTP/1.1 431 "));
        }
    }

    #[test]
    fn whatever_is_asked_the_answer_is_http_or_none_yet() {
        fuzz::feed(&["GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n"], |request| {
            assert!(ask(request).is_none_or(|answer| answer.starts_with("HTTP/1.1 ")));
        });
    }
}
