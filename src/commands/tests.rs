//! Which command lines are accepted, and which are refused.

use super::*;
use crate::jobs::restore::Selection;

fn read(line: &str) -> Result<Command, String> {
    match parse(line.split_whitespace().map(OsString::from))? {
        Request::Do(command) => Ok(command),
        Request::Print(text) => panic!("{text}"),
    }
}

#[test]
fn commands_and_their_options() {
    for (line, command) in [
        ("", Command::Run),
        ("run", Command::Run),
        ("backup", Command::Backup),
        ("list", Command::List(list::Options { all: false, json: false })),
        ("list --json", Command::List(list::Options { all: false, json: true })),
        ("list --json --all", Command::List(list::Options { all: true, json: true })),
        ("prune --dry-run", Command::Prune(prune::Options { dry_run: true })),
        ("health", Command::Health),
        ("check", Command::Check),
        ("status --json", Command::Status(status::Options { json: true })),
        ("verify", Command::Verify(verify::Options { which: "latest".into(), all: false, drill: false })),
        (
            "verify 2026 --drill",
            Command::Verify(verify::Options { which: "2026".into(), all: false, drill: true }),
        ),
        ("get latest -o -", Command::Get(get::Options { which: "latest".into(), output: Some("-".into()) })),
        (
            "restore --replace latest --to host=x --jobs 4 --table a --table=b --no-owner",
            Command::Restore(restore::Options {
                which: "latest".into(),
                database: None,
                to: Some("host=x".into()),
                replace: true,
                selection: Selection {
                    tables: vec!["a".into(), "b".into()],
                    schemas: vec![],
                    jobs: Some(4),
                    no_owner: true,
                    no_privileges: false,
                },
            }),
        ),
    ] {
        assert_eq!(read(line), Ok(command), "{line}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for line in [
        "bakup",
        "list --dry-run",
        "--all",
        "prune --all",
        "prune --json",
        "--json",
        "backup now",
        "restore",
        "restore a b",
        "restore latest --jobs 0",
        "restore latest --jobs many",
        "restore latest --database=",
        "restore latest --all",
        "get",
        "get latest -o",
        "verify latest --all",
        "verify --all --drill",
        "verify --replace",
        "--prune",
        "-x",
    ] {
        assert!(read(line).is_err(), "{line}");
    }
}

fn printed(line: &str) -> String {
    match parse(line.split_whitespace().map(OsString::from)) {
        Ok(Request::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn help_is_short_and_each_command_has_its_own() {
    let help = printed("--help");
    assert!(help.lines().count() < 30, "{help}");
    assert_eq!(help, printed("help"));
    for row in &ROWS {
        assert!(help.contains(&format!("\n  {:<8} {}\n", row.name, row.summary)), "{}", row.name);
        let own = printed(&format!("{} --help", row.name));
        assert!(own.starts_with(&format!("Usage: pgkeep {}", row.name)), "{own}");
        assert_eq!(own, printed(&format!("help {}", row.name)));
    }
    assert!(printed("restore latest --replace --help").contains("--jobs N"));
    assert!(printed("-V").starts_with("pgkeep "));
}

#[test]
fn every_name_is_its_rows() {
    for row in &ROWS {
        let command = read(&format!("{} latest", row.name)).or_else(|_| read(row.name)).unwrap();
        assert_eq!(command.name(), row.name);
    }
}

#[test]
fn every_variable_is_explained_within_the_width_of_a_terminal() {
    let help = printed("--help-variables");
    for variable in VARIABLES {
        assert!(help.contains(&format!("\n{} (", variable.documented())), "{}", variable.name);
    }
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
}
