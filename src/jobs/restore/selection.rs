//! Which parts of an archive to restore.
//!
//! pg_restore's own `--table` takes no schema, leaves out indexes, keys, triggers, grants and the partitions, and
//! finding nothing is no error for it. So pgkeep reads the table of contents, decides, and gives pg_restore the
//! list of entries.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{ensure, Result};

use crate::base::units;
use crate::dump::archive::contents::Entry;

/// What `--table` finds.
const TABLES: [&str; 5] = ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "SEQUENCE"];
/// What holds rows, and parts of it. They are restored only if they were asked for, not because something else
/// needs them: a foreign key does not bring the table that it refers to.
const ONLY_IF_ASKED_FOR: [&str; 7] =
    ["TABLE", "VIEW", "MATERIALIZED VIEW", "FOREIGN TABLE", "INDEX", "CONSTRAINT", "TABLE DATA"];
/// What belongs to any other entry that it needs.
const OF_ANYTHING: [&str; 3] = ["ACL", "COMMENT", "SECURITY LABEL"];
/// What belongs to the entry that it needs and whose name begins its own name.
const NAMED_AFTER: [&str; 14] = [
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "STATISTICS DATA",
    "DEFAULT",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "TABLE ATTACH",
];
/// This has the name of the partition's index, which may be that of a constraint: `orders_2026 orders_2026_pkey`.
const OF_AN_INDEX: &str = "INDEX ATTACH";
/// What belongs to the table that it needs. Its own name may be any.
const OF_A_TABLE: [&str; 3] = ["INDEX", "STATISTICS", "SEQUENCE"];
/// A publication is for a whole database.
const NEVER: [&str; 2] = ["PUBLICATION TABLE", "PUBLICATION TABLES IN SCHEMA"];
/// At most this many entries are named in a message.
const FEW: usize = 5;

/// What pg_restore can do but psql cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Restore these tables: `table` in any schema, or `schema.table`.
    pub tables: Vec<String>,
    /// Restore these schemas.
    pub schemas: Vec<String>,
    /// Restore this many tables in parallel.
    pub jobs: Option<u16>,
    /// Everything belongs to the role that restores.
    pub no_owner: bool,
    /// Restore no grants.
    pub no_privileges: bool,
}

impl Selection {
    /// Whether a plain backup cannot be restored like this.
    pub fn is_any(&self) -> bool {
        *self != Selection::default()
    }

    /// Whether only a part of the backup is restored.
    pub fn is_part(&self) -> bool {
        !self.tables.is_empty() || !self.schemas.is_empty()
    }

    /// The arguments of pg_restore that have nothing to do with the parts.
    pub fn of_roles(&self) -> impl Iterator<Item = String> {
        let options = [(self.no_owner, "--no-owner"), (self.no_privileges, "--no-privileges")];
        options.into_iter().filter(|(given, _)| *given).map(|(_, option)| option.to_owned())
    }

    /// The entries to restore: what is named, what belongs to it (rows, partitions, indexes, keys, triggers,
    /// policies, grants, comments) and what all of that needs (types, functions, sequences, extensions).
    ///
    /// # Errors
    /// A name that means nothing, or a table that cannot be made without another one.
    pub fn pick(&self, entries: &[Entry]) -> Result<Picked> {
        let contents = Contents::of(entries);
        let named = self.named(&contents)?;
        let mut wanted = contents.with_belongings(named.clone());
        let (mut gone, mut left_out) = (BTreeSet::new(), Vec::new());
        loop {
            let mut helpers = BTreeSet::new();
            let mut blocked = BTreeMap::new();
            for &id in &wanted {
                match contents.helpers(id, &wanted) {
                    Ok(more) => helpers.extend(more),
                    Err(missing) => drop(blocked.insert(id, missing)),
                }
            }
            if blocked.is_empty() {
                let ids = &contents.with_belongings(&wanted | &helpers) - &gone;
                let order = entries.iter().map(|entry| entry.id);
                return Ok(Picked { ids: order.filter(|id| ids.contains(id)).collect(), left_out });
            }
            for (id, missing) in &blocked {
                let (entry, missing) = (contents.show(*id), contents.show(*missing));
                ensure!(
                    !(named.contains(id) && self.names(contents.entry(*id))),
                    "{entry} cannot be restored without {missing}, which is not selected"
                );
                left_out.push(format!("{entry} (needs {missing})"));
            }
            gone.extend(contents.with_belongings(blocked.into_keys().collect()));
            wanted = &wanted - &gone;
        }
    }

    /// The entries that are named. Each name has to mean something.
    fn named(&self, contents: &Contents) -> Result<BTreeSet<i32>> {
        let mut named = BTreeSet::new();
        let mut unknown = Vec::new();
        for table in &self.tables {
            let found = contents.ids(|entry| is_table(entry, table));
            if found.is_empty() {
                unknown.push(format!("no table \"{table}\""));
            }
            named.extend(found);
        }
        for schema in &self.schemas {
            let found = contents.ids(|entry| is_in_schema(entry, schema));
            if found.is_empty() {
                unknown.push(format!("no schema \"{schema}\""));
            }
            named.extend(found);
        }
        ensure!(
            unknown.is_empty(),
            "the backup has {}; a name is given as the catalogue has it, without quotes: Orders is not orders",
            unknown.join(", ")
        );
        Ok(named)
    }

    fn names(&self, entry: &Entry) -> bool {
        self.tables.iter().any(|table| is_table(entry, table))
    }
}

/// What to restore.
#[derive(Debug)]
pub struct Picked {
    /// The entries, in their order.
    pub ids: Vec<i32>,
    /// What is missing, because it needs something that was not asked for.
    left_out: Vec<String>,
}

