//! `make bench`: pgkeep's gzip against flate2's encoder, gzip and pigz, on what pg_dump writes of a database
//! with rows as applications have them. Medians of five, and everything as a ratio to gzip -6.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::process::{Command, Stdio};
use std::time::Instant;

use flate2::write::GzEncoder;
use flate2::Compression;
use pgkeep::dump::gzip::Gzip;
use support::postgres::{self, events};

const RUNS: usize = 5;

/// Counts what is written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let server = postgres::server();
    server.create_database("events");
    server.psql("events", &events(2_400_000));
    let dump = tempfile::NamedTempFile::new().expect("a file");
    let status = server.client("pg_dump", "events").stdout(dump.reopen().expect("the file")).status();
    assert!(status.expect("pg_dump").success(), "pg_dump");
    let mut data = Vec::new();
    dump.reopen().expect("the file").read_to_end(&mut data).expect("the dump");
    println!("{} MB of dump, two threads where there are several", data.len() / 1_000_000);

    let threads = [1, 2].map(|threads| NonZeroUsize::new(threads).expect("some"));
    let base = report("gzip -6", None, || program(&dump, "gzip", &["-6", "-c"]));
    if Command::new("pigz").arg("--version").output().is_ok() {
        report("pigz -6 -p 2", Some(base), || program(&dump, "pigz", &["-6", "-p", "2", "-c"]));
    } else {
        println!("pigz is not installed");
    }
    for level in [1, 2, 3, 4, 5, 6, 9] {
        report(&format!("flate2 {level}"), Some(base), || {
            let mut encoder = GzEncoder::new(Count(0), Compression::new(level));
            data.chunks(65_536).for_each(|chunk| encoder.write_all(chunk).expect("it counts"));
            encoder.finish().expect("it counts").0
        });
        for count in threads {
            report(&format!("pgkeep {level}, threads: {count}"), Some(base), || pgkeep(&data, level, count));
        }
    }
}

fn pgkeep(data: &[u8], level: u32, threads: NonZeroUsize) -> u64 {
    let mut gzip = Gzip::new(Count(0), level, threads).expect("threads");
    let mut data = data;
    while !data.is_empty() {
        let space = gzip.space();
        let count = space.len().min(65_536).min(data.len());
        space[..count].copy_from_slice(&data[..count]);
        gzip.advance(count).expect("it counts");
        data = &data[count..];
    }
    gzip.finish().expect("it counts").0
}

fn program(dump: &tempfile::NamedTempFile, name: &str, arguments: &[&str]) -> u64 {
    let input = File::open(dump.path()).expect("the dump");
    let mut child =
        Command::new(name).args(arguments).stdin(input).stdout(Stdio::piped()).spawn().expect("the program");
    let count = std::io::copy(&mut child.stdout.take().expect("its output"), &mut std::io::sink());
    assert!(child.wait().expect("its end").success());
    count.expect("its output")
}

/// Prints a line; answers with seconds and bytes.
fn report(name: &str, base: Option<(f64, u64)>, run: impl Fn() -> u64) -> (f64, u64) {
    let mut size = 0;
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            size = run();
            started.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let median = times[RUNS / 2];
    let (time, bytes) = base.unwrap_or((median, size));
    println!(
        "{name:<22} {median:>6.2} s, {:>5.2} of gzip -6; size {:>5.3} of it",
        median / time,
        size as f64 / bytes as f64
    );
    (median, size)
}
