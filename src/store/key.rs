//! The grammar of keys: name ↔ database, time, format, encryption.
//!
//! `<S3_PATH>/<database>/<database>_<YYYY-MM-DD_HH-MM-SS>.<sql.gz|dump.gz>`, and `.age` at the end if it is
//! encrypted. The time is in UTC, because local time repeats an hour each autumn. Sorting by name sorts by time. A key that does not match this
//! grammar exactly is somebody else's, and nothing here ever touches it.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, NaiveDateTime, Timelike, Utc};

use crate::base::units::{self, TIMESTAMP};
use crate::postgres::Format;
use crate::s3::Object;

/// The folder of the server's globals. A dot that no two hex digits follow is in no database's folder.
pub const GLOBALS: &str = ".globals";

/// A whole backup in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The key of its object.
    pub key: String,
    /// When the dump began, to the second. It comes from the name, never from the object's modification time.
    pub time: DateTime<Utc>,
    /// From the name's ending.
    pub format: Format,
    /// Whether age has encrypted it, also from the name's ending.
    pub encrypted: bool,
    /// The object's size in bytes.
    pub size: u64,
}

/// The end of an encrypted backup's name.
const ENCRYPTED: &str = ".age";

/// Where the backups of one database are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// What every key of a backup begins with, up to the time.
    prefix: String,
}

impl Backup {
    /// The name of the object without the folders.
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

impl Keys {
    /// The backups of `database` below `path`, which is empty or has no slash at its end.
    pub fn new(path: &str, database: &str) -> Self {
        Self::named(path, &escape(database))
    }

    /// The backups of the server's globals below `path`.
    pub fn of_globals(path: &str) -> Self {
        Self::named(path, GLOBALS)
    }

    fn named(path: &str, name: &str) -> Self {
        Keys { prefix: format!("{}{name}/{name}_", folder(path)) }
    }

    /// The prefix to list. It ends in `_`, so that a database `app2` is not listed with `app`. A database
    /// `app_x` has its own folder.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The prefix of the backups on the day of `time`.
    pub fn day(&self, time: DateTime<Utc>) -> String {
        format!("{}{}", self.prefix, time.format("%Y-%m-%d"))
    }

    /// The key of a backup that began at `time`.
    pub fn key(&self, time: DateTime<Utc>, format: Format, encrypted: bool) -> String {
        let encrypted = if encrypted { ENCRYPTED } else { "" };
        format!("{}{}.{}{encrypted}", self.prefix, units::timestamp(time), extension(format))
    }

    /// Reads a key: its time, its format, and whether it is encrypted. `None` if it does not match the grammar
    /// exactly.
    pub fn parse(&self, key: &str) -> Option<(DateTime<Utc>, Format, bool)> {
        let (time, extension) = key.strip_prefix(&self.prefix)?.split_once('.')?;
        let plain = extension.strip_suffix(ENCRYPTED);
        let (extension, encrypted) = (plain.unwrap_or(extension), plain.is_some());
        let format = Format::ALL.into_iter().find(|known| self::extension(*known) == extension)?;
        let time = NaiveDateTime::parse_from_str(time, TIMESTAMP).ok()?.and_utc();
        // chrono also reads `2026-1-2` and a 60th second. The grammar allows only what a clock writes.
        (self.key(time, format, encrypted) == key && time.nanosecond() == 0)
            .then_some((time, format, encrypted))
    }

    /// The backups among a bucket's objects, the oldest first. Everything else is left out.
    pub fn backups(&self, objects: impl IntoIterator<Item = Object>) -> Vec<Backup> {
        let backup = |object: Object| {
            let (time, format, encrypted) = self.parse(&object.key)?;
            Some(Backup { key: object.key, time, format, encrypted, size: object.size })
        };
        let mut backups: Vec<Backup> = objects.into_iter().filter_map(backup).collect();
        backups.sort_by(|a, b| (a.time, &a.key).cmp(&(b.time, &b.key)));
        backups
    }
}

/// What the keys of all databases' backups begin with.
pub fn folder(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}/")
    }
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Plain => "sql.gz",
        Format::Custom => "dump.gz",
    }
}

