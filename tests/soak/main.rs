//! Many backups of databases that change, in a world that fails in one of three: nothing may be lost.
//!
//! `make soak` runs 300 backups, `make test` a few for less than a minute. What happens follows from a seed, which
//! is printed, but for the moments at which processes end. After each backup: what the bucket has under a
//! backup's name restores to the database as it was, what failed left nothing, retention took the expired
//! backup and nothing else, and no file, no process and no descriptor is left.

mod keeper;
mod planted;
#[path = "../support/mod.rs"]
mod support;
mod trouble;

use std::backtrace::Backtrace;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use fastrand::Rng;
use pgkeep::base::logging;
use pgkeep::base::shutdown::Shutdown;
use pgkeep::config::Config;
use pgkeep::jobs::backup;

use keeper::{no_clients, Keeper, Outcome};
use support::postgres::{self, noise, SHOP};
use support::proxy::Proxy;
use support::s3::{self, Fault};
use support::wait_for;
use trouble::{draw, kind, Trouble};

/// What `make test` has time for.
const SHORT: (u32, Duration) = (40, Duration::from_secs(25));
/// An upload that nobody ended is swept after this time; a day elsewhere.
const DAY: Duration = Duration::from_secs(5);
/// Memory at the end may be so much more than after the first ten backups: allocators keep odd pages.
const MEMORY_SLACK: u64 = 1 << 20;

