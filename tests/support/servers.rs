//! Real S3 servers that nobody here wrote, each started once for the whole process, and a bucket in one of
//! them for each test. What a test does to its bucket goes by requests of its own, not by pgkeep's code.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use md5::{Digest, Md5};
use rusty_s3::actions::{CreateBucket, CreateMultipartUpload, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::http::{HeaderMap, Request};

use super::pgkeep::Pgkeep;
use super::s3;

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The crate that `make test` uses too, here without the checks that the tests add.
    S3sFs,
    SeaweedFs,
    /// OpenStack Swift with its s3api.
    Swift,
}

/// A running server.
struct Server {
    url: String,
    /// Its end is the script's cue.
    _end: Option<ChildStdin>,
}

/// A bucket of a test's own.
pub struct Place {
    pub kind: Kind,
    pub url: String,
    pub name: String,
    credentials: Credentials,
    agent: ureq::Agent,
    /// The one in this process is the test's own, and its files go with it.
    _server: Option<s3::Server>,
}

/// An answer to a request of the test's own.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Kind {
    /// Swift's users belong to an account.
    pub fn access_key(self) -> &'static str {
        match self {
            Kind::Swift => "test:tester",
            _ => s3::ACCESS_KEY,
        }
    }

    /// Of a server with a process of its own; one that does not start is not tried again for each test.
    fn server(self, name: &str) -> &'static Server {
        type Started = OnceLock<Result<Server, String>>;
        static SERVERS: [Started; 3] = [const { Started::new() }; 3];
        let started = SERVERS[self as usize].get_or_init(|| Server::start(self, name));
        started.as_ref().unwrap_or_else(|problem| panic!("{problem}"))
    }
}

impl Server {
    /// By the script, which ends the server with this process, however that ends.
    fn start(kind: Kind, name: &str) -> Result<Self, String> {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let installed = project.join("target/servers");
        assert!(
            installed.join("packages").exists(),
            "the servers are not installed: `make test-servers` does"
        );
        let directory =
            tempfile::Builder::new().prefix(name).tempdir_in(installed).expect("a directory").keep();
        let mut script = Command::new(project.join("tests/servers.sh"))
            .arg(name)
            .arg(&directory)
            .env("ACCESS_KEY", kind.access_key())
            .env("SECRET_KEY", s3::SECRET_KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("tests/servers.sh");
        let end = script.stdin.take();
        let mut url = String::new();
        let mut said = BufReader::new(script.stdout.take().expect("its standard output"));
        said.read_line(&mut url).expect("its URL");
        let server = Server { url: url.trim_end().to_owned(), _end: end };
        // It serves when it stores something.
        let place = Place::of(kind, &server.url, "ready");
        let good = |answer: Result<Answer, ureq::Error>| answer.is_ok_and(|answer| answer.status == 200);
        for _ in 0..300 {
            let bucket = place.bucket();
            let put = bucket.put_object(Some(&place.credentials), "ready");
            if good(place.try_make()) && good(place.try_send(put, b"x")) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let log = fs::read(directory.join("log")).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(3000)..]).into_owned();
        Err(format!("{name} does not serve; its log ends in:\n{end}"))
    }
}

