//! `pgkeep get`: writes a backup's file, and checks it on the way.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use lexopt::prelude::*;
use log::{info, warn};

use super::{said, unexpected, Command, Outcome, Row, NEEDS_WHICH, NO_KEY};
use crate::base::units;
use crate::jobs::fetch::{self, Proof};
use crate::jobs::Job;

pub(super) const ROW: Row = Row {
    name: "get",
    options: "WHICH [-o FILE]",
    summary: "fetch a backup's file, checked on the way",
    details: "
  -o, --output FILE   the file, or a directory for it (default: the backup's own name, here); - is
                      standard output. A file appears when it is whole, and replaces none
",
    parse,
};

/// The options of `pgkeep get`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which backup to get.
    pub which: String,
    /// The file to write; `-` means standard output.
    pub output: Option<PathBuf>,
}

fn parse(parser: &mut lexopt::Parser) -> Result<Command, String> {
    let mut options = Options::default();
    while let Some(argument) = parser.next().map_err(said)? {
        match argument {
            Short('o') | Long("output") => options.output = Some(parser.value().map_err(said)?.into()),
            Value(which) if options.which.is_empty() => options.which = which.string().map_err(said)?,
            other => return Err(unexpected(other)),
        }
    }
    if options.which.is_empty() {
        return Err(format!("get {NEEDS_WHICH}"));
    }
    Ok(Command::Get(options))
}

pub(super) fn command(job: &Job, options: &Options) -> Result<Outcome> {
    let (store, output) = (&job.store, options.output.as_deref());
    let backup = store.find(&options.which)?.backup;
    let damaged = || format!("{} was not fetched", store.place(&backup));
    if output == Some(Path::new("-")) {
        let mut stdout = io::stdout().lock();
        ensure!(!stdout.is_terminal(), "a backup is nothing for a terminal: send it to a file or a pipe");
        let proof = fetch::examine(job, &backup, "fetching", |bytes| stdout.write_all(bytes))
            .with_context(damaged)?;
        stdout.flush().context("cannot write to standard output")?;
        if proof == Proof::Sealed {
            warn!("{}: {NO_KEY}", store.place(&backup));
        }
        return Ok(Outcome::Done);
    }
    let name = backup.file_name();
    let path = output.unwrap_or(Path::new(name));
    // If a directory is named, the file goes into it.
    let path = if path.is_dir() { path.join(name) } else { path.to_owned() };
    let place = path.display();
    ensure!(path.symlink_metadata().is_err(), "{place} exists already, and is not overwritten");
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || format!("cannot write {place}");
    let file = tempfile::NamedTempFile::new_in(directory).with_context(written)?;
    let mut writer = BufWriter::new(file);
    let proof =
        fetch::examine(job, &backup, "fetching", |bytes| writer.write_all(bytes)).with_context(damaged)?;
    let file = writer.into_inner().with_context(written)?;
    file.as_file().sync_all().with_context(written)?;
    file.persist_noclobber(&path).with_context(written)?;
    let (source, size) = (store.place(&backup), units::bytes(backup.size));
    match proof {
        Proof::Whole(_) => info!("{source} is now {place}: whole, {size}"),
        Proof::Sealed => warn!("{source} is now {place}: complete, as far as can be seen, {size}; {NO_KEY}"),
    }
    Ok(Outcome::Done)
}
