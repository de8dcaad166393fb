//! A real S3 server on a free port: the crate `s3s-fs`, which checks signatures, behind a door that adds
//! the checks of S3 that it lacks, and that can be told to fail, the way networks and providers do.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::prelude::{Engine, BASE64_STANDARD};
use bytes::Bytes;
use chrono::{SecondsFormat, TimeDelta, Utc};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    HeaderValue, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, IF_MATCH, IF_NONE_MATCH, RANGE, RETRY_AFTER,
};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use md5::{Digest, Md5};
use roxmltree::{Document, Node};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::platform;

pub const ACCESS_KEY: &str = "AKIATESTKEY";
pub const SECRET_KEY: &str = "S3-SECRET/with+signs=and-so-on";
pub const BUCKET: &str = "backups";

/// From this size on a refusal does not wait for the body.
const LARGE_BODY: u64 = 64 * 1024;

/// What the door does with a request instead of letting it through.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Answers with this status and an S3 error of this code; the request does not reach the server.
    Answer(u16, &'static str),
    /// Answers 503 and asks to come back after so many seconds.
    SlowDown(u64),
    /// Refuses a body with more bytes, as nginx does.
    LimitBody(u64),
    /// Changes the body on its way.
    ChangeBody,
    /// Reads a part of the body, then closes the connection.
    CutInBody,
    /// Lets it through, then loses the answer and closes the connection.
    LoseAnswer,
    /// Holds the request for so long before it lets it through.
    Hold(Duration),
    /// Lets it through, and closes the connection behind so many bytes of the answer's body.
    CutAnswer(usize),
    /// Lets it through, and sends nothing more behind so many bytes of the answer's body.
    StopAnswer(usize),
    /// Lets it through, and tells another time of day than the right one.
    WrongTime(&'static str),
    /// Answers 200 with this document.
    Document(&'static str),
    /// Lets it through, and tells another ETag than the MD5, as a store that encrypts.
    WrongEtag,
    /// Lets it through, and tells a weak ETag, as a proxy in between may make of it.
    WeakEtag,
    /// Lets it through, and tells that other bytes are sent than were asked for.
    WrongRange(&'static str),
    /// Sends this whole object with status 200, whatever range was asked for.
    Whole(&'static [u8]),
    /// Lets it through, and tells another size than the right one.
    WrongSize(u64),
    /// Lets it through: the next one meets what is said next.
    Spare,
    /// Answers 502 with the page of a proxy that repeats so many times what it was asked for.
    Echo(usize),
}

/// What the server does with `If-None-Match: *`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preconditions {
    /// What AWS does: it makes an object only if there is none.
    #[default]
    Honoured,
    /// It replaces what is there.
    Ignored,
    /// It answers with this status and error to a request with one.
    Refused(u16, &'static str),
}

/// How long a day lasts.
const DAY: Duration = Duration::from_secs(86_400);

/// Which requests meet a fault, by method and a part of path and query, and how many of them.
struct Trap {
    method: &'static str,
    part: &'static str,
    times: u32,
    fault: Fault,
}

#[derive(Default)]
struct Door {
    /// Lets everything through as it comes: for measurements.
    open: bool,
    traps: Mutex<Vec<Trap>>,
    /// The faults that requests have met.
    sprung: Mutex<Vec<Fault>>,
    /// Method, path and query of each request, in their order; without the signature. Behind them the range that is
    /// asked for, and the ETag that the object has to have.
    seen: Mutex<Vec<String>>,
    /// The ETag that each part was acknowledged with, by upload and number.
    etags: Mutex<BTreeMap<(String, String), String>>,
    /// The access key that signed each request, as `seen` has it.
    signers: Mutex<Vec<(String, String)>>,
    /// The headers of each request that say how an object is to be kept, as `seen` has it.
    properties: Mutex<Vec<(String, Vec<String>)>>,
    /// The metadata that each object was begun with, by its path.
    metadata: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
    /// How long a day lasts for uploads; `s3s-fs` does not list them, so without this they are not listed.
    day: Option<Duration>,
    /// Key and beginning of each upload that is neither completed nor aborted, by its id.
    uploads: Mutex<BTreeMap<String, (String, Instant)>>,
    preconditions: Preconditions,
    /// Where the server has its files.
    root: PathBuf,
    /// Objects appear, and are looked at, one after the other.
    one_at_a_time: tokio::sync::Mutex<()>,
}

/// The server. It ends, and its files go, when this is dropped.
pub struct Server {
    pub url: String,
    directory: TempDir,
    door: Arc<Door>,
    _runtime: Runtime,
}

impl Server {
    /// Starts a server with the one bucket [`BUCKET`].
    pub fn start() -> Self {
        Self::with_days_of(DAY)
    }

    /// `s3s-fs` as it is, without ListMultipartUploads, but with one request at a time.
    pub fn bare() -> Self {
        Self::behind(Door { open: true, ..Door::default() }, None)
    }

    /// The server without the door's checks and faults, as fast as it is.
    pub fn undisturbed() -> Self {
        Self::behind(Door { open: true, day: Some(DAY), ..Door::default() }, None)
    }

    /// The server, for whose uploads a day passes in this time.
    pub fn with_days_of(day: Duration) -> Self {
        Self::behind(Door { day: Some(day), ..Door::default() }, None)
    }

    /// The server, which does this with preconditions, and may list uploads or not.
    pub fn with_preconditions(preconditions: Preconditions, lists_uploads: bool) -> Self {
        Self::behind(Door { preconditions, day: lists_uploads.then_some(DAY), ..Door::default() }, None)
    }

    /// Starts a server at `https://localhost` that shows this identity.
    pub fn over_tls(identity: TlsAcceptor) -> Self {
        Self::behind(Door { day: Some(DAY), ..Door::default() }, Some(identity))
    }

    fn behind(door: Door, identity: Option<TlsAcceptor>) -> Self {
        let directory = tempfile::Builder::new().prefix("pgkeep-s3-").tempdir().expect("a directory");
        let door = Door { root: directory.path().to_owned(), ..door };
        fs::create_dir(directory.path().join(BUCKET)).expect("the bucket");
        let files = s3s_fs::FileSystem::new(directory.path()).expect("the server's files");
        let mut builder = S3ServiceBuilder::new(files);
        let mut auth = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        for key in platform::KEYS {
            auth.register(key.id.into(), key.secret.into());
        }
        builder.set_auth(auth);
        let service = builder.build();
        let door = Arc::new(door);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let url = match identity {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        runtime.spawn(serve(listener, identity, service, Arc::clone(&door)));
        Server { url, directory, door, _runtime: runtime }
    }

    /// Where it listens, for who stands in between.
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port")
    }

    /// The next `times` requests with this method, whose path and query contain `part`, meet the fault.
    pub fn fail(&self, times: u32, method: &'static str, part: &'static str, fault: Fault) {
        self.door.traps.lock().unwrap().push(Trap { method, part, times, fault });
    }

    /// Takes all traps away, and answers with the faults that requests have met since the last time.
    pub fn calm(&self) -> Vec<Fault> {
        self.door.traps.lock().unwrap().clear();
        std::mem::take(&mut self.door.sprung.lock().unwrap())
    }

    /// The requests so far with this method, whose path and query contain `part`.
    pub fn requests(&self, method: &str, part: &str) -> Vec<String> {
        let seen = self.door.seen.lock().unwrap();
        seen.iter().filter(|request| request.starts_with(method) && request.contains(part)).cloned().collect()
    }

    /// The access keys that signed the requests so far with this method, whose path and query contain `part`.
    pub fn signers(&self, method: &str, part: &str) -> Vec<String> {
        let signers = self.door.signers.lock().unwrap();
        let fits = |(request, _): &&(String, String)| request.starts_with(method) && request.contains(part);
        signers.iter().filter(fits).map(|(_, signer)| signer.clone()).collect()
    }

    /// How an object is to be kept, `x-amz-…: …`, for each request so far with this method, whose path and query
    /// contain `part`.
    pub fn properties(&self, method: &str, part: &str) -> Vec<Vec<String>> {
        let properties = self.door.properties.lock().unwrap();
        let fits =
            |(request, _): &&(String, Vec<String>)| request.starts_with(method) && request.contains(part);
        properties.iter().filter(fits).map(|(_, headers)| headers.clone()).collect()
    }

    /// Begins anew with the requests so far.
    pub fn forget_requests(&self) {
        self.door.seen.lock().unwrap().clear();
    }

    /// Key and size of each object in the bucket.
    pub fn objects(&self) -> BTreeMap<String, u64> {
        fn walk(directory: &Path, root: &Path, objects: &mut BTreeMap<String, u64>) {
            for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry")) {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, root, objects);
                } else {
                    let key =
                        path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
                    objects.insert(key, entry.metadata().expect("metadata").len());
                }
            }
        }
        let root = self.directory.path().join(BUCKET);
        let mut objects = BTreeMap::new();
        walk(&root, &root, &mut objects);
        objects
    }

    /// The metadata of an object, by their names without `x-amz-meta-`.
    pub fn metadata(&self, key: &str) -> BTreeMap<String, String> {
        let metadata = self.door.metadata.lock().unwrap();
        metadata.get(&format!("/{BUCKET}/{key}")).cloned().unwrap_or_default()
    }

    /// The keys that end like a plain backup.
    pub fn backups(&self) -> Vec<String> {
        self.objects().into_keys().filter(|key| key.ends_with(".sql.gz")).collect()
    }

    /// Deletes every object, behind the server's back.
    pub fn clear(&self) {
        let root = self.directory.path().join(BUCKET);
        fs::remove_dir_all(&root).expect("the bucket");
        fs::create_dir(&root).expect("the bucket");
    }

    /// The file that holds an object.
    pub fn path(&self, key: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(key)
    }

    /// Puts an object there, behind the server's back. Who reads one that it replaces reads that one to its end.
    pub fn plant(&self, key: &str, bytes: &[u8]) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().expect("a parent")).expect("its directory");
        let mut file = tempfile::NamedTempFile::new_in(self.directory.path()).expect("a file");
        file.write_all(bytes).expect("the object");
        file.persist(path).expect("the object");
    }

    /// Copies the newest backup of a database to an older name, and loses its metadata, as copies do. Answers with
    /// the key.
    pub fn copy_without_metadata(&self, database: &str) -> String {
        let folder = format!("{database}/");
        let newest = self.objects().into_keys().rfind(|key| key.starts_with(&folder)).expect("a backup");
        let (_, extension) = newest.split_once('.').expect("an extension");
        let copy = format!("{database}/{database}_2020-01-01_00-00-00.{extension}");
        self.plant(&copy, &fs::read(self.path(&newest)).expect("the backup"));
        copy
    }

    /// Multipart uploads that were neither completed nor aborted: this server keeps them as files.
    pub fn pending_uploads(&self) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).expect("the server's files");
        let names = names.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
        names.filter(|name| name.starts_with(".upload")).collect()
    }
}

