//! Uploads an object in parts while it is still being made.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Error, Result};
use log::warn;

use super::etag::Sent;
use super::{Claim, Client, Made, Metadata, Part};
use crate::base::shutdown::Shutdown;
use crate::base::units;

/// How often a waiting thread checks for a forced stop, or for a failure elsewhere.
const TICK: Duration = Duration::from_millis(100);
/// After a forced stop, a part that is being sent has this long to end. Then the upload is aborted anyway.
const FORCED_PATIENCE: Duration = Duration::from_millis(500);

/// A running upload. [`Upload::commit`] or [`Upload::abort`] ends it, and dropping it aborts it too. So
/// whatever happens, nothing invisible stays in the bucket.
pub struct Upload {
    client: Client,
    shared: Arc<Shared>,
    full: Option<Sender<Part>>,
    /// Each thread sends its result here when it ends.
    done: Receiver<Result<Vec<Sent>>>,
    threads: usize,
    shutdown: Shutdown,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    claim: Claim,
    metadata: Metadata,
    /// S3's id; set with the first part.
    id: OnceLock<String>,
    /// Locked by the thread that asks for the id.
    beginning: Mutex<()>,
    cancelled: AtomicBool,
    /// Bytes that S3 has acknowledged.
    acknowledged: Arc<AtomicU64>,
}

impl Upload {
    /// Starts `concurrency` threads that wait for parts. S3 learns of the upload with the first part.
    /// `acknowledged` counts the bytes that arrived.
    pub fn start(
        client: &Client,
        claim: &Claim,
        metadata: Metadata,
        concurrency: NonZeroUsize,
        acknowledged: Arc<AtomicU64>,
        shutdown: &Shutdown,
    ) -> Result<Self> {
        let (full, parts) = mpsc::channel();
        // Only the threads hold this. When they are gone, no part is accepted any more.
        let parts = Arc::new(Mutex::new(parts));
        let (result, done) = mpsc::channel();
        let shared = Shared { claim: claim.clone(), metadata, acknowledged, ..Shared::default() };
        let shared = Arc::new(shared);
        for _ in 0..concurrency.get() {
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            let (parts, result) = (Arc::clone(&parts), result.clone());
            thread::Builder::new().name("upload".into()).spawn(move || {
                let uploaded = upload_parts(&client, &shared, &parts);
                if uploaded.is_err() {
                    // The other threads need not go on.
                    shared.cancelled.store(true, Ordering::Relaxed);
                }
                // If the upload was given up, nobody listens any more.
                let _ = result.send(uploaded);
            })?;
        }
        Ok(Upload {
            client: client.clone(),
            shared,
            full: Some(full),
            done,
            threads: concurrency.get(),
            shutdown: shutdown.clone(),
            ended: false,
        })
    }

    /// The channel for full parts.
    pub fn parts(&self) -> Sender<Part> {
        self.full.clone().expect("the upload has not ended")
    }

    /// Uploads the last part and makes the object appear. Call it only with a backup that is proven whole. If
    /// the key is taken by then, nothing of the upload is left: S3 fixes the key when an upload begins, so
    /// the parts cannot be used under another key.
    ///
    /// # Errors
    /// S3 refuses a part or the whole object. Nothing of it is left then.
    pub fn commit(mut self, last: Part) -> Result<Made> {
        let full = self.full.take().expect("the upload has not ended");
        let parts = if last.length > 0 { last.number } else { last.number - 1 };
        if last.length > 0 && full.send(last).is_err() {
            // All threads have ended. A result below says why.
        }
        drop(full);
        let mut sent = self.wait(None)?;
        sent.sort_unstable_by_key(|part| part.number);
        ensure!(sent.iter().map(|part| part.number).eq(1..=parts), "parts of the upload were lost");
        let id = self.shared.id.get().expect("a part was uploaded");
        let made = self.client.complete_new(&self.shared.claim, id, &sent)?;
        self.ended = made == Made::Whole;
        Ok(made)
    }

    /// Gives the upload up. If it had already failed by itself, returns the reason.
    pub fn abort(mut self) -> Option<Error> {
        self.give_up()
    }

    fn give_up(&mut self) -> Option<Error> {
        self.ended = true;
        self.shared.cancelled.store(true, Ordering::Relaxed);
        self.full = None;
        // A part that arrives after the abort would stay in the bucket. So wait for the threads, unless in a
        // hurry.
        let failure = self.wait(Some(FORCED_PATIENCE)).err();
        if let Some(id) = self.shared.id.get() {
            if let Err(error) = self.client.abort_multipart_upload(&self.shared.claim.key, id) {
                warn!("the upload {id} could not be aborted; a run after a day sweeps it: {error}");
            }
        }
        failure
    }

    /// Waits until the threads end; after a forced stop, only for `patience` more. Returns the parts, or the
    /// first failure.
    fn wait(&self, patience: Option<Duration>) -> Result<Vec<Sent>> {
        let mut forced_since = None;
        let mut all = Ok(Vec::new());
        let mut ended = 0;
        while ended < self.threads {
            match self.done.recv_timeout(TICK) {
                Ok(uploaded) => {
                    ended += 1;
                    all = match (all, uploaded) {
                        (Ok(mut sent), Ok(of_thread)) => {
                            sent.extend(of_thread);
                            Ok(sent)
                        }
                        (Ok(_), Err(failure)) => Err(failure),
                        (Err(first), Ok(_)) => Err(first),
                        (Err(first), Err(further)) => {
                            warn!("another part failed too: {further:#}");
                            Err(first)
                        }
                    };
                }
                Err(RecvTimeoutError::Disconnected) => bail!("a thread of the upload has panicked"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.shutdown.forced().is_some() {
                let since = *forced_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= patience.unwrap_or_default() {
                    bail!("stopped by a second signal");
                }
            }
        }
        all
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.ended {
            self.give_up();
        }
    }
}

/// Uploads parts until there are no more or the upload is given up. Returns its parts.
fn upload_parts(client: &Client, shared: &Shared, parts: &Mutex<Receiver<Part>>) -> Result<Vec<Sent>> {
    let go_on = || !shared.cancelled.load(Ordering::Relaxed);
    let mut sent = Vec::new();
    while go_on() {
        let part = parts.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(TICK);
        let part = match part {
            Ok(part) => part,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let most = client.part_size.most_parts;
        if part.number > most {
            bail!(
                "the backup does not fit {} of {}: S3_PART_SIZE can make them larger, and S3_MAX_PARTS \
                 allow more of them",
                units::count(most as usize, "part"),
                units::bytes(part.offset / u64::from(part.number - 1))
            );
        }
        let Some(id) = shared.id(client)? else { break };
        sent.push(client.upload_part(&shared.claim.key, id, &part, go_on)?);
        shared.acknowledged.fetch_add(part.length, Ordering::Relaxed);
        part.release();
    }
    Ok(sent)
}

impl Shared {
    /// The upload's id. S3 is asked for it only once. None if the upload was given up, for example because S3
    /// refused to begin it. Threads that waited meanwhile do not ask again.
    fn id(&self, client: &Client) -> Result<Option<&str>> {
        let _one_at_a_time = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.id.get().is_none() && !self.cancelled.load(Ordering::Relaxed) {
            let metadata = self.claim.mark(&self.metadata);
            let id = client.create_multipart_upload(&self.claim.key, &metadata).inspect_err(|_| {
                self.cancelled.store(true, Ordering::Relaxed);
            });
            let id = id.context("cannot begin the upload")?;
            self.id.get_or_init(|| id);
        }
        Ok(self.id.get().map(String::as_str))
    }
}
