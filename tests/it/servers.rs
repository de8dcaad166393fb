//! `make test-servers`: pgkeep against S3 servers that nobody here wrote, each test on each of them.
//!
//! What one of them does unlike the others is said where it matters.

use std::fs;
use std::io::Read;

use flate2::read::MultiGzDecoder;

use crate::support::postgres::{self, noise, wrapped_pg_dump, SHOP};
use crate::support::servers::{Damage, Kind, Place};
use crate::two::Pair;

/// Each test with each server, so that the name of one that fails says what and where.
macro_rules! on_each_server {
    ($($test:ident)*) => {
        on_each_server! { @ s3s_fs S3sFs $($test)* }
        on_each_server! { @ seaweedfs SeaweedFs $($test)* }
        on_each_server! { @ swift Swift $($test)* }
    };
    (@ $module:ident $kind:ident $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                #[ignore = "make test-servers"]
                fn $test() {
                    super::$test(crate::support::servers::Kind::$kind);
                }
            )*
        }
    };
}

on_each_server! {
    check_finds_nothing_wrong
    a_wrong_key_is_refused_and_told
    a_bucket_that_is_not_there_is_told
    a_backup_of_one_part_goes_there_and_back
    a_backup_of_several_parts_goes_there_and_back
    a_database_of_any_name_goes_there_and_back
    a_backup_that_fails_leaves_neither_object_nor_upload
    an_upload_under_way_is_seen_and_left_alone
    prune_deletes_what_expired_and_leaves_strangers_alone
    more_than_a_page_of_backups_is_listed
    what_is_no_backup_is_told
    a_byte_that_arrives_changed_is_sent_again
    a_download_that_is_cut_off_goes_on
    what_arrives_is_checked
    two_backups_at_once_do_each_other_no_harm
}

/// A database with a shop, and its name.
fn shop() -> String {
    let server = postgres::server();
    let database = server.database("shop");
    server.psql(&database, SHOP);
    database
}

/// One of 34 MB, which are three parts.
fn large() -> String {
    let server = postgres::server();
    let database = server.database("large");
    server.psql(&database, &noise(34));
    database
}

fn check_finds_nothing_wrong(kind: Kind) {
    let place = Place::new(kind);
    let report = place.pgkeep(&shop()).succeed(&["check"]).stdout;
    for line in ["ok       S3: reached, and the clocks agree", "S3 list: 0 backups", "S3 get: the same bytes"]
    {
        assert!(report.contains(line), "{line}: {report}");
    }
    assert!(report.contains("S3 multipart upload: begun and given up"), "{report}");
    assert!(report.contains("nothing would fail tonight"), "{report}");
    assert_eq!(place.keys(), [] as [&str; 0]);
}

/// The others ignore both, or refuse them.
#[test]
#[ignore = "make test-servers"]
fn a_store_that_knows_classes_and_tags_keeps_them() {
    let place = Place::new(Kind::SeaweedFs);
    for database in [shop(), large()] {
        let pgkeep = place.pgkeep(&database).with("S3_STORAGE_CLASS", "STANDARD_IA");
        let pgkeep = pgkeep.with("S3_PART_SIZE", "5MiB");
        let pgkeep = pgkeep.with("S3_TAGS", "team=data @ home&costs=a/b+c");
        pgkeep.succeed(&["check"]);
        pgkeep.succeed(&["backup"]);
        let keys = place.keys();
        let key = keys.iter().find(|key| key.starts_with(&database)).expect("a backup");
        let head = place.head(key);
        assert_eq!(head.headers.get("x-amz-storage-class").expect("a class"), "STANDARD_IA");
        let tags = place.tags(key);
        for (name, value) in [("team", "data @ home"), ("costs", "a/b+c")] {
            assert!(tags.contains(&format!("<Key>{name}</Key><Value>{value}</Value>")), "{tags}");
        }
        pgkeep.succeed(&["verify"]);
    }
}