async fn serve(listener: TcpListener, identity: Option<TlsAcceptor>, service: S3Service, door: Arc<Door>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (service, door, identity) = (service.clone(), Arc::clone(&door), identity.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, service.clone(), Arc::clone(&door)));
            let builder = auto::Builder::new(TokioExecutor::new());
            match identity {
                Some(identity) => {
                    // A client that does not like what it sees goes away.
                    let Ok(socket) = identity.accept(socket).await else { return };
                    let _ = builder.serve_connection(TokioIo::new(socket), answer).await;
                }
                None => drop(builder.serve_connection(TokioIo::new(socket), answer).await),
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    service: S3Service,
    door: Arc<Door>,
) -> io::Result<Response<s3s::Body>> {
    if door.open {
        let told = format!("{} {}", request.method(), request.uri());
        if let Some(day) = door.day.filter(|_| lists_uploads(&told)) {
            return Ok(Response::new(s3s::Body::from(Bytes::from(door.list_uploads(&told, day)))));
        }
        // Two objects of one key that are made at once would become a mixture.
        let turn = if door.day.is_none() { Some(door.one_at_a_time.lock().await) } else { None };
        let answer = service.call(request.map(s3s::Body::from)).await;
        drop(turn);
        let answer = answer.map_err(|problem| io::Error::other(format!("{problem:?}")))?;
        return if is_of_upload(&told) { door.note_upload(&told, answer).await } else { Ok(answer) };
    }
    let query = request.uri().query().unwrap_or_default();
    let query: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("X-Amz-")).collect();
    let mut told = format!("{} {}?{}", request.method(), request.uri().path(), query.join("&"));
    for header in [RANGE, IF_MATCH].map(|name| request.headers().get(name)).into_iter().flatten() {
        told += &format!(" {}", header.to_str().expect("ASCII"));
    }
    door.seen.lock().unwrap().push(told.clone());
    let fault = {
        let mut traps = door.traps.lock().unwrap();
        let sprung =
            |trap: &&mut Trap| trap.times > 0 && told.starts_with(trap.method) && told.contains(trap.part);
        traps.iter_mut().find(sprung).map(|trap| {
            trap.times -= 1;
            trap.fault
        })
    };
    door.sprung.lock().unwrap().extend(fault);
    match fault {
        Some(Fault::Answer(status, code)) => {
            // A small body is read, so that the connection stays usable; for a large one S3 does not wait.
            if request.body().size_hint().lower() < LARGE_BODY {
                let _ = request.into_body().collect().await;
            }
            return Ok(refusal(status, code));
        }
        Some(Fault::SlowDown(seconds)) => {
            let _ = request.into_body().collect().await;
            let mut response = refusal(503, "SlowDown");
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            return Ok(response);
        }
        Some(Fault::LimitBody(most)) if request.body().size_hint().lower() > most => {
            return Ok(answer_with(413, "<html><title>413 Request Entity Too Large</title></html>".into()));
        }
        Some(Fault::CutInBody) => {
            let mut body = request.into_body();
            for _ in 0..3 {
                let _ = body.frame().await;
            }
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Some(Fault::Document(xml)) => {
            return Ok(Response::new(s3s::Body::from(Bytes::from_static(xml.as_bytes()))));
        }
        Some(Fault::Echo(times)) => {
            let line = format!("<p>cannot get <a href=\"{}\">it</a></p>\n", request.uri());
            let page = format!("<html>Bad gateway for {ACCESS_KEY}\n{}</html>", line.repeat(times));
            return Ok(answer_with(502, page));
        }
        Some(Fault::Whole(object)) => {
            return Ok(Response::new(s3s::Body::from(Bytes::from_static(object))));
        }
        Some(Fault::Hold(time)) => tokio::time::sleep(time).await,
        // What happens behind the request.
        _ => {}
    }
    if let Some(day) = door.day.filter(|_| lists_uploads(&told)) {
        return Ok(Response::new(s3s::Body::from(Bytes::from(door.list_uploads(&told, day)))));
    }
    let (head, body) = request.into_parts();
    if let Some(refusal) = door.note_signer(&told, &head) {
        return Ok(refusal);
    }
    let if_match = head.headers.get(IF_MATCH).cloned();
    if !door.note_metadata(&head) {
        return Ok(refusal(403, "AccessDenied"));
    }
    door.note_properties(&told, &head);
    let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec();
    if let (Some(Fault::ChangeBody), Some(byte)) = (fault, body.first_mut()) {
        *byte ^= 1;
    }
    if let Some(code) = door.objection(&told, head.headers.get("content-md5"), &body) {
        return Ok(refusal(400, code));
    }
    let makes = told.starts_with("PUT") && !told.contains("partNumber=")
        || told.starts_with("POST") && told.contains("uploadId=");
    let turn = door.one_at_a_time.lock().await;
    if let Some(refusal) = door.precondition(&head).filter(|_| makes) {
        return Ok(refusal);
    }
    let mut answer = service.call(Request::from_parts(head, s3s::Body::from(Bytes::from(body)))).await;
    drop(turn);
    if let (Some(Fault::WrongEtag), Ok(answer)) = (fault, &mut answer) {
        let wrong = HeaderValue::from_static("\"00000000000000000000000000000000\"");
        answer.headers_mut().insert(ETAG, wrong);
    }
    if let (Some(etag), Ok(answer)) = (if_match, &answer) {
        if answer.status().is_success() && answer.headers().get(ETAG) != Some(&etag) {
            return Ok(refusal(412, "PreconditionFailed"));
        }
    }
    if let (Some(part), Ok(answer)) = (parameter(&told, "partNumber"), &answer) {
        if let Some(etag) = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok()) {
            let upload = parameter(&told, "uploadId").expect("the upload's id");
            door.etags.lock().unwrap().insert((upload.into(), part.into()), etag.into());
        }
    }
    let answer = match answer {
        Ok(answer) if is_of_upload(&told) => Ok(door.note_upload(&told, answer).await?),
        answer => answer,
    };
    match (fault, answer) {
        (Some(Fault::LoseAnswer), _) => Err(io::ErrorKind::ConnectionAborted.into()),
        (Some(Fault::WrongSize(size)), Ok(mut answer)) => {
            answer.headers_mut().insert(CONTENT_LENGTH, size.into());
            Ok(answer)
        }
        (Some(Fault::WeakEtag), Ok(mut answer)) => {
            let weak = [b"W/", answer.headers()[ETAG].as_bytes()].concat();
            answer.headers_mut().insert(ETAG, HeaderValue::from_bytes(&weak).expect("an ETag"));
            Ok(answer)
        }
        (Some(Fault::WrongRange(range)), Ok(mut answer)) => {
            answer.headers_mut().insert(CONTENT_RANGE, HeaderValue::from_static(range));
            Ok(answer)
        }
        (Some(Fault::WrongTime(time)), Ok(mut answer)) => {
            answer.headers_mut().insert(DATE, HeaderValue::from_static(time));
            Ok(answer)
        }
        (Some(fault @ (Fault::CutAnswer(left) | Fault::StopAnswer(left))), Ok(answer)) => {
            let stops = matches!(fault, Fault::StopAnswer(_));
            let cut = |body: s3s::Body| CutBody { body: body.boxed_unsync(), left, stops };
            Ok(answer.map(|body| s3s::Body::http_body_unsync(cut(body))))
        }
        (_, answer) => answer.map_err(|problem| io::Error::other(format!("{problem:?}"))),
    }
}

