//! STS gives credentials for a token that the platform vouches for
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>).

use std::path::Path;

use ureq::http::Request;
use url::form_urlencoded::Serializer;
use url::Url;

use super::super::error::error_document;
use super::super::{xml, Proxy};
use super::ask::{self, Asker, Place, Problem};
use super::Temporary;

/// Refusals that another try can change: STS could not reach who vouches for the token, or the token's keys
/// are not known there yet.
const PASSING: [&str; 2] = ["IDPCommunicationError", "InvalidIdentityToken"];

pub(super) fn ask(
    asker: &Asker,
    (role, session): (&str, &str),
    token_file: &Path,
    endpoint: &Url,
    place: &Place<'_>,
) -> Result<Temporary, Problem> {
    let token = ask::read_token(token_file, "AWS_WEB_IDENTITY_TOKEN_FILE")?;
    let form = Serializer::new(String::new())
        .append_pair("Action", "AssumeRoleWithWebIdentity")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", role)
        .append_pair("RoleSessionName", session)
        .append_pair("WebIdentityToken", token.expose())
        .finish();
    let request = Request::post(endpoint.as_str())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .map_err(|_| Problem::lasting("the address cannot be requested"))?;
    let (status, text) = asker.send(place, request)?;
    if status != 200 {
        let (code, message) = error_document(&text).unwrap_or_default();
        let secrets = place.proxy().into_iter().flat_map(Proxy::secrets).chain([token]);
        let refusal = ask::refusal(status, &format!("{code} {message}"), secrets);
        return Err(Problem { transient: refusal.transient || PASSING.contains(&code.as_str()), ..refusal });
    }
    read(&text)
}

pub(super) fn read(text: &str) -> Result<Temporary, Problem> {
    let lacks = |what: &str| Problem::lasting(format!("its answer is not credentials: {what}"));
    let answer = xml::parse(text).and_then(|it| it.named("AssumeRoleWithWebIdentityResponse"));
    let answer = answer.map_err(|problem| lacks(&problem))?;
    let result = answer.all("AssumeRoleWithWebIdentityResult").next();
    let keys = result.and_then(|result| result.all("Credentials").next());
    let keys = keys.ok_or_else(|| lacks("it has no Credentials"))?;
    let field = |name| {
        let text = keys.text_of(name).map(str::trim);
        text.ok_or_else(|| lacks(&format!("it has no {name}")))
    };
    ask::read(field("AccessKeyId")?, field("SecretAccessKey")?, field("SessionToken")?, field("Expiration")?)
}
