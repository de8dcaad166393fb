//! Decides what signs the requests to S3: the configured keys, or what the platform's own variables describe.
//! Their names and their order are those of AWS's tools
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).

use url::{Host, Url};

use super::reader::Reader;
use super::variables::{Absent, VARIABLES};
use super::{proxy, values, Settings};
use crate::base::secret::Secret;
use crate::s3::{Authorization, Credentials, Keys, Role};

const CONTAINER_AGENT: &str = "http://169.254.170.2";
const INSTANCE_METADATA: &str = "http://169.254.169.254";
/// Agents that are asked by http although they are not on the loopback address: ECS's and EKS's.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

impl Settings {
    /// None if there was a problem.
    pub(super) fn credentials(&self, from: &mut Reader) -> Option<Credentials> {
        if self.role {
            return self.role(from).map(Credentials::Role);
        }
        let needed = |absent: &Absent| matches!(absent, Absent::RequiredUnless(_));
        let missing =
            VARIABLES.iter().filter(|variable| needed(&variable.absent) && !from.is_set(variable.name));
        let missing: Vec<_> = missing.collect();
        missing.iter().for_each(|variable| from.missing(variable));
        if !missing.is_empty() {
            return None;
        }
        // <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>
        if self.access_key.starts_with("ASIA") && !from.is_set("S3_SESSION_TOKEN") {
            let what = "is a temporary key (it begins with ASIA), and S3_SESSION_TOKEN is not set";
            let remedy = "set the token that was given out with the key, or use a key that lasts (it begins with AKIA)";
            from.problem("S3_ACCESS_KEY", what, remedy);
            return None;
        }
        Some(Credentials::Keys(Keys {
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
            session_token: self.session_token.clone(),
        }))
    }

    /// The platform that gives credentials, as its variables describe it.
    fn role(&self, from: &mut Reader) -> Option<Role> {
        let keys = ["S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_SESSION_TOKEN"];
        if let Some(name) = keys.into_iter().find(|name| from.is_set(name)) {
            let what = format!("is role, and {name} is set too");
            from.problem("S3_CREDENTIALS", &what, "with role, the platform gives the keys: take yours away");
            return None;
        }
        if let Some(token_file) = from.inherited("AWS_WEB_IDENTITY_TOKEN_FILE") {
            return self.web_identity(from, token_file);
        }
        let relative = from.inherited("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let full = from.inherited("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        if relative.is_some() || full.is_some() {
            return container(from, relative, full);
        }
        if from.inherited("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            let what = "is role, but no platform gives credentials: neither AWS_WEB_IDENTITY_TOKEN_FILE (EKS) nor \
                        AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or AWS_CONTAINER_CREDENTIALS_FULL_URI (ECS, EKS) is \
                        set, and AWS_EC2_METADATA_DISABLED is true";
            from.problem("S3_CREDENTIALS", what, "S3_CREDENTIALS=keys takes S3_ACCESS_KEY and S3_SECRET_KEY");
            return None;
        }
        let endpoint = endpoint(from, "AWS_EC2_METADATA_SERVICE_ENDPOINT", INSTANCE_METADATA)?;
        Some(Role::Instance { endpoint })
    }

    fn web_identity(&self, from: &mut Reader, token_file: String) -> Option<Role> {
        let Some(role) = from.inherited("AWS_ROLE_ARN") else {
            let example = "for example AWS_ROLE_ARN=arn:aws:iam::123456789012:role/pgkeep";
            from.problem("AWS_ROLE_ARN", "is missing: AWS_WEB_IDENTITY_TOKEN_FILE is set", example);
            return None;
        };
        let china = if self.region.starts_with("cn-") { ".cn" } else { "" };
        let aws = format!("https://sts.{}.amazonaws.com{china}", self.region);
        let name = "AWS_ENDPOINT_URL_STS";
        let endpoint = endpoint(from, name, &aws)?;
        Some(Role::WebIdentity {
            role,
            token_file: token_file.into(),
            session: from.inherited("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "pgkeep".into()),
            private: from.is_set(name),
            proxy: proxy::of(from, &endpoint).map(Box::new),
            endpoint,
        })
    }
}

/// The URL in a variable of the platform's.
fn endpoint(from: &mut Reader, name: &str, default: &str) -> Option<Url> {
    let text = from.inherited(name).unwrap_or_else(|| default.to_owned());
    values::endpoint(&text).map_err(|what| from.problem(name, &what, &format!("for example {default}"))).ok()
}

fn container(from: &mut Reader, relative: Option<String>, full: Option<String>) -> Option<Role> {
    let (name, url) = match (relative, full) {
        (Some(path), _) => {
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Url::parse(&format!("{CONTAINER_AGENT}{path}")))
        }
        (None, full) => ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Url::parse(&full.unwrap_or_default())),
    };
    // The address may be a secret, so it is not shown.
    let Some(url) = url.ok().filter(is_an_agent) else {
        let what = "is not the address of a container's agent";
        let remedy = "it has to begin with https://, or with http:// and the loopback address or the agent's of ECS or EKS, \
                      for example http://169.254.170.23/v1/credentials";
        from.problem(name, what, remedy);
        return None;
    };
    let file = from.inherited("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let token = from.inherited("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    let authorization = match (file, token) {
        (Some(path), _) => Authorization::File(path.into()),
        (None, Some(token)) => Authorization::Token(Secret::new(token)),
        (None, None) => Authorization::None,
    };
    Some(Role::Container { url, authorization })
}

/// What goes by http has to stay on this host.
fn is_an_agent(url: &Url) -> bool {
    let near = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => url.has_host(),
        "http" => near || url.host_str().is_some_and(|host| AGENTS.contains(&host)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
