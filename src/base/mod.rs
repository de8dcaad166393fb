//! The ground floor: every floor may use it, and it uses none of them.

#[cfg(test)]
pub mod fuzz;
mod json_line;
pub mod logging;
mod messages;
mod outbox;
pub mod patience;
pub mod process;
pub mod progress;
pub mod retry;
pub mod secret;
pub mod shutdown;
mod statements;
pub mod units;
