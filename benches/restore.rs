//! `make bench`: the way back, beside gunzip and psql with the same file on the local disk.

mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;

use measure::{median, run, Cost};
use support::pgkeep::Pgkeep;
use support::postgres::{self, noise, DOCUMENTS, EVENTS};
use support::s3::{self, Fault};

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let (server, s3) = (postgres::server(), s3::Server::undisturbed());
    server.create_database("source");
    [EVENTS, DOCUMENTS, &noise(30)].iter().for_each(|sql| drop(server.psql("source", sql)));
    let pgkeep = Pgkeep::new("source", &s3);
    pgkeep.succeed(&["backup"]);
    let key = s3.backups().pop().expect("a backup");
    let file = s3.path(&key).display().to_string();
    let spool = pgkeep.spool.path();
    println!("\n{:.0} MB of backup\n", s3.objects()[&key] as f64 / 1e6);

    println!("| | time | | processor | memory |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let anew = |work: &mut dyn FnMut() -> Cost| {
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
    let base = median(|| anew(&mut || run(&mut shell(&format!("gunzip -c {file} | {psql}")), spool)));
    report("`gunzip -c file \\| psql`", base, base);
    let restore = || run(&mut pgkeep.command(&["restore", "latest", "--database", "back"]), spool);
    report("**`pgkeep restore`**", median(|| anew(&mut || restore())), base);
    // Six ranges break in their midst.
    let cut = s3::Server::start();
    let broken = pgkeep.clone().with("S3_URL", &cut.url);
    broken.succeed(&["backup"]);
    let restore_cut = || {
        cut.fail(6, "GET", "/source/source_", Fault::CutAnswer(500_000));
        run(&mut broken.command(&["restore", "latest", "--database", "back"]), spool)
    };
    let cost = median(|| anew(&mut || restore_cut()));
    report("`pgkeep restore`, six of its connections cut", cost, base);
    let gets = cut.requests("GET", "/source/source_").len();
    let ranges = cut.objects().into_values().sum::<u64>().div_ceil(1 << 20) as usize;
    assert_eq!(gets, (ranges + 6) * measure::RUNS, "what has arrived is not asked for again");
    let (source, restored) = (server.contents("source"), server.contents("back"));
    assert!(source == restored, "the restored database is another one");

    let gunzip = || Command::new("gunzip");
    let base = median(|| run(gunzip().args(["-t", &file]), spool));
    report("`gunzip -t file`", base, base);
    report("**`pgkeep verify`**", median(|| run(&mut pgkeep.command(&["verify"]), spool)), base);
}

fn report(name: &str, cost: Cost, base: Cost) {
    println!(
        "| {name} | {:.1} s | {:.2} × | {:.1} s | {:.0} MB |",
        cost.wall,
        cost.wall / base.wall,
        cost.cpu,
        cost.memory / 1e6
    );
}
