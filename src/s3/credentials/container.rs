//! The agent beside a container gives credentials
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>).

use serde_json::Value;
use ureq::http::Request;
use url::Url;

use super::ask::{self, Asker, Place, Problem};
use super::role::Authorization;
use super::Temporary;
use crate::base::secret::Secret;

pub(super) fn ask(asker: &Asker, url: &Url, authorization: &Authorization) -> Result<Temporary, Problem> {
    let token = match authorization {
        Authorization::None => None,
        Authorization::Token(token) => Some(token.clone()),
        Authorization::File(path) => Some(ask::read_token(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?),
    };
    let mut request = Request::get(url.as_str());
    if let Some(token) = &token {
        request = request.header("authorization", token.expose());
    }
    // The token may come from a file, and not every text can be a header.
    let request = request.body(()).map_err(|_| Problem::lasting("the token cannot be sent as a header"))?;
    let (status, text) = asker.send(&Place::Near, request)?;
    if status != 200 {
        let secrets = token.into_iter().chain([Secret::new(url.path())]);
        return Err(ask::refusal(status, &words(&text), secrets));
    }
    ask::read_json(&text)
}

/// An agent's own words about a refusal.
fn words(text: &str) -> String {
    let Ok(answer) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let fields = ["code", "message"].map(|name| answer.get(name).and_then(Value::as_str));
    fields.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
