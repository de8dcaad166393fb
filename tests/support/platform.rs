//! The platforms that give credentials to a role: STS, the agent beside a container, and the metadata of an EC2
//! instance, all on one port. They speak as AWS documents them, and hand out keys that the tests' S3 server knows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// A key that a platform hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: &'static str,
    pub secret: &'static str,
    /// It needs encoding in a URL.
    pub token: &'static str,
}

/// What is handed out first, and then.
pub const KEYS: [Key; 2] = [
    Key { id: "ASIAFIRST", secret: "first/SECRET+of=role", token: "first/TOKEN+of=role==" },
    Key { id: "ASIASECOND", secret: "second/SECRET+of=role", token: "second/TOKEN+of=role==" },
];
/// What the web identity and the container's agent want to see.
pub const PROOF: &str = "eyJhbGciOi.PROOF-of-identity.x_y-z";
const SESSION: &str = "SESSION-of-metadata==";
const ROLES_GET: &str = "GET /latest/meta-data/iam/security-credentials/";
const ROLE_GET: &str = "GET /latest/meta-data/iam/security-credentials/my-role";

/// How a platform behaves on its bad days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// It answers with this status, and its own words hold what it was asked with.
    Refuses(u16),
    /// It answers with something else.
    Garbage,
    /// It says nothing.
    Silent,
}

struct State {
    /// The life of each key that is handed out. The last one holds for all that follow.
    lives: Vec<Duration>,
    /// When each key that was handed out ends.
    ends: Vec<DateTime<Utc>>,
    /// What the next requests meet.
    ill: Vec<Ill>,
    requests: Vec<String>,
}

pub struct Platform {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Platform {
    /// Hands out keys with these lives.
    pub fn start(lives: &[Duration]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = State { lives: lives.to_vec(), ends: Vec::new(), ill: Vec::new(), requests: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A client that has enough goes away.
                thread::spawn(move || drop(serve(&connection, &state)));
            }
        });
        Platform { url, state }
    }

    /// The next request meets this; then the one after it, if this is said again.
    pub fn ail(&self, times: usize, ill: Ill) {
        self.state.lock().unwrap().ill.extend(vec![ill; times]);
    }

    /// It is well again.
    pub fn cure(&self) {
        self.state.lock().unwrap().ill.clear();
    }

    /// When each key that was handed out ends.
    pub fn ends(&self) -> Vec<DateTime<Utc>> {
        self.state.lock().unwrap().ends.clone()
    }

    /// The first lines of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn serve(mut connection: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let named = |line: &&String| line.to_lowercase().starts_with(&format!("{name}: "));
        head.iter().find(named).map(|line| line[name.len() + 2..].to_owned())
    };
    let mut body = vec![0; header("content-length").map_or(0, |length| length.parse().expect("a number"))];
    reader.read_exact(&mut body)?;
    let body = String::from_utf8(body).expect("UTF-8");
    let request = head[0].trim_end_matches(" HTTP/1.1").to_owned();
    let ill = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        if state.ill.is_empty() {
            None
        } else {
            Some(state.ill.remove(0))
        }
    };
    let (status, text) = match ill {
        Some(Ill::Refuses(status)) => (status, format!("{{\"message\":\"no {} {body}\"}}", head.join(" "))),
        Some(Ill::Garbage) => (200, format!("<html>{}</html>", KEYS[0].secret)),
        Some(Ill::Silent) => {
            // Until the client goes away.
            reader.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        None => answer(&request, &header, &body, state),
    };
    let length = text.len();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    connection.write_all((head + &text).as_bytes())
}

fn answer(
    request: &str,
    header: &dyn Fn(&str) -> Option<String>,
    body: &str,
    state: &Mutex<State>,
) -> (u16, String) {
    let shown = |name: &str, proof: &str| header(name).as_deref() == Some(proof);
    let of_session = || shown("x-aws-ec2-metadata-token", SESSION);
    match request {
        "PUT /latest/api/token" if header("x-aws-ec2-metadata-token-ttl-seconds").is_some() => {
            (200, SESSION.into())
        }
        ROLES_GET if of_session() => (200, "my-role".into()),
        ROLE_GET if of_session() => (200, json(hand_out(state))),
        ROLES_GET | ROLE_GET => (401, "Unauthorized".into()),
        "GET /v1/credentials" if shown("authorization", PROOF) => (200, json(hand_out(state))),
        "GET /v1/credentials" => (401, r#"{"code":"Unauthorized","message":"wrong token"}"#.into()),
        "POST /" => sts(body, state),
        _ => (404, String::new()),
    }
}

fn hand_out(state: &Mutex<State>) -> (Key, String) {
    let mut state = state.lock().unwrap();
    let number = state.ends.len();
    let life = state.lives[number.min(state.lives.len() - 1)];
    let end = Utc::now() + life;
    state.ends.push(end);
    (KEYS[number.min(1)], end.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn json((key, end): (Key, String)) -> String {
    let Key { id, secret, token } = key;
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{id}","SecretAccessKey":"{secret}","Token":"{token}","Expiration":"{end}"}}"#
    )
}

/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
fn sts(body: &str, state: &Mutex<State>) -> (u16, String) {
    let asked: Vec<&str> = body.split('&').collect();
    let wanted = [
        "Action=AssumeRoleWithWebIdentity",
        "Version=2011-06-15",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fpgkeep",
        "RoleSessionName=pgkeep",
    ];
    let error = |code: &str, message: &str| {
        let error =
            format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
        (400, format!("<ErrorResponse xmlns=\"urn:sts\">{error}<RequestId>1</RequestId></ErrorResponse>"))
    };
    if !wanted.iter().all(|field| asked.contains(field)) {
        return error("ValidationError", body);
    }
    if !asked.contains(&format!("WebIdentityToken={PROOF}").as_str()) {
        return error(
            "ExpiredTokenException",
            "Token expired: current date/time must be before the expiration",
        );
    }
    let (Key { id, secret, token }, end) = hand_out(state);
    let keys = format!(
        "<Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>\
         <SessionToken>{token}</SessionToken><Expiration>{end}</Expiration></Credentials>"
    );
    let name = "AssumeRoleWithWebIdentity";
    (200, format!("<{name}Response xmlns=\"urn:sts\"><{name}Result>{keys}</{name}Result></{name}Response>"))
}
