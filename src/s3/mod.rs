//! S3: signing, sending, retrying. Nothing in this folder knows what a backup is.
//!
//! There are only a few operations; each is a method of [`Client`]. Every body is sent with its Content-MD5.
//! Every failure is an [`S3Error`] that names the operation and the object. What may succeed the next time is
//! tried again.

mod credentials;
mod download;
mod error;
mod etag;
mod limits;
mod list;
mod multipart;
mod new_object;
mod objects;
mod part;
mod part_size;
mod pending;
mod probe;
mod properties;
pub mod proxy;
mod request;
mod rivals;
mod strange;
mod upload;
mod xml;

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use rusty_s3::Bucket;
use ureq::tls::Certificate;
use ureq::Agent;
use url::Url;

use self::credentials::Keyring;
pub use self::credentials::{Authorization, Credentials, Keys, Role};
pub use self::download::Download;
pub use self::error::{Fault, S3Error};
use self::limits::Limits;
pub use self::list::Object;
pub use self::new_object::{Claim, Made};
pub use self::objects::Head;
pub use self::part::{Part, Source};
pub use self::part_size::{PartSize, LARGEST_PART, MOST_PARTS, SMALLEST_PART};
pub use self::pending::PendingUpload;
pub use self::properties::Properties;
pub use self::proxy::Proxy;
pub use self::upload::Upload;
use crate::base::retry::Policy;
use crate::base::shutdown::Shutdown;

type Result<T> = std::result::Result<T, S3Error>;

/// An object's metadata: names in lower case, and values. S3 keeps them as `x-amz-meta-…`
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>).
pub type Metadata = Vec<(&'static str, String)>;

/// A bucket, and the credentials for it.
#[derive(Clone, Debug)]
pub struct S3Config {
    /// The endpoint, if one was given. Otherwise it is AWS.
    pub url: Option<Url>,
    /// Endpoint, name, region and addressing style.
    pub bucket: Bucket,
    /// What signs the requests.
    pub credentials: Credentials,
    /// What new objects get.
    pub properties: Properties,
    /// How they are cut into parts.
    pub part_size: PartSize,
    /// The certificate authorities that the endpoint is checked with. If none are given, the system's are
    /// used.
    pub authorities: Option<Arc<Vec<Certificate<'static>>>>,
    /// The proxy on the way to the endpoint, if there is one.
    pub proxy: Option<Proxy>,
}

/// A client for one bucket.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    endpoint: Option<Url>,
    proxy: Option<Proxy>,
    bucket: Bucket,
    keyring: Arc<Keyring>,
    properties: Properties,
    /// How new objects are cut into parts.
    pub part_size: PartSize,
    shutdown: Shutdown,
    retries: Policy,
    limits: Limits,
    learned: Arc<Learned>,
}

/// What the store's answers have shown so far. Clones of a client share it.
#[derive(Default)]
struct Learned {
    /// The store has refused a request because of its precondition.
    without_conditions: AtomicBool,
    /// The store, or a proxy in front of it, fails if it is asked whether it takes a body.
    without_expect: AtomicBool,
    /// The store's ETags are not the MD5s of what is sent.
    odd_etags: AtomicBool,
}

impl Client {
    /// A client for the configured bucket. A forced `shutdown` ends its retries.
    pub fn new(config: &S3Config, shutdown: Shutdown) -> Self {
        Client {
            agent: request::agent(config),
            endpoint: config.url.clone(),
            proxy: config.proxy.clone(),
            bucket: config.bucket.clone(),
            keyring: Arc::new(Keyring::new(config)),
            properties: config.properties.clone(),
            part_size: config.part_size,
            shutdown,
            retries: request::RETRIES,
            limits: Limits::USUAL,
            learned: Arc::default(),
        }
    }

    /// The same client, but it tries everything only once.
    pub fn without_retries(&self) -> Self {
        Client { retries: Policy { tries: 1, ..self.retries }, ..self.clone() }
    }

    /// The same client, but another `shutdown` ends its retries.
    pub fn with_shutdown(&self, shutdown: Shutdown) -> Self {
        Client { shutdown, ..self.clone() }
    }

    /// The endpoint, if one was given. Otherwise it is AWS.
    pub fn endpoint(&self) -> Option<&Url> {
        self.endpoint.as_ref()
    }

    /// The region, as the store calls it.
    pub fn region(&self) -> &str {
        self.bucket.region()
    }

    /// `s3://bucket/key`.
    pub fn place(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket.name())
    }
}

#[cfg(test)]
impl S3Config {
    /// A client for bucket `b` of a test's server on this port.
    fn of_a_test(port: u16) -> Self {
        let url: Url = format!("http://127.0.0.1:{port}").parse().expect("a URL");
        let bucket = Bucket::new(url.clone(), rusty_s3::UrlStyle::Path, "b", "us-east-1").expect("a bucket");
        let secret_key = crate::base::secret::Secret::new("hush");
        let keys = Keys { access_key: "AKIA".into(), secret_key, session_token: None };
        let (credentials, properties) = (Credentials::Keys(keys), Properties::default());
        let part_size = PartSize::default();
        let url = Some(url);
        S3Config { url, bucket, credentials, properties, part_size, authorities: None, proxy: None }
    }
}