/// An answer's first bytes, and then a failure, which closes the connection.
struct CutBody {
    body: UnsyncBoxBody<Bytes, s3s::StdError>,
    left: usize,
    /// Instead of the failure nothing more comes.
    stops: bool,
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        if self.left == 0 && self.stops {
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        let Ok(mut data) = frame.into_data() else { return Poll::Ready(None) };
        data.truncate(self.left);
        self.left -= data.len();
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Door {
    /// Notes who signed. The server ignores the token that belongs to a temporary key; S3 does not.
    fn note_signer(&self, told: &str, head: &Parts) -> Option<Response<s3s::Body>> {
        let query = head.uri.query().unwrap_or_default();
        let text = |name| {
            let decoded = percent_encoding::percent_decode_str(parameter(query, name)?).decode_utf8();
            Some(decoded.expect("UTF-8").into_owned())
        };
        let signer = text("X-Amz-Credential")?.split('/').next()?.to_owned();
        let key = platform::KEYS.into_iter().find(|key| key.id == signer);
        let right = text("X-Amz-Security-Token").as_deref() == key.map(|key| key.token);
        // The server ties an upload to the key that began it. To S3, all keys of a role are the same role.
        if let Some(upload) = parameter(told, "uploadId").filter(|_| key.is_some()) {
            let path = self.root.join(format!(".upload-{upload}.json"));
            if path.exists() {
                fs::write(path, format!("\"{signer}\"")).expect("the upload's key");
            }
        }
        self.signers.lock().unwrap().push((told.to_owned(), signer));
        (!right).then(|| refusal(403, "InvalidToken"))
    }

    /// Notes what a new object says about itself. S3 refuses such headers where they are not signed.
    fn note_metadata(&self, head: &Parts) -> bool {
        let query = head.uri.query().unwrap_or_default();
        // Other clients sign in a header, which the server checks.
        let Some(signed) = parameter(query, "X-Amz-SignedHeaders") else { return true };
        let amz = head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-amz-"));
        let mut metadata = BTreeMap::new();
        for (name, value) in amz {
            if !signed.split("%3B").any(|signed| signed == name.as_str()) {
                return false;
            }
            if let Some(name) = name.as_str().strip_prefix("x-amz-meta-") {
                metadata.insert(name.to_owned(), value.to_str().expect("ASCII").to_owned());
            }
        }
        if !metadata.is_empty() {
            self.metadata.lock().unwrap().insert(head.uri.path().to_owned(), metadata);
        }
        true
    }

    /// Notes how an object is to be kept. Whoever comes here has signed these headers.
    fn note_properties(&self, told: &str, head: &Parts) {
        let named = head.headers.iter().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix("x-amz-").filter(|name| !name.starts_with("meta-"))?;
            Some(format!("{name}: {}", value.to_str().expect("ASCII")))
        });
        let mut headers: Vec<String> = named.collect();
        headers.sort();
        self.properties.lock().unwrap().push((told.to_owned(), headers));
    }

