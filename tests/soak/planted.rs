//! Objects that are named as backups and are none.

use std::io::Write;
use std::path::PathBuf;

use chrono::{TimeDelta, Utc};
use fastrand::Rng;
use flate2::{write::GzEncoder, Compression};

use crate::keeper::Keeper;
use crate::support::postgres;
use crate::support::s3;

/// The longest text of a dump that is cut off.
const LONGEST: usize = 50_000;

/// What it is instead.
#[derive(Clone, Copy, Debug)]
pub enum Planted {
    Garbage,
    /// A script that runs a command on the host of whoever restores it.
    Script,
    /// A dump whose end is missing.
    CutOff,
}

/// What is in the bucket.
pub struct Object {
    pub key: String,
    /// There as soon as what was planted is run.
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Planted {
    pub const ALL: [Self; 3] = [Planted::Garbage, Planted::Script, Planted::CutOff];

    pub fn name(self) -> &'static str {
        match self {
            Planted::Garbage => "garbage",
            Planted::Script => "a script with \\!",
            Planted::CutOff => "a dump that is cut off",
        }
    }

    /// Puts one into the bucket that is named by a time so many seconds ago, or an earlier one that is free.
    pub fn put(self, database: &str, ago: u32, dump: &str, s3: &s3::Server, rng: &mut Rng) -> Object {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let taken = s3.objects();
        let keys = (ago..).map(|ago| {
            let time = Utc::now() - TimeDelta::seconds(ago.into());
            format!("{database}/{database}_{}.sql.gz", time.format("%Y-%m-%d_%H-%M-%S"))
        });
        let key = keys.into_iter().find(|key| !taken.contains_key(key)).expect("a free second");
        let bytes = match self {
            Planted::Garbage => (0..rng.usize(..1000)).map(|_| rng.u8(..)).collect(),
            Planted::Script => gzip(&format!(
                "--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE planted (id integer);\n\n\\! touch {}\n\n\
                 --\n-- PostgreSQL database dump complete\n--\n\n",
                file.display()
            )),
            Planted::CutOff => {
                let mut bytes = gzip(&dump.chars().take(LONGEST).collect::<String>());
                // The last few bytes as often as a lot of them.
                let most = bytes.len().min(1 << rng.u8(1..16));
                bytes.truncate(bytes.len() - rng.usize(1..=most));
                bytes
            }
        };
        s3.plant(&key, &bytes);
        Object { key, file, _directory: directory }
    }
}

impl Object {
    /// A restore of it fails and leaves nothing, it is listed beside the others, and those are fine.
    pub fn is_refused(&self, keeper: &Keeper, newest: Option<&String>, context: &str) {
        let outcome = keeper.pgkeep.run(&["restore", &self.key, "--database", "planted"]);
        let log = outcome.log;
        assert!(!self.file.exists(), "{} ran a command: {log}\n{context}", self.key);
        assert!(
            outcome.status == 1 && log.contains("restore failed: "),
            "{} is restored: {log}\n{context}",
            self.key
        );
        let left = postgres::server()
            .psql("postgres", "SELECT datname FROM pg_database WHERE starts_with(datname, 'planted')");
        assert_eq!(left, "", "{log}\n{context}");
        let listed = keeper.pgkeep.succeed(&["list"]).stdout;
        assert!(listed.contains(&self.key), "{listed}\n{context}");
        if let Some(newest) = newest {
            assert!(listed.contains(newest), "{listed}\n{context}");
            keeper.pgkeep.succeed(&["verify"]);
        }
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).expect("memory");
    gzip.finish().expect("memory")
}
