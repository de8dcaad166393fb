//! An S3 that fails the way networks and providers do.

use std::time::Instant;

use chrono::{SecondsFormat, TimeDelta, Utc};

use crate::backup::assert_restores;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, noise, SHOP};
use crate::support::proxy::{Harm, Proxy};
use crate::support::s3::{self, Fault};

fn shop(s3: &s3::Server) -> (String, Pgkeep) {
    let server = postgres::server();
    let database = server.database("shop");
    server.psql(&database, SHOP);
    let pgkeep = Pgkeep::new(&database, s3);
    (database, pgkeep)
}

fn large(s3: &s3::Server) -> (String, Pgkeep) {
    let server = postgres::server();
    let database = server.database("large");
    server.psql(&database, &noise(34));
    let pgkeep = Pgkeep::new(&database, s3);
    (database, pgkeep)
}

#[test]
fn a_500_twice_is_tried_again_until_it_goes_well() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = shop(&s3);
    s3.fail(2, "PUT", "", Fault::Answer(500, "InternalError"));
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("try 1 of 5 failed: PutObject s3://backups/"), "{log}");
    assert!(log.contains("500 InternalError: the test's own fault; the next one in"), "{log}");
    assert_eq!(s3.requests("PUT", "").len(), 3);
    assert_restores(&s3, &database);
}

#[test]
fn a_server_that_stays_broken_fails_the_backup_and_the_upload_is_aborted() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = large(&s3);
    s3.fail(100, "PUT", "partNumber=2", Fault::Answer(503, "SlowDown"));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("try 4 of 5 failed"), "{log}");
    let failure = "backup failed: cannot upload the backup: UploadPart 2 of s3://backups/";
    assert!(log.contains(failure) && log.contains("503 SlowDown"), "{log}");
    assert_eq!(s3.requests("PUT", "partNumber=2").len(), 5);
    assert!(s3.objects().is_empty());
    assert_eq!(s3.pending_uploads(), [] as [&str; 0]);
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    // More than the first wait would be.
    s3.fail(1, "PUT", "", Fault::SlowDown(2));
    let started = Instant::now();
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("503 SlowDown: the test's own fault; the next one in 2.0 s"), "{log}");
    assert!(started.elapsed().as_secs() >= 2);
}

#[test]
fn what_cannot_change_is_not_tried_again() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    s3.fail(100, "PUT", "", Fault::Answer(403, "AccessDenied"));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("403 AccessDenied: the test's own fault"), "{log}");
    assert_eq!(s3.requests("PUT", "").len(), 1);
}

#[test]
fn a_connection_cut_inside_a_part_is_tried_again() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = large(&s3);
    s3.fail(1, "PUT", "partNumber=1", Fault::CutInBody);
    s3.fail(1, "PUT", "partNumber=2", Fault::LoseAnswer);
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("UploadPart 1 of s3://") && log.contains("UploadPart 2 of s3://"), "{log}");
    assert_restores(&s3, &database);
}

#[test]
fn a_part_that_arrives_changed_is_sent_again() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = large(&s3);
    // S3 sees it by the Content-MD5; a server that ignores that one is seen through by its ETag.
    s3.fail(1, "PUT", "partNumber=1", Fault::WrongEtag);
    s3.fail(1, "PUT", "partNumber=2", Fault::ChangeBody);
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("is not the MD5 of what was sent") && log.contains("is sent once more"), "{log}");
    assert!(!log.contains("reading back"), "{log}");
    assert!(log.contains("UploadPart 2 of s3://") && log.contains("400 BadDigest"), "{log}");
    assert_restores(&s3, &database);
}

#[test]
fn a_store_whose_etags_are_no_md5s_keeps_its_backups() {
    for (s3, several_parts) in [(s3::Server::start(), false), (s3::Server::start(), true)] {
        let (database, pgkeep) = if several_parts { large(&s3) } else { shop(&s3) };
        for method in ["PUT", "HEAD"] {
            s3.fail(99, method, "", Fault::WrongEtag);
        }
        let log = pgkeep.succeed(&["backup"]).log;
        let said = "this store's ETags are not MD5s: each backup is read back";
        assert!(log.matches(said).count() == 1 && log.contains("reading back s3://backups/"), "{log}");
        assert!(!log.contains("try 1 of 5"), "{log}");
        assert!(!s3.requests("GET", ".sql.gz").is_empty());
        s3.calm();
        assert_restores(&s3, &database);
    }
}

#[test]
fn a_lost_answer_to_the_completion_is_found_out() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = large(&s3);
    s3.fail(1, "POST", "uploadId=", Fault::LoseAnswer);
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("CompleteMultipartUpload"), "{log}");
    assert_restores(&s3, &database);
}

#[test]
fn an_error_within_a_200_is_an_error() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = large(&s3);
    let error = "<Error><Code>AccessDenied</Code><Message>said late</Message></Error>";
    s3.fail(1, "POST", "uploadId=", Fault::Document(error));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("CompleteMultipartUpload") && log.contains("200 AccessDenied: said late"), "{log}");
    assert!(s3.objects().is_empty());
    assert_eq!(s3.pending_uploads(), [] as [&str; 0]);
}

