//! `make bench-size`: a dump of 60 GB through pgkeep, which must not notice how large it is.
//!
//! The database is a real one; pg_dump is a stand-in that prints fast, and S3 a sink that counts what comes and keeps
//! nothing. What real servers make of backups is in the tests.

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::prelude::{Engine, BASE64_STANDARD};
use pgkeep::s3::PartSize;
use support::{postgres, s3};

const GB: u64 = 1_000_000_000;
const SAMPLE: Duration = Duration::from_millis(100);
/// Memory may differ by so much between the first tenth and the end: what is not uploaded yet differs.
const SLACK: u64 = 4 << 20;
/// What a single request could store (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
const LARGEST_PUT: u64 = 5 << 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, command, bytes] = &arguments[..] {
        if command == "generate" {
            return generate(bytes.parse().expect("a number"));
        }
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let gigabytes: u64 = std::env::var("PGKEEP_BENCH_GB").map_or(60, |text| text.parse().expect("a number"));
    let sink = Sink::start();
    let run = back_up(gigabytes * GB, &sink);
    let parts = sink.counts.lock().unwrap().parts.clone();
    let object: u64 = parts.values().sum();
    let (last, others) = parts.iter().next_back().map(|(_, last)| (*last, parts.len() - 1)).expect("parts");
    let size = PartSize::default().of(0);

    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let early = run.samples.iter().find(|sample| sample.uploaded >= object / 10).expect("a sample").memory;
    let late = run.samples.iter().filter(|sample| sample.uploaded >= object / 10 * 9);
    let late = late.map(|sample| sample.memory).max().expect("a sample");
    let most = run.samples.iter().map(|sample| sample.memory).max().expect("a sample");
    let disk = run.samples.iter().map(|sample| sample.disk).max().expect("a sample");
    println!("| {gigabytes} GB dumped | in {:.0} s |\n| --- | ---: |", run.took.as_secs_f64());
    println!("| object | {:.1} GB in {} parts |", object as f64 / 1e9, parts.len());
    println!(
        "| memory after a tenth | {} |\n| memory in the last tenth, at most | {} |",
        mb(early),
        mb(late)
    );
    println!("| memory at most | {} |\n| temporary file, at most | {} |", mb(most), mb(disk));
    println!("\n| database | parts of | largest backup |\n| ---: | ---: | ---: |");
    for database in [60 * GB, 1_000 * GB, 12_000 * GB] {
        let part = PartSize::default().of(database);
        println!("| {} GB | {} MiB | {} GB |", database / GB, part >> 20, part * 10_000 / GB);
    }

    let mut well = true;
    let mut check = |holds: bool, what: &str| {
        if !holds {
            println!("FAILED: {what}");
            well = false;
        }
    };
    check(run.success, "the backup failed");
    check(parts.values().take(others).all(|part| *part == size) && last <= size, "parts differ in size");
    check(parts.keys().copied().eq(1..=parts.len() as u64), "parts are missing");
    check(late <= early + SLACK, "memory grows");
    check(gigabytes < 60 || object > LARGEST_PUT, "a single request could have stored it");
    ExitCode::from(u8::from(!well))
}

/// Prints so many bytes that look like a table, a part of which does not compress, and the end of a dump.
fn generate(bytes: u64) -> ExitCode {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut block = Vec::new();
    // Far more than the 32 KiB that gzip looks back.
    while block.len() < 8 << 20 {
        let noise: String = (0..40).map(|_| rng.alphanumeric()).collect();
        let line =
            format!("{}\tCustomer number {}\tpaid\t{noise}\tvisited /products\n", block.len(), rng.u16(..));
        block.extend_from_slice(line.as_bytes());
    }
    let mut output = io::stdout().lock();
    let mut left = bytes;
    while left > 0 {
        let piece = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        output.write_all(&block[..piece]).expect("somebody who reads");
        left -= piece as u64;
    }
    output.write_all(b"\n--\n-- PostgreSQL database dump complete\n--\n\n").expect("somebody who reads");
    ExitCode::SUCCESS
}

struct Sample {
    uploaded: u64,
    memory: u64,
    disk: u64,
}

struct Run {
    success: bool,
    took: Duration,
    samples: Vec<Sample>,
}