/// The backups of every database below `path`, by the database's name, each database's oldest first. All
/// other objects of the bucket are left out.
pub fn by_database(path: &str, objects: impl IntoIterator<Item = Object>) -> BTreeMap<String, Vec<Backup>> {
    let folder = folder(path);
    let mut found: BTreeMap<String, Vec<Object>> = BTreeMap::new();
    for object in objects {
        let name = object.key.strip_prefix(&folder).and_then(|rest| unescape(rest.split_once('/')?.0));
        if let Some(database) = name {
            found.entry(database).or_default().push(object);
        }
    }
    let backups = found.into_iter().map(|(database, objects)| {
        let backups = Keys::new(path, &database).backups(objects);
        (database, backups)
    });
    backups.filter(|(_, backups)| !backups.is_empty()).collect()
}

/// Whether a key below `path` is one of a backup, of any database or of the globals.
pub fn is_a_backups(path: &str, key: &str) -> bool {
    let database = key.strip_prefix(&folder(path)).and_then(|rest| unescape(rest.split_once('/')?.0));
    let keys = database.map_or_else(|| Keys::of_globals(path), |database| Keys::new(path, &database));
    keys.parse(key).is_some()
}

/// A byte outside `[A-Za-z0-9_-]` becomes `.` and two lower-case hex digits. So no two databases share a
/// name, and keys need no encoding anywhere.
pub fn escape(database: &str) -> String {
    let mut name = String::with_capacity(database.len());
    for byte in database.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            name.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(name, ".{byte:02x}");
        }
    }
    name
}

