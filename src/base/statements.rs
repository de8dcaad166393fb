//! Decides what may be shown of the statements in a child's messages: no password that a statement sets.
//!
//! psql, pg_dump and pg_restore show the statement that failed, with all its lines, and the server's errors
//! quote pieces of it. Strings are not parsed here, because a message may begin or end inside one. If a
//! message contains one of [`WORDS`], it is shown only up to its next quote.

use super::secret::MASK;

/// A statement with a secret contains one of these, before the secret or in the same string. They are in
/// lower case. Some are PostgreSQL's own (`ALTER ROLE … PASSWORD`, `CREATE USER MAPPING … OPTIONS`, `CREATE
/// SUBSCRIPTION … CONNECTION`), some are names that people choose.
const WORDS: [&str; 9] = [
    "password",
    "passwd",
    "passphrase",
    "options",
    "connection",
    "conninfo",
    "dblink",
    "secret",
    "credential",
];
/// A string begins with one of these: '…', E'…', $$…$$, $tag$…$tag$.
const QUOTES: [char; 2] = ['\'', '$'];
/// A server's error puts one of these before a piece of a statement: `at or near "'…'"`, in any language.
const CITES: [char; 7] = ['"', '«', '»', '„', '“', '”', '「'];
/// `LINE 1: ` is not longer in any language.
const LONGEST_LABEL: usize = 24;

/// The messages of one child, line by line.
pub(super) struct Statements {
    /// The beginning of each message, but not of its further lines.
    prefix: String,
    /// Whether the message may contain a secret.
    sensitive: bool,
    /// Whether a string began in the message and may not have ended.
    quoted: bool,
}

impl Statements {
    /// For the program with this name.
    pub fn of(program: &str) -> Self {
        Statements { prefix: format!("{program}:"), sensitive: false, quoted: false }
    }

    /// What may be shown of the next line, if anything.
    pub fn next(&mut self, line: &str) -> Option<String> {
        let begins = line.starts_with(&self.prefix);
        if begins {
            (self.sensitive, self.quoted) = (false, false);
        }
        self.sensitive |= names_a_secret(line);
        let quote = line.find(QUOTES);
        let hidden = if self.sensitive {
            if self.quoted {
                Some(0)
            } else {
                quote
            }
        } else if is_excerpt(line) {
            // The statement itself follows, so little is lost.
            quote.map(|quote| line.find("...").map_or(quote, |cut| cut.min(quote)))
        } else {
            cited_string(line).filter(|_| begins)
        };
        self.quoted |= quote.is_some();
        match hidden {
            None => Some(line.to_owned()),
            // Already shown.
            Some(0) => None,
            Some(end) => Some(format!("{}{MASK}", &line[..end])),
        }
    }

    /// The end of the last line was not read, so it may have contained anything.
    pub fn lost_track(&mut self) {
        (self.sensitive, self.quoted) = (true, true);
    }
}

/// Whether the line has one of the words, or a URI with a user.
fn names_a_secret(line: &str) -> bool {
    let small = line.to_lowercase();
    let uri = || line.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    WORDS.iter().any(|word| small.contains(word)) || uri()
}

/// Whether this is `LINE 12: …`: a piece of a statement. It may be cut inside a string, or after the word
/// that shows a secret.
fn is_excerpt(line: &str) -> bool {
    // Chinese has no colon here.
    let Some(end) = line.find([':', '行']) else { return false };
    let label = &line[..end];
    label.len() <= LONGEST_LABEL && label.contains(char::is_numeric) && !label.contains(QUOTES)
}

