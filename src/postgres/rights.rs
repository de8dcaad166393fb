//! What the role of the connection may read: pg_dump needs every table, and every row.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Postgres;
use crate::base::units;

/// Members of this role may read everything. The number is the first major version that has it.
const READS_ALL: (&str, u32) = ("pg_read_all_data", 14);

/// Checks only what pg_dump reads. Of an extension's tables, these are the ones that the extension marks as a
/// user's data. The rows of views, foreign tables and materialized views are not dumped. Row security of a
/// partitioned table does not matter, because its partitions are read.
///
/// The result is JSON, because names may contain line feeds.
const QUERY: &str = r"
    SELECT json_build_object(
        'role', quote_ident(current_user),
        'unreadable', count(*) FILTER (WHERE NOT readable),
        'unreadable_names', (array_agg(name ORDER BY name) FILTER (WHERE NOT readable))[1:5],
        'hidden', count(*) FILTER (WHERE hidden),
        'hidden_names', (array_agg(name ORDER BY name) FILTER (WHERE hidden))[1:5])
    FROM (
        SELECT format('%I.%I', nspname, relname) AS name,
               has_schema_privilege(n.oid, 'USAGE')
                   AND CASE relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                                    ELSE has_table_privilege(c.oid, 'SELECT') END AS readable,
               relkind = 'r' AND relrowsecurity AND row_security_active(c.oid) AS hidden
        FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'S') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
          AND (NOT EXISTS (SELECT FROM pg_depend
                           WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
               OR EXISTS (SELECT FROM pg_extension WHERE c.oid = ANY (extconfig)))
    ) relation;";

/// What prevents a whole dump by this role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// The role's name, quoted for SQL.
    role: String,
    /// Tables and sequences that the role may not read.
    unreadable: Relations,
    /// Tables in which the role would not see every row.
    hidden: Relations,
}

/// Some tables, and their total number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Relations {
    count: usize,
    /// The first few, quoted for SQL.
    names: Vec<String>,
}

impl Rights {
    /// Asks the server.
    pub fn ask(postgres: &Postgres) -> Result<Self> {
        let answer = postgres.query(QUERY).context("the role's rights cannot be found out")?;
        Self::read(&answer).with_context(|| format!("psql answered \"{answer}\" to: {QUERY}"))
    }

    fn read(answer: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(answer).ok()?;
        let relations = |field: &str| {
            // Null if there are none.
            let names = answer[format!("{field}_names")].as_array().into_iter().flatten();
            let names = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
            Some(Relations { count: answer[field].as_u64()?.try_into().ok()?, names })
        };
        Some(Rights {
            role: answer["role"].as_str()?.to_owned(),
            unreadable: relations("unreadable")?,
            hidden: relations("hidden")?,
        })
    }

    /// Which tables and sequences the role may not read, and what would change that on a server of this major
    /// version.
    pub fn unreadable(&self, major: u32) -> Option<String> {
        let (role, (reads_all, since)) = (&self.role, READS_ALL);
        let remedy = match major >= since {
            true => format!("GRANT {reads_all} TO {role}"),
            false => format!(
                "GRANT USAGE ON SCHEMA … TO {role} and GRANT SELECT ON ALL TABLES and ALL SEQUENCES IN SCHEMA … TO {role}"
            ),
        };
        let what = self.unreadable.list()?;
        Some(format!("the role {role} may not read {what}, and pg_dump stops at that; {remedy}"))
    }

    /// Which tables have hidden rows, and what would change that.
    pub fn hidden(&self) -> Option<String> {
        let (what, role) = (self.hidden.list()?, &self.role);
        Some(format!(
            "policies may hide rows of {what} from the role {role}, and pg_dump refuses that; ALTER ROLE {role} \
             BYPASSRLS"
        ))
    }
}

impl Relations {
    fn list(&self) -> Option<String> {
        (self.count > 0).then(|| units::first_few(&self.names, self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_are_named_with_a_remedy_that_the_server_knows() {
        let answer = r#"{"role" : "\"a b\"", "unreadable" : 7,
            "unreadable_names" : ["s.a", "s.\"b\nc\"", "s.d", "s.e", "s.f"], "hidden" : 1, "hidden_names" : ["s.a"]}"#;
        let rights = Rights::read(answer).unwrap();
        let told = rights.unreadable(14).unwrap();
        assert!(told.contains("s.a, s.\"b\nc\", s.d, s.e, s.f and 2 more"), "{told}");
        assert!(told.ends_with("; GRANT pg_read_all_data TO \"a b\""), "{told}");
        let told = rights.unreadable(13).unwrap();
        assert!(told.contains("ALL SEQUENCES") && !told.contains("pg_read_all_data"), "{told}");
        assert!(rights.hidden().unwrap().ends_with("; ALTER ROLE \"a b\" BYPASSRLS"));
    }

    #[test]
    fn nothing_in_the_way_is_nothing_to_tell() {
        let answer = r#"{"role" : "r", "unreadable" : 0, "unreadable_names" : null, "hidden" : 0, "hidden_names" : null}"#;
        let rights = Rights::read(answer).unwrap();
        assert_eq!((rights.unreadable(18), rights.hidden()), (None, None));
        for answer in ["", "{}", r#"{"role" : "r"}"#, "[]"] {
            assert_eq!(Rights::read(answer), None, "{answer}");
        }
    }
}