/// The database whose name [`escape`] turned into `name`. `None` if `escape` never makes such a name.
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('.');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    let database = String::from_utf8(bytes).ok()?;
    // Upper-case digits, or an escape that is not needed, would be a second name for the same database.
    (!database.is_empty() && escape(&database) == name).then_some(database)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_time_are_the_same_thing() {
        let keys = Keys::new("backups/prod", "shop");
        let time = "2026-11-23T03:00:09Z".parse().unwrap();
        let name = "backups/prod/shop/shop_2026-11-23_03-00-09";
        for (format, encrypted, extension) in [
            (Format::Plain, false, "sql.gz"),
            (Format::Custom, false, "dump.gz"),
            (Format::Plain, true, "sql.gz.age"),
            (Format::Custom, true, "dump.gz.age"),
        ] {
            let key = keys.key(time, format, encrypted);
            assert_eq!(key, format!("{name}.{extension}"));
            assert_eq!(keys.parse(&key), Some((time, format, encrypted)));
        }
    }

    #[test]
    fn a_key_of_any_other_form_is_somebody_elses() {
        let keys = Keys::new("b", "app");
        for key in [
            "b/app/app_2026-11-23_03-00-09.sql",
            "b/app/app_2026-11-23_03-00-09.sql.gz.part",
            "b/app/app_2026-11-23_03-00-09.age",
            "b/app/app_2026-11-23_03-00-09.sql.age",
            "b/app/app_2026-11-23_03-00-09.sql.age.gz",
            "b/app/app_2026-11-23_03-00-09.sql.gz.age.age",
            "b/app/app_2026-11-23_03-00-09.sql.gz.AGE",
            "b/app/app_2026-11-23_03-00-09.sql.gzage",
            "b/app/app_2026-11-23_03-00-9.sql.gz",
            "b/app/app_2026-11-23_03-00-60.sql.gz",
            "b/app/app_2026-02-30_03-00-00.sql.gz",
            "b/app/app_2026-11-23T03-00-09.sql.gz",
            "b/app/app_+2026-11-23_03-00-09.sql.gz",
            "b/app/app_ 2026-11-23_03-00-09.sql.gz",
            "b/app/app_latest.sql.gz",
            "b/app/app2_2026-11-23_03-00-09.sql.gz",
            "b/app2/app_2026-11-23_03-00-09.sql.gz",
            "b/app/app/app_2026-11-23_03-00-09.sql.gz",
            "x/b/app/app_2026-11-23_03-00-09.sql.gz",
            "app/app_2026-11-23_03-00-09.sql.gz",
        ] {
            assert_eq!(keys.parse(key), None, "{key}");
        }
    }

    #[test]
    fn any_database_name_makes_a_plain_key() {
        assert_eq!(Keys::new("", "a b\"é/.").prefix(), "a.20b.22.c3.a9.2f.2e/a.20b.22.c3.a9.2f.2e_");
    }

    #[test]
    fn a_name_in_a_key_tells_the_database_if_it_is_the_one_that_pgkeep_writes() {
        for database in ["app", "a b\"é/.", "..", "A_b-9", "\n"] {
            assert_eq!(unescape(&escape(database)).as_deref(), Some(database));
        }
        for name in ["", ".", ".2", "a.2", ".2E", ".61", ".+5", ".ff", "a b", "é", ".2é", "a/b"] {
            assert_eq!(unescape(name), None, "{name}");
        }
    }

    #[test]
    fn the_globals_are_no_databases_backups() {
        let keys = Keys::of_globals("b");
        let key = keys.key("2026-11-23T03:00:09Z".parse().unwrap(), Format::Plain, false);
        assert_eq!(key, "b/.globals/.globals_2026-11-23_03-00-09.sql.gz");
        assert!(by_database("b", [Object { key: key.clone(), size: 1 }]).is_empty());
        assert_eq!(Keys::new("b", GLOBALS).parse(&key), None);
        for (key, ours) in [
            (key.as_str(), true),
            ("b/app/app_2026-11-23_03-00-09.sql.gz", true),
            ("b/app/app2_2026-11-23_03-00-09.sql.gz", false),
            ("b/.other/.other_2026-11-23_03-00-09.sql.gz", false),
            ("x/.globals/.globals_2026-11-23_03-00-09.sql.gz", false),
        ] {
            assert_eq!(is_a_backups("b", key), ours, "{key}");
        }
    }

    #[test]
    fn all_databases_below_a_path_are_found_and_nothing_else() {
        let found = |path: &str| -> Vec<(String, usize)> {
            let keys = [
                "b/app/app_2026-11-23_03-00-09.sql.gz",
                "b/app/app_2026-11-22_03-00-09.dump.gz",
                "b/app/app_2026-11-21_03-00-09.dump.gz.age",
                "b/app/app2_2026-11-23_03-00-09.sql.gz",
                "b/app2/app2_2026-11-23_03-00-09.sql.gz",
                "b/a.20b/a.20b_2026-11-23_03-00-09.sql.gz",
                "b/x.2E/x.2E_2026-11-23_03-00-09.sql.gz",
                "b/notes/notes_latest.sql.gz",
                "b/deeper/app/app_2026-11-23_03-00-09.sql.gz",
                "b2/app/app_2026-11-23_03-00-09.sql.gz",
                "app/app_2026-11-23_03-00-09.sql.gz",
            ];
            let objects = keys.map(|key| Object { key: key.to_owned(), size: 1 });
            by_database(path, objects).into_iter().map(|(name, backups)| (name, backups.len())).collect()
        };
        assert_eq!(found("b"), [("a b".into(), 1), ("app".into(), 3), ("app2".into(), 1)]);
        assert_eq!(found(""), [("app".into(), 1)]);
    }

    #[test]
    fn whatever_is_in_a_bucket_only_what_pgkeep_writes_is_a_backup() {
        let seeds = [
            "b/app/app_2026-11-23_03-00-09.sql.gz",
            "b/a.20b/a.20b_2024-02-29_23-59-59.dump.gz",
            "b/app/app_9999-12-31_00-00-00.sql.gz.age",
        ];
        crate::base::fuzz::feed(&seeds, |key| {
            let object = Object { key: key.to_owned(), size: 1 };
            for (database, backups) in by_database("b", [object]) {
                let keys = Keys::new("b", &database);
                let Backup { time, format, encrypted, .. } = backups[0];
                assert_eq!(keys.key(time, format, encrypted), key);
                assert_eq!(keys.parse(key), Some((time, format, encrypted)));
            }
            let name = escape(key);
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
            assert_eq!(unescape(&name).as_deref().unwrap_or_default(), key);
        });
    }
}