fn a_wrong_key_is_refused_and_told(kind: Kind) {
    let place = Place::new(kind);
    let database = shop();
    let refused = "403 SignatureDoesNotMatch: ";
    let wrong = place.pgkeep(&database).with("S3_SECRET_KEY", "not-the-one");
    for command in ["list", "backup", "prune", "verify"] {
        let log = wrong.fail(&[command]).log;
        assert!(log.contains("ListObjectsV2 s3://") && log.contains(refused), "{command}: {log}");
        assert!(!log.contains("try 1 of 5"), "{log}");
    }
    let report = wrong.fail(&["check"]).stdout;
    assert!(report.contains(refused) && report.contains("see S3_SECRET_KEY"), "{report}");

    let nobody = place.pgkeep(&database).with("S3_ACCESS_KEY", "NOBODY").fail(&["list"]).log;
    let refused = match kind {
        Kind::S3sFs => "403 NotSignedUp: ",
        Kind::SeaweedFs => "403 InvalidAccessKeyId: ",
        Kind::Swift => refused,
    };
    assert!(nobody.contains(refused), "{nobody}");
    let report = place.pgkeep(&database).with("S3_REGION", "eu-central-1").run(&["check"]);
    match kind {
        Kind::Swift => {
            assert!(report.status == 1 && report.stdout.contains("; see S3_REGION"), "{}", report.stdout)
        }
        // The others take a signature for any region.
        _ => assert_eq!(report.status, 0, "{}", report.stdout),
    }
    assert_eq!(place.keys(), [] as [&str; 0]);
}

fn a_bucket_that_is_not_there_is_told(kind: Kind) {
    let place = Place::new(kind);
    let pgkeep = place.pgkeep(&shop()).with("S3_BUCKET", "nowhere");
    for command in ["list", "backup", "prune", "verify"] {
        let log = pgkeep.fail(&[command]).log;
        assert!(log.contains("ListObjectsV2 s3://nowhere/") && log.contains("404 NoSuchBucket: "), "{log}");
    }
    let report = pgkeep.fail(&["check"]).stdout;
    assert!(report.contains("see S3_BUCKET, or make the bucket"), "{report}");
}

fn a_backup_of_one_part_goes_there_and_back(kind: Kind) {
    let place = Place::new(kind);
    let key = there_and_back(&place, &shop(), "plain");
    assert!(place.metadata(&key).contains_key("dumped-bytes"));
}

fn a_backup_of_several_parts_goes_there_and_back(kind: Kind) {
    let place = Place::new(kind);
    let key = there_and_back(&place, &large(), "custom");
    let etag = place.head(&key).headers["etag"].to_str().expect("ASCII").to_owned();
    // s3s-fs names an object by its bytes alone.
    assert!(kind == Kind::S3sFs || etag.trim_matches('"').ends_with("-3"), "{etag}");
}

fn a_database_of_any_name_goes_there_and_back(kind: Kind) {
    let place = Place::new(kind);
    let (server, name) = (postgres::server(), format!("Zoë's + 1%2B/{kind:?}"));
    server.create_database(&name);
    server.psql(&name, SHOP);
    let key = there_and_back(&place, &name, "plain");
    assert!(key.contains("/Zo.c3.ab.27s.20.2b.201.252B.2f"), "{key}");
    // In a path such characters would be everybody's trouble: gunzip | psql, other tools, other servers.
    for path in ["a+b", "a b", "é"] {
        let refused = place.pgkeep(&name).with("S3_PATH", path).run(&["list"]);
        assert!(
            refused.status == 2 && refused.log.contains("S3_PATH may only have letters"),
            "{}",
            refused.log
        );
    }
}

/// Backs up, and does with the backup all that can be done. Its key.
fn there_and_back(place: &Place, database: &str, format: &str) -> String {
    let server = postgres::server();
    let pgkeep = place.pgkeep(database).with("S3_PATH", "deep/er").with("BACKUP_FORMAT", format);
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("backup succeeded") && !log.contains("WARN"), "{log}");
    let keys = place.keys();
    let [key] = keys.as_slice() else { panic!("{keys:?}") };
    let listed = pgkeep.succeed(&["list", "--json"]).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed[0]["key"], listed.as_array().map(Vec::len)), (&key.as_str().into(), Some(1)));
    assert_eq!(listed[0]["database"], database);

    let log = pgkeep.succeed(&["verify"]).log;
    assert!(log.contains(&format!("{key} is whole")), "{log}");
    let metadata = place.metadata(key);
    for name in ["pgkeep-version", "database", "server-version", "client-version"] {
        assert!(metadata.get(name).is_some_and(|value| !value.is_empty()), "{name}: {metadata:?}");
    }
    assert!(key.contains(&format!("/{}/", metadata["database"])), "{metadata:?}");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("fetched");
    pgkeep.succeed(&["get", "latest", "-o", file.to_str().expect("UTF-8")]);
    let fetched = fs::metadata(&file).expect("the file").len();
    assert_eq!(listed[0]["size"], fetched);
    let mut dump = Vec::new();
    let opened = fs::File::open(&file).expect("the file");
    MultiGzDecoder::new(opened).read_to_end(&mut dump).expect("gzip");
    assert_eq!(dump.starts_with(b"PGDMP"), format == "custom");

    let restored = server.database("unused") + "r";
    for which in [key, &format!("s3://{}/{key}", place.name)] {
        pgkeep.succeed(&["restore", which, "--database", &restored]);
        assert!(server.contents(&restored) == server.contents(database), "{database}");
        server.psql("postgres", &format!("DROP DATABASE \"{restored}\""));
    }
    key.clone()
}

