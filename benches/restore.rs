//! `make bench`: the way back, beside gunzip and psql with the same file on the local disk.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;

use measure::{middle, ratio, rounds, run, Cost, ROUNDS};
use support::pgkeep::Pgkeep;
use support::postgres::{self, documents, events, noise};
use support::s3::{self, Fault};

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (server, s3) = (postgres::server(), s3::Server::undisturbed());
    server.create_database("source");
    [events(2_400_000), documents(900_000), noise(30)]
        .iter()
        .for_each(|sql| drop(server.psql("source", sql)));
    let pgkeep = Pgkeep::new("source", &s3);
    pgkeep.succeed(&["backup"]);
    let key = s3.backups().pop().expect("a backup");
    let file = s3.path(&key).display().to_string();
    let spool = pgkeep.spool.path();
    println!("\n{:.0} MB of backup\n", s3.objects()[&key] as f64 / 1e6);

    let anew = |work: &dyn Fn() -> Cost| {
        server.psql("postgres", "DROP DATABASE IF EXISTS back WITH (FORCE)");
        server.psql("postgres", "CREATE DATABASE back TEMPLATE template0");
        server.psql("postgres", "CHECKPOINT");
        work()
    };
    let shell = |script: &str| {
        let mut command = server.client("sh", "back");
        command.args(["-c", script]);
        command
            .env("PATH", format!("{}:{}", postgres::bin().display(), std::env::var("PATH").expect("PATH")));
        command
    };
    let psql = "psql -Xq -o /dev/null -v ON_ERROR_STOP=1 --single-transaction";
    let by_hand = || run(&mut shell(&format!("gunzip -c {file} | {psql}")), spool);
    let restore = || run(&mut pgkeep.command(&["restore", "latest", "--database", "back"]), spool);
    // Six ranges break in their midst.
    let cut = s3::Server::start();
    let broken = pgkeep.clone().with("S3_URL", &cut.url);
    broken.succeed(&["backup"]);
    let restore_cut = || {
        cut.fail(6, "GET", "/source/source_", Fault::CutAnswer(500_000));
        run(&mut broken.command(&["restore", "latest", "--database", "back"]), spool)
    };
    let costs = rounds(&[&|| anew(&by_hand), &|| anew(&restore), &|| anew(&restore_cut)]);
    println!("| | time | | processor | memory |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    report("`gunzip -c file \\| psql`", &costs[0], &costs[0]);
    report("**`pgkeep restore`**", &costs[1], &costs[0]);
    report("`pgkeep restore`, six of its connections cut", &costs[2], &costs[0]);
    let gets = cut.requests("GET", "/source/source_").len();
    let ranges = cut.objects().into_values().sum::<u64>().div_ceil(1 << 20) as usize;
    assert_eq!(gets, (ranges + 6) * ROUNDS, "what has arrived is not asked for again");
    let (source, restored) = (server.contents("source"), server.contents("back"));
    assert!(source == restored, "the restored database is another one");

    let gunzip = || run(Command::new("gunzip").args(["-t", &file]), spool);
    let costs = rounds(&[&gunzip, &|| run(&mut pgkeep.command(&["verify"]), spool)]);
    report("`gunzip -t file`", &costs[0], &costs[0]);
    report("**`pgkeep verify`**", &costs[1], &costs[0]);
}

fn report(name: &str, costs: &[Cost], base: &[Cost]) {
    let cost = middle(costs);
    println!(
        "| {name} | {:.1} s | {:.2} × | {:.1} s | {:.0} MB |",
        cost.wall,
        ratio(costs, base),
        cost.cpu,
        cost.memory / 1e6
    );
}