#[test]
fn an_answer_that_is_not_s3s_is_told_as_such() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    s3.fail(1, "GET", "list-type=2", Fault::Document("<html>Welcome!</html>"));
    let log = pgkeep.fail(&["list"]).log;
    assert!(log.contains("ListObjectsV2") && log.contains("cannot read the answer as S3's"), "{log}");
    assert!(log.contains("is S3_URL a console's address"), "{log}");
}

#[test]
fn an_archived_backup_is_told_with_the_line_that_restores_it_from_there() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = shop(&s3);
    pgkeep.succeed(&["backup"]);
    let key = s3.backups().remove(0);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("f");
    s3.fail(99, "GET", ".sql.gz", Fault::Answer(403, "InvalidObjectState"));
    for command in [
        &["verify"] as &[&str],
        &["get", "latest", "-o", file.to_str().expect("UTF-8")],
        &["restore", "latest"],
    ] {
        let log = pgkeep.fail(command).log;
        let line = format!(
            "aws s3api restore-object --endpoint-url '{}/' --region us-east-1 --bucket backups --key {key}",
            s3.url
        );
        assert!(log.contains(&line), "{line}\n{log}");
    }
    let left = postgres::server().psql("postgres", "SELECT datname FROM pg_database");
    assert!(!left.contains(&format!("{database}_")), "{left}");
}

#[test]
fn what_a_proxy_repeats_is_told_in_part_and_without_its_signature() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    for times in [1, 20_000] {
        s3.fail(9, "GET", "list-type=2", Fault::Echo(times));
        let log = pgkeep.fail(&["backup"]).log;
        assert!(log.contains("502 BadGateway: the answer is not S3's: <html>Bad gateway for ***"), "{log}");
        assert!(!log.contains(s3::ACCESS_KEY) && !log.contains("X-Amz"), "{log}");
        assert!(log.len() < 10_000, "{}", log.len());
        s3.calm();
    }
}

#[test]
fn a_key_that_no_listing_can_show_stops_no_backup() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = shop(&s3);
    let day = Utc::now().format("%Y-%m-%d");
    let keys = ["\u{1}", "&#x1;", "<", "%", "\u{ffff}"]
        .map(|odd| format!("{database}/{database}_{day}_00-00-00{odd}.sql.gz"));
    keys.iter().for_each(|key| s3.plant(key, b"somebody else's"));
    pgkeep.succeed(&["backup"]);
    let listed = pgkeep.succeed(&["list"]).stdout;
    assert!(listed.contains("\n1 backup of database "), "{listed}");
    assert_eq!(s3.objects().len(), keys.len() + 1);
}

#[test]
fn a_listing_that_goes_in_a_circle_is_an_error() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                <NextContinuationToken>once more</NextContinuationToken></ListBucketResult>";
    s3.fail(9, "GET", "list-type=2", Fault::Document(page));
    let log = pgkeep.fail(&["list"]).log;
    assert!(log.contains("its pages go in a circle"), "{log}");
    assert_eq!(s3.requests("GET", "list-type=2").len(), 2);
}

#[test]
fn an_abort_that_fails_is_told_with_the_upload_id() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = large(&s3);
    s3.fail(1, "PUT", "partNumber=2", Fault::Answer(403, "AccessDenied"));
    s3.fail(1, "DELETE", "uploadId=", Fault::Answer(403, "AccessDenied"));
    let log = pgkeep.fail(&["backup"]).log;
    let abort = s3.requests("DELETE", "uploadId=");
    let id = abort[0].split("uploadId=").nth(1).expect("the id").split('&').next().expect("the id");
    assert!(log.contains(&format!("the upload {id} could not be aborted")), "{abort:?}\n{log}");
}

