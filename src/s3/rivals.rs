//! Waits until no other run can replace a new object: see `new_object`.

use std::time::{Duration, Instant};

use log::debug;

use super::Client;

/// The longest wait.
const LONGEST_SETTLING: Duration = Duration::from_secs(30);
/// A run that makes so many parts has no rival with a single one, which would need no upload.
const SEVERAL: usize = 3;
/// While another upload runs, it is looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How to find out whether another run is about to replace an object.
pub struct Watch<'a> {
    client: &'a Client,
    key: &'a str,
    /// This run's upload, if the store shows it. Then it shows the others too.
    shown: Option<&'a str>,
    started: Instant,
}

impl<'a> Watch<'a> {
    /// Begins shortly before the object is made. `upload` is this run's, of so many parts, if it has one.
    pub fn start(client: &'a Client, key: &'a str, upload: Option<&'a str>, parts: usize) -> Self {
        let mut watch = Watch { client, key, shown: None, started: Instant::now() };
        let shows = |own: &&str| watch.uploads().is_some_and(|all| all.iter().any(|id| id == own));
        watch.shown = upload.filter(|_| parts >= SEVERAL).filter(shows);
        watch
    }

    /// Waits until no upload of another run is under way, at most [`LONGEST_SETTLING`]. If the store does not show
    /// uploads, waits as long as it took to make the object.
    pub fn settle(&self) {
        let took = self.started.elapsed();
        let shutdown = &self.client.shutdown;
        let end = Instant::now() + LONGEST_SETTLING;
        if let Some(own) = self.shown {
            while let Some(uploads) = self.uploads() {
                let rival = uploads.iter().find(|id| *id != own);
                let Some(rival) = rival.filter(|_| Instant::now() < end && shutdown.forced().is_none())
                else {
                    return;
                };
                debug!("another run has the upload {rival} of {}", self.key);
                shutdown.sleep_unless_forced(LOOK_EVERY);
            }
        }
        shutdown.sleep_unless_forced(took.min(LONGEST_SETTLING));
    }

    /// The ids of the key's uploads, if the store tells them.
    fn uploads(&self) -> Option<Vec<String>> {
        match self.client.list_multipart_uploads(self.key) {
            Ok(all) => Some(all.into_iter().filter(|of| of.key == self.key).map(|of| of.id).collect()),
            Err(error) => {
                debug!("uploads of the same key are not looked for: {error}");
                None
            }
        }
    }
}
