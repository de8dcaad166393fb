//! A download is made of ranges, several at a time, and none of them disturbs another.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Crc;
use rustix::process::Signal;

use crate::support::pgkeep::{Outcome, Pgkeep, Running};
use crate::support::postgres::{self, noise};
use crate::support::proxy::{Distance, Harm, Proxy};
use crate::support::s3::{self, Fault};
use crate::support::wait_for;

const RANGE: usize = 1 << 20;
const AT_ONCE: usize = 12;
const KEY: &str = "far/far_2026-11-23_03-00-00.sql.gz";

/// A bucket with one object, which pgkeep takes for a backup.
fn bucket_with(object: &[u8]) -> (s3::Server, Pgkeep) {
    let s3 = s3::Server::start();
    s3.plant(KEY, object);
    let pgkeep = Pgkeep::new("far", &s3);
    (s3, pgkeep)
}

/// A whole backup of exactly this size: RFC 1951, 3.2.4 stores bytes as they are, in blocks of at most 65,535.
fn backup_of(size: usize) -> &'static [u8] {
    let blocks = (size - 18).div_ceil(65_535 + 5);
    let end = b"\n--\n-- PostgreSQL database dump complete\n--\n\n";
    let mut random = fastrand::Rng::with_seed(size as u64);
    let mut dump = vec![0; size - 18 - 5 * blocks];
    random.fill(&mut dump);
    let behind = dump.len() - end.len();
    dump[behind..].copy_from_slice(end);
    let mut object = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut stored = dump.chunks(65_535);
    for number in 1..=blocks {
        let bytes = stored.next().unwrap_or_default();
        let length = bytes.len() as u16;
        object.push(u8::from(number == blocks));
        object.extend(length.to_le_bytes());
        object.extend((!length).to_le_bytes());
        object.extend(bytes);
    }
    let mut sum = Crc::new();
    sum.update(&dump);
    object.extend(sum.sum().to_le_bytes());
    object.extend(sum.amount().to_le_bytes());
    assert_eq!(object.len(), size);
    object.leak()
}

/// What `pgkeep get` makes of the bucket: nothing, where it fails.
fn get(pgkeep: &Pgkeep) -> (Option<Vec<u8>>, Outcome) {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("got");
    let outcome = pgkeep.run(&["get", "latest", "-o", file.to_str().expect("UTF-8")]);
    (fs::read(&file).ok(), outcome)
}

/// The ranges that were asked for, in their order.
fn asked(s3: &s3::Server) -> Vec<(usize, usize)> {
    let range = |request: &String| {
        let (first, last) = request.split(" bytes=").nth(1)?.split(' ').next()?.split_once('-')?;
        Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
    };
    let mut ranges: Vec<_> = s3.requests("GET", KEY).iter().filter_map(range).collect();
    ranges.sort_unstable();
    ranges
}

/// The ranges of an object. Of the first one it is not known yet where the object ends.
fn ranges_of(size: usize) -> Vec<(usize, usize)> {
    let later = (RANGE..size).step_by(RANGE).map(|first| (first, size.min(first + RANGE)));
    [(0, RANGE)].into_iter().chain(later).collect()
}

#[test]
fn whatever_its_size_an_object_arrives_and_each_range_is_asked_for_once() {
    for size in [RANGE - 1, RANGE, RANGE + 1, 5 * RANGE + 7, 20 * RANGE] {
        let object = backup_of(size);
        let (s3, pgkeep) = bucket_with(object);
        let (got, outcome) = get(&pgkeep);
        assert!(got.as_deref() == Some(object), "{size}: {}", outcome.log);
        assert_eq!(asked(&s3), ranges_of(size));
    }
    // An empty object has no range that could be asked for.
    for (object, requests) in [(b"" as &[u8], 2), (b"x", 1)] {
        let (s3, pgkeep) = bucket_with(object);
        let log = pgkeep.fail(&["verify"]).log;
        assert!(log.contains(&format!("the object ends at byte {}", object.len())), "{log}");
        assert_eq!(s3.requests("GET", KEY).len(), requests);
    }
}

#[test]
fn a_range_that_fails_is_tried_again_alone() {
    let object = backup_of(5 * RANGE);
    let (s3, pgkeep) = bucket_with(object);
    s3.fail(2, "GET", "bytes=2097152-", Fault::Answer(503, "SlowDown"));
    let (got, outcome) = get(&pgkeep);
    assert!(got.as_deref() == Some(object), "{}", outcome.log);
    let failed =
        format!("try 2 of 5 failed: GetObject bytes 2097152-3145727 of s3://{}/{KEY}: 503", s3::BUCKET);
    assert!(outcome.log.contains(&failed), "{}", outcome.log);
    let mut expected = [ranges_of(object.len()), vec![(2 * RANGE, 3 * RANGE); 2]].concat();
    expected.sort_unstable();
    assert_eq!(asked(&s3), expected);
    // One that fails for good is named.
    s3.fail(1, "GET", "bytes=3145728-", Fault::Answer(403, "AccessDenied"));
    let (got, Outcome { log, status, .. }) = get(&pgkeep);
    assert!(got.is_none() && status == 1);
    assert!(log.contains("cannot read the backup: GetObject bytes 3145728-4194303 of s3://"), "{log}");
}

