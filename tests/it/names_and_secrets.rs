//! Names and passwords that mean something elsewhere.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::process::Signal;

use crate::backup::assert_restores;
use crate::support::pgkeep::Pgkeep;
use crate::support::postgres::{self, Server, HARD_PASSWORD, PASSWORD, SHOP};
use crate::support::s3;

#[test]
fn a_database_may_have_any_name() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let name = r#"a b'c"d/é\e=f"#;
    server.create_database(name);
    server.psql(name, SHOP);
    Pgkeep::new(name, &s3).succeed(&["backup"]);
    assert_restores(&s3, name);
    let escaped = "a.20b.27c.22d.2f.c3.a9.5ce.3df";
    let key = &s3.backups()[0];
    assert!(key.starts_with(&format!("{escaped}/{escaped}_")), "{key}");
}

#[test]
fn a_password_may_have_any_character_in_both_forms() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let database = server.database("app");
    let literal = HARD_PASSWORD.replace('\'', "''");
    server.psql("postgres", &format!("CREATE ROLE hard LOGIN SUPERUSER PASSWORD '{literal}'"));
    let escaped: String = HARD_PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let quoted = HARD_PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
    for connection in [
        format!("postgresql://hard:{escaped}@127.0.0.1:{}/{database}", server.port),
        format!("postgresql://hard@127.0.0.1:{}/{database}?password={escaped}", server.port),
        format!("host=127.0.0.1 port={} user=hard password='{quoted}' dbname={database}", server.port),
    ] {
        let before = s3.backups().len();
        Pgkeep::new(&database, &s3).with("POSTGRES_CONNECTION_STRING", &connection).succeed(&["backup"]);
        assert_eq!(s3.backups().len(), before + 1, "{connection}");
    }
}

/// Looks into the argument list of every process, again and again, until it is told to stop; answers with those that
/// hold a secret.
fn watch_processes(secrets: [&'static str; 2], stop: &Arc<AtomicBool>) -> JoinHandle<(usize, Vec<String>)> {
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let (mut seen, mut found) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            for process in fs::read_dir("/proc").expect("/proc").flatten() {
                let Ok(line) = fs::read(process.path().join("cmdline")) else { continue };
                let line = String::from_utf8_lossy(&line).into_owned();
                seen += usize::from(line.contains("dbname='canary'"));
                if secrets.iter().any(|secret| line.contains(secret)) {
                    found.push(line);
                }
            }
        }
        (seen, found)
    })
}

/// The harness looks for the secrets of all tests in all that pgkeep says; this one looks everywhere else too.
#[test]
fn a_secret_is_nowhere_but_where_it_was_given() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let secrets = ["canary-in-the-password", "canary-in-the-key"];
    server.create_database("canary");
    server.psql("canary", SHOP);
    server.psql("postgres", &format!("CREATE ROLE canary LOGIN SUPERUSER PASSWORD '{}'", secrets[0]));
    let connection = format!("postgresql://canary:{}@127.0.0.1:{}/canary", secrets[0], server.port);
    let drill = connection.replace(&format!("{}/canary", server.port), &format!("{}/postgres", server.port));
    let pgkeep = Pgkeep::new("canary", &s3)
        .with("POSTGRES_CONNECTION_STRING", &connection)
        .with("BACKUP_DRILL_CONNECTION_STRING", &drill)
        .with("BACKUP_FORMAT", "custom")
        .with("BACKUP_LOG_LEVEL", "debug");
    let directory = tempfile::tempdir().expect("a directory");
    let fetched = directory.path().join("backup");
    let stop = Arc::new(AtomicBool::new(false));
    let watch = watch_processes(secrets, &stop);
    let mut said = Vec::new();
    let mut run = |pgkeep: &Pgkeep, arguments: &[&str], status: Option<i32>| {
        let outcome = pgkeep.run(arguments);
        let text = outcome.stdout + &outcome.log;
        assert!(status.is_none_or(|status| status == outcome.status), "{arguments:?}: {text}");
        said.push((arguments.join(" "), text));
    };
    for arguments in [
        &["check"][..],
        &["backup"],
        &["list", "--all", "--json"],
        &["verify", "--drill"],
        &["restore", "latest", "--jobs", "2", "--database", "canary_restored"],
        &["get", "latest", "-o", fetched.to_str().expect("UTF-8")],
        &["prune"],
    ] {
        run(&pgkeep, arguments, Some(0));
        // Nobody knows this key, nor this address, nor this password; each error says something else.
        run(&pgkeep.clone().with("S3_SECRET_KEY", secrets[1]), arguments, None);
        run(
            &pgkeep.clone().with("S3_SECRET_KEY", secrets[1]).with("S3_ACCESS_KEY", "stranger"),
            arguments,
            None,
        );
        let wrong = connection.replace("canary:", "nobody:");
        run(&pgkeep.clone().with("POSTGRES_CONNECTION_STRING", &wrong), arguments, None);
    }
    // What cannot be read is not repeated.
    for (name, value) in [
        ("POSTGRES_CONNECTION_STRING", format!("postgresql://canary:{}@host:port/x", secrets[0])),
        ("POSTGRES_CONNECTION_STRING", format!("host=h password='{}", secrets[0])),
        // Not escaped, a piece of it would be a host, a database or a keyword; or all of it is in a part.
        ("POSTGRES_CONNECTION_STRING", format!("postgresql://canary:12@{}@127.0.0.1/canary", secrets[0])),
        ("POSTGRES_CONNECTION_STRING", format!("postgresql://canary:12/{}@127.0.0.1/canary", secrets[0])),
        ("POSTGRES_CONNECTION_STRING", format!("postgresql://canary:12?{}=/@127.0.0.1/canary", secrets[0])),
        ("POSTGRES_CONNECTION_STRING", format!("host=h password=12 {}=x", secrets[0])),
        ("POSTGRES_CONNECTION_STRING", format!("dbname=postgresql://canary:{}@127.0.0.1/canary", secrets[0])),
        ("POSTGRES_CONNECTION_STRING", format!("dbname='host=127.0.0.1 password={}'", secrets[0])),
        ("BACKUP_DRILL_CONNECTION_STRING", format!("postgresql://canary:12/{}@127.0.0.1", secrets[0])),
        ("S3_URL", format!("https://key:{}@host", secrets[1])),
        ("S3_ACCESS_KEY", format!("'{}'", secrets[1])),
        ("HTTP_PROXY", format!("socks5://canary:{}@127.0.0.1", secrets[1])),
        ("HTTP_PROXY", format!("http://canary:12/{}@127.0.0.1", secrets[1])),
        ("S3_CA", secrets[1].to_owned()),
    ] {
        run(&pgkeep.clone().with(name, &value), &["backup"], Some(2));
    }
    // Some store may have such a key.
    run(&pgkeep.clone().with("S3_SECRET_KEY", &format!("'{}'", secrets[1])), &["backup"], Some(1));
    let nested = format!("host=127.0.0.1 password={}", secrets[0]);
    let by_libpq = pgkeep.clone().with("POSTGRES_CONNECTION_STRING", "host=127.0.0.1");
    run(&by_libpq.with("PGDATABASE", &nested), &["backup"], Some(2));
    let mut daemon =
        pgkeep.clone().with("BACKUP_ON_START", "true").with("BACKUP_INTERVAL", "@yearly").start(&["run"]);
    daemon.wait_for_log("no backup at the start");
    let status = pgkeep.spool.path().read_dir().expect("the directory").flatten();
    let status: Vec<String> = status.filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect();
    assert!(!status.is_empty());
    daemon.signal(Signal::TERM);
    daemon.wait();
    said.push(("run".into(), daemon.log()));
    said.push(("the status file".into(), status.concat()));
    stop.store(true, Ordering::Relaxed);
    let (seen, found) = watch.join().expect("the watch");
    assert!(seen > 0, "no process was looked at in time");
    assert_eq!(found, [] as [&str; 0]);
    for key in s3.objects().into_keys() {
        let unpacked =
            Command::new("gunzip").arg("-c").stdin(fs::File::open(s3.path(&key)).expect("it")).output();
        let unpacked = unpacked.expect("gunzip").stdout;
        assert!(unpacked.len() > 1000, "{key}");
        said.push((key.clone(), String::from_utf8_lossy(&unpacked).into_owned()));
        said.push((key.clone(), format!("{:?}", s3.metadata(&key))));
    }
    for (what, text) in said {
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "a secret in {what}: {text}");
    }
}

