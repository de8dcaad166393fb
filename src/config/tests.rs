//! What the environment may contain, and what not.

use super::*;
use std::io::Write;
use std::num::NonZeroUsize;

const GOOD: [(&str, &str); 5] = [
    ("POSTGRES_CONNECTION_STRING", "postgresql://app:hush@db/shop"),
    ("S3_BUCKET", "backups"),
    ("S3_ACCESS_KEY", "key"),
    ("S3_SECRET_KEY", "hushhush"),
    ("BACKUP_INTERVAL", "0 3 * * *"),
];

/// Reads the good configuration with some variables changed. An empty value removes a variable.
pub(super) fn read(changes: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let unchanged = GOOD.iter().filter(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
    let all = changes.iter().chain(unchanged).map(|(name, value)| ((*name).into(), (*value).into()));
    Config::read(Reader::new(all), true)
}

pub(super) fn only_problem(changes: &[(&str, &str)]) -> String {
    let problems = read(changes).err().expect("a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.into_iter().next().unwrap()
}

fn secret_key(config: &Config) -> &str {
    let Credentials::Keys(keys) = &config.s3.credentials else { panic!("no keys") };
    keys.secret_key.expose()
}

#[test]
fn all_that_is_missing_is_reported_at_once() {
    let problems = read(&GOOD.map(|(name, _)| (name, ""))).err().unwrap();
    assert_eq!(problems.len(), 5);
    for (name, _) in GOOD {
        let said = problems.iter().find(|problem| problem.starts_with(name)).expect(name);
        assert!(said.contains("is missing") && said.contains(&format!("for example {name}=")), "{said}");
    }
}

#[test]
fn each_problem_names_its_variable_and_a_right_value() {
    for (name, value, says) in [
        ("S3_URL", "minio:9000", "http://"),
        ("S3_URL", "https://key:hush@host", "contains credentials"),
        ("S3_URL", "nonsense", "is not a URL"),
        ("S3_URL", "http://host/?x", "? or #"),
        ("S3_BUCKET", "my/bucket", "S3_PATH"),
        ("S3_BUCKET", "ab", "3 to 63"),
        ("S3_PATH", "a b", "S3_PATH=production"),
        ("S3_PATH", "a/../b", "single slashes"),
        ("S3_PATH", "a//b", "single slashes"),
        ("S3_ADDRESSING_STYLE", "dns", "path nor virtual"),
        ("S3_CA", "/etc/ca.pem", "S3_CA_FILE names a file"),
        ("S3_CA", "-----BEGIN CERTIFICATE-----\nnonsense", "no certificate"),
        ("S3_REGION", "a b", "for example S3_REGION="),
        ("BACKUP_INTERVAL", "0 0 3 * * *", "no field for seconds"),
        ("BACKUP_INTERVAL", "\"0 3 * * *\"", "quotes around its value"),
        ("BACKUP_RETENTION_DAYS", "0", "from 1"),
        ("BACKUP_RETENTION_DAYS", "7d", "\"7d\""),
        ("BACKUP_RETENTION_DAYS", "-1", "from 1"),
        ("BACKUP_SHRINK_GUARD", "no", "true or false"),
        ("BACKUP_LOCK_TIMEOUT", "5", "BACKUP_LOCK_TIMEOUT=5min"),
        ("BACKUP_LOCK_TIMEOUT", "25h", "24h"),
        ("BACKUP_STALL_TIMEOUT", "0s", "BACKUP_STALL_TIMEOUT=1h"),
        ("BACKUP_PG_BIN", "/nowhere", "no pg_dump"),
        ("BACKUP_ON_START", "yes", "false, true, or missed"),
        ("BACKUP_COMPRESSION_LEVEL", "0", "from 1 to 9"),
        ("BACKUP_COMPRESSION_LEVEL", "10", "BACKUP_COMPRESSION_LEVEL=6"),
        ("BACKUP_THREADS", "two", "whole number"),
        ("BACKUP_DATABASES", "a,,b", "BACKUP_DATABASES='app,shop_*'"),
        ("BACKUP_EXCLUDE_DATABASES", "*_test", "BACKUP_DATABASES is not"),
        ("BACKUP_GLOBALS", "true", "BACKUP_DATABASES is not"),
        ("BACKUP_JOBS", "0", "from 1 to 64"),
        ("S3_UPLOAD_CONCURRENCY", "65", "from 1 to 64"),
        ("BACKUP_HEARTBEAT_URL", "hush", "is not a URL"),
        ("BACKUP_DRILL_HEARTBEAT_URL", "ftp://kuma/hush", "BACKUP_DRILL_HEARTBEAT_URL=https://"),
        ("BACKUP_WEBHOOK_URL", "hooks.slack.com/hush", "BACKUP_WEBHOOK_URL=https://hooks"),
        ("BACKUP_WEBHOOK_URL", "https://ntfy.sh", "names no topic"),
        ("BACKUP_WEBHOOK_EVENTS", "backup_failed,dril_failed", "\"dril_failed\" and not all, or some of"),
        ("BACKUP_WEBHOOK_EVENTS", ",", "names no event"),
        ("BACKUP_WEBHOOK_FORMAT", "slack", "json, text, ntfy, gotify or teams"),
        ("BACKUP_WEBHOOK_HEADERS", "X-A: b\nBearer hush", "no colon in line 2"),
        ("BACKUP_WEBHOOK_HEADERS", "Content-Length: 3", "which pgkeep sets itself"),
        ("BACKUP_WEBHOOK_HEADERS", "ä: hush", "a name in line 1"),
        ("BACKUP_TEMP_DIR", "/nowhere", "not a directory"),
        ("BACKUP_LOG_LEVEL", "loud", "error, warn, info or debug"),
        ("TZ", "Europe/Berlinn", "TZ=Europe/Berlin"),
        ("TZ", "../../etc/passwd", "no time zone"),
        ("POSTGRES_CONNECTION_STRING", "hush", "postgresql://user:password@host"),
    ] {
        let problem = only_problem(&[(name, value)]);
        assert!(problem.starts_with(name) && problem.contains(says), "{name}={value}: {problem}");
        assert!(!problem.contains("hush"), "{problem}");
    }
}

#[test]
fn a_value_can_come_from_a_file_but_not_from_both() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"from the file\r\n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = read(&[("S3_SECRET_KEY", ""), ("S3_SECRET_KEY_FILE", path)]).unwrap();
    assert_eq!(secret_key(&config), "from the file");
    assert!(only_problem(&[("S3_SECRET_KEY_FILE", path)]).contains("S3_SECRET_KEY_FILE too"));
    let missing = only_problem(&[("S3_SECRET_KEY", ""), ("S3_SECRET_KEY_FILE", "/nowhere")]);
    assert!(missing.starts_with("S3_SECRET_KEY_FILE names /nowhere, which cannot be read"), "{missing}");
}

#[test]
fn what_is_around_a_value_is_taken_away_with_a_warning() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let written = |text: &str| std::fs::write(file.path(), text).unwrap();
    for (text, value, warns) in [
        ("hush\n", "hush", None),
        ("hu sh\r\n", "hu sh", Some("S3_SECRET_KEY_FILE has Windows line ends around its value in /")),
        ("\u{feff}hush\n", "hush", Some("S3_SECRET_KEY_FILE has a byte order mark around its value in /")),
        (" hush\n\n", "hush", Some("S3_SECRET_KEY_FILE has white space around its value in /")),
    ] {
        written(text);
        let config = read(&[("S3_SECRET_KEY", ""), ("S3_SECRET_KEY_FILE", path)]).unwrap();
        assert_eq!(secret_key(&config), value);
        assert_eq!(config.warnings.len(), usize::from(warns.is_some()), "{:?}", config.warnings);
        assert!(config.warnings.iter().all(|said| said.starts_with(warns.unwrap())), "{:?}", config.warnings);
    }
    written("eu-central-1");
    let with_end = format!("{path}\r");
    for (name, text) in [
        ("S3_BUCKET", " my-bucket"),
        ("S3_SECRET_KEY", "hush\n"),
        ("POSTGRES_CONNECTION_STRING", "postgresql://app:hush@db/shop "),
        ("S3_ADDRESSING_STYLE", "path\r"),
        ("BACKUP_RETENTION_DAYS", "\u{feff}7"),
        ("TZ", "UTC "),
        ("S3_REGION_FILE", &with_end),
    ] {
        let warnings = read(&[(name, text)]).unwrap_or_else(|problems| panic!("{problems:?}")).warnings;
        let right = warnings.len() == 1 && warnings[0].starts_with(&format!("{name} has "));
        assert!(right && !warnings[0].contains("hush"), "{warnings:?}");
    }
    // The last character of this password is a space.
    let config = read(&[("POSTGRES_CONNECTION_STRING", "dbname=x password=a\\ ")]).unwrap();
    assert_eq!(config.connection.password().unwrap().expose(), "a ");
    // Nothing but white space is nothing.
    assert!(only_problem(&[("S3_BUCKET", " \r\n")]).contains("is missing"));
}

