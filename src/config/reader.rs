//! pgkeep's own variables: takes them out of the environment and reads them by name or from a file.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;

use super::text;
use super::variables::{Absent, Variable, VARIABLES};
use super::Settings;

/// Prefixes of pgkeep's variables.
const PREFIXES: [&str; 3] = ["POSTGRES_", "S3_", "BACKUP_"];
/// Variables of PostgreSQL's own image. It often shares its environment file with pgkeep.
const OF_THE_SERVER: [&str; 3] = ["POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"];

/// The variables that are set, and the problems with them.
pub(super) struct Reader {
    variables: BTreeMap<String, OsString>,
    /// The problems so far, one sentence each.
    pub problems: Vec<String>,
    /// What was mended, and what is probably a mistake.
    pub warnings: Vec<String>,
}

impl Reader {
    /// Reads from these variables.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        // A variable that is empty or blank counts as not set. A name that is not UTF-8 is not pgkeep's.
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        let variables = variables
            .into_iter()
            .filter_map(named)
            .filter(|(_, value)| !value.to_string_lossy().trim().is_empty());
        Reader { variables: variables.collect(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// Takes pgkeep's variables out of the process's environment, so that no child inherits them. Call this
    /// while there is only one thread.
    pub fn take() -> Self {
        let reader = Reader::new(env::vars_os());
        let own = |name: &str| {
            let base = name.strip_suffix("_FILE").unwrap_or(name);
            name.starts_with("AWS_") || VARIABLES.iter().any(|known| [name, base].contains(&known.name))
        };
        // The time zone stays, because everybody may use it.
        for name in reader.variables.keys().filter(|name| own(name) && *name != "TZ") {
            env::remove_var(name);
        }
        reader
    }

    /// Reads the same variables once more. The files that they name may hold something else now.
    pub fn again(&self) -> Self {
        Reader { variables: self.variables.clone(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// Reads one variable into `settings`. Returns whether it has a value now.
    pub fn read(&mut self, variable: &Variable, daemon: bool, settings: &mut Settings) -> bool {
        let name = variable.name;
        let value = match (self.is_set(name), &variable.absent) {
            (true, _) => self.get(name),
            (false, Absent::Value(default)) => Some((*default).to_owned()),
            // Whether one of the second kind is needed is known only when all are read.
            (false, Absent::Off(_) | Absent::RequiredUnless(_)) => None,
            (false, Absent::RequiredToRun) if !daemon => None,
            (false, Absent::Required | Absent::RequiredToRun) => {
                self.missing(variable);
                None
            }
        };
        let Some(value) = value else { return false };
        let set = (variable.set)(settings, &value);
        if let Err(what) = &set {
            self.problem(name, what, &example(variable));
        }
        set.is_ok()
    }

    /// Adds the problem that a variable is not set.
    pub fn missing(&mut self, variable: &Variable) {
        let remedy = match variable.absent {
            Absent::RequiredUnless(other) => format!("{}, or set {other}", example(variable)),
            _ => example(variable),
        };
        self.problem(variable.name, &format!("is missing: {}", variable.doc), &remedy);
    }

    /// The value of any variable, including libpq's.
    pub fn inherited(&self, name: &str) -> Option<String> {
        self.variables.get(name)?.clone().into_string().ok()
    }

    /// Whether `get` would find the variable set. A variable with a wrong value is not also reported as
    /// missing.
    pub fn is_set(&self, name: &str) -> bool {
        self.variables.contains_key(name) || self.variables.contains_key(&format!("{name}_FILE"))
    }

    /// Whether the variable is set and its value is a problem that was reported.
    pub fn unreadable(&self, name: &str) -> bool {
        let starts = |problem: &&String| {
            problem.starts_with(&format!("{name} ")) || problem.starts_with(&format!("{name}_FILE "))
        };
        self.problems.iter().any(|problem| starts(&problem))
    }

    /// The value of NAME, or of the file that NAME_FILE names.
    fn get(&mut self, name: &str) -> Option<String> {
        let by_file = format!("{name}_FILE");
        match (self.variables.get(name).cloned(), self.variables.get(&by_file).cloned()) {
            (Some(_), Some(_)) => {
                self.problem(name, &format!("is set and {by_file} too"), "set one of the two");
                None
            }
            (Some(value), None) => {
                let text = value.into_string().map_err(|_| self.problem(name, "is not UTF-8", "")).ok()?;
                self.value(name, name, &text, "")
            }
            (None, Some(path)) => self.file(name, &by_file, path),
            (None, None) => None,
        }
    }

    fn file(&mut self, name: &str, by_file: &str, path: OsString) -> Option<String> {
        let path = match path.into_string() {
            Ok(path) => self.value(by_file, by_file, &path, "")?.into(),
            Err(path) => path,
        };
        let shown = path.display();
        match fs::read(&path).map(text::decode) {
            Ok(Ok(text)) => {
                // Editors and `echo` add a newline. This is no reason for a warning.
                let text = text.strip_suffix('\n').unwrap_or(&text);
                let value = self.value(name, by_file, text, &format!(" in {shown}"))?;
                if value.is_empty() {
                    self.problem(by_file, &format!("names {shown}, which is empty"), "");
                }
                (!value.is_empty()).then_some(value)
            }
            Ok(Err(what)) => {
                self.problem(by_file, &format!("names {shown}, {what}"), "");
                None
            }
            Err(problem) => {
                let user = match problem.kind() {
                    ErrorKind::PermissionDenied => {
                        format!("pgkeep runs as user {}", rustix::process::getuid().as_raw())
                    }
                    _ => String::new(),
                };
                self.problem(by_file, &format!("names {shown}, which cannot be read: {problem}"), &user);
                None
            }
        }
    }

    /// What is meant by a text: the same rule for the environment and for files. `said` is the variable that
    /// the user wrote, and `place` says where its text is, if it is in a file.
    fn value(&mut self, name: &str, said: &str, text: &str, place: &str) -> Option<String> {
        let (value, around) = text::trim(text);
        // In PEM, nothing around a certificate has a meaning.
        if let Some(around) = around.filter(|_| name != "S3_CA" && !value.is_empty()) {
            self.warnings.push(format!("{said} has {around} around its value{place}, which pgkeep ignores"));
        }
        if text::is_quoted(value) {
            // AWS makes no such keys, but in other stores people choose them.
            if name == "S3_SECRET_KEY" && self.is_set("S3_URL") {
                self.warnings.push(format!(
                    "{said} has quotes around its value{place}, and they are taken as a part of the key; \
                     if they are not, take them away"
                ));
            } else {
                let remedy = "take them away (docker run --env-file keeps them; compose and shells do not)";
                self.problem(said, &format!("has quotes around its value{place}"), remedy);
                return None;
            }
        }
        Some(value.to_owned())
    }

    /// Adds a problem: what is wrong, and what would be right. The same problem counts once.
    pub fn problem(&mut self, name: &str, what: &str, remedy: &str) {
        let separator = if remedy.is_empty() { "" } else { "; " };
        let problem = format!("{name} {what}{separator}{remedy}");
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// A sentence about each variable that looks like pgkeep's but is not. It is probably misspelt.
    pub fn unknown(&self) -> Vec<String> {
        let known = |name: &str| VARIABLES.iter().any(|known| known.name == name);
        let strange = |name: &&String| {
            let base = name.strip_suffix("_FILE").unwrap_or(name);
            let ours = PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && !known(base) && !known(name);
            ours && !OF_THE_SERVER.contains(&base) && !is_a_service_link(name)
        };
        let sentence = |name: &String| {
            let nearest = nearest(name.strip_suffix("_FILE").unwrap_or(name));
            format!(
                "{name} is not a variable of pgkeep and does nothing: did you mean {nearest}? \
                 pgkeep --help-variables lists them all"
            )
        };
        self.variables.keys().filter(strange).map(sentence).collect()
    }
}

/// `for example NAME=value`
fn example(variable: &Variable) -> String {
    format!("for example {}={}", variable.documented(), variable.example)
}

/// Kubernetes and Docker set such variables to describe a service named `postgres` or `s3`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_a_service_link(name: &str) -> bool {
    name.contains("_SERVICE_") || name.contains("_PORT_") || name.ends_with("_PORT")
}

/// The variable that the user probably meant.
fn nearest(name: &str) -> &'static str {
    let distance = |variable: &&Variable| {
        let names = std::iter::once(variable.name).chain(variable.aliases.iter().copied());
        names.map(|known| strsim::levenshtein(known, name)).min()
    };
    VARIABLES.iter().min_by_key(distance).map_or("", |variable| variable.name)
}
