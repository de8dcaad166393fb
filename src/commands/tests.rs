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
        ("list", Command::List(list::Options::default())),
        ("list --json", Command::List(list::Options { json: true, ..Default::default() })),
        ("list --json --all", Command::List(list::Options { all: true, json: true, ..Default::default() })),
        (
            "list a --runs b",
            Command::List(list::Options {
                databases: vec!["a".into(), "b".into()],
                runs: true,
                ..Default::default()
            }),
        ),
        ("prune --dry-run", Command::Prune(prune::Options { dry_run: true })),
        ("health", Command::Health),
        ("check", Command::Check(check::Options { notify: false })),
        ("check --notify", Command::Check(check::Options { notify: true })),
        ("status --json", Command::Status(status::Options { json: true })),
        ("verify", Command::Verify(verify::Options { which: "latest".into(), all: false, drill: false })),
        (
            "verify 2026 --drill",
            Command::Verify(verify::Options { which: "2026".into(), all: false, drill: true }),
        ),
        ("get latest -o -", Command::Get(get::Options { which: "latest".into(), output: Some("-".into()) })),
        (
            "restore --all --at 2026-11-23 --to host=x --dry-run --replace",
            Command::RestoreAll(restore_all::Options {
                to: Some("host=x".into()),
                at: Some("2026-11-23".into()),
                replace: true,
                dry_run: true,
            }),
        ),
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
                ..Default::default()
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
        "list --all shop",
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
        "restore --all --jobs 2",
        "restore --all --create-roles",
        "restore latest --dry-run",
        "restore latest --at 2026",
        "get",
        "get latest -o",
        "verify latest --all",
        "verify --all --drill",
        "verify --replace",
        "check now",
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