/// Where an error quotes a string of the statement.
fn cited_string(line: &str) -> Option<usize> {
    let cited = |&(at, _): &(usize, &str)| line[..at].trim_end().ends_with(CITES);
    line.match_indices('\'').find(cited).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let mut messages = Statements::of("psql");
        text.lines().filter_map(|line| messages.next(line)).collect()
    }

    #[test]
    fn no_secret_of_a_statement_is_shown() {
        for (text, expected) in [
            ("psql:<stdin>:5: STATEMENT:  ALTER ROLE app WITH LOGIN PASSWORD 'HUSH' VALID UNTIL 'never';", "PASSWORD ***"),
            ("psql:<stdin>:5: STATEMENT:  alter role app encrypted password E'HU\\'SH';", "password E***"),
            ("psql:<stdin>:5: STATEMENT:  CREATE ROLE app PASSWORD $$HUSH$$", "PASSWORD ***"),
            ("psql:<stdin>:5: STATEMENT:  CREATE ROLE app PASSWORD $x$HUSH$x$", "PASSWORD ***"),
            ("psql:<stdin>:5: STATEMENT:  CREATE SUBSCRIPTION s CONNECTION 'host=h password=HUSH' PUBLICATION p", "CONNECTION ***"),
            ("psql:<stdin>:5: STATEMENT:  SELECT dblink_connect('c', 'host=h user=u HUSH')", "dblink_connect(***"),
            ("psql:<stdin>:5: STATEMENT:  SELECT f('postgresql://u:HUSH@h/x')", "SELECT f(***"),
            ("psql:<stdin>:5: CONTEXT:  SQL statement \"SELECT dblink('password=HUSH')\"", "dblink(***"),
            // Over several lines: the word is before the string, inside it, or after a quote.
            ("psql:<stdin>:5: STATEMENT:  CREATE USER MAPPING FOR u SERVER s OPTIONS (\n    \"user\" 'me',\n    password 'HUSH'\n);", "OPTIONS (\n    \"user\" ***"),
            ("psql:<stdin>:5: STATEMENT:  CREATE SERVER s OPTIONS\n(\npasscode\n'HU\nSH HUSH')", "passcode"),
            ("psql:<stdin>:5: STATEMENT:  SELECT f('\nhost=h\npassword=HUSH')", "host=h"),
            ("psql:<stdin>:5: STATEMENT:  CREATE FUNCTION f() AS $$\nBEGIN\n PERFORM login(password => 'HUSH');\n PERFORM 'HUSH';\nEND $$", "BEGIN"),
            ("pg_restore: error: could not execute query: ERROR:  no\nCommand was: CREATE USER MAPPING FOR u SERVER s OPTIONS (\n    password 'HUSH'\n);\n\n", "    password ***"),
            // The server quotes a piece that does not contain the word.
            ("psql:<stdin>:5: ERROR:  syntax error at or near \"'HUSH'\"", "at or near \"***"),
            ("psql:<stdin>:5: FEHLER:  Syntaxfehler bei »'HUSH'«", "bei »***"),
            ("psql:<stdin>:5: ERREUR:  erreur de syntaxe sur ou près de « 'HUSH' »", "près de « ***"),
            ("psql:<stdin>:5: ERROR:  no\nLINE 3:    'HUSH')\n           ^", "LINE 3:    ***\n           ^"),
            ("psql:<stdin>:5: ERROR:  no\nLINE 1: ...HUSH', b 'c')\n         ^", "LINE 1: ***\n         ^"),
            ("psql:<stdin>:5: FEHLER:  nein\nZEILE 1: a 'HUSH')", "ZEILE 1: a ***"),
            ("psql:<stdin>:5: 错误:  x\n第1行a 'HUSH')", "第1行a ***"),
        ] {
            let shown = shown(text).join("\n");
            assert!(!shown.contains("HUSH") && !shown.contains("SH HU"), "{text}\n→ {shown}");
            assert!(shown.ends_with(expected), "{text}\n→ {shown}");
        }
    }

    #[test]
    fn what_has_no_secret_is_shown_as_it_is() {
        for text in [
            "psql:<stdin>:5: ERROR:  role \"o'neil\" does not exist",
            "psql:<stdin>:5: STATEMENT:  CREATE TYPE mood AS ENUM (\n    'sad',\n    'ok'\n);",
            "psql:<stdin>:5: ERROR:  relation \"x\" does not exist\nLINE 1: SELECT * FROM x;\n                      ^",
            "psql:<stdin>:9: ERROR:  invalid input syntax for type integer: \"a\"\nCONTEXT:  COPY t, line 3, column n: \"a\"",
            "psql: error: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server running?",
            "psql: error: FATAL:  password authentication failed for user \"app\"",
            "pg_dump: detail: Query was: LOCK TABLE public.\"users' password\"",
        ] {
            let expected = text.replace("users' password", "users***").replace("***\"", "***");
            assert_eq!(shown(text).join("\n"), expected);
        }
        // The next message ends the message with the secret.
        let two = "psql:<stdin>:5: STATEMENT:  CREATE ROLE a PASSWORD 'x\ny';\npsql:<stdin>:6: NOTICE:  'z'";
        assert_eq!(shown(two)[1..], ["psql:<stdin>:6: NOTICE:  'z'"]);
    }

    #[test]
    fn whatever_stands_around_a_secret_it_is_not_shown() {
        let seeds = [
            "CREATE USER MAPPING FOR u SERVER s OPTIONS (\n    \"user\" 'me',\n    password 'x'\n);",
            "LINE 1: ...'a', $$b$$, E'\\'c' \"d''\"",
            "-- it's\n/* '$ */ \"'\" $1 ''''",
        ];
        let kinds = [
            "{t} PASSWORD '{s}' {t}",
            "{t} '\n{t} password\n{s}' {t}",
            "{t} OPTIONS\n{t} ${s}$\n{s}\n{t}",
            "{t} 'password={s}",
        ];
        crate::base::fuzz::feed(&seeds, |text| {
            for kind in kinds {
                let message = kind.replace("{t}", text).replace("{s}", "HUSH").replace("psql:", "");
                let shown =
                    shown(&format!("psql:<stdin>:1: STATEMENT:  {message}\npsql:<stdin>:2: that's it"))
                        .join("\n");
                assert!(!shown.contains("HUSH"), "{message}\n→ {shown}");
                assert!(shown.ends_with("that's it"), "{shown}");
            }
        });
    }
}