fn a_backup_that_fails_leaves_neither_object_nor_upload(kind: Kind) {
    let place = Place::new(kind);
    let bin = wrapped_pg_dump("head -c 40000000 /dev/urandom; echo 'out of luck' >&2; exit 1");
    let pgkeep = place.pgkeep(&shop()).with("BACKUP_PG_BIN", bin.path().to_str().expect("UTF-8"));
    let log = pgkeep.with("BACKUP_LOG_LEVEL", "debug").fail(&["backup"]).log;
    assert!(log.contains("out of luck"), "{log}");
    assert!(log.contains("CreateMultipartUpload") && log.contains("AbortMultipartUpload"), "{log}");
    assert_eq!(place.keys(), [] as [&str; 0]);
    let uploads = place.uploads();
    match kind {
        Kind::S3sFs => assert_eq!(uploads.status, 501, "{uploads:?}"),
        _ => assert!(uploads.status == 200 && !uploads.body.contains("<Upload>"), "{uploads:?}"),
    }
}

fn an_upload_under_way_is_seen_and_left_alone(kind: Kind) {
    let place = Place::new(kind);
    let database = shop();
    let key = |name: &str| format!("{name}/{name}_2026-01-01_00-00-00.sql.gz");
    // Beside the database's own, one of another database's and one of a stranger's.
    let keys = [key(&database), key("other"), format!("{database}/{database}_a + b%20é.mp4")];
    let uploads = keys.each_ref().map(|key| place.begin_upload(key));
    let pgkeep = place.pgkeep(&database).with("BACKUP_LOG_LEVEL", "debug");
    let log = pgkeep.succeed(&["backup"]).log;
    match kind {
        Kind::S3sFs => assert!(log.contains("unfinished uploads are not looked for: ListMultipart"), "{log}"),
        _ => assert!(!log.contains("not looked for") && log.contains("ListMultipartUploads s3://"), "{log}"),
    }
    place.keys().iter().for_each(|key| drop(place.delete(key)));
    // A daemon takes it for one that was broken off, and waits.
    let daemon = pgkeep.with("BACKUP_INTERVAL", "@yearly").with("BACKUP_ON_START", "true").start(&["run"]);
    match kind {
        Kind::S3sFs => daemon.wait_for_log("backup succeeded"),
        _ => daemon.wait_for_log("no backup at the start: "),
    };
    // All are younger than a day, and go on.
    for (key, upload) in keys.iter().zip(&uploads) {
        let part = place.upload_part(key, upload, b"still there", None);
        assert_eq!(part.status, 200, "{key}: {part:?}");
        let etag = part.headers["etag"].to_str().expect("ASCII");
        let completed = place.complete_upload(key, upload, etag);
        assert!(completed.status == 200 && place.has(key), "{key}: {completed:?}");
    }
}

