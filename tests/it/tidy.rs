//! The house stays tidy: documents agree with the table of variables, files stay small, floors have no circle.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use pgkeep::config::{Absent, Variable, VARIABLES};

const LONGEST_FILE: usize = 400;
/// From the ground up: a floor uses only those before it.
const FLOORS: [&str; 11] =
    ["base", "schedule", "s3", "postgres", "dump", "store", "jobs", "notify", "daemon", "config", "commands"];
/// Variables of PostgreSQL's own image, in the compose file.
const OF_THE_SERVER: [&str; 3] = ["POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|problem| panic!("{name}: {problem}"))
}

/// All files below a folder that end so.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// A variable's row of README's table.
fn row(variable: &Variable) -> String {
    let absent = match variable.absent {
        Absent::Required => "required".to_owned(),
        Absent::RequiredUnless(other) => format!("required, unless `{other}`"),
        Absent::RequiredToRun => "required to run".to_owned(),
        Absent::Off(meaning) => meaning.to_owned(),
        Absent::Value(value) => format!("`{value}`"),
    };
    format!("| `{}` | {absent} | {} |\n", variable.documented(), variable.doc)
}

/// README with its table as it should be.
fn readme(now: &str) -> String {
    let head = "| variable | if it is not set | meaning |\n| --- | --- | --- |\n";
    let (before, table) = now.split_once(head).expect("README.md has a table of variables");
    let behind = table.find("\n\n").map_or("", |end| &table[end + 1..]);
    format!("{before}{head}{}{behind}", VARIABLES.iter().map(row).collect::<String>())
}

/// A comment of the environment file.
fn comment(text: &str) -> String {
    let mut lines = vec!["#".to_owned()];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > 110) {
            lines.push("#".to_owned());
        }
        let line = lines.last_mut().expect("a line");
        *line = format!("{line} {word}");
    }
    lines.join("\n") + "\n"
}

/// The example of an environment file.
fn environment_file() -> String {
    let mut text = comment(
        "Configuration of pgkeep: copy to .env, fill in, keep it to yourself (chmod 600 .env).",
    ) + &comment(
        "Instead of NAME, NAME_FILE can name a file that holds the value (Docker and Kubernetes secrets).",
    );
    let (required, optional): (Vec<_>, Vec<_>) =
        VARIABLES.iter().partition(|variable| !matches!(variable.absent, Absent::Off(_) | Absent::Value(_)));
    text += "\n# --- Required ---\n";
    for variable in required {
        // A key that works nowhere is better left to be filled in.
        let value = if variable.name.ends_with("_KEY") { "" } else { variable.example };
        text += &format!("\n{}{}={value}\n", comment(variable.doc), variable.name);
    }
    text += "\n# --- Optional; the values are examples ---\n";
    for variable in optional {
        let absent = match variable.absent {
            Absent::Value(value) => format!("The default is {value}."),
            Absent::Off(meaning) => format!("If it is not set: {meaning}."),
            _ => unreachable!("those are above"),
        };
        let what = comment(&format!("{}. {absent}", variable.doc));
        text += &format!("\n{what}#{}={}\n", variable.documented(), variable.example);
    }
    text
}

/// `make docs` writes what this test expects.
#[test]
fn the_documents_agree_with_the_table_of_variables() {
    let readme = readme(&read("README.md"));
    for (name, expected) in [("README.md", readme), (".env.example", environment_file())] {
        if env::var_os("PGKEEP_WRITE_DOCUMENTS").is_some() {
            fs::write(root().join(name), expected).expect("the document is written");
        } else {
            assert!(read(name) == expected, "{name} does not agree with the table of variables: make docs");
        }
    }
}

/// Words such as `BACKUP_TEMP_DIR`.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).filter(|word| {
        ["POSTGRES_", "S3_", "BACKUP_"]
            .iter()
            .any(|prefix| word.len() > prefix.len() && word.starts_with(prefix))
    })
}

#[test]
fn every_variable_that_a_document_names_is_in_the_table() {
    let mut documents = vec![root().join("Dockerfile"), root().join(".env.example"), root().join("Makefile")];
    for ending in [".md", ".yml", ".yaml"] {
        documents.extend(
            fs::read_dir(root())
                .expect("the root")
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().ends_with(ending)),
        );
    }
    let has_aliases = |path: &Path| {
        path.ends_with("config/variables.rs")
            || path.ends_with("config/notify.rs")
            || path.parent().is_some_and(|of| of.ends_with("config/variables"))
    };
    documents.extend(files(&root().join("src"), ".rs").into_iter().filter(|path| !has_aliases(path)));
    for document in documents {
        // Tests have wrong names on purpose.
        if document.ends_with("tests.rs") {
            continue;
        }
        for word in words(&fs::read_to_string(&document).expect("a document")) {
            let known = |name: &str| VARIABLES.iter().any(|variable| variable.name == name);
            let right =
                known(word) || word.strip_suffix("_FILE").is_some_and(known) || OF_THE_SERVER.contains(&word);
            // A family, as in S3_*.
            let family =
                word.ends_with('_') && VARIABLES.iter().any(|variable| variable.name.starts_with(word));
            assert!(right || family, "{} names {word}, which is no variable", document.display());
        }
    }
}

#[test]
fn no_file_is_longer_than_one_idea() {
    for path in files(&root().join("src"), ".rs") {
        let lines = fs::read_to_string(&path).expect("a source").lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
    }
}

#[test]
fn a_floor_uses_only_the_floors_below_it() {
    let source = root().join("src");
    for (height, floor) in FLOORS.iter().enumerate() {
        for path in files(&source.join(floor), ".rs") {
            let text = fs::read_to_string(&path).expect("a source");
            // Tests may look anywhere.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for used in code.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let known = FLOORS.iter().position(|known| *known == used);
                let known = known.unwrap_or_else(|| panic!("{} uses {used}", path.display()));
                assert!(known <= height, "{}: {floor} is below {used}, and uses it", path.display());
            }
        }
    }
    let folders = fs::read_dir(&source).expect("src").flatten().filter(|entry| entry.path().is_dir());
    assert_eq!(folders.count(), FLOORS.len(), "a folder is no floor");
}