#[test]
fn ranges_whose_connections_break_go_on_where_each_of_them_broke() {
    let object = backup_of(6_000_000);
    let (s3, pgkeep) = bucket_with(object);
    s3.fail(1, "GET", "-1048575", Fault::CutAnswer(900_000));
    s3.fail(1, "GET", "-3145727", Fault::CutAnswer(300_000));
    s3.fail(1, "GET", "-5999999", Fault::CutAnswer(500_000));
    // The next try brings nothing at all.
    s3.fail(1, "GET", "-3145727", Fault::CutAnswer(0));
    let (got, Outcome { log, .. }) = get(&pgkeep);
    assert!(got.as_deref() == Some(object), "{log}");
    let mut rests = asked(&s3);
    rests.retain(|range| !ranges_of(object.len()).contains(range));
    let ends: Vec<usize> = rests.iter().map(|(_, end)| *end).collect();
    assert_eq!(ends, [RANGE, 3 * RANGE, 3 * RANGE, object.len()], "{rests:?}");
    assert!(rests.iter().all(|(start, _)| start % RANGE != 0), "{rests:?}");
    let at = rests[1].0;
    let rest = format!("GetObject bytes {at}-3145727 of s3://{}/{KEY}: ", s3::BUCKET);
    assert!(log.contains(&format!("{rest}broken off at byte {at} of 6000000: ")), "{log}");
    assert!(log.contains(&format!("try 1 of 5 failed: {rest}")), "{log}");

    let proxy = Proxy::to(s3.port());
    let pgkeep = pgkeep.with("S3_URL", &format!("http://127.0.0.1:{}", proxy.port));
    (0..4).for_each(|_| proxy.harm(Harm::CutDown(400_000)));
    let (got, Outcome { log, .. }) = get(&pgkeep);
    assert!(got.as_deref() == Some(object), "{log}");
    assert_eq!(proxy.calm(), [Harm::CutDown(400_000); 4], "{log}");
}

#[test]
fn a_connection_is_used_for_many_ranges() {
    let (s3, pgkeep) = bucket_with(backup_of(60 * RANGE));
    let proxy = Proxy::to(s3.port());
    pgkeep.with("S3_URL", &format!("http://127.0.0.1:{}", proxy.port)).succeed(&["verify"]);
    assert!(proxy.connections() <= AT_ONCE + 1, "{}", proxy.connections());
}

