//! Databases that a drill or a restore left behind, because pgkeep was killed or its machine crashed.

use std::fmt;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{identifier, Databases, Postgres};
use crate::base::units::TIMESTAMP;

/// Part of a database's name until the whole backup is in it. The time at which the work began follows it.
pub const UNFINISHED: &str = "unfinished";
/// The comment on such a database begins with this. It shows that the database is pgkeep's.
pub const COMMENT: &str = "pgkeep: an unfinished restore of";
/// The names of drills' databases begin with this.
pub const DRILL: &str = "pgkeep_drill";
/// No drill and no restore takes longer.
const OLD: TimeDelta = TimeDelta::days(1);
/// `2026-11-23_03-00-00`
const TIMESTAMP_LENGTH: usize = 19;
/// Databases with such names, and what must be known about them. The result is JSON, because names and
/// comments may contain line feeds.
const QUERY: &str = r"
    SELECT json_build_object('name', datname, 'comment', shobj_description(oid, 'pg_database'),
        'used', EXISTS (SELECT FROM pg_stat_activity WHERE datid = database.oid))
    FROM pg_database database
    WHERE datname ~ '^pgkeep_drill_|_unfinished_'
    ORDER BY datname";

/// A database that was left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its name.
    pub name: String,
    /// When its drill or restore began.
    begun: DateTime<Utc>,
    /// Whether it is certainly from a dead drill: its name and pgkeep's comment say so, and nobody is
    /// connected. Somebody may still want what a restore left.
    pub may_be_dropped: bool,
}

impl Leftover {
    /// All leftovers on a server.
    pub fn all(postgres: &Postgres, now: DateTime<Utc>) -> Result<Vec<Self>> {
        let answer = postgres.query(QUERY).context("databases that were left behind cannot be looked for")?;
        Ok(answer.lines().filter_map(|line| Self::read(line, now)).collect())
    }

    fn read(line: &str, now: DateTime<Utc>) -> Option<Self> {
        let found: Value = serde_json::from_str(line).ok()?;
        let name = found["name"].as_str()?.to_owned();
        let begun = time_in(&name)?;
        let commented = found["comment"].as_str().is_some_and(|comment| comment.starts_with(COMMENT));
        let may_be_dropped = is_of_drill(&name) && commented && found["used"] == false;
        (now - begun > OLD).then_some(Leftover { name, begun, may_be_dropped })
    }
}

impl Databases {
    /// All leftovers on this server.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        Leftover::all(&self.maintenance, Utc::now())
    }

    /// Drops a database, unless somebody is connected to it.
    pub fn drop_unused(&self, name: &str) -> Result<()> {
        self.run(&format!("DROP DATABASE {};", identifier(name))).map(drop)
    }
}

fn is_of_drill(name: &str) -> bool {
    name.strip_prefix(DRILL).is_some_and(|rest| rest.starts_with('_'))
}

/// The time at the end of a name, if only a drill or a restore makes such names.
fn time_in(name: &str) -> Option<DateTime<Utc>> {
    let (what, time) = name.split_at_checked(name.len().checked_sub(TIMESTAMP_LENGTH)?)?;
    let what = what.strip_suffix('_')?;
    let unfinished = what.strip_suffix(UNFINISHED).is_some_and(|what| what.ends_with('_'));
    let time = NaiveDateTime::parse_from_str(time, TIMESTAMP).ok()?;
    (unfinished || is_of_drill(what)).then(|| time.and_utc())
}

/// What the leftover is, and what to do.
impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the database \"{}\" was left behind by a drill or restore that began at {} and was broken off; DROP DATABASE {};",
            self.name,
            self.begun.format("%Y-%m-%d %H:%M:%S UTC"),
            identifier(&self.name)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-23T03:00:00Z".parse().unwrap()
    }

    #[test]
    fn only_what_is_old_is_left_behind_and_only_what_is_certain_may_be_dropped() {
        let ours = format!("{COMMENT} s3://b/shop/shop_2026.sql.gz");
        let ours = ours.as_str();
        for (name, comment, used, dropped) in [
            ("pgkeep_drill_7_unfinished_2026-11-22_02-59-59", ours, false, Some(true)),
            ("pgkeep_drill_7_unfinished_2026-11-22_02-59-59", ours, true, Some(false)),
            ("pgkeep_drill_7_unfinished_2026-11-22_02-59-59", "", false, Some(false)),
            ("pgkeep_drill_7_unfinished_2026-11-22_02-59-59", "pgkeep is a good tool", false, Some(false)),
            // Version 0.1 used such names, and made no comment.
            ("pgkeep_drill_7_2026-11-22_02-59-59", "", false, Some(false)),
            ("shop_unfinished_2026-11-22_02-59-59", ours, false, Some(false)),
            ("pgkeep_drills_unfinished_2026-11-22_02-59-59", ours, false, Some(false)),
            // Too young.
            ("pgkeep_drill_7_unfinished_2026-11-22_03-00-00", ours, false, None),
            // Somebody else's.
            ("shop_restored_2020-01-01_00-00-00", ours, false, None),
            ("shop_2020-01-01_00-00-00", ours, false, None),
            ("pgkeep_drill_", ours, false, None),
            ("pgkeep_drill_2020", ours, false, None),
            ("pgkeep_drills_2020-01-01_00-00-00", ours, false, None),
            ("shopunfinished_2020-01-01_00-00-00", ours, false, None),
            ("shop_unfinished2020-01-01_00-00-00", ours, false, None),
            ("shop_unfinished_2020-01-01_00-00-99", ours, false, None),
            ("shop_unfinished_é2020-01-01_00-00-0", ours, false, None),
        ] {
            let line = serde_json::json!({ "name": name, "comment": comment, "used": used }).to_string();
            let found = Leftover::read(&line, now());
            assert_eq!(found.map(|found| found.may_be_dropped), dropped, "{line}");
        }
        // If something is not known, the database is not dropped.
        let name = "pgkeep_drill_7_unfinished_2026-11-22_02-59-59";
        let unused = format!(r#"{{"name": "{name}", "comment": null, "used": false}}"#);
        let perhaps = format!(r#"{{"name": "{name}", "comment": "{ours}", "used": null}}"#);
        for line in ["", "{}", &unused, &perhaps] {
            assert!(Leftover::read(line, now()).is_none_or(|found| !found.may_be_dropped), "{line}");
        }
    }

    #[test]
    fn it_is_told_how_to_drop_it() {
        let line = r#"{"name": "a\"b_unfinished_2020-01-01_00-00-00", "comment": null, "used": false}"#;
        let told = Leftover::read(line, now()).unwrap().to_string();
        assert!(told.contains("began at 2020-01-01 00:00:00 UTC"), "{told}");
        assert!(told.ends_with("; DROP DATABASE \"a\"\"b_unfinished_2020-01-01_00-00-00\";"), "{told}");
    }
}
