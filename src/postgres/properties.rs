//! The properties of a database that do not belong to its contents: encoding, locale, owner, grants, settings
//! and so on. pg_dump does not write them into a dump of one database
//! (<https://www.postgresql.org/docs/current/app-pgdump.html>, `--create`).

use anyhow::{Context, Result};
use serde_json::{json, Value};

use super::databases::{identifier, literal};

/// Settings whose values are lists of names and are stored as such (GUC_LIST_QUOTE in PostgreSQL's source).
/// pg_dump also knows them by name.
const LISTS: [&str; 6] = [
    "search_path",
    "temp_tablespaces",
    "local_preload_libraries",
    "session_preload_libraries",
    "shared_preload_libraries",
    "unix_socket_directories",
];
/// The tablespace of a database if nobody chose another one.
const USUAL_TABLESPACE: &str = "pg_default";
/// S3 keeps 2 kB of metadata with an object
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>), and other metadata needs
/// space too.
pub const LONGEST_RECORD: usize = 1400;

/// Whether something in the database `d` belongs to the role `r`, or gives it a right. What belongs to the
/// server's first role is not in pg_shdepend.
const NEEDED: &str = "
    EXISTS (SELECT FROM pg_shdepend s
            WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.dbid = d.oid)
    OR r.oid = 10 AND datname = current_database() AND EXISTS (
        SELECT FROM (
            SELECT oid, relnamespace AS space FROM pg_class WHERE relowner = 10
            UNION ALL SELECT oid, pronamespace FROM pg_proc WHERE proowner = 10
            UNION ALL SELECT oid, oid FROM pg_namespace WHERE nspowner = 10 AND nspname <> 'public') own
        JOIN pg_namespace n ON n.oid = space
        WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
          AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = own.oid AND e.deptype = 'e'))";

/// The properties of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties(Value);

/// A statement, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Named in a warning if the statement fails.
    pub about: String,
    /// SQL.
    pub sql: String,
}

impl Properties {
    /// A query that returns the properties as JSON. Not every server has every column, so columns are read
    /// from the row as JSON.
    pub(super) fn query(database: &str) -> String {
        format!(
            "SELECT json_build_object(
                'encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
                'provider', coalesce(to_jsonb(d) ->> 'datlocprovider', 'c'),
                'locale', coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'),
                'rules', to_jsonb(d) ->> 'daticurules',
                'tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = dattablespace),
                'owner', pg_get_userbyid(datdba), 'limit', datconnlimit, 'template', datistemplate,
                'comment', shobj_description(d.oid, 'pg_database'),
                'grants', (SELECT json_agg(json_build_array(
                               CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee) END, privilege_type, is_grantable))
                           FROM aclexplode(datacl)),
                'settings', (SELECT json_agg(json_build_array(
                                 CASE WHEN setrole <> 0 THEN pg_get_userbyid(setrole) END, setting))
                             FROM pg_db_role_setting, unnest(setconfig) setting WHERE setdatabase = d.oid),
                'extensions', CASE WHEN datname = current_database() THEN
                    (SELECT json_agg(extname ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql') END,
                'roles', (SELECT json_agg(rolname ORDER BY rolname) FROM pg_roles r WHERE {NEEDED}))
             FROM pg_database d WHERE datname = {};",
            literal(database)
        )
    }

