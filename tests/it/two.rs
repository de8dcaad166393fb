//! Promise 1 with two pgkeeps that back up the same database to the same place, started at once by mistake.

use std::time::Duration;

use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, SHOP};
use crate::support::s3::{self, Fault, Preconditions};

/// How far away S3 is.
const WAY: Duration = Duration::from_millis(60);
const OTHER: &str = "another pgkeep backs up this database to the same place";

/// What became of two backups that were started at once.
#[derive(Default)]
pub struct Pair {
    /// The keys of those that succeeded, in their order.
    pub keys: Vec<String>,
    /// How many met the other one.
    pub met: usize,
    /// How many failed, because of the other one.
    pub failed: usize,
    pub logs: Vec<String>,
}

impl Pair {
    pub fn run(pgkeep: &Pgkeep) -> Self {
        let mut pair = Pair::default();
        for mut run in [pgkeep.start(&["backup"]), pgkeep.start(&["backup"])] {
            let status = run.wait();
            let log = run.log();
            pair.met += usize::from(log.contains(OTHER));
            if status == 0 {
                let line = log.lines().find(|line| line.contains("backup succeeded")).expect("the line");
                let key = line.split_once("s3://").and_then(|(_, place)| place.split_once('/'));
                let key = key.and_then(|(_, key)| key.split_once(".sql.gz")).expect("its key").0;
                pair.keys.push(format!("{key}.sql.gz"));
            } else {
                assert!(log.contains("backup failed: ") && log.contains(OTHER), "{log}");
                pair.failed += 1;
            }
            pair.logs.push(log);
        }
        pair.keys.sort_unstable();
        pair
    }
}

/// Pairs of backups, each with faults of its own. Each backup that succeeded has a whole object of its own, and there
/// is no other; how many met the other one, and how many failed.
fn pairs(rounds: u32, s3: &s3::Server, content: &str, faults: impl Fn()) -> (usize, usize) {
    let server = postgres::server();
    let database = server.database("two");
    server.psql(&database, content);
    let pgkeep = Pgkeep::new(&database, s3);
    let (mut met, mut failed) = (0, 0);
    for _ in 0..rounds {
        faults();
        let pair = Pair::run(&pgkeep);
        s3.calm();
        assert_eq!(s3.backups(), pair.keys, "{:#?}", pair.logs);
        for key in &pair.keys {
            pgkeep.succeed(&["verify", key]);
        }
        assert_eq!(s3.pending_uploads(), [] as [&str; 0]);
        s3.clear();
        (met, failed) = (met + pair.met, failed + pair.failed);
    }
    (met, failed)
}

#[test]
fn two_backups_of_one_part_get_a_name_each() {
    for preconditions in [Preconditions::Honoured, Preconditions::Ignored] {
        let s3 = s3::Server::with_preconditions(preconditions, true);
        let (met, failed) = pairs(8, &s3, SHOP, || s3.fail(u32::MAX, "", "", Fault::Hold(WAY)));
        assert!(met > 0 && failed == 0, "{preconditions:?}: {met} met, {failed} failed");
    }
}

#[test]
fn of_two_backups_of_several_parts_one_keeps_the_name_and_the_other_says_so() {
    use Preconditions::{Honoured, Ignored};
    for (preconditions, lists_uploads) in [(Honoured, true), (Ignored, true), (Ignored, false)] {
        let s3 = s3::Server::with_preconditions(preconditions, lists_uploads);
        let (met, failed) = pairs(4, &s3, &noise(51), || s3.fail(u32::MAX, "", "", Fault::Hold(WAY)));
        assert!(
            met == failed && failed > 0,
            "{preconditions:?}, {lists_uploads}: {met} met, {failed} failed"
        );
    }
}

#[test]
fn a_backup_that_another_one_replaces_while_it_seems_done_is_no_success() {
    for (content, method, part) in [(SHOP, "PUT", ""), (&noise(34), "POST", "uploadId=")] {
        let s3 = s3::Server::with_preconditions(Preconditions::Ignored, false);
        let (met, _) = pairs(3, &s3, content, || {
            // One is a second behind the other, and does not see the object that takes three.
            s3.fail(1, "HEAD", "", Fault::Hold(Duration::from_secs(1)));
            s3.fail(2, method, part, Fault::Hold(Duration::from_secs(3)));
        });
        assert!(met > 0, "{method}");
    }
}

#[test]
fn a_backup_waits_for_another_that_is_about_to_replace_it() {
    let s3 = s3::Server::with_preconditions(Preconditions::Ignored, true);
    // One has looked for the other's object, found none, and takes long to make its own.
    let (met, failed) =
        pairs(3, &s3, &noise(68), || s3.fail(1, "POST", "uploadId=", Fault::Hold(Duration::from_secs(4))));
    assert!(met == failed && failed > 0, "{met} met, {failed} failed");
}

#[test]
fn a_store_that_refuses_preconditions_gets_backups_without_them() {
    let server = postgres::server();
    for (status, code) in [(501, "NotImplemented"), (400, "InvalidArgument"), (403, "SignatureDoesNotMatch")]
    {
        let s3 = s3::Server::with_preconditions(Preconditions::Refused(status, code), true);
        for (content, requests) in [(SHOP, "PUT"), (&noise(34), "POST")] {
            let database = server.database("refused");
            server.psql(&database, content);
            let log = Pgkeep::new(&database, &s3).succeed(&["backup"]).log;
            assert!(!log.contains("WARN"), "{log}");
            assert!(s3.requests(requests, &database).len() >= 2);
            crate::backup::assert_restores(&s3, &database);
            s3.clear();
        }
    }
}