fn prune_deletes_what_expired_and_leaves_strangers_alone(kind: Kind) {
    let place = Place::new(kind);
    let database = shop();
    let prefix = format!("b/{database}/{database}_");
    let day = chrono::Utc::now() - chrono::TimeDelta::days(2);
    let young = format!("{prefix}{}.sql.gz", day.format("%Y-%m-%d_%H-%M-%S"));
    let expired =
        ["2020-01-01_00-00-00.sql.gz", "2020-01-02_00-00-00.dump.gz"].map(|end| format!("{prefix}{end}"));
    // What is an expired backup's name but for a mistake in reading it, and what is hard to read.
    let within = [
        "2020-01-01_00-00-00.sql.gz ",
        "2020-01-01 00-00-00.sql.gz",
        "2020-01-01+00-00-00.sql.gz",
        "2020-01-01_00-00-00.sql.gz+",
        "2020-01-03_00-00-00.sql.gz/x",
        " ",
        "+",
        "a + b",
        "é",
        "e\u{301}",
        "🐘 <&>\"'",
        "~!*()=:,;@$^[]{}|`#?",
    ];
    let beside = [
        format!("b/{database}+/{database}+_2020-01-01_00-00-00.sql.gz"),
        format!("b/{database} /{database} _2020-01-01_00-00-00.sql.gz"),
        format!("b+/{database}/{database}_2020-01-01_00-00-00.sql.gz"),
        format!("b/é/{database}_2020-01-01_00-00-00.sql.gz"),
        "+".to_owned(),
    ];
    let mut strangers: Vec<String> =
        within.iter().map(|end| format!("{prefix}{end}")).chain(beside).collect();
    // s3s-fs says that it encodes the keys of a listing and does not, so that they are decoded once too often.
    if kind != Kind::S3sFs {
        strangers.extend(["2020-01-04%5F00-00-00.sql.gz", "a%20b%2Bc"].map(|end| format!("{prefix}{end}")));
    }
    place.plant(&[&expired[..], &strangers, std::slice::from_ref(&young)].concat());
    let pgkeep = place.pgkeep(&database).with("S3_PATH", "b").with("BACKUP_RETENTION_DAYS", "30");
    let listed = pgkeep.succeed(&["list"]).stdout;
    assert!(listed.contains("\n3 backups of database "), "{listed}");
    let plan = pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.contains("1 backup would be kept, 2 deleted; nothing was done"), "{plan}");
    assert!(expired.iter().all(|key| place.has(key)));

    pgkeep.succeed(&["prune"]);
    assert_eq!(expired.iter().filter(|key| place.has(key)).count(), 0);
    let gone: Vec<&String> = strangers.iter().chain([&young]).filter(|key| !place.has(key)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    assert_eq!(place.keys().len(), strangers.len() + 1);
    // The newest is the next one, whatever is beside it.
    let log = pgkeep.succeed(&["backup"]).log;
    assert!(log.contains("2 backups kept, 0 deleted"), "{log}");
    let log = pgkeep.succeed(&["verify", "latest"]).log;
    assert!(log.contains("is whole"), "{log}");
}