    /// Reads the answer to [`Properties::query`], or a record.
    ///
    /// # Errors
    /// The text is neither of them.
    pub fn read(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).context("the database's properties cannot be read")?;
        Ok(Properties(value))
    }

    /// The properties as printable ASCII, for an object's metadata. If they are longer than `limit`, the longest are
    /// left out first: settings, then grants, then the comment.
    pub fn record(&self, limit: usize) -> String {
        let mut short = self.0.clone();
        for name in ["", "roles", "extensions", "settings", "grants", "comment", "rules"] {
            if let Some(value) = short.get_mut(name) {
                *value = Value::Null;
                if !["roles", "extensions"].contains(&name) {
                    short["cut"] = json!(true);
                }
            }
            let text = ascii(&short.to_string());
            if text.len() <= limit {
                return text;
            }
        }
        String::new()
    }

    /// The roles that something in the database belongs to or gives a right to. None, if they were not recorded.
    pub fn roles(&self) -> Vec<String> {
        self.texts("roles")
    }

    /// The extensions in the database, without the one that every database has.
    pub fn extensions(&self) -> Vec<String> {
        self.texts("extensions")
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.0[name].as_array().into_iter().flatten();
        texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    }

    /// Whether something was too long for the record.
    pub fn is_cut(&self) -> bool {
        self.0["cut"].as_bool().unwrap_or_default()
    }

    /// The same without the owner, or without the grants.
    pub fn without(mut self, owner: bool, grants: bool) -> Self {
        for (_, name) in [(owner, "owner"), (grants, "grants")].into_iter().filter(|(without, _)| *without) {
            self.0[name] = Value::Null;
        }
        self
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0[name].as_str()
    }

    /// Statements that each make such a database, with nothing in it. Try them one after the other: a server
    /// may lack the tablespace, the locale or its provider.
    pub fn create(&self, name: &str, major: u32) -> Vec<String> {
        let begin = format!("CREATE DATABASE {} TEMPLATE template0", identifier(name));
        let encoding =
            self.text("encoding").map_or(String::new(), |name| format!(" ENCODING {}", literal(name)));
        let tablespace = self.text("tablespace").filter(|name| *name != USUAL_TABLESPACE);
        let tablespace = tablespace.map_or(String::new(), |name| format!(" TABLESPACE {}", identifier(name)));
        let own = self.locale(major);
        let libc = self.libc(major);
        let c = " LC_COLLATE 'C' LC_CTYPE 'C'".to_owned();
        let mut statements = Vec::new();
        for locale in own.into_iter().chain([libc, String::new(), c]) {
            for tablespace in [tablespace.as_str(), ""] {
                let statement = format!("{begin}{encoding}{locale}{tablespace};");
                if !statements.contains(&statement) {
                    statements.push(statement);
                }
            }
        }
        statements
    }

    /// The database's own locale, if a server of this major version knows its provider.
    fn locale(&self, major: u32) -> Option<String> {
        let locale = self.text("locale").map(literal);
        let by = |provider: &str, keyword: &str| {
            let locale = locale.as_ref()?;
            let rules = self.text("rules").filter(|_| major >= 16);
            let rules = rules.map_or(String::new(), |rules| format!(" ICU_RULES {}", literal(rules)));
            Some(format!(" LOCALE_PROVIDER {provider} {keyword} {locale}{rules}{}", self.collations()))
        };
        match (self.text("provider"), major) {
            (Some("i"), 15..) => by("icu", "ICU_LOCALE"),
            (Some("b"), 17..) => by("builtin", "BUILTIN_LOCALE"),
            _ => None,
        }
    }

    fn libc(&self, major: u32) -> String {
        let provider = if major >= 15 { " LOCALE_PROVIDER libc" } else { "" };
        format!("{provider}{}", self.collations())
    }

    fn collations(&self) -> String {
        let clause = |keyword: &str, name: &str| {
            self.text(name).map_or(String::new(), |value| format!(" {keyword} {}", literal(value)))
        };
        clause("LC_COLLATE", "collate") + &clause("LC_CTYPE", "ctype")
    }

    /// How the database `made` differs from this one, which it should match: a text for a warning.
    pub fn differences(&self, made: &Properties) -> Option<String> {
        let names = ["encoding", "provider", "locale", "rules", "collate", "ctype", "tablespace"];
        let differ = names.into_iter().filter(|name| self.0[name] != made.0[name]);
        let told = differ.map(|name| {
            let show = |of: &Properties| of.text(name).unwrap_or("none").to_owned();
            format!("{name} {} instead of {}", show(made), show(self))
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    /// Statements that give a database the remaining properties. Run each one separately, so that a failed
    /// one does not stop the others.
    pub fn adopt(&self, name: &str) -> Vec<Statement> {
        let database = identifier(name);
        let mut statements = Vec::new();
        let mut add = |about: String, sql: String| statements.push(Statement { about, sql });
        if let Some(limit) = self.0["limit"].as_i64() {
            add("connection limit".into(), format!("ALTER DATABASE {database} CONNECTION LIMIT {limit};"));
        }
        if let Some(comment) = self.text("comment") {
            add("comment".into(), format!("COMMENT ON DATABASE {database} IS {};", literal(comment)));
        }
        for setting in self.0["settings"].as_array().into_iter().flatten() {
            let Some((parameter, value)) = setting[1].as_str().and_then(|text| text.split_once('=')) else {
                continue;
            };
            let whose = match setting[0].as_str() {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {database}", identifier(role)),
                None => format!("ALTER DATABASE {database}"),
            };
            let of = setting[0].as_str().map_or(String::new(), |role| format!(" of the role {role}"));
            let value = setting_value(parameter, value);
            add(
                format!("setting {parameter}{of}"),
                format!("{whose} SET {} TO {value};", quoted_parameter(parameter)),
            );
        }
        if let Some(grants) = self.0["grants"].as_array() {
            add("grants".into(), format!("REVOKE ALL ON DATABASE {database} FROM PUBLIC;"));
            for grant in grants {
                let (Some(privilege), grantee) = (grant[1].as_str(), grant[0].as_str()) else { continue };
                let to = grantee.map_or("PUBLIC".into(), identifier);
                let option = if grant[2].as_bool() == Some(true) { " WITH GRANT OPTION" } else { "" };
                let about = format!("grant of {privilege} to {}", grantee.unwrap_or("PUBLIC"));
                add(about, format!("GRANT {privilege} ON DATABASE {database} TO {to}{option};"));
            }
        }
        if let Some(true) = self.0["template"].as_bool() {
            add("IS_TEMPLATE".into(), format!("ALTER DATABASE {database} IS_TEMPLATE true;"));
        }
        // This comes last: a role that is no longer the owner may not do the rest.
        if let Some(owner) = self.text("owner") {
            add(
                format!("owner {owner}"),
                format!("ALTER DATABASE {database} OWNER TO {};", identifier(owner)),
            );
        }
        statements
    }
}

/// JSON that a header can hold: escapes all characters except printable ASCII, and each space that follows a
/// space.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii_graphic() || (c == ' ' && !text.ends_with(' ')) {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                text += &format!("\\u{unit:04x}");
            }
        }
    }
    text
}