    /// The refusal of a request that may only make a new object. `s3s-fs` knows the header, so where it is to be
    /// ignored, what is there has to go first.
    fn precondition(&self, head: &Parts) -> Option<Response<s3s::Body>> {
        head.headers.get(IF_NONE_MATCH)?;
        let path = self.root.join(head.uri.path().trim_start_matches('/'));
        match self.preconditions {
            Preconditions::Honoured if path.exists() => Some(refusal(412, "PreconditionFailed")),
            Preconditions::Honoured => None,
            Preconditions::Ignored => {
                let _ = fs::remove_file(path);
                None
            }
            Preconditions::Refused(status, code) => Some(refusal(status, code)),
        }
    }

    /// Keeps account of the uploads that are neither completed nor aborted.
    async fn note_upload(&self, told: &str, answer: Response<s3s::Body>) -> io::Result<Response<s3s::Body>> {
        if !answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let mut uploads = self.uploads.lock().unwrap();
        match parameter(told, "uploadId") {
            Some(_) if told.starts_with("PUT") => {}
            // An error may come within a 200.
            Some(id) if !body.windows(7).any(|window| window == b"<Error>") => drop(uploads.remove(id)),
            Some(_) => {}
            None => {
                let text = String::from_utf8_lossy(&body);
                let id = text.split_once("<UploadId>").and_then(|(_, rest)| rest.split_once("</UploadId>"));
                let key =
                    told.split(['/', '?']).skip(2).take_while(|part| !part.contains('=')).collect::<Vec<_>>();
                if let Some((id, _)) = id {
                    uploads.insert(id.to_owned(), (key.join("/"), Instant::now()));
                }
            }
        }
        Ok(Response::from_parts(head, s3s::Body::from(body)))
    }

