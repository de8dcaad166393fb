use super::*;

fn read(text: &str) -> (String, Option<String>) {
    let conninfo = Conninfo::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    (conninfo.without_password(), conninfo.password().map(|secret| secret.expose().to_owned()))
}

#[test]
fn uris_are_cut_where_libpq_cuts_them() {
    for (uri, settings, password) in [
        ("postgresql://", "", None),
        ("postgres://db", "host='db'", None),
        (" postgres://db \n", "host='db'", None),
        ("postgresql://app:pw@db:5433/shop", "user='app' host='db' port='5433' dbname='shop'", Some("pw")),
        ("postgresql://app@/shop?host=/run/pg", "user='app' dbname='shop' host='/run/pg'", None),
        ("postgresql://a,b:1/x", "host='a,b' port=',1' dbname='x'", None),
        ("postgresql://[::1]:5/x", "host='::1' port='5' dbname='x'", None),
        ("postgresql://u:first@h/x?password=second", "user='u' host='h' dbname='x'", Some("second")),
        ("postgresql://h/a%20b%27c?ssl=true", r"host='h' dbname='a b\'c' sslmode='require'", None),
        (
            "postgresql://u:p?q#r@h?application_name=x",
            "user='u' host='h' application_name='x'",
            Some("p?q#r"),
        ),
        (
            "postgresql://u:%40%3A%2F%3F%23%25%26%3D%27%22%5C%20@h/x",
            "user='u' host='h' dbname='x'",
            Some(r#"@:/?#%&='"\ "#),
        ),
    ] {
        assert_eq!(read(uri), (settings.to_owned(), password.map(str::to_owned)), "{uri}");
    }
}

#[test]
fn keyword_strings_have_quotes_and_backslashes() {
    for (text, settings, password) in [
        ("host=db  dbname = shop", "host='db' dbname='shop'", None),
        (r"dbname='a b\'c\\' user=a\ b", r"dbname='a b\'c\\' user='a b'", None),
        ("host=db password='' dbname=x", "host='db' dbname='x'", None),
        (r#"password='@:/?#%&=\'"\\ ' host=db"#, "host='db'", Some(r#"@:/?#%&='"\ "#)),
        ("host=a host=b", "host='b'", None),
        (" host=a password=b\\  \n", "host='a'", Some("b ")),
        ("host=a password=b://c", "host='a'", Some("b://c")),
        (
            "host=a password='postgresql://u:p@h/x password=y'",
            "host='a'",
            Some("postgresql://u:p@h/x password=y"),
        ),
    ] {
        assert_eq!(read(text), (settings.to_owned(), password.map(str::to_owned)), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_refused_without_quoting_it() {
    for text in [
        "hush",
        "mysql://u:hush@h/x",
        "postgresql://u:hush%4@h/x",
        "postgresql://u:hush/x@h/y",
        "postgresql://u:a@hush:b@h/x",
        "postgresql://[::1/hush",
        "postgresql://h/x?hush",
        "host=h password='hush",
        "host=h password=my hush",
        "host=h hush secret=x",
        "host=h sslpassword=hush",
        "host=h Hush=x",
        "postgresql://u:hush%00@h",
        "postgresql://u:hush%ff@h",
    ] {
        let problem = Conninfo::parse(text).expect_err(text);
        assert!(!problem.contains("hush"), "{text}: {problem}");
    }
}

/// A piece of the password is where a host, a database or a keyword should be, and those are shown.
#[test]
fn a_password_that_is_not_escaped_is_refused_with_the_remedy() {
    for uri in [
        "postgresql://u:a@hush@h/x",
        "postgresql://u:12/hush@h/x",
        "postgresql://u:/hush@h/x",
        "postgresql://u:a@hush/b@h/x",
        "postgresql://u:a@hush,b@h/x",
        "postgresql://u:a@[::1]@hush/x",
        "postgresql://me@server:12@hush/x",
        "postgresql://u:12?hush=/b@h/x",
        "postgresql://u@h/x?password=a&hush=b",
        "postgresql://u@h%40hush/x",
    ] {
        let problem = Conninfo::parse(uri).expect_err(uri);
        assert!(!problem.contains("hush"), "{uri}: {problem}");
        assert!(problem.contains("%40") && problem.contains("%2F"), "{uri}: {problem}");
    }
    for text in ["host=h password=a hush=b", "host=h password='a'hush=b", "host=u:hush@h", "host=a,u:hush@h"]
    {
        let problem = Conninfo::parse(text).expect_err(text);
        assert!(!problem.contains("hush"), "{text}: {problem}");
    }
    // Whatever a password contains, none of it is ever shown.
    let pieces = ["", "1", "HUSH", "x=HUSH"];
    let marks = ["@", "/", ":", "?", "#", "&", "=", "%", "%41", "[", "]", "'", "\\", " ", ","];
    for (a, b, c) in pieces.iter().flat_map(|a| pieces.iter().flat_map(move |b| pieces.map(|c| (a, b, c)))) {
        for (first, second) in marks.iter().flat_map(|first| marks.map(|second| (first, second))) {
            let password = format!("{a}{first}{b}{second}{c}");
            for uri in [
                format!("postgresql://u:{password}@h:5432/x"),
                format!("postgresql://u:{password}@h/x?sslmode=require"),
                format!("postgresql://u@h/x?password={password}&connect_timeout=3"),
                format!("host=h password={password} dbname=x"),
            ] {
                match Conninfo::parse(&uri) {
                    Ok(conninfo) => assert!(!conninfo.masked().contains("HUSH"), "{uri}"),
                    Err(problem) => assert!(!problem.contains("HUSH"), "{uri}: {problem}"),
                }
            }
        }
    }
}

#[test]
fn a_connection_string_within_another_is_refused() {
    for text in [
        "dbname=postgresql://u:hush@h/x",
        "dbname=' postgres://h/x'",
        "dbname=postgresql://u:hush",
        "dbname='host=x password=hush'",
        "dbname='host=x oauth_client_secret=hush'",
        "dbname='host=x password=hush z'",
        "dbname='password = \\'hush'",
        "host=postgresql://u:hush@h/x",
        "user=https://u:hush@h",
        "postgresql://h/password%3Dhush",
        "postgresql://h/x?dbname=host%3Dx%20password%3Dhush",
    ] {
        let problem = Conninfo::parse(text).expect_err(text);
        assert!(
            !problem.contains("hush") && problem.contains("is a connection string itself"),
            "{text}: {problem}"
        );
    }
    // What is only strange still works.
    for (text, settings) in [
        (r"dbname='a b\'c=d password'", r"dbname='a b\'c=d password'"),
        ("dbname='x=y'", "dbname='x=y'"),
        ("dbname='me@home'", "dbname='me@home'"),
        ("host=@socket,/run/a@b user=me@server", "host='@socket,/run/a@b' user='me@server'"),
        ("postgresql://%40socket/a%40b?user=me@server", "host='@socket' dbname='a@b' user='me@server'"),
        ("service=shop passfile=/run/p@ss", "service='shop' passfile='/run/p@ss'"),
    ] {
        assert_eq!(read(text).0, settings, "{text}");
    }
}

#[test]
fn the_masked_form_hides_the_password() {
    let conninfo = Conninfo::parse("postgresql://u:hush@h/x?password=hush2").unwrap();
    assert_eq!(conninfo.masked(), "user='u' host='h' dbname='x' password=***");
    assert_eq!(format!("{conninfo:?}"), conninfo.masked());
}

fn settings_hold(conninfo: &Conninfo, text: &str) -> bool {
    conninfo.settings.iter().any(|(_, value)| value.contains(text))
}

#[test]
fn whatever_is_given_is_read_or_refused_and_never_told() {
    let seeds = [
        "postgresql://user:HUSH@host:5432/db?sslmode=require&password=HUSH",
        "postgres://u@[::1]:5,[fe80::1]/a%20b",
        r"host=h port=5 user='it\'s' password='HU\\SH' dbname=x",
        "password=HUSH host=h",
    ];
    crate::base::fuzz::feed(&seeds, |text| match Conninfo::parse(text) {
        Ok(conninfo) => {
            // What a child gets is read as the same settings again, and contains no password.
            let again = Conninfo::parse(&format!("{} requiressl=''", conninfo.without_password())).unwrap();
            let settings = again.settings.iter().filter(|(keyword, _)| keyword != "requiressl");
            assert!(settings.eq(conninfo.settings.iter().filter(|(keyword, _)| keyword != "requiressl")));
            // Only if no other setting contains it too, because a keyword was damaged.
            if !settings_hold(&conninfo, "HUSH") {
                assert!(!conninfo.masked().contains("HUSH"));
            }
        }
        Err(problem) => assert!(!problem.contains("HUSH"), "{problem}"),
    });
}
