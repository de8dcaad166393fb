//! Reads a backup from the bucket and proves it on the way.

use std::io::{self, BufRead};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Error, Result};

use super::Job;
use crate::base::progress::{self, rate};
use crate::base::units;
use crate::dump::age::{Envelope, Opened};
use crate::dump::gunzip::{explain_source, unpack, Tapped};
use crate::s3::Download;
use crate::store::Backup;

/// What reading a backup has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is whole. The dump has this many bytes.
    Whole(u64),
    /// It is encrypted, and without its key nothing more is seen than that it is complete.
    Sealed,
}

/// Reads a backup from the bucket and proves what can be proven without a key. `fetched` gets the object's own
/// bytes.
///
/// # Errors
/// The same as for [`stream`].
pub fn examine(
    job: &Job,
    backup: &Backup,
    what: &'static str,
    mut fetched: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Proof> {
    if !backup.encrypted || job.identity.is_some() {
        return stream(job, backup, what, fetched, |_| Ok(())).map(Proof::Whole);
    }
    let mut object = open(job, backup)?;
    let counted = Arc::new(AtomicU64::new(0));
    let _reporter = report(what, &counted, object.size)?;
    let mut envelope = Envelope::default();
    loop {
        let bytes = object.fill_buf().map_err(explain_source)?;
        let length = bytes.len();
        if length == 0 {
            break;
        }
        fetched(bytes)?;
        envelope.push(bytes);
        object.consume(length);
        counted.fetch_add(length as u64, Ordering::Relaxed);
    }
    envelope.content().map_err(Error::msg)?;
    Ok(Proof::Sealed)
}

/// Reads a backup from the bucket and shows the progress under the name `what`. `fetched` gets the object's
/// own bytes, `dump` the decompressed bytes: see [`unpack`]. Returns the dump's length in bytes.
///
/// # Errors
/// The object cannot be read, or it is not a whole backup. Errors of `fetched` and `dump` are passed on.
pub fn stream(
    job: &Job,
    backup: &Backup,
    what: &'static str,
    fetched: impl FnMut(&[u8]) -> io::Result<()>,
    dump: impl FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    let identity = job.identity_for(backup)?;
    let object = open(job, backup)?;
    let size = object.size;
    let counted = Arc::new(AtomicU64::new(0));
    let _reporter = report(what, &counted, size)?;
    match identity {
        None => unpack(object, backup.format, size, &counted, fetched, dump),
        Some(identity) => {
            let object = Tapped::new(object, fetched);
            let opened = Opened::new(object, identity, job.stall_timeout, &job.shutdown)?;
            unpack(opened, backup.format, size, &counted, |_| Ok(()), dump)
        }
    }
}

fn open(job: &Job, backup: &Backup) -> Result<Download> {
    let object = job.store.client.download(&backup.key)?;
    let size = object.size;
    ensure!(size == backup.size, "the object has {size} bytes, and was listed with {}", backup.size);
    Ok(object)
}

/// Shows the progress until the returned value is dropped.
fn report(what: &'static str, counted: &Arc<AtomicU64>, size: u64) -> io::Result<Sender<()>> {
    let shown = Arc::clone(counted);
    progress::report(move |elapsed| line(what, shown.load(Ordering::Relaxed), size, elapsed))
}

fn line(what: &str, done: u64, size: u64, elapsed: Duration) -> String {
    let share = done as f64 / size.max(1) as f64;
    let left = match share > 0.0 {
        true => {
            let left = Duration::from_secs_f64(elapsed.as_secs_f64() * (1.0 - share) / share);
            format!("about {} left", units::duration(left))
        }
        false => "waiting".into(),
    };
    format!(
        "{what} for {}: {} of {} ({:.0} %, {}), {left}",
        units::duration(elapsed),
        units::bytes(done),
        units::bytes(size),
        100.0 * share,
        rate(done, elapsed)
    )
}
