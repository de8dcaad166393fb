//! The contents of a database: whether there is anything, its tables and their rows.

use anyhow::{Context, Result};
use log::warn;

use super::Databases;
use crate::base::units;

/// Counts everything that somebody made in a database. What an extension made does not count, nor what
/// depends on it (indexes, row types, arrays).
const OWN: &str = "
    WITH RECURSIVE of_extensions AS (
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
        UNION
        SELECT d.classid, d.objid FROM pg_depend d JOIN of_extensions o ON (d.refclassid, d.refobjid) = (o.classid, o.objid)
        WHERE d.deptype IN ('a', 'i')),
    own AS (SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'),
    found AS (
        SELECT 'pg_class'::regclass AS class, oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM own)
        UNION ALL SELECT 'pg_proc'::regclass, oid FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own)
        UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type
            WHERE typnamespace IN (SELECT oid FROM own) AND typtype IN ('e', 'd', 'r')
        UNION ALL SELECT 'pg_namespace'::regclass, oid FROM pg_namespace
            WHERE oid IN (SELECT oid FROM own) AND nspname <> 'public')
    SELECT (SELECT count(*) FROM found WHERE (class, oid) NOT IN (SELECT classid, objid FROM of_extensions))
         + (SELECT count(*) FROM pg_largeobject_metadata);";

/// The tables as a JSON list, with names as SQL needs them.
const TABLES: &str = "
    SELECT coalesce(json_agg(format('%I.%I', nspname, relname) ORDER BY nspname, relname), '[]')
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind = 'r' AND nspname !~ '^pg_' AND nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e');";

/// A table and its number of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Schema and name, quoted if SQL needs it.
    pub name: String,
    /// The number of rows, without those of its partitions. `None` if they could not be counted.
    pub rows: Option<u64>,
}

impl Databases {
    /// Whether a database has nothing of its own: no relation, function, type, schema or large object except
    /// those of extensions.
    pub fn is_empty(&self, name: &str) -> Result<bool> {
        let found = self.connect(name).query(OWN);
        Ok(found.with_context(|| format!("cannot look into the database \"{name}\""))? == "0")
    }

    /// Every table with its number of rows, sorted by name. Counting does not judge a restore: a table that
    /// cannot be counted (a right was revoked, or row security would hide rows) has no number.
    pub fn tables(&self, name: &str) -> Result<Vec<Table>> {
        let database = self.connect(name);
        let names = database.query(TABLES)?;
        let names: Vec<String> =
            serde_json::from_str(&names).context("the names of the tables cannot be read")?;
        let mut tables: Vec<Table> = names.into_iter().map(|name| Table { name, rows: None }).collect();
        // Each table is counted separately: so only few locks are held at a time, and a failure does not stop
        // the others.
        let mut script = String::from("\\set ON_ERROR_STOP off\nSET row_security = off;\n");
        for (number, Table { name, .. }) in tables.iter().enumerate() {
            script += &format!("SELECT {number}, count(*) FROM ONLY {name};\n");
        }
        let counted = database.work(&script);
        for line in counted.iter().flat_map(|answer| answer.lines()) {
            let number = |text: &str| text.parse::<u64>().ok();
            let Some((at, rows)) =
                line.split_once('\t').and_then(|(at, rows)| Some((number(at)?, number(rows)?)))
            else {
                continue;
            };
            if let Some(table) = usize::try_from(at).ok().and_then(|at| tables.get_mut(at)) {
                table.rows = Some(rows);
            }
        }
        if let Err(failure) = counted {
            warn!("the rows of \"{name}\" were not all counted: {failure:#}");
        }
        let uncounted: Vec<String> =
            tables.iter().filter(|table| table.rows.is_none()).map(|table| table.name.clone()).collect();
        if !uncounted.is_empty() {
            let few = &uncounted[..uncounted.len().min(3)];
            warn!(
                "the rows of {} could not be counted; they were restored all the same",
                units::first_few(few, uncounted.len())
            );
        }
        Ok(tables)
    }
}