impl Picked {
    /// The list of entries as pg_restore reads it.
    pub fn list(&self) -> String {
        self.ids.iter().map(|id| format!("{id};\n")).collect()
    }

    /// A sentence about what is missing, if anything is.
    pub fn missing(&self) -> Option<String> {
        let few = &self.left_out[..self.left_out.len().min(FEW)];
        (!few.is_empty()).then(|| {
            let what = units::first_few(few, self.left_out.len());
            format!("not restored, as it needs what is not selected: {what}")
        })
    }
}

/// Whether `--table` means this entry. A dot may also be a part of a name.
fn is_table(entry: &Entry, name: &str) -> bool {
    let in_schema = name.strip_prefix(&entry.schema).and_then(|rest| rest.strip_prefix('.'));
    TABLES.contains(&entry.kind.as_str()) && (entry.name == name || in_schema == Some(&entry.name))
}

/// Whether `--schema` means this entry.
fn is_in_schema(entry: &Entry, schema: &str) -> bool {
    let itself = entry.kind == "SCHEMA" && entry.name == schema;
    itself || (entry.schema == schema && !NEVER.contains(&entry.kind.as_str()))
}

/// A table of contents.
struct Contents<'a> {
    entries: &'a [Entry],
    by_id: BTreeMap<i32, &'a Entry>,
    schemas: BTreeMap<&'a str, i32>,
    /// Pairs of a partition (or its index) and what it is attached to. It can be made without that.
    attached: BTreeSet<(i32, i32)>,
}

impl<'a> Contents<'a> {
    fn of(entries: &'a [Entry]) -> Self {
        let by_id: BTreeMap<_, _> = entries.iter().map(|entry| (entry.id, entry)).collect();
        let schemas = entries.iter().filter(|entry| entry.kind == "SCHEMA");
        let schemas = schemas.map(|entry| (entry.name.as_str(), entry.id)).collect();
        let mut contents = Contents { entries, by_id, schemas, attached: BTreeSet::new() };
        for attach in entries.iter().filter(|entry| entry.kind.ends_with(" ATTACH")) {
            let Some(part) = contents.owners(attach).next() else { continue };
            let is_table = |id: i32| contents.by_id.get(&id).is_some_and(|of| of.kind.ends_with("TABLE"));
            let whole = attach.needs.iter().filter(|id| **id != part && is_table(**id) == is_table(part));
            let pairs: Vec<_> = whole.map(|whole| (part, *whole)).collect();
            contents.attached.extend(pairs);
        }
        contents
    }

    fn entry(&self, id: i32) -> &'a Entry {
        self.by_id[&id]
    }

    fn ids(&self, means: impl Fn(&Entry) -> bool) -> Vec<i32> {
        self.entries.iter().filter(|entry| means(entry)).map(|entry| entry.id).collect()
    }

    /// The entries that this one belongs to.
    fn owners<'b>(&'b self, entry: &'b Entry) -> impl Iterator<Item = i32> + 'b {
        let kind = entry.kind.as_str();
        let owns = move |owner: &&Entry| {
            let holds_rows = TABLES.contains(&owner.kind.as_str());
            let beside = entry.schema == owner.schema;
            let named_after = || {
                let rest = entry.name.strip_prefix(&owner.name);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            };
            let is_index = || {
                let rest = owner.name.strip_suffix(&entry.name);
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(' '))
            };
            OF_ANYTHING.contains(&kind)
                || (OF_A_TABLE.contains(&kind) && holds_rows)
                || (NAMED_AFTER.contains(&kind) && beside && named_after())
                || (kind == OF_AN_INDEX && beside && is_index())
        };
        entry.needs.iter().filter_map(|id| self.by_id.get(id).copied()).filter(owns).map(|owner| owner.id)
    }

    /// These entries and all that belongs to them.
    fn with_belongings(&self, mut ids: BTreeSet<i32>) -> BTreeSet<i32> {
        loop {
            let before = ids.len();
            for entry in self.entries {
                if !ids.contains(&entry.id) && self.owners(entry).any(|owner| ids.contains(&owner)) {
                    ids.insert(entry.id);
                }
            }
            // A partition belongs to its table.
            let parts = self.attached.iter().filter(|(_, whole)| ids.contains(whole)).map(|(part, _)| *part);
            let parts: Vec<i32> = parts.collect();
            ids.extend(parts);
            if ids.len() == before {
                return ids;
            }
        }
    }

    /// What has to be restored too for an entry. What `wanted` has is there anyway.
    ///
    /// # Errors
    /// It needs something that was not asked for.
    fn helpers(&self, id: i32, wanted: &BTreeSet<i32>) -> Result<BTreeSet<i32>, i32> {
        let (mut helpers, mut open) = (BTreeSet::new(), vec![id]);
        while let Some(id) = open.pop() {
            let entry = self.entry(id);
            let schema = self.schemas.get(entry.schema.as_str());
            let needs = entry.needs.iter().filter(|need| !self.attached.contains(&(id, **need)));
            for need in needs.chain(schema).filter(|need| self.by_id.contains_key(need)) {
                if wanted.contains(need) || helpers.contains(need) {
                    continue;
                }
                if ONLY_IF_ASKED_FOR.contains(&self.entry(*need).kind.as_str()) {
                    return Err(*need);
                }
                helpers.insert(*need);
                open.push(*need);
            }
        }
        Ok(helpers)
    }

    /// `view shop.totals`.
    fn show(&self, id: i32) -> String {
        let Entry { kind, schema, name, .. } = self.entry(id);
        let dot = if schema.is_empty() { "" } else { "." };
        units::printable(&format!("{} {schema}{dot}{name}", kind.to_lowercase())).to_string()
    }
}

#[cfg(test)]
mod tests;