#[test]
fn quotes_are_refused_unless_they_may_be_meant() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(file.path(), "'hush'\n").unwrap();
    let quoted_path = format!("\"{path}\"");
    for (name, text) in [
        ("S3_URL", "\"http://minio:9000\""),
        ("S3_BUCKET", "'backups'"),
        ("POSTGRES_CONNECTION_STRING", "'postgresql://app:hush@db/shop'"),
        ("S3_ACCESS_KEY", "\"hush\""),
        ("S3_SECRET_KEY", "\"hush\""),
        ("S3_REGION_FILE", path),
        ("S3_REGION_FILE", &quoted_path),
    ] {
        let problem = only_problem(&[(name, text)]);
        assert!(problem.starts_with(&format!("{name} has quotes around its value")), "{problem}");
        assert!(problem.contains("take them away") && !problem.contains("hush"), "{problem}");
    }
    // AWS makes no such key. Elsewhere, somebody may have chosen it.
    let config = read(&[("S3_SECRET_KEY", "\"hush\""), ("S3_URL", "http://minio:9000")]).unwrap();
    assert_eq!(secret_key(&config), "\"hush\"");
    let said = config.warnings.join("\n");
    assert!(
        said.starts_with("S3_SECRET_KEY has quotes around its value") && !said.contains("hush"),
        "{said}"
    );
}