impl Place {
    /// Makes a bucket for a test.
    pub fn new(kind: Kind) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("backups-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (url, own) = match kind {
            Kind::S3sFs => {
                let server = s3::Server::bare();
                (server.url.clone(), Some(server))
            }
            Kind::SeaweedFs => (kind.server("seaweedfs").url.clone(), None),
            Kind::Swift => (kind.server("swift").url.clone(), None),
        };
        let place = Place { _server: own, ..Place::of(kind, &url, &name) };
        let made = place.try_make().expect("an answer");
        assert_eq!(made.status, 200, "{made:?}");
        place
    }

    fn of(kind: Kind, url: &str, name: &str) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let credentials = Credentials::new(kind.access_key(), s3::SECRET_KEY);
        Place { kind, url: url.to_owned(), name: name.to_owned(), credentials, agent, _server: None }
    }

    /// The required variables for a database of the shared server and this bucket.
    pub fn pgkeep(&self, database: &str) -> Pgkeep {
        Pgkeep::to(database, &self.url, &self.name).with("S3_ACCESS_KEY", self.kind.access_key())
    }

    fn bucket(&self) -> Bucket {
        let url = self.url.parse().expect("a URL");
        Bucket::new(url, UrlStyle::Path, self.name.clone(), "us-east-1").expect("a bucket")
    }

    fn try_make(&self) -> Result<Answer, ureq::Error> {
        self.try_send(CreateBucket::new(&self.bucket(), &self.credentials), b"")
    }

    fn try_send<'a>(&self, mut action: impl S3Action<'a>, body: &[u8]) -> Result<Answer, ureq::Error> {
        fn method<'a, A: S3Action<'a>>(_: &A) -> &'static str {
            A::METHOD.to_str()
        }
        let mut request = Request::builder().method(method(&action));
        for (name, value) in action.headers_mut().iter() {
            request = request.header(name, value);
        }
        let request = request.uri(action.sign(Duration::from_secs(60)).as_str());
        let mut answer = self.agent.run(request.body(body).expect("a request"))?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Ok(Answer { status, headers, body: answer.body_mut().read_to_string()? })
    }

    fn send<'a>(&self, action: impl S3Action<'a>, body: &[u8]) -> Answer {
        self.try_send(action, body).expect("an answer")
    }

    /// Stores an object.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Answer {
        self.send(self.bucket().put_object(Some(&self.credentials), key), bytes)
    }

    /// Stores an object if there is none.
    pub fn put_new(&self, key: &str) -> Answer {
        let bucket = self.bucket();
        let mut action = bucket.put_object(Some(&self.credentials), key);
        action.headers_mut().insert("if-none-match", "*");
        self.send(action, b"new")
    }

    /// Stores an object with the checksum of other bytes.
    pub fn put_with_md5_of(&self, key: &str, bytes: &[u8], others: &[u8]) -> Answer {
        let bucket = self.bucket();
        let mut action = bucket.put_object(Some(&self.credentials), key);
        action.headers_mut().insert("content-md5", BASE64_STANDARD.encode(Md5::digest(others)));
        self.send(action, bytes)
    }

    /// Stores objects, several at a time.
    pub fn plant(&self, keys: &[String]) {
        std::thread::scope(|scope| {
            for some in keys.chunks(keys.len().div_ceil(8).max(1)) {
                scope.spawn(move || {
                    for key in some {
                        let answer = self.put(key, b"x");
                        assert_eq!(answer.status, 200, "{key}: {answer:?}");
                    }
                });
            }
        });
    }

    /// Deletes an object.
    pub fn delete(&self, key: &str) -> Answer {
        self.send(self.bucket().delete_object(Some(&self.credentials), key), b"")
    }

    /// The headers that an object comes with.
    pub fn head(&self, key: &str) -> Answer {
        self.send(self.bucket().head_object(Some(&self.credentials), key), b"")
    }

    /// The metadata of an object, by their names without `x-amz-meta-`.
    pub fn metadata(&self, key: &str) -> BTreeMap<String, String> {
        let headers = self.head(key).headers;
        let named = headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-amz-meta-")?;
            Some((name.to_owned(), value.to_str().expect("ASCII").to_owned()))
        });
        named.collect()
    }

    /// The answer to GetObjectTagging.
    pub fn tags(&self, key: &str) -> String {
        let bucket = self.bucket();
        let mut action = bucket.get_object(Some(&self.credentials), key);
        action.query_mut().insert("tagging", "");
        self.send(action, b"").body
    }

    /// Whether an object of this very key is there.
    pub fn has(&self, key: &str) -> bool {
        self.head(key).status == 200
    }

    /// The keys of the bucket's first thousand objects.
    pub fn keys(&self) -> Vec<String> {
        let answer = self.send(self.bucket().list_objects_v2(Some(&self.credentials)), b"");
        let listed = ListObjectsV2::parse_response(&answer.body).expect("a listing");
        listed.contents.into_iter().map(|object| object.key).collect()
    }

    /// Begins an upload; its id.
    pub fn begin_upload(&self, key: &str) -> String {
        let answer = self.send(self.bucket().create_multipart_upload(Some(&self.credentials), key), b"");
        CreateMultipartUpload::parse_response(&answer.body).expect("an id").upload_id().to_owned()
    }

    /// Uploads a part, with the checksum of other bytes where there are any.
    pub fn upload_part(&self, key: &str, upload: &str, bytes: &[u8], others: Option<&[u8]>) -> Answer {
        let bucket = self.bucket();
        let mut action = bucket.upload_part(Some(&self.credentials), key, 1, upload);
        let md5 = BASE64_STANDARD.encode(Md5::digest(others.unwrap_or(bytes)));
        action.headers_mut().insert("content-md5", md5);
        self.send(action, bytes)
    }

    /// Makes an object of the one part with this ETag.
    pub fn complete_upload(&self, key: &str, upload: &str, etag: &str) -> Answer {
        let bucket = self.bucket();
        let action =
            || bucket.complete_multipart_upload(Some(&self.credentials), key, upload, [etag].into_iter());
        self.send(action(), action().body().as_bytes())
    }

    /// The same if there is no object of this key.
    pub fn complete_new(&self, key: &str, upload: &str, etag: &str) -> Answer {
        let bucket = self.bucket();
        let make =
            || bucket.complete_multipart_upload(Some(&self.credentials), key, upload, [etag].into_iter());
        let mut action = make();
        action.headers_mut().insert("if-none-match", "*");
        self.send(action, make().body().as_bytes())
    }

    /// ListMultipartUploads.
    pub fn uploads(&self) -> Answer {
        let bucket = self.bucket();
        let mut action = bucket.get_object(Some(&self.credentials), "");
        action.query_mut().insert("uploads", "");
        self.send(action, b"")
    }

    /// The same bucket, through a door that damages once what goes through it.
    pub fn behind(&self, damage: Damage) -> Self {
        let server = self.url.strip_prefix("http://").expect("a URL").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let done = Arc::new(AtomicBool::new(false));
        let way = move |from: &TcpStream, to: &TcpStream, damage: Option<Damage>| {
            let (from, to) = (from.try_clone().expect("it twice"), to.try_clone().expect("it twice"));
            let done = Arc::clone(&done);
            std::thread::spawn(move || pass(from, to, damage, &done));
        };
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&server).expect("the server");
                let request = matches!(damage, Damage::ChangeRequest(_));
                way(&client, &server, Some(damage).filter(|_| request));
                way(&server, &client, Some(damage).filter(|_| !request));
            }
        });
        Place::of(self.kind, &url, &self.name)
    }
}

/// What happens to the first connection that carries so many bytes.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// The byte of the request arrives as another one.
    ChangeRequest(u64),
    /// The answer ends there.
    CutAnswer(u64),
}

fn pass(mut from: TcpStream, mut to: TcpStream, damage: Option<Damage>, done: &AtomicBool) {
    let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let through = seen..seen + read as u64;
        match damage {
            Some(Damage::ChangeRequest(at))
                if through.contains(&at) && !done.swap(true, Ordering::Relaxed) =>
            {
                buffer[(at - seen) as usize] ^= 1;
            }
            Some(Damage::CutAnswer(at)) if through.contains(&at) && !done.swap(true, Ordering::Relaxed) => {
                break
            }
            _ => {}
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        seen = through.end;
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
