//! Dumps take turns in their order, so that only so many run at a time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The turns that are free.
pub struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    /// Whose turn is next.
    next: usize,
}

/// The right to run a dump. Dropping it gives it to the next one.
pub struct Turn<'a>(&'a Turns);

impl Turns {
    pub fn new(count: usize) -> Self {
        Turns { state: Mutex::new(State { free: count, next: 0 }), changed: Condvar::new() }
    }

    /// Waits for a turn. Everybody has to take theirs, or those behind wait for ever: from number 0 on.
    pub fn take(&self, number: usize) -> Turn<'_> {
        let waited = self.changed.wait_while(self.lock(), |state| state.free == 0 || state.next != number);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.free -= 1;
        state.next += 1;
        self.changed.notify_all();
        Turn(self)
    }

    /// The numbers are right after every statement, so a panic elsewhere does not damage them.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().free += 1;
        self.0.changed.notify_all();
    }
}
