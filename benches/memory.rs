//! `make bench`: a backup of a database of about 600 MB, and the peak memory of pgkeep itself while it
//! runs; then the proof that what was uploaded restores to the same rows and the same pg_dump text.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::process::Stdio;
use std::time::{Duration, Instant};

use support::pgkeep::Pgkeep;
use support::{postgres, s3};

/// Half of it rows as applications have them, half of it bytes that do not compress.
const TABLES: &str = "
    CREATE TABLE events AS
        SELECT n AS id, now() - n * interval '1 second' AS at, md5(n::text) AS session,
               'visited /products/' || n % 977 || ' from ' || n % 255 || '.0.0.1' AS what
        FROM generate_series(1, 2400000) n;
    ALTER TABLE events ADD PRIMARY KEY (id);
";

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (server, s3) = (postgres::server(), s3::Server::start());
    server.create_database("large");
    server.psql("large", TABLES);
    server.psql("large", &postgres::noise(280));
    let size = server.psql("large", "SELECT pg_database_size('large') / 1000000");

    let started = Instant::now();
    let mut running = Pgkeep::new("large", &s3).start(&["backup"]);
    let mut peak = 0;
    while let Some(now) = peak_memory(running.pid()) {
        peak = now;
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(running.wait(), 0, "{}", running.log());
    let took = started.elapsed().as_secs_f64();
    let key = s3.backups().pop().expect("a backup");
    println!(
        "database {size} MB, backup {} MB in {took:.1} s, pgkeep's peak memory {:.1} MB",
        s3.objects()[&key] / 1_000_000,
        peak as f64 / 1000.0
    );

    server.create_database("restored");
    let mut gunzip = std::process::Command::new("gunzip")
        .arg("-c")
        .stdin(File::open(s3.path(&key)).expect("the object"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("gunzip");
    let psql = server
        .client("psql", "restored")
        .args(["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"])
        .stdin(gunzip.stdout.take().expect("its output"))
        .status();
    assert!(gunzip.wait().expect("gunzip").success() && psql.expect("psql").success(), "the restore");
    let (source, restored) = (server.contents("large"), server.contents("restored"));
    assert_eq!(source.0, restored.0);
    assert!(source.1 == restored.1, "pg_dump writes the two differently");
    println!("restored: the same rows ({}) and the same pg_dump text", source.0.replace('\n', ", "));
}

/// VmHWM in kB: what the process had in memory at most; none once it has ended.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
