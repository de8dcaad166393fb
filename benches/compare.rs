//! `make bench`: pgkeep beside what people use today, in one run on one machine: the same databases, the same
//! PostgreSQL, the same S3 server. All take turns, round by round, and ratios are those within a round. Then the proof
//! that what pgkeep uploaded restores to the same pg_dump text. The tables can go into README as they are.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use measure::{median, middle, ratio, rounds, Cost, ROUNDS};
use support::pgkeep::Pgkeep;
use support::postgres::{self, documents, events, noise, wrapped_pg_dump};
use support::s3;

/// What README promises, `pg_dump` included, with two threads.
const MOST_MEMORY: f64 = 32e6;
/// pgkeep is to be this many times as fast as the better peer.
const FASTER: f64 = 2.5;

/// Some 175 MB of dump each, so that all of it takes a few minutes.
struct Data {
    database: &'static str,
    title: &'static str,
    tables: Vec<String>,
    /// How many times as long as a bare pg_dump pgkeep may take, if there is such a target.
    target: Option<f64>,
}

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let data = |database, title, tables, target| Data { database, title, tables, target };
    let sets = [
        data("mixed", "Mixed tables", vec![events(700_000), documents(240_000), noise(8)], Some(1.15)),
        data("events", "Text: one table of events", vec![events(1_600_000)], None),
        data("noise", "Random `bytea`, as encrypted or compressed values are", vec![noise(83)], Some(3.0)),
        data("many", "300 small tables", vec![many(300, 5_500)], None),
    ];
    let processors = thread::available_parallelism().expect("some").get();
    println!("\nMedians of {ROUNDS} rounds on {processors} processors, which also ran PostgreSQL and the S3 server.");
    let most = sets.iter().map(compare).fold(0.0, f64::max);
    fail("mixed");
    assert!(processors > 2 || most < MOST_MEMORY, "{:.1} MB are too much memory", most / 1e6);
}