fn back_up(bytes: u64, sink: &Sink) -> Run {
    let server = postgres::server();
    let database = server.database("large");
    let own = std::env::current_exe().expect("this program");
    let bin = postgres::wrapped_pg_dump(&format!("exec {} generate {bytes}", own.display()));
    let spool = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgkeep"));
    command
        .arg("backup")
        .env_clear()
        .env("POSTGRES_CONNECTION_STRING", server.connection(&database))
        .env("S3_URL", format!("http://127.0.0.1:{}", sink.port))
        .env("S3_BUCKET", s3::BUCKET)
        .env("S3_ACCESS_KEY", s3::ACCESS_KEY)
        .env("S3_SECRET_KEY", s3::SECRET_KEY)
        .env("BACKUP_COMPRESSION_LEVEL", "1")
        .env("BACKUP_TEMP_DIR", spool.path())
        .env("BACKUP_PG_BIN", bin.path());
    let started = Instant::now();
    let mut child = command.spawn().expect("pgkeep");
    let mut samples = Vec::new();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        let uploaded = sink.counts.lock().unwrap().parts.values().sum();
        if let Some((memory, disk)) = look_at(child.id()) {
            samples.push(Sample { uploaded, memory, disk });
        }
        thread::sleep(SAMPLE);
    };
    Run { success: status.success(), took: started.elapsed(), samples }
}

/// The memory of a process, and what its file without a name takes, in bytes.
fn look_at(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let memory: u64 = memory.trim().strip_suffix(" kB")?.parse().ok()?;
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().map(|entry| entry.path());
    let unnamed = files
        .filter(|path| fs::read_link(path).is_ok_and(|link| link.to_string_lossy().ends_with("(deleted)")));
    let disk = unnamed.filter_map(|path| fs::metadata(path).ok()).map(|file| file.blocks() * 512).max();
    Some((memory * 1024, disk.unwrap_or(0)))
}

#[derive(Default)]
struct Counts {
    /// The size of each part, by its number.
    parts: BTreeMap<u64, u64>,
    is_complete: bool,
}

/// As much of S3 as takes one backup.
struct Sink {
    port: u16,
    counts: Arc<Mutex<Counts>>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let counts = Arc::new(Mutex::new(Counts::default()));
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let counts = Arc::clone(&shared);
                // A client that goes away ends its thread.
                thread::spawn(move || while answer(&connection, &counts).is_ok() {});
            }
        });
        Sink { port, counts }
    }
}

/// Takes one request.
fn answer(mut connection: &TcpStream, counts: &Mutex<Counts>) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(64 * 1024, connection);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let request = head.lines().next().unwrap_or_default();
    let parameter = |name: &str| {
        request.split(['?', '&', ' ']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let length: u64 = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    if header("expect").is_some() {
        connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    // The next request waits for this answer, so that nothing of it is read with this body.
    let read = io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    let (mut status, mut headers, mut body) = ("200 OK", String::new(), String::new());
    match (request.split(' ').next().unwrap_or_default(), parameter("partNumber")) {
        ("PUT", number) => {
            let number = number.map_or(1, |number| number.parse().expect("a number"));
            counts.lock().unwrap().parts.insert(number, read);
            // A server that made the MD5 itself would take the time of this one's processors.
            let md5 = BASE64_STANDARD.decode(header("content-md5").unwrap_or_default()).expect("base64");
            let hex: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
            headers = format!("ETag: \"{hex}\"\r\n");
        }
        ("POST", _) if parameter("uploadId").is_some() => {
            counts.lock().unwrap().is_complete = true;
            body = "<CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>".into();
        }
        ("POST", _) => {
            body = "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>id</UploadId>\
                    </InitiateMultipartUploadResult>"
                .into();
        }
        ("GET", _) if parameter("list-type").is_some() => {
            body = "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>\
                    <IsTruncated>false</IsTruncated></ListBucketResult>"
                .into();
        }
        ("HEAD", _) if counts.lock().unwrap().is_complete => {}
        ("HEAD", _) => status = "404 Not Found",
        _ => status = "501 Not Implemented",
    }
    body = body.replacen('>', " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">", 1);
    let length = match request.starts_with("HEAD") {
        true => counts.lock().unwrap().parts.values().sum(),
        false => body.len() as u64,
    };
    let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    connection.write_all(answer.as_bytes())
}
