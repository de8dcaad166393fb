//! The output formats of pg_dump that pgkeep uses.

use std::fmt;

/// What pg_dump writes
/// (<https://www.postgresql.org/docs/current/app-pgdump.html>, `--format`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// SQL for psql.
    #[default]
    Plain,
    /// An archive for pg_restore.
    Custom,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 2] = [Format::Plain, Format::Custom];

    /// The name that pg_dump expects.
    pub fn name(self) -> &'static str {
        match self {
            Format::Plain => "plain",
            Format::Custom => "custom",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
