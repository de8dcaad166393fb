//! `make bench`: fetching a backup from far away, beside `aws s3 cp`.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use measure::{middle, ratio, rounds, run, Cost};
use support::pgkeep::Pgkeep;
use support::postgres::{self, noise};
use support::proxy::Distance;
use support::s3;

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (server, s3) = (postgres::server(), s3::Server::undisturbed());
    server.create_database("source");
    server.psql("source", &noise(110));
    let pgkeep = Pgkeep::new("source", &s3);
    pgkeep.succeed(&["backup"]);
    let (key, size) = s3.objects().pop_first().expect("a backup");
    println!("\n{:.0} MB of backup\n", size as f64 / 1e6);
    println!("| round trip, speed of a connection | | time | | memory |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for (milliseconds, megabytes) in [(50, 20.0), (100, 20.0), (200, 5.0), (400, 5.0)] {
        let round_trip = Duration::from_millis(milliseconds);
        let url = format!(
            "http://127.0.0.1:{}",
            Distance { round_trip, bytes_per_second: megabytes * 1e6 }.to(s3.port())
        );
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let anew = |command: &dyn Fn() -> std::process::Command| {
            let _ = std::fs::remove_file(&file);
            run(&mut command(), directory.path())
        };
        let aws = || {
            let mut aws = server.client("aws", "source");
            aws.args(["s3", "cp", "--quiet", "--endpoint-url", &url, &format!("s3://{}/{key}", s3::BUCKET)]);
            aws.arg(&file)
                .env("AWS_ACCESS_KEY_ID", s3::ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", s3::SECRET_KEY);
            aws.env("AWS_DEFAULT_REGION", "us-east-1");
            aws
        };
        let far = pgkeep.clone().with("S3_URL", &url);
        let get = || far.command(&["get", "latest", "-o", file.to_str().expect("UTF-8")]);
        let distance = format!("{milliseconds} ms, {megabytes} MB/s");
        let costs = rounds(&[&|| anew(&aws), &|| anew(&get)]);
        report(&distance, "`aws s3 cp`", &costs[0], &costs[0]);
        report(&distance, "**`pgkeep get`**", &costs[1], &costs[0]);
    }
}

fn report(distance: &str, name: &str, costs: &[Cost], base: &[Cost]) {
    let cost = middle(costs);
    println!(
        "| {distance} | {name} | {:.1} s | {:.2} × | {:.0} MB |",
        cost.wall,
        ratio(costs, base),
        cost.memory / 1e6
    );
}