fn more_than_a_page_of_backups_is_listed(kind: Kind) {
    let place = Place::new(kind);
    let name = |n: u32| format!("2021-{:02}-{:02}_{:02}-00-00", 1 + n / 672, 1 + n / 24 % 28, n % 24);
    let keys: Vec<String> = (0..1_005).map(|n| format!("b/app/app_{}.sql.gz", name(n))).collect();
    place.plant(&keys);
    let pgkeep = place.pgkeep("app").with("S3_PATH", "b").with("BACKUP_RETENTION_DAYS", "30");
    let json = pgkeep.succeed(&["list", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let listed: Vec<&str> =
        json.as_array().expect("a list").iter().filter_map(|b| b["key"].as_str()).collect();
    assert!(listed == keys, "{} listed", listed.len());
    let plan = pgkeep.succeed(&["prune", "--dry-run"]).stdout;
    assert!(plan.ends_with("1 backup would be kept, 1004 deleted; nothing was done\n"), "{plan}");
    let all = pgkeep.succeed(&["list", "--all"]).stdout;
    assert!(all.contains("1005 backups of 1 database at "), "{all}");
}

fn what_is_no_backup_is_told(kind: Kind) {
    let place = Place::new(kind);
    let database = shop();
    let key = |end: &str| format!("{database}/{database}_{end}");
    let pgkeep = place.pgkeep(&database);
    let log = pgkeep.fail(&["restore", &key("2026-01-01_00-00-00.sql.gz")]).log;
    assert!(log.contains("2026-01-01_00-00-00.sql.gz is no backup of pgkeep's"), "{log}");
    let log = pgkeep.fail(&["restore", "latest"]).log;
    assert!(log.contains("there is no backup of database"), "{log}");
    for (end, said) in [
        ("notes.gz", "is no backup of pgkeep's"),
        ("a + é.gz", "is no backup of pgkeep's"),
        // Its name is ours, and its bytes are not.
        ("2026-01-01_00-00-00.sql.gz", "the object is no gzip file"),
    ] {
        let key = key(end);
        assert_eq!(place.put(&key, b"just a text").status, 200);
        let file = pgkeep.spool.path().join("fetched");
        for command in [
            &["verify", &key] as &[&str],
            &["get", &key, "-o", file.to_str().expect("UTF-8")],
            &["restore", &key],
        ] {
            let log = pgkeep.fail(command).log;
            assert!(log.contains(said), "{command:?}: {log}");
        }
    }
    let left = postgres::server().psql("postgres", "SELECT datname FROM pg_database");
    assert!(!left.contains(&format!("{database}_restored")), "{left}");
}

fn a_byte_that_arrives_changed_is_sent_again(kind: Kind) {
    let place = Place::new(kind);
    let database = large();
    let log = place.behind(Damage::ChangeRequest(8_000_000)).pgkeep(&database).succeed(&["backup"]).log;
    let seen = match kind {
        // By its ETag, as it takes any Content-MD5.
        Kind::S3sFs => "is not the MD5 of what was sent",
        _ => "400 BadDigest",
    };
    assert!(log.contains("UploadPart ") && log.contains(seen), "{log}");
    let log = place.pgkeep(&database).succeed(&["verify"]).log;
    assert!(log.contains("is whole"), "{log}");
}

fn a_download_that_is_cut_off_goes_on(kind: Kind) {
    let place = Place::new(kind);
    let database = large();
    place.pgkeep(&database).succeed(&["backup"]);
    // Within an answer of a connection that has brought one already.
    let log = place.behind(Damage::CutAnswer(1_500_000)).pgkeep(&database).succeed(&["verify"]).log;
    assert!(log.contains("broken off at byte ") && log.contains("going on from there"), "{log}");
    assert!(log.contains("is whole"), "{log}");
}

fn two_backups_at_once_do_each_other_no_harm(kind: Kind) {
    for (database, rounds) in [(shop(), 5), (large(), 3)] {
        let place = Place::new(kind);
        let pgkeep = place.pgkeep(&database).with("BACKUP_LOG_LEVEL", "debug");
        let mut met = 0;
        for _ in 0..rounds {
            let pair = Pair::run(&pgkeep);
            assert_eq!(place.keys(), pair.keys, "{:#?}", pair.logs);
            for key in &pair.keys {
                pgkeep.succeed(&["verify", key]);
                assert_eq!(place.delete(key).status, 204);
            }
            met += pair.met;
        }
        assert!(met > 0, "{database}");
    }
    // They all know preconditions, and so the loser of a race hears of it at once.
    let place = Place::new(kind);
    assert_eq!([(); 2].map(|()| place.put_new("new").status), [200, 412]);
    let upload = place.begin_upload("new");
    let part = place.upload_part("new", &upload, b"other", None);
    let completed = place.complete_new("new", &upload, part.headers["etag"].to_str().expect("ASCII"));
    assert_eq!(completed.status, 412, "{completed:?}");
}

fn what_arrives_is_checked(kind: Kind) {
    let place = Place::new(kind);
    let (sent, other) = (b"these bytes", b"other bytes");
    let put = place.put_with_md5_of("put", sent, other);
    assert!(put.status == 400 && put.body.contains("<Code>BadDigest</Code>"), "{put:?}");
    assert_eq!(place.has("put"), kind == Kind::S3sFs, "s3s-fs keeps what it refuses");
    let upload = place.begin_upload("parts");
    let part = place.upload_part("parts", &upload, sent, Some(other));
    let good = place.upload_part("parts", &upload, sent, None);
    assert_eq!(good.status, 200, "{good:?}");
    let wrong = format!("\"{}\"", "0".repeat(32));
    let completed = place.complete_upload("parts", &upload, &wrong);
    if kind == Kind::S3sFs {
        // It checks neither, which is why the other tests have a door in front of it.
        assert_eq!((part.status, completed.status), (200, 200), "{part:?} {completed:?}");
    } else {
        assert!(part.status == 400 && part.body.contains("<Code>BadDigest</Code>"), "{part:?}");
        assert!(
            completed.status == 400 && completed.body.contains("<Code>InvalidPart</Code>"),
            "{completed:?}"
        );
        assert!(!place.has("parts"));
    }
}
