//! `make bench`: pgkeep beside what people use today, in one run on one machine: the same databases, the same
//! PostgreSQL, the same S3 server. Medians of five, ratios to a bare `pg_dump >/dev/null`; then the proof that
//! what pgkeep uploaded restores to the same rows and the same pg_dump text.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::ops::Add;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use measure::{median, Cost};
use support::pgkeep::Pgkeep;
use support::postgres::{self, noise, wrapped_pg_dump, DOCUMENTS, EVENTS};
use support::s3;

struct Bench {
    s3: s3::Server,
    directory: tempfile::TempDir,
}

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let server = postgres::server();
    for (database, title, tables) in [
        ("mixed", "mixed tables", vec![EVENTS.to_owned(), DOCUMENTS.to_owned(), noise(30)]),
        ("noise", "rows that do not compress", vec![noise(150)]),
    ] {
        server.create_database(database);
        tables.iter().for_each(|sql| drop(server.psql(database, sql)));
        let size = server.psql(database, "SELECT pg_database_size(current_database()) / 1000000");
        println!(
            "\n{title}: {size} MB on the server, {} processors\n",
            thread::available_parallelism().expect("some")
        );
        compare(database);
    }
    fail("mixed");
}

fn compare(database: &str) {
    let directory = tempfile::Builder::new().prefix("pgkeep-bench-").tempdir().expect("a directory");
    let bench = Bench { s3: s3::Server::undisturbed(), directory };
    let pgkeep = Pgkeep::new(database, &bench.s3);
    let temp = bench.directory.path().display().to_string();
    let peers = [
        ("pg_dump >/dev/null", "pg_dump >/dev/null", ""),
        ("pg_dump \\| gzip \\| aws s3 cp -", "pg_dump | gzip | aws s3 cp - s3://backups/peer", "gzip aws"),
        ("pg_dump \\| pigz \\| aws s3 cp -", "pg_dump | pigz | aws s3 cp - s3://backups/peer", "pigz aws"),
        (
            "pg_dump -Fc, aws s3 cp",
            &format!("pg_dump -Fc -f {temp}/dump && aws s3 cp {temp}/dump s3://backups/peer"),
            "aws",
        ),
    ];
    println!("| | time | | processor | memory | disk | size |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut base = None;
    for (name, script, needs) in peers {
        if let Some(missing) = needs.split_whitespace().find(|program| !is_installed(program)) {
            println!("| {name} | {missing} is not installed | | | | | |");
            continue;
        }
        let cost = median(|| {
            let mut command = postgres::server().client("sh", database);
            command.args(["-c", &format!("set -e; {script}")]);
            bench.run(bench.for_aws(&mut command), "peer")
        });
        report(name, cost, *base.get_or_insert(cost));
        // What a peer leaves on the disk is not pgkeep's.
        let _ = fs::remove_file(bench.directory.path().join("dump"));
    }
    let cost = median(|| {
        bench.s3.clear();
        let mut command = pgkeep.command(&["backup"]);
        command.env("BACKUP_TEMP_DIR", bench.directory.path());
        bench.run(&mut command, ".sql.gz")
    });
    report("**pgkeep backup**", cost, base.expect("the bare dump"));
    assert_restores(&bench.s3, database);
}

/// What a failure at the end of a dump takes: its stack trace is made of the program's own symbols.
fn fail(database: &str) {
    let bin = wrapped_pg_dump(r#"$REAL "$@"; exit 1"#);
    let s3 = s3::Server::undisturbed();
    let pgkeep = Pgkeep::new(database, &s3).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let mut child = pgkeep.command(&["backup"]).stderr(Stdio::null()).spawn().expect("pgkeep");
    let mut peak = 0;
    while child.try_wait().expect("its status").is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        peak = peak.max(kilobytes * 1024);
        thread::sleep(Duration::from_millis(1));
    }
    // glibc's debugging information is read too, where it is installed. The image and the releases have no glibc.
    let foreign = Path::new("/usr/lib/debug/.build-id").exists();
    let note = if foreign { ", most of it glibc's debugging information" } else { "" };
    println!("\na failed backup, its stack trace included: {:.1} MB{note}", peak as f64 / 1e6);
    assert!(foreign || peak < 32_000_000, "too much memory");
}

/// The programs of PostgreSQL are found as the server's are.
fn is_installed(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

impl Bench {
    fn for_aws<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let path = std::env::var("PATH").expect("PATH");
        command
            .env("PATH", format!("{}:{path}", postgres::bin().display()))
            .env("AWS_ENDPOINT_URL", &self.s3.url)
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    }

    /// Runs a command; `object` is how the uploaded one's key ends.
    fn run(&self, command: &mut Command, object: &str) -> Cost {
        let sizes = || {
            let objects = self.s3.objects().into_iter().filter(|(key, _)| key.ends_with(object));
            // The sum of none would be -0.
            objects.map(|(_, size)| size as f64).fold(0.0, f64::add)
        };
        let cost = measure::run(command, self.directory.path());
        Cost { size: sizes(), ..cost }
    }
}

fn report(name: &str, cost: Cost, base: Cost) {
    let megabytes = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
    println!(
        "| {name} | {:.1} s | {:.2} × | {:.1} s | {} | {} | {} |",
        cost.wall,
        cost.wall / base.wall,
        cost.cpu,
        megabytes(cost.memory),
        megabytes(cost.disk),
        megabytes(cost.size)
    );
}

fn assert_restores(s3: &s3::Server, database: &str) {
    let server = postgres::server();
    let restored = server.database("restored");
    server.restore(&s3.path(&s3.backups().pop().expect("a backup")), &restored);
    let (source, restored) = (server.contents(database), server.contents(&restored));
    assert_eq!(source.0, restored.0);
    assert!(source.1 == restored.1, "pg_dump writes the two differently");
    println!(
        "\npgkeep's backup restores to the same rows ({}) and the same pg_dump text",
        source.0.replace('\n', ", ")
    );
}
