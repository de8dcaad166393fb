//! Which options pass.

use std::time::Duration;

use super::*;
use crate::base::process;
use crate::postgres::Clients;

fn problem(text: &str) -> String {
    DumpOptions::parse(text).err().unwrap_or_else(|| panic!("{text} passes"))
}

#[test]
fn words_are_split_as_a_shell_splits_them() {
    let words = |text: &str| DumpOptions::parse(text).unwrap().words().to_vec();
    assert_eq!(words(""), [] as [&str; 0]);
    assert_eq!(words("  -O\n--role=a"), ["-O", "--role=a"]);
    assert_eq!(words(r#"-t 'a b' --table="c \"d\"" -T e\ f"#), ["-t", "a b", "--table=c \"d\"", "-T", "e f"]);
    // No shell: nothing is expanded.
    assert_eq!(words("-t $HOME* -T `id`x '--role=$(id)'"), ["-t", "$HOME*", "-T", "`id`x", "--role=$(id)"]);
    assert_eq!(problem("-t 'a"), "has a quotation that does not end");
    assert_eq!(problem("-t a\0b"), "has a zero byte");
}

#[test]
fn what_would_break_a_backup_is_refused_by_name() {
    for (text, says) in [
        ("-f x", "has -f: pgkeep itself"),
        ("-fx", "has -f (in -fx): pgkeep itself"),
        ("--file=x", "has --file: "),
        ("--file x", "has --file: "),
        ("--fil=x", "has --fil, which can mean --file: "),
        ("-Ft", "BACKUP_FORMAT"),
        ("-vFc", "has -F (in -vFc): BACKUP_FORMAT"),
        ("-OxZ9", "BACKUP_COMPRESSION_LEVEL"),
        ("--compr 0", "BACKUP_COMPRESSION_LEVEL"),
        ("-j4", "one file"),
        ("--lock-wait-timeout=0", "BACKUP_LOCK_TIMEOUT"),
        ("--host=other", "POSTGRES_CONNECTION_STRING"),
        ("-wU me", "has -U (in -wU): POSTGRES"),
        ("-W", "POSTGRES_CONNECTION_STRING"),
        ("-?", "dumps nothing"),
        ("--vers", "dumps nothing"),
        ("-s", "without the data"),
        ("--no-d", "without the data"),
        ("--data", "definitions of the tables"),
        ("--section=data", "all sections"),
        ("--sec data", "all sections"),
        ("-c --if-exists", "has -c: pgkeep restores into a new database"),
        ("--create", "makes the database itself"),
        ("--snapshot=1", "session"),
        ("--restrict-key=x", "key"),
        ("--include-foreign-data=x", "foreign server"),
        ("shop", "has \"shop\", which is no option"),
        ("-O shop -x", "has \"shop\", which is no option"),
        ("-O --", "has \"--\", which is no option"),
        ("-O -", "has \"-\", which is no option"),
        ("''", "which is no option"),
        // The value of an option that nobody knows has to be in the same word.
        ("--new x", "has \"x\", which is no option"),
        ("-t", "ends with -t, which needs a value"),
        ("-vt", "ends with -vt, which needs a value"),
        ("--table", "ends with --table, which needs a value"),
    ] {
        assert!(problem(text).contains(says), "{text}: {}", problem(text));
    }
    // All at once.
    let both = problem("-Fc -O --host=x shop");
    assert!(
        both.contains("-F") && both.contains(", and has --host: ") && both.contains("\"shop\""),
        "{both}"
    );
}

#[test]
fn a_value_is_no_option_and_a_part_is_noticed() {
    for (text, narrows) in [
        ("", false),
        ("-O -x --inserts --rows-per-insert 5 --role reader -v -E LATIN1 --statistics", false),
        ("--no-own --no-table --quote", false),
        ("--new --newer=x -y", false),
        ("-t -Fc", true),
        ("-t--file=x -v", true),
        ("--table=-Fc", true),
        ("-vn shop", true),
        ("-Nshop", true),
        ("--exclude-table-d x", true),
        ("--exclude-table-data=sessions", true),
        ("-S -s", false),
    ] {
        let options = DumpOptions::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(options.narrow(), narrows, "{text}");
    }
    let no_data = |text: &str| DumpOptions::parse(text).unwrap().no_data();
    assert_eq!((no_data("-O"), no_data("-O --statistics")), ("--schema-only", "--no-data"));
    let rights = |text: &str| DumpOptions::parse(text).unwrap().need_other_rights();
    assert!(rights("--role=r") && rights("--rol r") && rights("-t x") && !rights("-O --rows-per-insert=3"));
}

#[test]
fn every_option_of_the_installed_pg_dumps_is_known_with_its_letter_and_its_value() {
    let clients = Clients::find(None, Duration::from_secs(60)).expect("PostgreSQL's clients");
    for programs in clients.all() {
        let program = programs.directory.join("pg_dump");
        let help = process::ask("pg_dump", &program, "--help", Duration::from_secs(60)).expect("its help");
        let mut found = 0;
        for line in help.lines().filter_map(|line| line.trim_start().strip_prefix('-')) {
            let (letter, long) = match line.split_once(", --") {
                Some((letter, long)) if letter.len() == 1 => (letter.chars().next(), long),
                _ => (None, line.trim_start_matches('-')),
            };
            let long = long.split_whitespace().next().expect("a name");
            let (name, takes_value) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
            let known = KNOWN.iter().find(|known| known.long == name).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(known.takes_value, takes_value, "{line}");
            if let Some(letter) = letter {
                let short =
                    KNOWN.iter().find(|known| known.short == letter).unwrap_or_else(|| panic!("{line}"));
                assert_eq!((short.takes_value, short.effect), (takes_value, known.effect), "{line}");
            }
            found += 1;
        }
        assert!(found > 50, "{help}");
    }
}

#[test]
fn whatever_is_given_is_passed_on_or_refused_in_one_line() {
    let seeds = ["-vO --table='a b' -t c", "--fil=x -Ft --", "-T \"a\\\"b\" --rows-per-insert 5", "-é --é=é"];
    crate::base::fuzz::feed(&seeds, |text| {
        let said = DumpOptions::parse(text).map_or_else(|problem| problem, |options| options.to_string());
        assert!(!said.contains(char::is_control), "{said:?}");
    });
}
