//! The metadata service of an EC2 instance, version 2, gives credentials
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>).

use ureq::http::Request;
use url::Url;

use super::ask::{self, Asker, Place, Problem};
use super::Temporary;
use crate::base::secret::Secret;

/// For the requests of one renewal.
const TOKEN_SECONDS: u32 = 60;
const ROLES: &str = "latest/meta-data/iam/security-credentials/";
/// Of all reasons the most usual: a container is one hop further away than the metadata goes.
const NOBODY: &str = "outside of EC2 there is none; in a container, the instance's HttpPutResponseHopLimit has to be \
                      at least 2; other platforms set AWS_WEB_IDENTITY_TOKEN_FILE or AWS_CONTAINER_CREDENTIALS_*, \
                      which are not set";

pub(super) fn ask(asker: &Asker, endpoint: &Url) -> Result<Temporary, Problem> {
    let address = |path: &str| format!("{}/{path}", endpoint.as_str().trim_end_matches('/'));
    let wrong = |_| Problem::lasting("the address cannot be requested");
    let request = Request::put(address("latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)
        .body(())
        .map_err(wrong)?;
    let nobody = |problem: Problem| Problem { reason: format!("{} ({NOBODY})", problem.reason), ..problem };
    let token = match asker.send(&Place::Near, request).map_err(nobody)? {
        (200, token) => Secret::new(token.trim()),
        (status, text) => return Err(ask::refusal(status, &text, None)),
    };
    let get = |path: &str| {
        let request = Request::get(address(path)).header("x-aws-ec2-metadata-token", token.expose());
        asker.send(&Place::Near, request.body(()).map_err(wrong)?)
    };
    let role = match get(ROLES)? {
        (200, role) => role,
        (404, _) => return Err(Problem::lasting("the instance has no role (an instance profile)")),
        (status, text) => return Err(ask::refusal(status, &text, [token.clone()])),
    };
    let role = role.lines().next().unwrap_or_default().trim();
    // <https://docs.aws.amazon.com/IAM/latest/APIReference/API_Role.html>
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if role.is_empty() || !role.bytes().all(plain) {
        return Err(Problem::lasting("its answer is not the name of a role"));
    }
    match get(&format!("{ROLES}{role}"))? {
        (200, text) => ask::read_json(&text),
        (status, text) => Err(ask::refusal(status, &text, [token.clone()])),
    }
}