/// `pgkeep get` whose output nobody reads, once it has asked for all that it may.
fn unread(s3: &s3::Server, pgkeep: &Pgkeep) -> Child {
    let mut command = pgkeep.command(&["get", "latest", "-o", "-"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("pgkeep");
    wait_for("the first ranges", || (asked(s3).len() >= AT_ONCE).then_some(()));
    child
}

/// Reads its output after all; its log.
fn log_of(child: Child) -> String {
    let output = child.wait_with_output().expect("pgkeep");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn no_more_is_asked_for_than_memory_holds_until_somebody_reads() {
    let (s3, pgkeep) = bucket_with(backup_of(40 * RANGE));
    let mut child = unread(&s3, &pgkeep);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(asked(&s3).len(), AT_ONCE);
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its status");
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let memory: usize = memory.and_then(|kilobytes| kilobytes.parse().ok()).expect("its memory");
    assert!(memory < 32_000, "{memory} kB");
    let mut got = Vec::new();
    child.stdout.take().expect("its output").read_to_end(&mut got).expect("all of it");
    assert!(
        child.wait().expect("its status").success() && got == fs::read(s3.path(KEY)).expect("the object")
    );
}

#[test]
fn an_object_that_is_replaced_meanwhile_is_refused() {
    let replaced = "the object was replaced by another one while it was read";
    let object = backup_of(40 * RANGE);
    let mut other = object.to_vec();
    other.reverse();
    // As large; and so short that some ranges lie behind its end.
    for other in [&other[..], &other[..5 * RANGE]] {
        let (s3, pgkeep) = bucket_with(object);
        let child = unread(&s3, &pgkeep);
        s3.plant(KEY, other);
        let log = log_of(child);
        assert!(log.contains(replaced) && !log.contains("going on"), "{log}");
        let conditions = s3.requests("GET", KEY).iter().filter(|request| request.ends_with('"')).count();
        assert_eq!(conditions, asked(&s3).len() - 1, "all but the first ask for the same object");
    }
    // A server that does not know If-Match.
    let (s3, pgkeep) = bucket_with(object);
    s3.fail(1, "GET", "bytes=2097152-", Fault::WrongEtag);
    let (got, Outcome { log, .. }) = get(&pgkeep);
    assert!(got.is_none() && log.contains(replaced), "{log}");
    // A weak ETag says no more than that: nothing was replaced.
    s3.fail(99, "GET", KEY, Fault::WeakEtag);
    assert!(get(&pgkeep).0.as_deref() == Some(object));
}

#[test]
fn a_server_that_knows_no_ranges_sends_the_whole_object() {
    let object = backup_of(30 * RANGE + 1);
    let (s3, pgkeep) = bucket_with(object);
    let proxy = Proxy::to(s3.port());
    let pgkeep = pgkeep.with("S3_URL", &format!("http://127.0.0.1:{}", proxy.port));
    s3.fail(1, "GET", KEY, Fault::Whole(object));
    let (got, Outcome { log, .. }) = get(&pgkeep);
    assert!(got.as_deref() == Some(object), "{log}");
    assert_eq!(asked(&s3), [(0, RANGE)]);
    // Where its connection breaks, a server that begins anew does not send the rest; one that has learnt ranges does.
    for whole in [2, 1] {
        s3.fail(whole, "GET", KEY, Fault::Whole(object));
        proxy.harm(Harm::CutDown(20_000_000));
        let (got, Outcome { log, .. }) = get(&pgkeep);
        assert_eq!(proxy.calm().len(), 1, "{log}");
        if whole == 1 {
            assert!(got.as_deref() == Some(object), "{log}");
        } else {
            assert!(got.is_none() && log.contains("it sends the range none of"), "{log}");
        }
    }
}

#[test]
fn an_answer_with_other_bytes_than_those_asked_for_is_refused() {
    let object = backup_of(5 * RANGE);
    let (s3, pgkeep) = bucket_with(object);
    for (part, range) in [
        ("bytes=0-", "bytes 0-1048574/5242880"),
        ("bytes=0-", "bytes 1-1048576/5242880"),
        ("bytes=0-", "bytes 0-1048575/*"),
        ("bytes=0-", "bytes */0"),
        ("bytes=2097152-", "bytes 1048576-2097151/5242880"),
        ("bytes=2097152-", "bytes 2097152-3145727/5242881"),
    ] {
        s3.fail(1, "GET", part, Fault::WrongRange(range));
        let (got, Outcome { log, .. }) = get(&pgkeep);
        assert!(got.is_none() && log.contains(&format!("it sends the range {range}")), "{log}");
        assert!(!log.contains("try 1 of 5"), "{log}");
        s3.calm();
    }
}

/// Its threads that fetch ranges.
fn fetching(running: &Running) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", running.pid())).expect("its threads").flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "download").count()
}

#[test]
fn ranges_that_nobody_reads_any_more_end_soon() {
    let mut damaged = backup_of(20 * RANGE).to_vec();
    damaged[0] = 0;
    let (s3, pgkeep) = bucket_with(&damaged);
    s3.plant("far/far_2026-11-24_03-00-00.sql.gz", backup_of(1000));
    // A range takes five seconds, and one never comes.
    let slow = Distance { round_trip: Duration::ZERO, bytes_per_second: 200e3 }.to(s3.port());
    s3.fail(99, "GET", "bytes=1048576-", Fault::Answer(503, "SlowDown"));
    s3.fail(1, "GET", "far_2026-11-24", Fault::Hold(Duration::from_secs(20)));
    let pgkeep = pgkeep.with("S3_URL", &format!("http://127.0.0.1:{slow}"));
    let running = pgkeep.start(&["verify", "--all"]);
    wait_for("its threads", || (fetching(&running) == AT_ONCE).then_some(()));
    running.wait_for_log("is no gzip file");
    let (seen, tries) = (Instant::now(), s3.requests("GET", "bytes=1048576-").len());
    wait_for("their end", || (fetching(&running) == 0).then_some(()));
    assert!(seen.elapsed() < Duration::from_secs(4), "{:?}", seen.elapsed());
    assert_eq!(s3.requests("GET", "bytes=1048576-").len(), tries, "nobody wants it");
    assert_eq!(asked(&s3).len(), AT_ONCE + tries - 1);
}

#[test]
fn a_restore_that_waits_for_a_range_is_stopped_at_once() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("waits");
    server.psql(&database, &noise(4));
    let pgkeep = Pgkeep::new(&database, &s3);
    pgkeep.succeed(&["backup"]);
    s3.fail(1, "GET", "bytes=2097152-", Fault::StopAnswer(1000));
    s3.fail(1, "GET", "bytes=3145728-", Fault::SlowDown(60));
    let mut running = pgkeep.start(&["restore", "latest", "--database", "waiting"]);
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname LIKE 'waiting%' AND query LIKE 'COPY %' AND wait_event = 'ClientRead'";
    wait_for("rows on their way", || (server.psql("postgres", waits).trim() == "1").then_some(()));
    thread::sleep(Duration::from_secs(2));
    let started = Instant::now();
    running.signal(Signal::TERM);
    assert_eq!(running.wait(), 143, "{}", running.log());
    assert!(running.log().contains("was dropped again"), "{}", running.log());
    assert!(running.log().contains("stopped by a signal"), "{}", running.log());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}: {}", started.elapsed(), running.log());
}
