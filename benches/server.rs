//! `make bench-server`: all databases of a server, beside the sum of bare pg_dumps of them; and back on an empty
//! server.

// Contenders that take turns are compared elsewhere.
#[expect(dead_code)]
mod measure;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use measure::{middle, rounds, run, Cost, ROUNDS};
use support::pgkeep::Pgkeep;
use support::postgres::{self, Server};
use support::s3;

/// How many databases, unless PGKEEP_DATABASES says it.
const DATABASES: usize = 200;
const TABLES: &str = "
    CREATE TABLE customers (id serial PRIMARY KEY, name text NOT NULL);
    CREATE TABLE orders (id bigserial PRIMARY KEY, customer int REFERENCES customers, total numeric, note text);
    CREATE INDEX ON orders (customer);
    CREATE TABLE settings (name text PRIMARY KEY, value jsonb);
    INSERT INTO customers (name) SELECT md5(n::text) FROM generate_series(1, 300) n;
    INSERT INTO orders (customer, total, note) SELECT 1 + n % 300, n / 7.0, md5(n::text) FROM generate_series(1, 2000) n;
";

fn main() {
    // `cargo test` runs benches too, to see whether they compile.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let count =
        std::env::var("PGKEEP_DATABASES").ok().and_then(|count| count.parse().ok()).unwrap_or(DATABASES);
    let (server, s3) = (Server::start(postgres::bin()), s3::Server::undisturbed());
    server.psql("template1", TABLES);
    let names: Vec<String> = (1..=count).map(|number| format!("tenant_{number:03}")).collect();
    for name in &names {
        server.psql("postgres", &format!("CREATE ROLE \"{name}\" LOGIN PASSWORD 'x'"));
        server.psql("postgres", &format!("CREATE DATABASE \"{name}\" OWNER \"{name}\""));
    }
    let of = |server: &Server| {
        Pgkeep::new("postgres", &s3)
            .with("POSTGRES_CONNECTION_STRING", &server.connection("postgres"))
            .with("BACKUP_DATABASES", "tenant_*")
    };
    let pgkeep = of(&server);
    let spool = pgkeep.spool.path();
    println!("{count} databases\n\n| | time | | memory |\n| --- | ---: | ---: | ---: |");
    let (mut bare, mut memory) = (0.0, 0.0f64);
    for name in &names {
        let cost = run(&mut server.client("pg_dump", name), spool);
        (bare, memory) = (bare + cost.wall, memory.max(cost.memory));
    }
    let row = |name: &str, wall: f64, memory: f64| {
        println!("| {name} | {wall:.1} s | {:.2} × | {:.0} MB |", wall / bare, memory / 1e6);
    };
    row("`pg_dump >/dev/null` of each", bare, memory);
    let first = pgkeep.clone().with("BACKUP_DATABASES", "tenant_001");
    let size = || s3.objects().into_values().sum::<u64>() as f64;
    let back_up = || Cost { size: size(), ..run(&mut first.command(&["backup"]), spool) };
    let one = middle(&rounds(&[&back_up])[0]);
    row("`pgkeep backup` of one", one.wall, one.memory);
    println!("\n{:.1} MB in the bucket after {ROUNDS} backups of one\n", one.size / 1e6);
    for at_a_time in ["1", "2"] {
        let cost = run(&mut pgkeep.clone().with("BACKUP_JOBS", at_a_time).command(&["backup"]), spool);
        row(&format!("**`pgkeep backup` of all**, `BACKUP_JOBS={at_a_time}`"), cost.wall, cost.memory);
    }
    let empty = Server::start(postgres::bin());
    let back = of(&empty);
    let started = Instant::now();
    let cost = run(&mut back.command(&["restore", "--all"]), back.spool.path());
    row("`pgkeep restore --all`", started.elapsed().as_secs_f64(), cost.memory);
    for name in &names {
        assert!(server.text(name) == empty.text(name), "{name} came back as another one");
    }
    let roles = |server: &Server| {
        let text = server.globals();
        text.lines().filter(|line| !line.starts_with("ALTER ROLE postgres ")).collect::<Vec<_>>().join("\n")
    };
    assert!(roles(&server) == roles(&empty), "the roles came back as others");
}
