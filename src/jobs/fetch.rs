//! Reads a backup from the bucket and proves it on the way.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Result};

use super::Job;
use crate::base::progress::{self, rate};
use crate::base::units;
use crate::dump::gunzip::unpack;
use crate::store::Backup;

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
    let object = job.store.client.download(&backup.key)?;
    let size = object.size;
    ensure!(size == backup.size, "the object has {size} bytes, and was listed with {}", backup.size);
    let counted = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&counted);
    let _reporter =
        progress::report(move |elapsed| line(what, shown.load(Ordering::Relaxed), size, elapsed))?;
    unpack(object, backup.format, size, &counted, fetched, dump)
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
