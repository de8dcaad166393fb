//! `pgkeep get`: a backup's file, checked on the way.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use anyhow::{ensure, Context, Result};
use log::info;

use crate::base::units;
use crate::config::Config;
use crate::dump::gunzip as verify;
use crate::s3::Client;
use crate::store::select;

/// Writes the backup that `which` means to `output`, `-` for standard output; without one, to a file of the
/// backup's own name. A file appears when it is whole, and replaces none.
///
/// # Errors
/// Where the backup cannot be read, is not whole, or cannot be written.
pub fn command(config: &Config, s3: &Client, which: &str, output: Option<&Path>) -> Result<()> {
    let backup = select::find(config, s3, which)?.backup;
    let damaged = || format!("{} was not fetched", s3.place(&backup.key));
    if output == Some(Path::new("-")) {
        let mut stdout = io::stdout().lock();
        ensure!(!stdout.is_terminal(), "a backup is nothing for a terminal: send it to a file or a pipe");
        verify::stream(s3, &backup, "fetching", |bytes| stdout.write_all(bytes), |_| Ok(()))
            .with_context(damaged)?;
        return stdout.flush().context("cannot write to standard output");
    }
    let name = backup.key.rsplit('/').next().unwrap_or_default();
    let path = output.unwrap_or(Path::new(name));
    // Where a directory is named, the file goes into it.
    let path = if path.is_dir() { path.join(name) } else { path.to_owned() };
    let place = path.display();
    ensure!(path.symlink_metadata().is_err(), "{place} exists already, and is not overwritten");
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || format!("cannot write {place}");
    let file = tempfile::NamedTempFile::new_in(directory).with_context(written)?;
    let mut writer = BufWriter::new(file);
    verify::stream(s3, &backup, "fetching", |bytes| writer.write_all(bytes), |_| Ok(()))
        .with_context(damaged)?;
    let file = writer.into_inner().with_context(written)?;
    file.as_file().sync_all().with_context(written)?;
    file.persist_noclobber(&path).with_context(written)?;
    info!("{} is now {place}: whole, {}", s3.place(&backup.key), units::bytes(backup.size));
    Ok(())
}
