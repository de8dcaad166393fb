//! The rows about several databases of a server.

use super::super::values;
use super::{Absent, Variable};
use crate::jobs::server::List;

pub(super) const DATABASES: Variable = Variable {
    name: "BACKUP_DATABASES",
    absent: Absent::Off("the one of POSTGRES_CONNECTION_STRING"),
    example: "'app,shop_*'",
    doc: "several databases of the server: names and patterns (* stands for any text), separated by commas; * alone is all \
          of them. The server is asked at each run, so a new database is in the next one. Templates and databases \
          that allow no connection are left out",
    aliases: &["BACKUP_DATABASE", "BACKUP_DBS", "POSTGRES_DATABASES"],
    set: |to, text| List::parse(text).map(|it| to.databases = Some(it)),
    show: |of| of.databases.as_ref().map_or(String::new(), List::to_string),
};

pub(super) const EXCLUDE_DATABASES: Variable = Variable {
    name: "BACKUP_EXCLUDE_DATABASES",
    absent: Absent::Off("none"),
    example: "'*_test'",
    doc: "names and patterns of databases that BACKUP_DATABASES leaves out",
    aliases: &["BACKUP_DATABASES_EXCLUDE", "BACKUP_EXCLUDE"],
    set: |to, text| List::parse(text).map(|it| to.exclude_databases = it),
    show: |of| of.exclude_databases.to_string(),
};

pub(super) const GLOBALS: Variable = Variable {
    name: "BACKUP_GLOBALS",
    absent: Absent::Off("true with BACKUP_DATABASES, else false"),
    example: "false",
    doc: "whether to back up what belongs to the server and to no database: roles with their passwords, memberships and \
          settings, and tablespaces (true or false; it needs BACKUP_DATABASES and pg_dumpall)",
    aliases: &[],
    set: |to, text| {
        to.globals = Some(values::one_of(text, &[("true", true), ("false", false)], "true or false")?);
        Ok(())
    },
    show: |of| of.globals.map_or(String::new(), |globals| globals.to_string()),
};

pub(super) const JOBS: Variable = Variable {
    name: "BACKUP_JOBS",
    absent: Absent::Value("1"),
    example: "2",
    doc: "how many databases are backed up at a time; each needs memory and temporary space of its own",
    aliases: &[],
    set: |to, text| values::count(text).map(|it| to.at_a_time = it),
    show: |of| of.at_a_time.to_string(),
};