#[test]
fn a_file_that_is_no_text_is_named_with_its_variable() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    for (bytes, what) in [
        (&b"\xff\xfeh\0u\0s\0h\0"[..], "UTF-16"),
        (b"h\0u\0s\0h\0", "UTF-16"),
        (b"hush\xe9", "is not UTF-8"),
        (b" \r\n", "is empty"),
    ] {
        std::fs::write(file.path(), bytes).unwrap();
        let problem = only_problem(&[("S3_SECRET_KEY", ""), ("S3_SECRET_KEY_FILE", path)]);
        assert!(problem.starts_with(&format!("S3_SECRET_KEY_FILE names {path}, which")), "{problem}");
        assert!(problem.contains(what) && !problem.contains("hush"), "{problem}");
    }
}

#[test]
fn every_variable_can_come_from_a_file() {
    for Variable { name, .. } in VARIABLES {
        let by_file = format!("{name}_FILE");
        let problem = only_problem(&[(name, ""), (&by_file, "/nowhere")]);
        assert!(problem.starts_with(&by_file), "{problem}");
    }
}

#[test]
fn a_job_has_the_secrets_that_the_files_hold_now() {
    let (file, shutdown) = (tempfile::NamedTempFile::new().unwrap(), Shutdown::default());
    let path = file.path().to_str().unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    write("postgresql://app:first@db/shop");
    let variables = [("POSTGRES_CONNECTION_STRING", ""), ("POSTGRES_CONNECTION_STRING_FILE", path)];
    let config = read(&variables).unwrap();
    let password = |job: &Job| job.connection.password().unwrap().expose().to_owned();
    assert_eq!(password(&config.source_of_now(&shutdown).map(|source| source.job).unwrap()), "first");
    write("postgresql://app:second@db/shop");
    let job = config.source_of_now(&shutdown).map(|source| source.job).unwrap();
    assert_eq!(password(&job), "second");
    assert_eq!(job.redactor.clean("the second hushhush"), "the *** ***");
    let problem =
        || config.source_of_now(&shutdown).map(|source| source.job).err().expect("a problem").to_string();
    write("postgresql://app:second@db/other");
    assert!(problem().contains("another database"), "{}", problem());
    write("postgresql://app:thi@rd@db/shop");
    let said = problem();
    assert!(said.contains("POSTGRES_CONNECTION_STRING cannot be read") && !said.contains("thi@"), "{said}");
    std::fs::remove_file(file.path()).unwrap();
    let said = problem();
    assert!(said.contains(&format!("POSTGRES_CONNECTION_STRING_FILE names {path}, which cannot be read")));
    write("postgresql://app:third@db/shop");
    assert_eq!(password(&config.source_of_now(&shutdown).map(|source| source.job).unwrap()), "third");
}

