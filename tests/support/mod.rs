//! What the tests and the demo share: a real PostgreSQL, a real S3 server, and the built binary.

// Each of the programs that include this folder uses a part of it.
#![allow(dead_code)]
// The server and the shell that watches it end with this process, on purpose.
#![allow(clippy::zombie_processes)]

pub mod age;
pub mod http_proxy;
pub mod pgbouncer;
pub mod pgkeep;
pub mod platform;
pub mod postgres;
pub mod proxy;
pub mod receiver;
pub mod s3;
pub mod servers;
pub mod tls;

use std::fmt::Display;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// A port that nobody listens on right now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("its address").port()
}

/// Waits until `condition` holds; panics with `what` after two minutes, which is far more than it takes.
pub fn wait_for<T>(what: impl Display, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(120), "waited two minutes for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
