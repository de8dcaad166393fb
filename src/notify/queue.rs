//! What waits to be told. Whoever has news puts them here and goes on; a thread tells them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// At most this many wait. If there are more, the oldest is dropped.
pub(super) const MOST: usize = 50;

/// A bounded queue for one thread that takes.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    lost: usize,
    /// Whether one has left the queue but is not told yet.
    telling: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// So many were dropped.
    Lost(usize),
    Item(T),
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { waiting: VecDeque::new(), lost: 0, telling: false };
        Queue { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds one, and never waits.
    pub fn push(&self, item: T) {
        let mut state = self.lock();
        state.waiting.push_back(item);
        // The newest stay: they say how things are now.
        while state.waiting.len() > MOST {
            state.waiting.pop_front();
            state.lost += 1;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for the next. What was taken before counts as told.
    pub fn take(&self) -> Next<T> {
        let mut state = self.lock();
        state.telling = false;
        self.changed.notify_all();
        loop {
            if state.lost > 0 {
                state.telling = true;
                return Next::Lost(std::mem::take(&mut state.lost));
            }
            if let Some(item) = state.waiting.pop_front() {
                state.telling = true;
                return Next::Item(item);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all are told, but no longer than `most`. Returns how many are not.
    pub fn wait(&self, most: Duration) -> usize {
        let untold = |state: &State<T>| state.waiting.len() + usize::from(state.telling) + state.lost;
        let state = self.lock();
        let (state, _) = self
            .changed
            .wait_timeout_while(state, most, |state| untold(state) > 0)
            .unwrap_or_else(PoisonError::into_inner);
        untold(&state)
    }

    /// The state is valid after every statement, so a panic elsewhere does not damage it.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_dropped_and_counted_and_the_newest_stays() {
        let queue = Queue::default();
        (0..MOST + 7).for_each(|number| queue.push(number));
        assert_eq!(queue.take(), Next::Lost(7));
        assert_eq!(queue.take(), Next::Item(7));
        assert_eq!((9..MOST + 7).map(|_| queue.take()).last(), Some(Next::Item(MOST + 5)));
        assert_eq!(queue.take(), Next::Item(MOST + 6));
    }

    #[test]
    fn a_wait_ends_when_all_is_told_or_its_time_is_over() {
        static QUEUE: std::sync::LazyLock<Queue<u32>> = std::sync::LazyLock::new(Queue::default);
        assert_eq!(QUEUE.wait(Duration::from_secs(3600)), 0);
        (1..=2).for_each(|number| QUEUE.push(number));
        QUEUE.take();
        // One is being told, and one waits.
        assert_eq!(QUEUE.wait(Duration::from_millis(10)), 2);
        std::thread::spawn(|| loop {
            QUEUE.take();
        });
        assert_eq!(QUEUE.wait(Duration::from_secs(3600)), 0);
    }
}
