//! The platforms' own answers, and the moments at which keys are asked for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{mpsc, Arc};
use std::thread;

use super::*;

/// What an agent does with its first, second, … request, whose first line it is told.
type Agent = fn(usize, &str) -> String;

/// A keyring for the agent, and the number of requests so far.
fn keyring(role: fn(String) -> Role, agent: Agent) -> (Keyring, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let counter = Arc::clone(&counter);
            thread::spawn(move || {
                let mut reader = BufReader::new(&connection);
                let lines = reader.by_ref().lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let answer = agent(counter.fetch_add(1, Ordering::Relaxed), &head[0]);
                let _ = (&connection).write_all(answer.as_bytes());
            });
        }
    });
    let config = S3Config { credentials: Credentials::Role(role(url)), ..S3Config::of_a_test(9) };
    (Keyring::new(&config), asked)
}

fn container(url: String) -> Role {
    let url = format!("{url}/hush-path").parse().unwrap();
    Role::Container { url, authorization: Authorization::Token(Secret::new("hush-token")) }
}

fn instance(url: String) -> Role {
    Role::Instance { endpoint: url.parse().unwrap() }
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn json(number: usize, minutes: i64) -> String {
    let expires = (Utc::now() + TimeDelta::minutes(minutes)).to_rfc3339();
    answer(
        "200 OK",
        &format!(
            r#"{{"Code":"Success","AccessKeyId":"KEY{number}","SecretAccessKey":"hush{number}","Token":"hush","Expiration":"{expires}"}}"#
        ),
    )
}

/// The id of the key that the next request is signed with.
fn key(keyring: &Keyring) -> std::result::Result<String, String> {
    let current = keyring.current().map(|keys| keys.key().to_owned());
    current.map_err(|fault| match fault {
        Fault::NoCredentials { reason, .. } => reason,
        other => panic!("{other:?}"),
    })
}

fn make_due(keyring: &Keyring) {
    keyring.held().renew_at = DateTime::UNIX_EPOCH;
}

fn make_expired(keyring: &Keyring) {
    make_due(keyring);
    keyring.held().current.as_mut().unwrap().expires = DateTime::UNIX_EPOCH;
}

#[test]
fn keys_are_renewed_some_minutes_ahead_or_at_half_of_a_short_life() {
    let now = Utc::now();
    let after = |minutes: i64| {
        let keys = Keys { access_key: "k".into(), secret_key: Secret::new("s"), session_token: None };
        (Temporary { keys, expires: now + TimeDelta::minutes(minutes) }.renew_at(now) - now).num_minutes()
    };
    assert_eq!([after(360), after(60), after(10), after(4), after(0), after(-60)], [355, 55, 5, 2, 1, 1]);
}

#[test]
fn keys_are_asked_for_once_and_again_when_they_are_due() {
    let (keyring, asked) = keyring(container, |number, _| json(number, 60));
    assert_eq!([key(&keyring), key(&keyring)], ["KEY0", "KEY0"].map(|key| Ok(key.into())));
    make_due(&keyring);
    assert_eq!([key(&keyring), key(&keyring)], ["KEY1", "KEY1"].map(|key| Ok(key.into())));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    // S3 may still repeat the former ones.
    assert_eq!(keyring.redactor().clean("KEY0 hush0 KEY1 hush1 hush"), "*** *** *** *** ***");
}

#[test]
fn a_renewal_that_fails_matters_only_when_the_old_keys_have_expired() {
    let (keyring, asked) = keyring(container, |number, _| match number {
        0 => json(0, 60),
        _ => answer("500 No", r#"{"message":"no hush-token for /hush-path"}"#),
    });
    key(&keyring).unwrap();
    make_due(&keyring);
    assert_eq!([key(&keyring), key(&keyring)], ["KEY0", "KEY0"].map(|key| Ok(key.into())));
    assert_eq!(asked.load(Ordering::Relaxed), 2, "the platform is left alone for a minute");
    make_expired(&keyring);
    let problem = key(&keyring).unwrap_err();
    assert!(
        problem.contains("the container (AWS_CONTAINER_CREDENTIALS_*) at http://127.0.0.1:"),
        "{problem}"
    );
    assert!(problem.ends_with(": it answers 500: no *** for ***"), "{problem}");
}

#[test]
fn many_threads_ask_once() {
    let (keyring, asked) = keyring(container, |number, _| json(number, 60));
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(key(&keyring), Ok("KEY0".into())));
        }
    });
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn nobody_waits_for_a_renewal_while_the_old_keys_are_valid() {
    let (keyring, asked) = keyring(container, |number, _| {
        // The second answer comes only after the client has gone.
        thread::sleep(std::time::Duration::from_secs(if number == 0 { 0 } else { 60 }));
        json(number, 60)
    });
    key(&keyring).unwrap();
    make_due(&keyring);
    let (done, renewed) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| done.send(key(&keyring)).unwrap());
        while asked.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        assert_eq!(key(&keyring), Ok("KEY0".into()));
        assert!(renewed.try_recv().is_err(), "it has waited for the other thread");
    });
    assert_eq!(renewed.recv().unwrap(), Ok("KEY0".into()));
}

