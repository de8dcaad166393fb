//! `make bench`: pgkeep beside what people use today, in one run on one machine: the same databases, the same
//! PostgreSQL, the same S3 server. Medians of five, ratios to a bare `pg_dump >/dev/null`; then the proof that
//! what pgkeep uploaded restores to the same rows and the same pg_dump text.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::ops::Add;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::pgkeep::Pgkeep;
use support::postgres::{self, noise, EVENTS};
use support::s3;

const RUNS: usize = 5;
const SAMPLE: Duration = Duration::from_millis(10);

/// About 300 MB of orders as an application's API has them.
const DOCUMENTS: &str = "
    CREATE TABLE documents AS
        SELECT n AS id, now() - n * interval '7 seconds' AS changed, (n * 7919 % 1000000) / 100.0 AS total,
               jsonb_build_object('customer', n % 9973, 'name', 'Customer number ' || n % 9973, 'status',
                   (ARRAY['new', 'paid', 'sent', 'returned'])[1 + n % 4], 'lines', jsonb_build_array(
                       jsonb_build_object('article', n * 31 % 4999, 'count', 1 + n % 5, 'price', n % 97 + 0.99),
                       jsonb_build_object('article', n * 37 % 4999, 'count', 1 + n % 3, 'price', n % 89 + 0.49))) AS document
        FROM generate_series(1, 900000::bigint) n;
    ALTER TABLE documents ADD PRIMARY KEY (id);
    CREATE INDEX ON documents (changed);
";

/// One run of a pipeline.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// Wall time in seconds.
    wall: f64,
    /// Processor time in seconds of all processes of the pipeline; not PostgreSQL's server, nor S3's.
    cpu: f64,
    /// The most that all of them had in memory at a time, in bytes.
    memory: f64,
    /// The most that their temporary files took at a time, in bytes.
    disk: f64,
    /// What was uploaded, in bytes.
    size: f64,
}

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

    /// Runs a command and watches its processes; `object` is how the uploaded one's key ends.
    fn run(&self, command: &mut Command, object: &str) -> Cost {
        let (started, before) = (Instant::now(), children_time());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a command");
        let mut cost = Cost::default();
        let status = loop {
            if let Some(status) = child.try_wait().expect("its status") {
                break status;
            }
            let processes = family(child.id());
            cost.memory = cost.memory.max(processes.iter().map(|pid| resident(*pid)).sum());
            cost.disk = cost.disk.max(self.disk(&processes));
            thread::sleep(SAMPLE);
        };
        cost.wall = started.elapsed().as_secs_f64();
        cost.cpu = children_time() - before;
        assert!(
            status.success(),
            "{}",
            std::io::read_to_string(child.stderr.take().expect("its messages")).unwrap_or_default()
        );
        cost.size = self
            .s3
            .objects()
            .iter()
            .filter(|(key, _)| key.ends_with(object))
            .map(|(_, size)| *size as f64)
            // The sum of none would be -0.
            .fold(0.0, f64::add);
        cost
    }

    /// What files in the directory take, also those without a name that a process has open.
    fn disk(&self, processes: &[u32]) -> f64 {
        let named =
            fs::read_dir(self.directory.path()).expect("the directory").flatten().map(|entry| entry.path());
        let open = processes.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok());
        let unnamed = open.flat_map(|files| files.flatten().map(|file| file.path())).filter(|file| {
            let target = fs::read_link(file).unwrap_or_default();
            target.starts_with(self.directory.path()) && target.to_string_lossy().ends_with(" (deleted)")
        });
        let files: Vec<PathBuf> = named.chain(unnamed).collect();
        files.iter().filter_map(|file| fs::metadata(file).ok()).map(|data| data.blocks() as f64 * 512.0).sum()
    }
}

fn median(run: impl Fn() -> Cost) -> Cost {
    let runs: Vec<Cost> = (0..RUNS).map(|_| run()).collect();
    let middle = |of: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[RUNS / 2]
    };
    Cost {
        wall: middle(|cost| cost.wall),
        cpu: middle(|cost| cost.cpu),
        memory: middle(|cost| cost.memory),
        disk: middle(|cost| cost.disk),
        size: middle(|cost| cost.size),
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

/// A process and all that it has started.
fn family(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|pids| pids.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    children.into_iter().flat_map(family).chain([pid]).collect()
}

/// VmRSS in bytes.
fn resident(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() * 1024.0
}

/// Processor time in seconds of the children that have ended, and of theirs: proc(5).
fn children_time() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc/self/stat");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    // cutime and cstime, in hundredths.
    [13, 14].map(|at: usize| fields[at].parse::<f64>().expect("a number")).iter().sum::<f64>() / 100.0
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