/// The name of a parameter, which may contain a dot: `my.setting`.
fn quoted_parameter(name: &str) -> String {
    name.split('.').map(identifier).collect::<Vec<_>>().join(".")
}

/// A setting's value as SQL. The names of a list are quoted one by one, as pg_dump does
/// (`makeAlterConfigCommand`). An empty name means an empty list.
fn setting_value(parameter: &str, value: &str) -> String {
    if !LISTS.contains(&parameter.to_lowercase().as_str()) {
        return literal(value);
    }
    let names = list(value);
    if names.is_empty() {
        return "''".into();
    }
    names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
}

/// The names in a list. Some of them are in double quotes.
fn list(value: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut chars = value.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
        match chars.peek() {
            None => return names,
            Some('"') => {
                chars.next();
                let mut name = String::new();
                while let Some(c) = chars.next() {
                    if c == '"' && chars.next_if_eq(&'"').is_none() {
                        break;
                    }
                    name.push(c);
                }
                names.push(name);
            }
            Some(_) => {
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| *c != ',') {
                    name.push(c);
                }
                names.push(name.trim_end().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties() -> Properties {
        Properties::read(
            r#"{"encoding": "UTF8", "collate": "de_DE.utf8", "ctype": "C", "provider": "i", "locale": "de-x-icu",
                "rules": "&a < b", "tablespace": "fast", "owner": "o'ne", "limit": 5, "template": true, "comment": "it's",
                "grants": [[null, "CONNECT", false], ["r\"", "CREATE", true]],
                "settings": [[null, "search_path=\"\""], ["r", "work_mem=7MB"], [null, "search_path=a, \"B c\""],
                             [null, "my.x=1"]]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_database_is_made_like_the_old_one_or_as_near_as_the_server_can() {
        let statements = properties().create("d", 16);
        assert_eq!(
            statements[0],
            "CREATE DATABASE \"d\" TEMPLATE template0 ENCODING E'UTF8' LOCALE_PROVIDER icu ICU_LOCALE E'de-x-icu' \
             ICU_RULES E'&a < b' LC_COLLATE E'de_DE.utf8' LC_CTYPE E'C' TABLESPACE \"fast\";"
        );
        assert!(!statements[1].contains("TABLESPACE") && statements[1].contains("icu"), "{}", statements[1]);
        assert!(statements[2].contains("libc") && statements[2].contains("TABLESPACE"), "{}", statements[2]);
        assert!(statements.last().unwrap().ends_with("ENCODING E'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';"));
        // An older server knows no provider.
        assert!(properties().create("d", 14).iter().all(|statement| !statement.contains("PROVIDER")));
    }

    #[test]
    fn each_property_is_a_statement_of_its_own_and_the_owner_is_the_last() {
        let statements: Vec<String> = properties().adopt("d").into_iter().map(|of| of.sql).collect();
        assert_eq!(
            statements,
            [
                "ALTER DATABASE \"d\" CONNECTION LIMIT 5;",
                "COMMENT ON DATABASE \"d\" IS E'it''s';",
                "ALTER DATABASE \"d\" SET \"search_path\" TO E'';",
                "ALTER ROLE \"r\" IN DATABASE \"d\" SET \"work_mem\" TO E'7MB';",
                "ALTER DATABASE \"d\" SET \"search_path\" TO E'a', E'B c';",
                "ALTER DATABASE \"d\" SET \"my\".\"x\" TO E'1';",
                "REVOKE ALL ON DATABASE \"d\" FROM PUBLIC;",
                "GRANT CONNECT ON DATABASE \"d\" TO PUBLIC;",
                "GRANT CREATE ON DATABASE \"d\" TO \"r\"\"\" WITH GRANT OPTION;",
                "ALTER DATABASE \"d\" IS_TEMPLATE true;",
                "ALTER DATABASE \"d\" OWNER TO \"o'ne\";",
            ]
        );
    }

    #[test]
    fn what_differs_is_named() {
        let mut made = properties();
        assert_eq!(properties().differences(&made), None);
        made.0["provider"] = json!("c");
        made.0["locale"] = Value::Null;
        assert_eq!(
            properties().differences(&made).unwrap(),
            "provider c instead of i, locale none instead of de-x-icu"
        );
    }

    #[test]
    fn a_record_is_short_and_printable_and_is_read_again() {
        let mut of = properties();
        of.0["comment"] = json!("é  🐘\n");
        let record = of.record(LONGEST_RECORD);
        assert!(
            record.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !record.contains("  "),
            "{record}"
        );
        assert_eq!(Properties::read(&record).unwrap(), of);
        of.0["settings"] = json!([[null, "x".repeat(3000)]]);
        let record = of.record(LONGEST_RECORD);
        assert!(record.len() <= LONGEST_RECORD);
        let read = Properties::read(&record).unwrap();
        assert!(read.is_cut() && read.text("comment") == of.text("comment"));
        assert_eq!(read.0["settings"], Value::Null);
    }
}
