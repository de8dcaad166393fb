//! An HTTP proxy as companies have one: it opens tunnels (CONNECT) to one port only, forwards requests that name their
//! whole URL, and may want a user and password.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::prelude::{Engine, BASE64_STANDARD};

/// A proxy on a free port.
pub struct HttpProxy {
    pub port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Rules {
    /// The only port that it opens tunnels to.
    tunnel: Option<u16>,
    /// What Proxy-Authorization has to be.
    authorization: Option<String>,
}

impl HttpProxy {
    /// `credentials` are `user:password`.
    pub fn start(tunnel: Option<u16>, credentials: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let authorization = credentials.map(|of| format!("Basic {}", BASE64_STANDARD.encode(of)));
        let (rules, heard) = (Rules { tunnel, authorization }, Arc::clone(&requests));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (rules, heard) = (rules.clone(), Arc::clone(&heard));
                thread::spawn(move || rules.serve(client, &heard));
            }
        });
        HttpProxy { port, requests }
    }

    /// The first line of each connection's first request.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Rules {
    fn serve(&self, mut client: TcpStream, heard: &Mutex<Vec<String>>) -> Option<()> {
        let head = head(&mut client)?;
        let (first, fields) = head.split_once("\r\n")?;
        heard.lock().unwrap().push(first.to_owned());
        let (method, rest) = first.split_once(' ')?;
        let field = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned())
        };
        if self.authorization.is_some() && fields.lines().find_map(field) != self.authorization {
            return refuse(client, "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic");
        }
        let mut server;
        if method == "CONNECT" {
            let (_, port) = rest.split_once(' ')?.0.rsplit_once(':')?;
            if self.tunnel.map(|port| port.to_string()).as_deref() != Some(port) {
                return refuse(client, "403 Forbidden");
            }
            server = TcpStream::connect(("127.0.0.1", port.parse().ok()?)).ok()?;
            client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
        } else {
            let Some(url) = rest.strip_prefix("http://") else { return refuse(client, "400 Bad Request") };
            let (host, path) = url.split_once('/')?;
            server = TcpStream::connect(host).ok()?;
            let fields: String =
                fields.split_inclusive("\r\n").filter(|line| field(line.trim_end()).is_none()).collect();
            write!(server, "{method} /{path}\r\n{fields}").ok()?;
        }
        let (mut up, mut down) = (client.try_clone().ok()?, server.try_clone().ok()?);
        thread::spawn(move || {
            let _ = io::copy(&mut up, &mut server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut down, &mut client);
        let _ = client.shutdown(Shutdown::Both);
        Some(())
    }
}

/// Everything up to the empty line, and with it.
fn head(client: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn refuse(mut client: TcpStream, status: &str) -> Option<()> {
    write!(client, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    client.shutdown(Shutdown::Write).ok()?;
    // If it closed while something still comes, the answer could be lost.
    io::copy(&mut client, &mut io::sink()).ok().map(drop)
}