#[test]
fn several_databases_are_asked_for_from_the_one_of_the_connection_or_from_postgres() {
    let all = ("BACKUP_DATABASES", "*");
    let of = |connection: &str| {
        let config = read(&[all, ("POSTGRES_CONNECTION_STRING", connection)]).unwrap();
        (config.database.clone().unwrap(), config.status_path())
    };
    assert_eq!(of("postgresql://app@db/shop").0, "shop");
    assert_eq!(of("postgresql://app@db").0, "postgres");
    // Another list is another daemon.
    let of_one = read(&[("BACKUP_DATABASES", "a,b")]).unwrap().status_path();
    assert!(of("postgresql://app@db").1 != of_one && of_one != read(&[]).unwrap().status_path());
    let source = |changes: &[(&str, &str)]| read(changes).unwrap().source(&Shutdown::default()).unwrap();
    assert!(source(&[]).several.is_none());
    assert!(source(&[all]).several.unwrap().globals);
    assert!(!source(&[all, ("BACKUP_GLOBALS", "false")]).several.unwrap().globals);
}

#[test]
fn aws_is_reached_by_host_and_others_by_path() {
    let address = |changes: &[(&str, &str)]| read(changes).unwrap().s3.bucket.base_url().to_string();
    assert_eq!(address(&[]), "https://backups.s3.us-east-1.amazonaws.com/");
    assert_eq!(address(&[("S3_REGION", "eu-west-1")]), "https://backups.s3.eu-west-1.amazonaws.com/");
    assert_eq!(address(&[("S3_BUCKET", "a.b")]), "https://s3.us-east-1.amazonaws.com/a.b/");
    assert_eq!(address(&[("S3_URL", "http://minio:9000")]), "http://minio:9000/backups/");
    let style = ("S3_ADDRESSING_STYLE", "virtual");
    assert_eq!(address(&[("S3_URL", "http://minio:9000"), style]), "http://backups.minio:9000/");
    assert!(only_problem(&[("S3_URL", "http://127.0.0.1:9000"), style]).contains("S3_ADDRESSING_STYLE=path"));
}

#[test]
fn the_effective_configuration_shows_no_secret() {
    let config = read(&[
        ("BACKUP_RETENTION", "7"),
        ("BACKUP_HEARTBEAT_URL", "https://hc-ping.com/hush-hush"),
        ("BACKUP_WEBHOOK_URL", "https://me:hush@host:8443/hush?hush=1"),
        ("BACKUP_WEBHOOK_HEADERS", "X-Key: hush"),
    ])
    .unwrap();
    let shown = config.lines.join("\n");
    assert!(shown.contains("BACKUP_WEBHOOK_URL = https://host:8443/***"), "{shown}");
    assert!(shown.contains("BACKUP_WEBHOOK_HEADERS = x-key: ***"), "{shown}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(shown.contains("password=***") && shown.contains("dbname='shop'"), "{shown}");
    assert!(config.warnings[0].starts_with("BACKUP_RETENTION is not a variable"), "{:?}", config.warnings);
}

#[test]
fn a_misspelt_variable_is_named_with_the_one_that_was_meant() {
    for (name, meant) in [
        ("S3_ENDPOINT", "S3_URL"),
        ("S3_PREFIX", "S3_PATH"),
        ("S3_SECRET_KEY_FIL", "S3_SECRET_KEY"),
        ("POSTGRES_URL", "POSTGRES_CONNECTION_STRING"),
        ("POSTGRES_CONECTION_STRING_FILE", "POSTGRES_CONNECTION_STRING"),
        ("BACKUP_RETENTION_DAY", "BACKUP_RETENTION_DAYS"),
        ("BACKUP_SCHEDULE", "BACKUP_INTERVAL"),
    ] {
        let unknown = read(&[(name, "x")]).unwrap().warnings;
        let expected =
            format!("{name} is not a variable of pgkeep and does nothing: did you mean {meant}? pgkeep");
        assert!(unknown.len() == 1 && unknown[0].starts_with(&expected), "{unknown:?}");
    }
    // Not pgkeep's: the variables of PostgreSQL's image, and those that Kubernetes sets for a service.
    for name in ["POSTGRES_PASSWORD", "POSTGRES_USER_FILE", "POSTGRES_SERVICE_HOST", "S3_PORT_9000_TCP_ADDR"]
    {
        assert_eq!(read(&[(name, "x")]).unwrap().warnings, [] as [&str; 0]);
    }
    // In addition to the problem that the typo causes.
    let problems = read(&[("S3_BUCKET", ""), ("S3_BUCKETS", "x")]).err().unwrap();
    assert!(problems.len() == 2 && problems[1].contains("did you mean S3_BUCKET?"), "{problems:?}");
}

#[test]
fn a_schedule_that_is_hardly_meant_is_asked_about() {
    let warnings = read(&[("BACKUP_INTERVAL", "* */6 * * *")]).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("BACKUP_INTERVAL: "), "{warnings:?}");
    assert!(warnings[0].contains("240 times a day") && warnings[0].contains("`0 */6 * * *`"), "{warnings:?}");
}

