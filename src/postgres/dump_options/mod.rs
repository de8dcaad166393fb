//! More options for pg_dump, from the user. They are read as getopt_long(3) reads them, so that none of those
//! that would break a backup gets through: abbreviated, bundled (`-vFc`), or as another option's neighbour.

mod table;

use std::fmt;

use self::table::{Effect, Known, KNOWN};
use crate::base::units;

/// Options that pg_dump gets besides pgkeep's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    words: Vec<String>,
    narrows: bool,
    other_role: bool,
}

/// What is found out about the options, and all that is wrong with them.
#[derive(Default)]
struct Reading {
    narrows: bool,
    other_role: bool,
    problems: Vec<String>,
}

impl DumpOptions {
    /// Splits a text into words as a shell does, and reads them. No shell ever runs.
    ///
    /// # Errors
    /// What is wrong, to stand behind a name: each option that pgkeep does not pass on, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Only the half of the crate that works on bytes has no unsafe code.
        let words = shlex::bytes::split(text.as_bytes()).ok_or("has a quotation that does not end")?;
        let words: Result<Vec<String>, _> = words.into_iter().map(String::from_utf8).collect();
        let words = words.map_err(|_| "is not UTF-8")?;
        if text.contains('\0') {
            return Err("has a zero byte".into());
        }
        let mut reading = Reading::default();
        let mut rest = words.iter().map(String::as_str);
        while let Some(word) = rest.next() {
            let needs_value = match (word.strip_prefix("--"), word.strip_prefix('-')) {
                (Some(long), _) if !long.is_empty() => reading.long(long),
                (None, Some(letters)) if !letters.is_empty() => reading.letters(letters),
                _ => {
                    let shown = units::printable(word);
                    reading.problems.push(format!(
                        "has \"{shown}\", which is no option (the database comes from POSTGRES_CONNECTION_STRING)"
                    ));
                    false
                }
            };
            if needs_value && rest.next().is_none() {
                let shown = units::printable(word);
                reading.problems.push(format!("ends with {shown}, which needs a value"));
            }
        }
        let Reading { narrows, other_role, problems } = reading;
        match problems.is_empty() {
            true => Ok(DumpOptions { words, narrows, other_role }),
            false => Err(problems.join(", and ")),
        }
    }

    /// The options, one word each.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The option for a try that dumps no data. Every version that has `--statistics` has `--no-data`, and
    /// does not want the other one beside it.
    pub(super) fn no_data(&self) -> &'static str {
        match self.words.iter().any(|word| word == "--statistics") {
            true => "--no-data",
            false => "--schema-only",
        }
    }

    /// Whether a backup with these options has only a part of the database.
    pub fn narrow(&self) -> bool {
        self.narrows
    }

    /// Whether these options change what pg_dump has to be allowed to read: less, or as another role.
    pub fn need_other_rights(&self) -> bool {
        self.narrows || self.other_role
    }
}

impl Reading {
    /// Reads a long option, without its dashes. Returns whether its value is the next word.
    fn long(&mut self, option: &str) -> bool {
        let (name, attached) = option.split_once('=').map_or((option, false), |(name, _)| (name, true));
        let exact: Vec<&Known> = KNOWN.iter().filter(|known| known.long == name).collect();
        // An abbreviation. What is ambiguous in one version may be unambiguous in an older one, which has fewer
        // options. So each that it may mean counts.
        let meant = match exact.is_empty() {
            true => KNOWN.iter().filter(|known| known.long.starts_with(name)).collect(),
            false => exact,
        };
        for known in &meant {
            let shown = match known.long == name {
                true => format!("--{name}"),
                false => format!("--{name}, which can mean --{}", known.long),
            };
            self.judge(known, &shown);
        }
        // pg_dump refuses what nobody knows.
        !attached && !meant.is_empty() && meant.iter().all(|known| known.takes_value)
    }

    /// Reads one or more letters behind one dash. Returns whether the value of the last one is the next word.
    fn letters(&mut self, letters: &str) -> bool {
        for (at, letter) in letters.char_indices() {
            let Some(known) = KNOWN.iter().find(|known| known.short == letter) else { continue };
            let shown = match letters.len() == letter.len_utf8() {
                true => format!("-{letter}"),
                false => format!("-{letter} (in -{letters})"),
            };
            self.judge(known, &shown);
            if known.takes_value {
                return at + letter.len_utf8() == letters.len();
            }
        }
        false
    }

    fn judge(&mut self, known: &Known, shown: &str) {
        match known.effect {
            Effect::Passed => {}
            Effect::Narrows => self.narrows = true,
            Effect::OtherRole => self.other_role = true,
            Effect::Refused(why) => self.problems.push(format!("has {}: {why}", units::printable(shown))),
        }
    }
}

/// For people; a word with a space looks like two.
impl fmt::Display for DumpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::printable(&self.words.join(" ")))
    }
}

#[cfg(test)]
mod tests;