/// Passwords that are in the database, not pgkeep's own: a statement that fails is shown without them.
#[test]
fn a_statement_that_fails_is_shown_without_the_passwords_in_it() {
    let (server, s3) = (postgres::server(), s3::Server::start());
    let elsewhere = Server::start(postgres::bin());
    elsewhere.psql("postgres", &format!("CREATE ROLE restorer LOGIN CREATEDB PASSWORD '{PASSWORD}'"));
    let to =
        elsewhere.connection("postgres").replace(&format!("password='{PASSWORD}' dbname='postgres'"), "");
    let mapping = "CREATE ROLE far; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
        CREATE USER MAPPING FOR far SERVER s OPTIONS (\"user\" 'CANARY', password 'CANARY')";
    let subscription = "CREATE SUBSCRIPTION s CONNECTION 'host=h password=CANARY' PUBLICATION p
        WITH (connect = false, slot_name = NONE)";
    // Nobody but a superuser may set this.
    let function = "CREATE FUNCTION f() RETURNS text LANGUAGE sql SET log_statement = 'none'
        AS $$ SELECT 'password=' || 'CANARY\n CANARY' $$";
    let refused = "permission denied to set parameter \"log_statement\"";
    for (what, sql, user, reason, shown) in [
        (
            "mapping",
            mapping,
            "postgres",
            "role \"far\" does not exist",
            "CREATE USER MAPPING FOR far SERVER s OPTIONS",
        ),
        (
            "subscription",
            subscription,
            "restorer",
            "create subscription",
            "CREATE SUBSCRIPTION s CONNECTION ***",
        ),
        ("function", function, "restorer", refused, "CREATE FUNCTION public.f()"),
    ] {
        let database = server.database(what);
        server.psql(&database, sql);
        for format in ["plain", "custom"] {
            let pgkeep =
                Pgkeep::new(&database, &s3).with("BACKUP_FORMAT", format).with("PGPASSWORD", PASSWORD);
            pgkeep.succeed(&["backup"]);
            let to = to.replace("user=postgres", &format!("user={user}"));
            // What is recorded would already say which roles are missing.
            let copy = s3.copy_without_metadata(&database);
            let log = pgkeep.with("BACKUP_LOG_LEVEL", "debug").fail(&["restore", &copy, "--to", &to]).log;
            assert!(log.contains(reason) && log.contains(shown), "{what}, {format}: {log}");
            assert!(!log.contains("CANARY"), "{what}, {format}: {log}");
        }
    }
}