    /// The answer to ListMultipartUploads
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html>).
    fn list_uploads(&self, told: &str, day: Duration) -> String {
        let prefix = parameter(told, "prefix").unwrap_or_default().replace("%2F", "/");
        let uploads = self.uploads.lock().unwrap();
        let listed = uploads.iter().filter(|(_, (key, _))| key.starts_with(&prefix)).map(|(id, (key, begun))| {
            let days = begun.elapsed().as_secs_f64() / day.as_secs_f64();
            let initiated = Utc::now() - TimeDelta::seconds((days * 86_400.0) as i64);
            let initiated = initiated.to_rfc3339_opts(SecondsFormat::Millis, true);
            format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>{initiated}</Initiated></Upload>")
        });
        format!("<ListMultipartUploadsResult>{}</ListMultipartUploadsResult>", listed.collect::<String>())
    }

    /// The code of the error that S3 itself would answer with, where `s3s-fs` lets a request through: every
    /// body needs its Content-MD5, and an object is made of parts as they were acknowledged.
    fn objection(&self, told: &str, md5: Option<&HeaderValue>, body: &[u8]) -> Option<&'static str> {
        if !told.starts_with("PUT") && !told.starts_with("POST") {
            return None;
        }
        let Some(md5) = md5 else { return Some("InvalidRequest") };
        if md5.as_bytes() != BASE64_STANDARD.encode(Md5::digest(body)).as_bytes() {
            return Some("BadDigest");
        }
        let upload = parameter(told, "uploadId").filter(|_| told.starts_with("POST"))?;
        let text = String::from_utf8_lossy(body);
        let Ok(document) = Document::parse(&text) else { return Some("MalformedXML") };
        let etags = self.etags.lock().unwrap();
        let as_acknowledged = |part: Node<'_, '_>| {
            let text = |name| part.children().find(|child| child.has_tag_name(name))?.text();
            let number = text("PartNumber").unwrap_or_default();
            etags.get(&(upload.into(), number.into())).is_some_and(|etag| text("ETag") == Some(etag))
        };
        let mut parts = document.descendants().filter(|node| node.has_tag_name("Part"));
        (!parts.all(as_acknowledged)).then_some("InvalidPart")
    }
}

fn lists_uploads(told: &str) -> bool {
    told.starts_with("GET") && told.contains("uploads=")
}

fn is_of_upload(told: &str) -> bool {
    told.contains("uploads=") || told.contains("uploadId=")
}

/// The value of a parameter of the query.
fn parameter<'a>(told: &'a str, name: &str) -> Option<&'a str> {
    told.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// An answer of S3 that says no.
fn refusal(status: u16, code: &str) -> Response<s3s::Body> {
    answer_with(status, format!("<Error><Code>{code}</Code><Message>the test's own fault</Message></Error>"))
}

fn answer_with(status: u16, body: String) -> Response<s3s::Body> {
    Response::builder().status(status).body(s3s::Body::from(Bytes::from(body))).expect("a response")
}
