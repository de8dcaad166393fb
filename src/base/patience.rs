//! How long to wait for a silent child.

use std::time::Duration;

/// A wait is cut into this many looks. So if pgkeep itself was stopped meanwhile (`docker pause`), it
/// mistakes at most one of them for silence of the child.
pub const LOOKS: u32 = 10;
/// Says why a silent child may go on, or why not.
type Excuse = Box<dyn Fn() -> Result<String, String>>;

/// How long a child may be silent.
pub struct Patience {
    /// A child may be silent for this long in any case.
    pub limit: Duration,
    excuse: Option<Excuse>,
}

impl Patience {
    /// The child may not be silent for longer.
    pub fn of(limit: Duration) -> Self {
        Patience { limit, excuse: None }
    }

    /// The child may be silent for longer if `excuse` gives a reason.
    pub fn with_excuse(limit: Duration, excuse: impl Fn() -> Result<String, String> + 'static) -> Self {
        Patience { limit, excuse: Some(Box::new(excuse)) }
    }

    /// A part of the limit. After [`LOOKS`] parts without a sign of life, the limit has passed.
    pub fn look(&self) -> Duration {
        self.limit / LOOKS
    }

    /// Why the child may go on although the limit has passed.
    ///
    /// # Errors
    /// Why it may not go on: a part of a sentence, empty if there is nothing to say.
    pub fn excuse(&self) -> Result<String, String> {
        match &self.excuse {
            Some(excuse) => excuse().map_err(|why| format!(" (BACKUP_STALL_TIMEOUT): {why}")),
            None => Err(String::new()),
        }
    }
}
