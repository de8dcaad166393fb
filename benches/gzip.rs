//! `make bench`: pgkeep's gzip against flate2's encoder, gzip and pigz, on what pg_dump writes of a database
//! with rows as applications have them. Medians of five rounds, and everything as a ratio to gzip -6 in the same round.

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
    let mut contenders: Vec<(String, Box<dyn Fn() -> u64 + '_>)> =
        vec![("gzip -6".into(), Box::new(|| program(&dump, "gzip", &["-6", "-c"])))];
    if Command::new("pigz").arg("--version").output().is_ok() {
        let pigz = || program(&dump, "pigz", &["-6", "-p", "2", "-c"]);
        contenders.push(("pigz -6 -p 2".into(), Box::new(pigz)));
    } else {
        println!("pigz is not installed");
    }
    let data = &data;
    for level in [1, 2, 3, 4, 5, 6, 9] {
        contenders.push((format!("flate2 {level}"), Box::new(move || flate2(data, level))));
        for count in threads {
            let name = format!("pgkeep {level}, threads: {count}");
            contenders.push((name, Box::new(move || pgkeep(data, level, count))));
        }
    }
    // All take turns, round by round, as in the other benches.
    let mut measured = vec![(Vec::new(), 0); contenders.len()];
    for _ in 0..RUNS {
        for ((_, run), (times, size)) in contenders.iter().zip(&mut measured) {
            let started = Instant::now();
            *size = run();
            times.push(started.elapsed().as_secs_f64());
        }
    }
    let (base, base_size) = &measured[0];
    for ((name, _), (times, size)) in contenders.iter().zip(&measured) {
        println!(
            "{name:<22} {:>6.2} s, {:>5.2} of gzip -6; size {:>5.3} of it",
            median(times.iter().copied()),
            median(times.iter().zip(base).map(|(time, base)| time / base)),
            *size as f64 / *base_size as f64
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn flate2(data: &[u8], level: u32) -> u64 {
    let mut encoder = GzEncoder::new(Count(0), Compression::new(level));
    data.chunks(65_536).for_each(|chunk| encoder.write_all(chunk).expect("it counts"));
    encoder.finish().expect("it counts").0
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
