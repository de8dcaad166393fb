//! Retries: trying again what may succeed the next time.

use std::fmt::Display;
use std::time::Duration;

use log::warn;

use crate::base::units;

/// How often to try, and how long to wait between tries.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Tries in total, the first one included.
    pub tries: u32,
    /// The wait after the first failure. It doubles with each further failure.
    pub first_wait: Duration,
    /// No wait is longer than this, whatever a server asks for.
    pub longest_wait: Duration,
}

/// What a failed try says about the next try.
pub trait Retryable: Display {
    /// Whether another try can succeed.
    fn is_transient(&self) -> bool;
    /// The wait that the server asked for, if it asked for one.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

impl Policy {
    /// Runs `attempt` until it succeeds, fails for good, or has used all its tries. If a failed try is
    /// followed by another one, it is logged with its number and the wait. `sleep` waits, and returns whether
    /// to go on.
    ///
    /// # Errors
    /// The error of the last try.
    pub fn run<T, E: Retryable>(
        &self,
        sleep: impl Fn(Duration) -> bool,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut number = 1;
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if number >= self.tries || !failure.is_transient() {
                return Err(failure);
            }
            let wait = self.wait(number, failure.retry_after());
            warn!(
                "try {number} of {} failed: {failure}; the next one in {}",
                self.tries,
                units::duration(wait)
            );
            if !sleep(wait) {
                return Err(failure);
            }
            number += 1;
        }
    }

    /// The wait grows exponentially, and half of it is random, so that the tries of many clients spread out.
    /// If the server asks for a longer wait, that one is used.
    fn wait(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let full = self.first_wait.saturating_mul(1 << (failures - 1).min(16));
        let jittered = full.mul_f64(0.5 + fastrand::f64() / 2.0);
        jittered.max(asked.unwrap_or_default()).min(self.longest_wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[derive(Debug, PartialEq)]
    struct Fault {
        transient: bool,
        after: Option<Duration>,
    }
    impl Display for Fault {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("fault")
        }
    }
    impl Retryable for Fault {
        fn is_transient(&self) -> bool {
            self.transient
        }
        fn retry_after(&self) -> Option<Duration> {
            self.after
        }
    }

    const POLICY: Policy =
        Policy { tries: 5, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(20) };

    fn waits_of(fault: impl Fn() -> Fault) -> Vec<f64> {
        let waits = RefCell::new(Vec::new());
        let sleep = |wait: Duration| {
            waits.borrow_mut().push(wait.as_secs_f64());
            true
        };
        assert!(POLICY.run(sleep, || Err::<(), _>(fault())).is_err());
        waits.into_inner()
    }

    #[test]
    fn waits_double_within_their_jitter_and_stop_after_the_last_try() {
        let waits = waits_of(|| Fault { transient: true, after: None });
        assert_eq!(waits.len(), 4);
        for (wait, full) in waits.iter().zip([1.0, 2.0, 4.0, 8.0]) {
            assert!((full / 2.0..=full).contains(wait), "{waits:?}");
        }
    }

    #[test]
    fn what_cannot_change_is_tried_once() {
        assert!(waits_of(|| Fault { transient: false, after: None }).is_empty());
    }

    #[test]
    fn a_server_may_ask_for_a_longer_wait_within_reason() {
        assert_eq!(waits_of(|| Fault { transient: true, after: Some(Duration::from_secs(9)) }), [9.0; 4]);
        assert_eq!(waits_of(|| Fault { transient: true, after: Some(Duration::from_secs(3600)) }), [20.0; 4]);
    }
}
