//! Which platform gives the credentials, and what is refused.

use super::super::tests::{only_problem, read};
use super::*;

const ROLE: [(&str, &str); 3] = [("S3_ACCESS_KEY", ""), ("S3_SECRET_KEY", ""), ("S3_CREDENTIALS", "role")];

/// How the log names who gives the credentials.
fn line(changes: &[(&str, &str)]) -> String {
    let config = read(&[&ROLE, changes].concat()).unwrap();
    let line = config.lines.iter().find_map(|line| line.strip_prefix("the keys for S3 come from "));
    assert!(!config.lines.join("\n").contains("hush"), "{:?}", config.lines);
    line.expect("a line").to_owned()
}

#[test]
fn platforms_are_asked_in_the_order_of_awss_tools() {
    let token = ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token");
    let arn = ("AWS_ROLE_ARN", "arn:aws:iam::1:role/r");
    let relative = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/hush");
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/hush");
    let identity = "the web identity (AWS_WEB_IDENTITY_TOKEN_FILE) as arn:aws:iam::1:role/r at https://sts.";
    let container = "the container (AWS_CONTAINER_CREDENTIALS_*) at http://169.254.170";
    let region = |region| ("S3_REGION", region);
    for (changes, expected) in [
        (vec![token, arn, relative], format!("{identity}us-east-1.amazonaws.com")),
        (vec![token, arn, region("cn-north-1")], format!("{identity}cn-north-1.amazonaws.com.cn")),
        (vec![arn, relative, full], format!("{container}.2")),
        (vec![full], format!("{container}.23")),
        (vec![], "the EC2 instance metadata at http://169.254.169.254".into()),
        (
            vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")],
            "the EC2 instance metadata at http://127.0.0.1:9".into(),
        ),
    ] {
        assert_eq!(line(&changes), expected, "{changes:?}");
    }
}

#[test]
fn what_does_not_fit_together_is_a_problem_that_names_the_variable() {
    let ours = ("S3_SECRET_KEY", "hush");
    for (changes, says) in [
        (vec![("S3_ACCESS_KEY", "ASIAEXAMPLE")], "S3_ACCESS_KEY is a temporary key"),
        (vec![("S3_CREDENTIALS", "yes")], "S3_CREDENTIALS is \"yes\" and not keys or role"),
        (vec![("S3_SECRET_KEY", "")], "S3_SECRET_KEY is missing"),
        (vec![ROLE[0], ours, ROLE[2]], "S3_CREDENTIALS is role, and S3_SECRET_KEY is set too"),
        ([&ROLE[..], &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]].concat(), "AWS_ROLE_ARN is missing"),
        (
            [&ROLE[..], &[("AWS_EC2_METADATA_DISABLED", "true")]].concat(),
            "S3_CREDENTIALS is role, but no platform",
        ),
        (
            [&ROLE[..], &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "host")]].concat(),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT is not a URL",
        ),
        (
            [&ROLE[..], &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/hush")]].concat(),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI is not the address of a container's agent",
        ),
    ] {
        let problem = only_problem(&changes);
        assert!(problem.starts_with(says) && !problem.contains("hush"), "{problem}");
    }
    assert!(only_problem(&[("S3_ACCESS_KEY", "")]).ends_with("or set S3_CREDENTIALS=role"));
    assert!(read(&[("S3_ACCESS_KEY", "ASIAEXAMPLE"), ("S3_SESSION_TOKEN", "hush")]).is_ok());
}

#[test]
fn by_http_only_what_is_beside_the_container_is_asked() {
    for (url, right) in [
        ("http://127.0.0.1/x", true),
        ("http://127.9.9.9:80/x", true),
        ("http://[::1]/x", true),
        ("http://localhost:51679/x", true),
        ("http://169.254.170.2/x", true),
        ("http://169.254.170.23/x", true),
        ("http://[fd00:ec2::23]/x", true),
        ("https://example.com/x", true),
        ("http://example.com/x", false),
        ("http://169.254.169.254/x", false),
        ("http://169.254.170.2.example.com/x", false),
        ("http://127.0.0.1.example.com/x", false),
        ("http://user@10.0.0.1/127.0.0.1", false),
        ("file:///etc/passwd", false),
    ] {
        assert_eq!(is_an_agent(&url.parse().unwrap()), right, "{url}");
    }
    // A path that would lead to another host.
    let lead_away = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@example.com/hush");
    assert!(only_problem(&[&ROLE[..], &[lead_away]].concat()).starts_with(lead_away.0));
}
