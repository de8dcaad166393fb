//! pg_dump's options, up to version 18, and whether pgkeep passes them on.

use Effect::{Narrows, OtherRole, Passed, Refused};

/// An option of pg_dump.
pub struct Known {
    /// Its letter, or `'\0'`.
    pub short: char,
    /// Its long name.
    pub long: &'static str,
    /// Whether a value has to follow.
    pub takes_value: bool,
    /// What it does to a backup.
    pub effect: Effect,
}

/// What an option does to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The backup still restores to the whole database.
    Passed,
    /// The backup has only a part of the database.
    Narrows,
    /// Another role reads the database.
    OtherRole,
    /// With it, there would be no backup that pgkeep can make or restore. The text says why.
    Refused(&'static str),
}

const CONNECTION: Effect = Refused("POSTGRES_CONNECTION_STRING says how to connect, and to which database");
const NO_DATA: Effect =
    Refused("without the data there is no backup (--exclude-table-data leaves out that of some tables)");
const NO_SCHEMA: Effect =
    Refused("without the definitions of the tables the backup does not restore into a new database");
const NO_DUMP: Effect = Refused("with it pg_dump dumps nothing");
const CLEAN: Effect = Refused(
    "pgkeep restores into a new database, where there is nothing to drop, and some of these statements fail there",
);

const fn flag(short: char, long: &'static str, effect: Effect) -> Known {
    Known { short, long, takes_value: false, effect }
}

const fn value(short: char, long: &'static str, effect: Effect) -> Known {
    Known { short, long, takes_value: true, effect }
}

/// In the order of `pg_dump --help`.
pub const KNOWN: &[Known] = &[
    value('f', "file", Refused("pgkeep itself takes the dump and uploads it")),
    value('F', "format", Refused("BACKUP_FORMAT chooses the format")),
    value('j', "jobs", Refused("several jobs write a directory, and a backup is one file")),
    flag('v', "verbose", Passed),
    flag('V', "version", NO_DUMP),
    value('Z', "compress", Refused("pgkeep compresses; BACKUP_COMPRESSION_LEVEL says how much")),
    value('\0', "lock-wait-timeout", Refused("BACKUP_LOCK_TIMEOUT says how long to wait")),
    flag('\0', "no-sync", Passed),
    value('\0', "sync-method", Passed),
    flag('?', "help", NO_DUMP),
    flag('a', "data-only", NO_SCHEMA),
    flag('b', "large-objects", Passed),
    flag('\0', "blobs", Passed),
    flag('B', "no-large-objects", Narrows),
    flag('\0', "no-blobs", Narrows),
    flag('c', "clean", CLEAN),
    flag(
        'C',
        "create",
        Refused("pgkeep makes the database itself when it restores, with its owner and settings"),
    ),
    value('e', "extension", Narrows),
    value('E', "encoding", Passed),
    value('n', "schema", Narrows),
    value('N', "exclude-schema", Narrows),
    flag('O', "no-owner", Passed),
    flag('s', "schema-only", NO_DATA),
    value('S', "superuser", Passed),
    value('t', "table", Narrows),
    value('T', "exclude-table", Narrows),
    flag('x', "no-privileges", Passed),
    flag('\0', "no-acl", Passed),
    flag('\0', "binary-upgrade", Refused("it is for pg_upgrade alone, and does not restore elsewhere")),
    flag('\0', "column-inserts", Passed),
    flag('\0', "attribute-inserts", Passed),
    flag('\0', "disable-dollar-quoting", Passed),
    flag('\0', "disable-triggers", Passed),
    flag('\0', "enable-row-security", Refused("rows that policies hide would be missing without a word")),
    value('\0', "exclude-extension", Narrows),
    value('\0', "exclude-table-and-children", Narrows),
    value('\0', "exclude-table-data", Narrows),
    value('\0', "exclude-table-data-and-children", Narrows),
    value('\0', "extra-float-digits", Passed),
    value('\0', "filter", Narrows),
    flag('\0', "if-exists", CLEAN),
    value(
        '\0',
        "include-foreign-data",
        Refused("a restore or a drill would write these rows to the foreign server"),
    ),
    flag('\0', "inserts", Passed),
    flag('\0', "load-via-partition-root", Passed),
    flag('\0', "no-comments", Passed),
    flag('\0', "no-data", NO_DATA),
    flag('\0', "no-policies", Passed),
    flag('\0', "no-publications", Passed),
    flag('\0', "no-schema", NO_SCHEMA),
    flag('\0', "no-security-labels", Passed),
    flag('\0', "no-statistics", Passed),
    flag('\0', "no-subscriptions", Passed),
    flag('\0', "no-synchronized-snapshots", Passed),
    flag('\0', "no-table-access-method", Passed),
    flag('\0', "no-tablespaces", Passed),
    flag('\0', "no-toast-compression", Passed),
    flag('\0', "no-unlogged-table-data", Narrows),
    flag('\0', "on-conflict-do-nothing", Passed),
    flag('\0', "quote-all-identifiers", Passed),
    value(
        '\0',
        "restrict-key",
        Refused("pg_dump makes a key that nobody can know, for each dump another one"),
    ),
    value('\0', "rows-per-insert", Passed),
    value('\0', "section", Refused("a backup needs all sections")),
    flag('\0', "sequence-data", Passed),
    flag('\0', "serializable-deferrable", Passed),
    value('\0', "snapshot", Refused("a snapshot does not outlive the session that exported it")),
    flag('\0', "statistics", Passed),
    flag('\0', "statistics-only", NO_DATA),
    flag('\0', "strict-names", Passed),
    value('\0', "table-and-children", Narrows),
    flag('\0', "use-set-session-authorization", Passed),
    value('d', "dbname", CONNECTION),
    value('h', "host", CONNECTION),
    value('p', "port", CONNECTION),
    value('U', "username", CONNECTION),
    flag('w', "no-password", CONNECTION),
    flag('W', "password", CONNECTION),
    value('\0', "role", OtherRole),
];
