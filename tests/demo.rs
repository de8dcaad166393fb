//! `make demo`: a database is backed up to S3, listed, pruned and restored before your eyes, with a
//! throwaway PostgreSQL and a throwaway S3 server. Nothing is left behind.

mod support;

use rustix::process::Signal;
use support::pgkeep::{Outcome, Pgkeep};
use support::postgres::{self, SHOP};
use support::s3;

const DATABASE: &str = "shop";

fn main() {
    say("A throwaway PostgreSQL server and a throwaway S3 server start on free ports");
    let server = postgres::server();
    let s3 = s3::Server::start();
    show(&format!("PostgreSQL on port {}, S3 at {}, bucket {}", server.port, s3.url, s3::BUCKET));

    say("A database with something to see");
    server.create_database(DATABASE);
    server.psql(DATABASE, SHOP);
    show(&server.contents(DATABASE).0);

    say("Backups from last spring wait in the bucket, and a file of somebody else's");
    for name in
        ["shop_2026-04-01_03-00-00.sql.gz", "shop_2026-04-02_03-00-00.sql.gz", "shop_holiday-pictures.zip"]
    {
        s3.plant(&format!("demo/shop/{name}"), b"old");
    }
    objects(&s3);

    let pgkeep = Pgkeep::new(DATABASE, &s3)
        .with("S3_PATH", "demo")
        .with("BACKUP_INTERVAL", "* * * * *")
        .with("BACKUP_RETENTION_DAYS", "14");

    say("pgkeep prune --dry-run: what would go, and why");
    show(&pgkeep.succeed(&["prune", "--dry-run"]).stdout);

    say("pgkeep backup: one backup now; what is older than 14 days goes");
    log(&pgkeep.succeed(&["backup"]));
    objects(&s3);

    say("pgkeep: the schedule '* * * * *' fires at the next full minute");
    let mut daemon = pgkeep.start(&[]);
    daemon.wait_for_log("backup succeeded");
    daemon.wait_for_log("next backup at");
    daemon.signal(Signal::TERM);
    let status = daemon.wait();
    show(&daemon.log());
    assert_eq!(status, 0, "the daemon's exit status");

    say("pgkeep list");
    show(&pgkeep.succeed(&["list"]).stdout);

    say("pgkeep restore latest: into a new database");
    let outcome = pgkeep.succeed(&["restore", "latest", "--database", "shop_restored"]);
    log(&outcome);
    show(&outcome.stdout);
    assert_eq!(
        server.contents(DATABASE),
        server.contents("shop_restored"),
        "the restored database is not the source"
    );

    say("The newest backup, restored without pgkeep: gunzip | psql");
    let newest = s3.backups().pop().expect("a backup");
    server.create_database("restored");
    server.restore(&s3.path(&newest), "restored");
    let (source, restored) = (server.contents(DATABASE), server.contents("restored"));
    show(&format!("{newest} is now the database \"restored\":\n{}", restored.0));
    assert_eq!(source, restored, "the restored database is not the source");
    show("every table has the rows of the source, and pg_dump writes both alike");

    say("Done: the servers stop, and their files go");
}

fn say(title: &str) {
    println!("\n\x1b[1m== {title}\x1b[0m");
}

fn show(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

fn log(outcome: &Outcome) {
    show(&outcome.log);
}

fn objects(s3: &s3::Server) {
    for (key, size) in s3.objects() {
        println!("   {size:>8} bytes  s3://{}/{key}", s3::BUCKET);
    }
}