fn main() {
    if env::args().nth(1).as_deref() == Some("worker") {
        return work();
    }
    let number = |name: &str| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let rounds = number("PGKEEP_SOAK");
    let seed = number("PGKEEP_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("soak: seed {seed}");
    let mut soak = Soak::new(seed, rounds.is_some());
    let started = Instant::now();
    let most = rounds.map_or(SHORT.0, |rounds| u32::try_from(rounds).expect("a small number"));
    for round in 1..=most {
        if rounds.is_none() && started.elapsed() > SHORT.1 {
            break;
        }
        soak.round(round);
    }
    soak.end();
}

/// `pgkeep backup` again and again in one process, once for each line of its standard input, as the daemon does
/// it, whose schedule could not fire so often.
fn work() {
    let config = Config::load(false).expect("a configuration");
    let _log = logging::start(config.log_level(), config.log_format());
    // The first stack trace reads the program's debugging information into memory, and keeps it.
    let _ = Backtrace::force_capture().to_string();
    let shutdown = Shutdown::install().expect("signals");
    for _ in io::stdin().lines() {
        let job = config.source_of_now(&shutdown).expect("a job").job;
        println!("{}", backup::run(&job).map_or("failed".into(), |backup| backup.key));
    }
}

/// How rounds of one kind ended.
#[derive(Default)]
struct Tally {
    tried: u32,
    /// Where the fault came in time to be met.
    met: u32,
    whole: u32,
    refused: u32,
}

struct Soak {
    rng: Rng,
    long: bool,
    s3: s3::Server,
    to_s3: Arc<Proxy>,
    to_postgres: Proxy,
    small: Keeper,
    large: Keeper,
    tallies: BTreeMap<String, Tally>,
}

impl Soak {
    fn new(seed: u64, long: bool) -> Self {
        let (server, s3) = (postgres::server(), s3::Server::with_days_of(DAY));
        let port = s3.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let (to_s3, to_postgres) = (Arc::new(Proxy::to(port)), Proxy::to(server.port));
        let small = Keeper::new("small", SHOP, &s3, &to_s3, &to_postgres);
        // More than a part.
        let large = Keeper::new("large", &format!("{SHOP}; {}", noise(20)), &s3, &to_s3, &to_postgres);
        let (rng, tallies) = (Rng::with_seed(seed), BTreeMap::new());
        Soak { rng, long, s3, to_s3, to_postgres, small, large, tallies }
    }

    fn round(&mut self, number: u32) {
        let trouble = (self.rng.u8(..3) == 0).then(|| draw(&mut self.rng, self.long));
        // Parts are of large backups alone, and a dump that is to meet its end has to take a while.
        let large = match trouble {
            Some(Trouble::Request(_, method, part, _)) if method == "POST" || !part.is_empty() => {
                method != "GET"
            }
            Some(Trouble::KillDump(_) | Trouble::KillServer(_) | Trouble::EndConnection(_)) => true,
            _ => self.rng.u8(..4) == 0,
        };
        let change = self.change();
        let server = postgres::server();
        let database = if large { "large" } else { "small" };
        server.psql(database, &change);
        let expected = server.text(database);
        let (expired, stranger) = (
            format!("{database}/{database}_2020-01-01_00-00-00.sql.gz"),
            format!("{database}/{database}_2020-01-01_00-00-00.sql.gz.old"),
        );
        self.s3.plant(&expired, b"an expired backup");
        self.s3.plant(&stranger, b"somebody else's");
        let planted = match trouble {
            Some(Trouble::Planted(what, ago)) => {
                Some(what.put(database, ago, &expected, &self.s3, &mut self.rng))
            }
            _ => None,
        };
        let before = self.s3.objects();
        // The worker's connection of the last time was closed meanwhile, as idle ones are.
        self.to_s3.cut();

        match trouble {
            Some(Trouble::Request(times, method, part, fault)) => self.s3.fail(times, method, part, fault),
            Some(Trouble::Pair(way)) => self.s3.fail(u32::MAX, "", "", Fault::Hold(way)),
            Some(Trouble::Clock(hours)) => {
                let time = Utc::now() + TimeDelta::hours(hours);
                let time = time.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
                self.s3.fail(u32::MAX, "", "", Fault::WrongTime(time.leak()));
            }
            _ => {}
        }
        let keeper = if large { &mut self.large } else { &mut self.small };
        let outcome = match trouble {
            Some(Trouble::Kill(after)) => keeper.kill(after),
            Some(Trouble::Stop(after)) => keeper.stop(after, false),
            Some(Trouble::StopNow(after)) => keeper.stop(after, true),
            Some(Trouble::Pair(_)) => keeper.pair(),
            Some(Trouble::Freeze(peer, thaw)) => keeper.freeze(peer, thaw),
            _ => keeper.run_beside(trouble, &self.to_s3, &self.to_postgres),
        };
        let mut faults = self.s3.calm();
        // Nothing fails for these.
        faults.retain(|fault| !matches!(fault, Fault::Hold(_) | Fault::WrongTime(_)));
        let harms = [self.to_s3.calm(), self.to_postgres.calm()].concat();
        wait_for("PostgreSQL to answer", || server.answers().then_some(()));
        let context = format!("round {number}, {trouble:?} (met {faults:?} {harms:?}):\n{}", outcome.log);

        let new = self.look_into_bucket(&before, &expired, &expected, &outcome, &context);
        let undisturbed = faults.is_empty()
            && harms.is_empty()
            && !matches!(trouble, Some(Trouble::S3Away(..) | Trouble::Clock(_)));
        match &outcome.told {
            Ok(Some(_)) if undisturbed => assert!(!self.s3.objects().contains_key(&expired), "{context}"),
            Ok(None) if matches!(trouble, Some(Trouble::Stop(_))) => assert_eq!(new.len(), 1, "{context}"),
            Err(_) => assert!(
                !matches!(trouble, None | Some(Trouble::Planted(..) | Trouble::Clock(_))),
                "a backup failed for no reason: {context}"
            ),
            _ => {}
        }
        if let Some(Trouble::Clock(_)) = trouble {
            assert!(self.s3.objects().contains_key(&expired), "{expired} went: {context}");
            assert!(outcome.log.contains("this host's clock and S3's differ by "), "{context}");
        }
        // Not the lines of a stack trace.
        let told = |line: &&str| ["[WARN ] ", "[ERROR] "].iter().any(|level| line.contains(level));
        let lines = outcome.log.lines().filter(told).filter(|line| !line.contains("[ERROR]   in "));
        assert!(lines.count() >= faults.len(), "a fault without a line: {context}");
        let keeper = if large { &mut self.large } else { &mut self.small };
        assert_eq!(keeper.pgkeep.left_in_spool(), [] as [&str; 0], "{context}");
        if let Some(object) = planted {
            object.is_refused(keeper, new.first(), &context);
            fs::remove_file(self.s3.path(&object.key)).expect("what was planted");
        }
        wait_for(format!("the end of all processes; {context}"), || {
            no_clients(&self.to_postgres).then_some(())
        });
        if !matches!(
            trouble,
            Some(Trouble::Kill(_) | Trouble::Stop(_) | Trouble::StopNow(_) | Trouble::Freeze(..))
        ) {
            keeper.look_at_worker(&context);
        }
        // The disk of this machine is not the bucket of a provider.
        for key in new.iter().filter(|_| large) {
            fs::remove_file(self.s3.path(key)).expect("the object");
        }

        let met = !faults.is_empty() || !harms.is_empty();
        let kind = trouble.map_or("none".into(), |trouble| kind(trouble, large));
        let tally = self.tallies.entry(kind).or_default();
        tally.tried += 1;
        tally.met += u32::from(
            met || outcome.met
                && !matches!(trouble, Some(Trouble::Request(..) | Trouble::S3(_) | Trouble::Postgres(..))),
        );
        tally.whole += u32::try_from(new.len()).expect("few");
        tally.refused += u32::from(new.is_empty());
        if self.long {
            println!("round {number}: {:?}, {trouble:?}: {}", outcome.told.is_ok(), new.len());
        }
    }

    /// Every new object restores to what the database is; nothing but the expired backup went. Answers with the
    /// new ones.
    fn look_into_bucket(
        &self,
        before: &BTreeMap<String, u64>,
        expired: &String,
        expected: &str,
        outcome: &Outcome,
        context: &str,
    ) -> Vec<String> {
        let server = postgres::server();
        let after = self.s3.objects();
        let new: Vec<String> = after.keys().filter(|key| !before.contains_key(*key)).cloned().collect();
        for key in &new {
            let restored = server.database("restored");
            server.restore(&self.s3.path(key), &restored);
            assert!(server.text(&restored) == expected, "{key} restores to something else: {context}");
            server.psql("postgres", &format!("DROP DATABASE {restored}"));
        }
        let gone: Vec<&String> = before.keys().filter(|key| !after.contains_key(*key)).collect();
        assert!(gone.iter().all(|key| *key == expired), "{gone:?} went: {context}");
        assert!(before.iter().all(|(key, size)| gone.contains(&key) || after[key] == *size), "{context}");
        let told = outcome.told.iter().flatten();
        let mut own: Vec<&String> = told.chain(&outcome.beside).collect();
        own.sort_unstable();
        match &outcome.told {
            // Each that was told, and nothing else.
            _ if !own.is_empty() => assert_eq!(new.iter().collect::<Vec<_>>(), own, "{context}"),
            // Its last words are not heard.
            Ok(_) => assert!(new.len() <= 1, "{new:?} is there: {context}"),
            Err(log) => {
                // S3 could not be asked what it has, or not be told to delete it.
                let told = |line: &str| {
                    line.contains("could not be deleted")
                        || line.contains("HeadObject") && !line.contains("] try ")
                };
                assert!(new.is_empty() || log.lines().any(told), "{new:?} is there: {context}");
                assert!(gone.is_empty(), "{gone:?} went after a failure: {context}");
            }
        }
        new
    }

    /// A change that the next backup has to have.
    fn change(&mut self) -> String {
        let number = self.rng.u32(1..400);
        match self.rng.u8(..5) {
            0 => format!("DELETE FROM orders WHERE id % 400 = {number}"),
            1 => format!("UPDATE orders SET note = note || E'\\n{number}' WHERE id % 400 = {number}"),
            2 => format!("ALTER TABLE customers DROP COLUMN IF EXISTS extra; ALTER TABLE customers ADD extra int DEFAULT {number}"),
            3 => format!("DROP TABLE IF EXISTS t{}; CREATE TABLE t{} AS SELECT generate_series(1, {number}) n", number % 9, number % 9),
            _ => format!("INSERT INTO orders (customer, total) SELECT 1, n FROM generate_series(1, {number}) n"),
        }
    }

    /// What is left at the end, and the table.
    fn end(mut self) {
        println!("| fault | backups | met | whole | refused |\n| --- | ---: | ---: | ---: | ---: |");
        let mut all = Tally::default();
        for (kind, tally) in &self.tallies {
            println!("| {kind} | {} | {} | {} | {} |", tally.tried, tally.met, tally.whole, tally.refused);
            all.tried += tally.tried;
            all.met += tally.met;
            all.whole += tally.whole;
            all.refused += tally.refused;
        }
        println!("| all | {} | {} | {} | {} |", all.tried, all.met, all.whole, all.refused);
        // Of an upload whose id was lost nobody knows but the sweep.
        self.s3.fail(1, "POST", "uploads=", Fault::LoseAnswer);
        self.large.run_beside(None, &self.to_s3, &self.to_postgres);
        assert!(!self.s3.pending_uploads().is_empty(), "the upload was not lost");
        thread::sleep(DAY);
        for keeper in [&mut self.small, &mut self.large] {
            let outcome = keeper.run_beside(None, &self.to_s3, &self.to_postgres);
            assert!(matches!(outcome.told, Ok(Some(_))), "{}", outcome.log);
            keeper.pgkeep.succeed(&["verify", "--all"]);
            keeper.look_at_worker(&outcome.log);
            let (first, last) = keeper.memory.split_at(keeper.memory.len().min(10));
            // Threads come and go, and what the allocator keeps for them goes up and down.
            let first = first.iter().max().expect("a backup");
            let last = last.iter().rev().take(20).min().unwrap_or(first);
            let count = keeper.memory.len();
            println!(
                "{}: {first} bytes of memory in the first 10 backups, {last} in the last of {count}",
                keeper.database
            );
            // Of a program with debugging information each new stack trace keeps some.
            assert!(!self.long || *last <= first + MEMORY_SLACK, "memory grows: {:?}", keeper.memory);
        }
        assert_eq!(self.s3.pending_uploads(), [] as [&str; 0], "uploads outlive the sweep");
        println!("soak: passed, nothing was lost");
    }
}