#[test]
fn keys_that_come_expired_are_for_s3_to_judge() {
    let (keyring, asked) = keyring(container, |number, _| json(number, -5));
    assert_eq!([key(&keyring), key(&keyring)], ["KEY0", "KEY0"].map(|key| Ok(key.into())));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(keyring.have_expired());
    assert_eq!(key(&keyring), Ok("KEY1".into()));
}

#[test]
fn an_instance_gives_the_keys_of_its_role_for_a_token() {
    let (keyring, _) = keyring(instance, |number, request| match (number, request) {
        (0, "PUT /latest/api/token HTTP/1.1") => answer("200 OK", "hush-token"),
        (1, "GET /latest/meta-data/iam/security-credentials/ HTTP/1.1") => answer("200 OK", "my-role\nother"),
        (2, "GET /latest/meta-data/iam/security-credentials/my-role HTTP/1.1") => json(7, 60),
        _ => answer("404 No", ""),
    });
    assert_eq!(key(&keyring), Ok("KEY7".into()));
}

#[test]
fn what_is_not_credentials_is_told_without_a_word_of_it() {
    type Case = (fn(String) -> Role, Agent, &'static str);
    let cases: [Case; 8] = [
        (container, |_, _| answer("200 OK", "<html>hush</html>"), "it is not JSON"),
        (container, |_, _| answer("200 OK", r#"{"AccessKeyId":"hush"}"#), "it has no SecretAccessKey"),
        (
            container,
            |_, _| json(0, 60).replace("Expiration\":\"2", "Expiration\":\"x"),
            "Expiration is no time",
        ),
        (container, |_, _| json(0, 60).replace("Success", "Failure"), "it says Failure"),
        (container, |_, _| answer("401 No", "no hush-token"), "it answers 401: no ***"),
        (container, |_, _| answer("302 Found", ""), "it answers 302"),
        (instance, |_, _| answer("404 Not Found", ""), "it answers 404"),
        (
            instance,
            |number, _| answer(if number == 0 { "200 OK" } else { "404 No" }, "hush-token"),
            "the instance has no role",
        ),
    ];
    for (role, agent, says) in cases {
        let (keyring, _) = keyring(role, agent);
        let problem = key(&keyring).unwrap_err();
        assert!(problem.contains(says) && !problem.contains("hush"), "{problem}");
    }
}

#[test]
fn an_answer_without_an_end_is_not_read_to_it() {
    let (keyring, _) = keyring(container, |_, _| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}", "x".repeat(1 << 20))
    });
    let problem = key(&keyring).unwrap_err();
    assert!(problem.contains("too long"), "{problem}");
}

#[test]
fn whatever_is_answered_is_credentials_or_refused() {
    let json = r#"{"Code":"Success","AccessKeyId":"k","SecretAccessKey":"HUSH","Token":"HUSH","Expiration":"2026-11-25T01:02:03Z"}"#;
    let xml = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>k</AccessKeyId>\
               <SecretAccessKey>HUSH</SecretAccessKey><SessionToken>HUSH</SessionToken><Expiration>2026-11-25T01:02:03Z\
               </Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    assert!(ask::read_json(json).is_ok() && web_identity::read(xml).is_ok());
    crate::base::fuzz::feed(&[json, xml], |text| {
        drop(ask::read_json(text));
        drop(web_identity::read(text));
    });
}