#[test]
fn a_url_that_already_contains_the_bucket_is_asked_about() {
    for (url, part) in [
        ("https://backups.s3.example.com", "host"),
        ("https://backups.s3.eu-central-1.amazonaws.com", "host"),
        ("https://backups.s3-eu.example.com/", "host"),
        ("https://backups.fra1.digitaloceanspaces.com", "host"),
        ("https://s3.example.com/backups", "path"),
        ("https://example.com/s3/backups/", "path"),
    ] {
        let warnings = read(&[("S3_URL", url)]).unwrap().warnings;
        let expected = format!("S3_URL already contains the bucket in its {part}, ");
        assert!(warnings.len() == 1 && warnings[0].starts_with(&expected), "{url}: {warnings:?}");
    }
    // The same word may mean something else.
    for url in [
        "http://backups:9000",
        "https://backups.example.com",
        "https://s3.backups.com",
        "https://example.com/s3",
    ] {
        assert_eq!(read(&[("S3_URL", url)]).unwrap().warnings, [] as [&str; 0], "{url}");
    }
}

#[test]
fn a_database_has_a_name_as_libpq_finds_it() {
    let name = |text: &str| read(&[("POSTGRES_CONNECTION_STRING", text)]).unwrap().database;
    assert_eq!(name("postgresql://app@db").as_deref(), Some("app"));
    assert_eq!(name("host=db user=app dbname=shop").as_deref(), Some("shop"));
    assert_eq!(name("service=shop dbname=other").as_deref(), Some("other"));
    // Its file may name a database, and wins over the environment.
    assert_eq!(name("service=shop user=app"), None);
    // libpq takes the name of the system's user.
    assert_eq!(name("host=db"), None);
    let set = [("POSTGRES_CONNECTION_STRING", "host=db"), ("PGDATABASE", "shop")];
    assert_eq!(read(&set).unwrap().database.as_deref(), Some("shop"));
    let set = [("POSTGRES_CONNECTION_STRING", "user=app"), ("PGSERVICE", "shop"), ("PGDATABASE", "other")];
    assert_eq!(read(&set).unwrap().database, None);
}

#[test]
fn whatever_is_in_the_files_is_taken_or_refused_and_never_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let seeds =
        ["HUSH", "14", "custom", "https://u:HUSH@h:9000/x", "0 3 * * *\n", "host=h dbname=x password=HUSH"];
    crate::base::fuzz::feed(&seeds, |text| {
        std::fs::write(file.path(), text).unwrap();
        let name = VARIABLES[text.len() % VARIABLES.len()].name;
        let by_file = format!("{name}_FILE");
        // The other variables are no secrets. They are shown so that users can find the mistake.
        let secret = [
            "POSTGRES_CONNECTION_STRING",
            "S3_SECRET_KEY",
            "S3_ACCESS_KEY",
            "S3_SESSION_TOKEN",
            "BACKUP_DRILL_CONNECTION_STRING",
            "BACKUP_HEARTBEAT_URL",
            "BACKUP_DRILL_HEARTBEAT_URL",
            "BACKUP_WEBHOOK_URL",
            "BACKUP_WEBHOOK_HEADERS",
        ];
        if let Err(problems) = read(&[(name, ""), (&by_file, path)]) {
            let told = problems.join(" ");
            assert!(!secret.contains(&name) || !told.contains("HUSH"), "{told}");
        }
    });
}

#[test]
fn as_many_threads_as_processors_at_most_eight() {
    for (processors, threads) in [(1, 1), (2, 2), (8, 8), (9, 8), (256, 8)] {
        let usual = values::usual_threads(NonZeroUsize::new(processors).unwrap());
        assert_eq!(usual.get(), threads, "{processors}");
    }
}