#[test]
fn uploads_that_a_crash_left_behind_are_swept_after_a_day() {
    let s3 = s3::Server::start();
    let server = postgres::server();
    server.create_database("swept");
    // This server cannot list uploads, so the list is the test's: stale, fresh, and two strangers'.
    let [stale, fresh] = [25, 23]
        .map(|hours| (Utc::now() - TimeDelta::hours(hours)).to_rfc3339_opts(SecondsFormat::Millis, true));
    let list = format!(
        "<ListMultipartUploadsResult>
        <Upload><Key>swept/swept_2026-01-01_00-00-00.sql.gz</Key><UploadId>stale</UploadId>
            <Initiated>{stale}</Initiated></Upload>
        <Upload><Key>swept/swept_2026-01-02_00-00-00.sql.gz</Key><UploadId>fresh</UploadId>
            <Initiated>{fresh}</Initiated></Upload>
        <Upload><Key>swept/swept_video.mp4</Key><UploadId>stranger</UploadId>
            <Initiated>{stale}</Initiated></Upload>
        <Upload><Key>swept2/swept2_2026-01-01_00-00-00.sql.gz</Key><UploadId>other</UploadId>
            <Initiated>{stale}</Initiated></Upload>
        </ListMultipartUploadsResult>"
    );
    s3.fail(2, "GET", "uploads=", Fault::Document(list.leak()));
    s3.fail(9, "DELETE", "uploadId=", Fault::Answer(404, "NoSuchUpload"));
    // By S3's clock, of which this one is ahead, a day has not passed.
    let there = (Utc::now() - TimeDelta::hours(2)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    s3.fail(1, "HEAD", "/backups/?", Fault::WrongTime(there.leak()));
    Pgkeep::new("swept", &s3).succeed(&["backup"]);
    assert!(s3.requests("DELETE", "uploadId=").is_empty());
    let log = Pgkeep::new("swept", &s3).succeed(&["backup"]).log;
    let aborted = s3.requests("DELETE", "uploadId=");
    assert!(aborted.len() == 1 && aborted[0].contains("uploadId=stale"), "{aborted:?}");
    assert!(log.contains("aborted the upload stale"), "{log}");
}

#[test]
fn a_server_that_is_away_is_told_after_five_tries() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    let away = format!("http://127.0.0.1:{}", crate::support::free_port());
    let started = Instant::now();
    let log = pgkeep.with("S3_URL", &away).fail(&["list"]).log;
    assert!(log.contains("try 4 of 5 failed") && log.contains("Connection refused"), "{log}");
    assert!(started.elapsed().as_secs() >= 5, "the waits grow");
}

#[test]
fn a_lost_answer_to_a_backup_of_one_part_is_found_out() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = shop(&s3);
    s3.fail(1, "PUT", "", Fault::LoseAnswer);
    pgkeep.succeed(&["backup"]);
    // The second try looks first.
    assert_eq!(s3.requests("PUT", "").len(), 1);
    assert_restores(&s3, &database);
    s3.clear();
    // It sees the object too late, and is told that the name is taken: by itself.
    s3.fail(1, "PUT", "", Fault::LoseAnswer);
    s3.fail(1, "HEAD", "", Fault::Spare);
    s3.fail(1, "HEAD", "", Fault::Answer(404, "NoSuchKey"));
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(s3.requests("PUT", "").len() == 3 && !log.contains("another pgkeep"), "{log}");
    assert_restores(&s3, &database);
}

#[test]
fn an_object_that_was_stored_and_is_not_as_it_was_sent_is_taken_back() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = shop(&s3);
    let forbidden = Fault::Answer(403, "AccessDenied");
    // Other bytes are there, and the next try is refused for good.
    let stored = |last_look| {
        s3.calm();
        s3.clear();
        s3.fail(1, "PUT", "", Fault::WrongEtag);
        s3.fail(1, "PUT", "", forbidden);
        s3.fail(1, "HEAD", "", Fault::Spare);
        s3.fail(1, "HEAD", "", Fault::WrongEtag);
        s3.fail(1, "HEAD", "", last_look);
        s3.fail(9, "GET", ".sql.gz", Fault::Whole(b"other bytes"));
    };
    stored(Fault::WrongEtag);
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("S3 stored other bytes than were sent"), "{log}");
    assert!(log.contains("did not acknowledge, was deleted again"), "{log}");
    assert!(s3.objects().is_empty(), "{:?}", s3.objects());
    stored(Fault::WrongEtag);
    s3.fail(1, "DELETE", "", forbidden);
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("is not proven whole, and could not be deleted: DeleteObject"), "{log}");
    stored(forbidden);
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("is not known: HeadObject"), "{log}");
}

#[test]
fn whatever_happens_to_one_connection_the_backup_goes_on() {
    let s3 = s3::Server::start();
    let (database, pgkeep) = shop(&s3);
    let port = s3.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let proxy = Proxy::to(port);
    let pgkeep = pgkeep.with("S3_URL", &format!("http://127.0.0.1:{}", proxy.port));
    for harm in [
        Harm::Drop,
        // Within a head, within a body, within an answer's head and its body.
        Harm::CutUp(100),
        Harm::CutUp(3000),
        Harm::CutDown(20),
        Harm::CutDown(300),
        Harm::HalfClose(0),
        Harm::HalfClose(300),
        Harm::Pause(300),
        Harm::Trickle,
        Harm::Repeat(0),
        Harm::Repeat(500),
    ] {
        proxy.harm(harm);
        let log = pgkeep.succeed(&["backup"]).log;
        assert_eq!(proxy.calm(), [harm], "{log}");
        assert_restores(&s3, &database);
        s3.clear();
    }
}

#[test]
fn an_upload_that_may_not_begin_is_asked_for_once() {
    let s3 = s3::Server::start();
    let (_, pgkeep) = large(&s3);
    // Tried again, so that the other threads have parts by then.
    s3.fail(1, "POST", "uploads=", Fault::SlowDown(2));
    s3.fail(9, "POST", "uploads=", Fault::Answer(403, "AccessDenied"));
    let log = pgkeep.fail(&["backup"]).log;
    assert!(log.contains("cannot begin the upload: CreateMultipartUpload") && log.contains("403"), "{log}");
    assert_eq!(s3.requests("POST", "uploads=").len(), 2, "{log}");
}