/// Tables as applications have them by the hundred.
fn many(tables: u32, rows: u32) -> String {
    format!(
        "DO $$ BEGIN FOR t IN 1..{tables} LOOP
             EXECUTE format('CREATE TABLE small_%s AS
                 SELECT n AS id, now() - n * interval ''3 minutes'' AS changed, (n * 7919 %% 100000) / 100.0 AS total,
                        md5((n * %s)::text) AS token, ''Customer number '' || n %% 997 || '' of branch %s'' AS name
                 FROM generate_series(1, {rows}) n', t, t, t);
             EXECUTE format('ALTER TABLE small_%s ADD PRIMARY KEY (id)', t);
         END LOOP; END $$"
    )
}

/// Returns the most memory that pgkeep had.
fn compare(data: &Data) -> f64 {
    let (server, database) = (postgres::server(), data.database);
    server.create_database(database);
    data.tables.iter().for_each(|sql| drop(server.psql(database, sql)));
    // What the server would otherwise do in the midst of it.
    server.psql(database, "VACUUM (FREEZE, ANALYZE)");
    server.psql(database, "CHECKPOINT");
    let bench = Bench { s3: s3::Server::undisturbed(), database };
    let pgkeep = Pgkeep::new(database, &bench.s3);
    println!("\n{}, {:.0} MB of dump:\n", data.title, server.text(database).len() as f64 / 1e6);
    let peers = [("gzip", "gzip -6"), ("pigz", "pigz -6")].map(|(program, command)| {
        let missing = [program, "aws"].into_iter().find(|program| !is_installed(program));
        let name = format!("pg_dump \\| {program} \\| aws s3 cp -");
        (name, missing, format!("pg_dump | {command} | aws s3 cp - s3://{}/peer", s3::BUCKET))
    });
    let bare = || bench.run(&mut bench.shell("pg_dump >/dev/null"), &pgkeep);
    let peer = |script: &str| bench.run(&mut bench.shell(script), &pgkeep);
    let kept = || bench.run(&mut pgkeep.command(&["backup"]), &pgkeep);
    let (with_gzip, with_pigz) = (|| peer(&peers[0].2), || peer(&peers[1].2));
    let mut contenders: Vec<&dyn Fn() -> Cost> = vec![&bare];
    let runs: [&dyn Fn() -> Cost; 2] = [&with_gzip, &with_pigz];
    contenders.extend(peers.iter().zip(runs).filter(|(peer, _)| peer.1.is_none()).map(|(_, run)| run));
    contenders.push(&kept);
    let costs = rounds(&contenders);

    let (bare, kept) = (&costs[0], &costs[costs.len() - 1]);
    let mut measured = costs[1..costs.len() - 1].iter();
    // The first of the peers is gzip, if it is there.
    let gzip = peers[0].1.is_none().then(|| middle(&costs[1]).size);
    println!("| | time | | `pg_dump`'s processor time | the others' | PostgreSQL's | S3 server's | memory | disk | size | |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    report("`pg_dump >/dev/null`", bare, bare, None);
    for (name, missing, _) in &peers {
        match missing {
            Some(program) => println!("| `{name}` | {program} is not installed | | | | | | | | | |"),
            None => report(&format!("`{name}`"), measured.next().expect("its costs"), bare, gzip),
        }
    }
    report("**`pgkeep backup`**", kept, bare, gzip);

    let target = data.target.map_or(String::new(), |most| format!(" (target: at most {most})"));
    let each: Vec<String> =
        kept.iter().zip(bare).map(|(cost, bare)| format!("{:.2}", cost.wall / bare.wall)).collect();
    println!("\n{:.2} × a bare pg_dump{target}; by rounds: {}", ratio(kept, bare), each.join(", "));
    if costs.len() > 2 {
        let fastest = |round: usize| {
            costs[1..costs.len() - 1].iter().map(|peer| peer[round].wall).fold(f64::INFINITY, f64::min)
        };
        let faster = median((0..ROUNDS).map(|round| fastest(round) / kept[round].wall));
        println!("{faster:.2} × as fast as the better peer (target: at least {FASTER})");
    }
    let most = kept.iter().map(|cost| cost.memory).fold(0.0, f64::max);
    println!("at most {:.1} MB of memory (limit: {:.0})", most / 1e6, MOST_MEMORY / 1e6);
    assert_restores(&bench.s3, database);
    most
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

/// What the contenders share.
struct Bench {
    s3: s3::Server,
    database: &'static str,
}

impl Bench {
    /// A pipeline, which finds pg_dump and the S3 server.
    fn shell(&self, script: &str) -> Command {
        let mut command = postgres::server().client("sh", self.database);
        let path = std::env::var("PATH").expect("PATH");
        command
            .args(["-c", script])
            .env("PATH", format!("{}:{path}", postgres::bin().display()))
            .env("AWS_ENDPOINT_URL", &self.s3.url)
            .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required");
        command
    }

    /// Runs a command with an empty bucket; what is there afterwards is what it made.
    fn run(&self, command: &mut Command, pgkeep: &Pgkeep) -> Cost {
        self.s3.clear();
        let cost = measure::run(command, pgkeep.spool.path());
        Cost { size: self.s3.objects().into_values().sum::<u64>() as f64, ..cost }
    }
}

/// `gzip` is the size that gzip -6 makes of the dump.
fn report(name: &str, costs: &[Cost], base: &[Cost], gzip: Option<f64>) {
    let cost = middle(costs);
    let megabytes = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
    let size = if cost.size == 0.0 { String::new() } else { megabytes(cost.size) };
    let of_gzip = gzip.map_or(String::new(), |gzip| format!("{:.3} × `gzip -6`", cost.size / gzip));
    println!(
        "| {name} | {:.2} s | {:.2} × | {:.2} s | {:.2} s | {:.2} s | {:.2} s | {} | {} | {size} | {of_gzip} |",
        cost.wall,
        ratio(costs, base),
        cost.pg_dump,
        (cost.cpu - cost.pg_dump).max(0.0),
        cost.postgres,
        cost.s3,
        megabytes(cost.memory),
        megabytes(cost.disk),
    );
}

fn assert_restores(s3: &s3::Server, database: &str) {
    let server = postgres::server();
    let restored = server.database("restored");
    server.restore(&s3.path(&s3.backups().pop().expect("a backup")), &restored);
    assert!(server.text(database) == server.text(&restored), "pg_dump writes the two differently");
    server.psql("postgres", &format!("DROP DATABASE {restored}"));
    println!("pgkeep's backup restores to the same pg_dump text");
}
