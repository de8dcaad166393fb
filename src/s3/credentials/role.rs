//! The platforms that give credentials to a role. The configuration chooses one of them in the order of AWS's
//! own tools (<https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>).

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::super::Proxy;
use super::ask::{Asker, Place, Problem};
use super::{container, instance, web_identity, Temporary};
use crate::base::secret::Secret;

/// Who gives the credentials.
#[derive(Clone, Debug)]
pub enum Role {
    /// STS, for a token that the platform puts into a file (EKS: IAM roles for service accounts).
    WebIdentity {
        /// The role's ARN.
        role: String,
        /// The file with the token. The platform replaces it.
        token_file: PathBuf,
        /// The name of the session, which AWS's logs show.
        session: String,
        /// STS.
        endpoint: Url,
        /// Whether the endpoint was given, so that S3's certificate authorities are meant for it too.
        private: bool,
        /// The proxy on the way to it, if there is one.
        proxy: Option<Box<Proxy>>,
    },
    /// An agent beside the container (ECS, EKS Pod Identity).
    Container {
        /// The agent's address. Its path may be a secret.
        url: Url,
        /// What the agent wants to see.
        authorization: Authorization,
    },
    /// The metadata service of an EC2 instance.
    Instance {
        /// Its address.
        endpoint: Url,
    },
}

/// What the container's agent wants to see.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// Nothing.
    None,
    /// This text.
    Token(Secret),
    /// The content of this file. The platform replaces it.
    File(PathBuf),
}

impl Role {
    /// The proxy on the way to the credentials, if there is one.
    pub fn proxy(&self) -> Option<&Proxy> {
        match self {
            Role::WebIdentity { proxy, .. } => proxy.as_deref(),
            Role::Container { .. } | Role::Instance { .. } => None,
        }
    }

    pub(super) fn ask(&self, asker: &Asker) -> Result<Temporary, Problem> {
        match self {
            Role::WebIdentity { role, token_file, session, endpoint, private, proxy } => {
                let place = Place::Sts { endpoint, private: *private, proxy: proxy.as_deref() };
                web_identity::ask(asker, (role, session), token_file, endpoint, &place)
            }
            Role::Container { url, authorization } => container::ask(asker, url, authorization),
            Role::Instance { endpoint } => instance::ask(asker, endpoint),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::WebIdentity { role, endpoint, .. } => {
                write!(f, "the web identity (AWS_WEB_IDENTITY_TOKEN_FILE) as {role} at {}", origin(endpoint))
            }
            Role::Container { url, .. } => {
                write!(f, "the container (AWS_CONTAINER_CREDENTIALS_*) at {}", origin(url))
            }
            Role::Instance { endpoint } => write!(f, "the EC2 instance metadata at {}", origin(endpoint)),
        }
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}
