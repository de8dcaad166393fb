//! Dead-man switches: a service that hears of every run, and calls somebody if it hears nothing.
//!
//! <https://healthchecks.io/docs/http_api/> and those like it: `/start`, the URL itself, `/fail`, with a
//! text as the body. Uptime Kuma's push monitors: all in the query.

use super::news::{Kind, News};
use super::send::{Body, Request};
use super::Address;
use crate::base::units;

/// healthchecks.io stores more, others less.
const LONGEST_BODY: usize = 9_900;
/// Proxies refuse long URLs, and a byte can become three.
const LONGEST_MESSAGE: usize = 800;
/// How the path of an Uptime Kuma push monitor begins.
const KUMA: &str = "/api/push/";

/// Which runs a heartbeat is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runs {
    Backups,
    Drills,
}

/// What a run says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Start,
    Success,
    Failure,
    /// Says something, and changes nothing.
    Log,
}

/// What a heartbeat is told of `news`. `None` if it is not about these runs. While another database's last run
/// has failed (`others_failed`), no success is told: it would hide that failure.
pub(super) fn request(address: &Address, runs: Runs, news: &News, others_failed: bool) -> Option<Request> {
    let signal = match (runs, news.kind) {
        (Runs::Backups, Kind::BackupStarted) | (Runs::Drills, Kind::DrillStarted) => Signal::Start,
        (Runs::Backups, Kind::BackupSucceeded) | (Runs::Drills, Kind::DrillSucceeded) => Signal::Success,
        (Runs::Backups, Kind::BackupFailed) | (Runs::Drills, Kind::DrillFailed) => Signal::Failure,
        (_, Kind::Test) => Signal::Log,
        _ => return None,
    };
    if signal == Signal::Success && others_failed {
        return None;
    }
    let mut url = address.url();
    if url.path().contains(KUMA) {
        let status = match signal {
            // It knows no beginning.
            Signal::Start => return None,
            Signal::Success | Signal::Log => "up",
            Signal::Failure => "down",
        };
        let own = |name: &str| matches!(name, "status" | "msg" | "ping");
        let others: Vec<_> = url.query_pairs().into_owned().filter(|(name, _)| !own(name)).collect();
        let ping = news.took.map(|took| took.as_millis().to_string()).unwrap_or_default();
        let message = units::shortened(news.text.clone(), LONGEST_MESSAGE);
        url.query_pairs_mut().clear().extend_pairs(others).extend_pairs([
            ("status", status),
            ("msg", &message),
            ("ping", &ping),
        ]);
        return Some(Request::new(url, news.kind, Body::None));
    }
    let ending = match signal {
        Signal::Start => Some("start"),
        Signal::Success => None,
        Signal::Failure => Some("fail"),
        Signal::Log => Some("log"),
    };
    if let Some(ending) = ending {
        // A slug's URL can have a query, and the ending belongs to the path. Fails only without a host.
        let _ = url.path_segments_mut().map(|mut path| {
            path.pop_if_empty().push(ending);
        });
    }
    Some(Request::new(url, news.kind, Body::Text(units::shortened(news.text.clone(), LONGEST_BODY))))
}

/// Whether an answer with a good status says no: healthchecks.io's `OK (not found)`, and Uptime Kuma's
/// `{"ok":false,…}`.
pub(super) fn says_no(answer: &str) -> bool {
    let answer: String = answer.split_whitespace().collect();
    answer.starts_with("OK(") || answer.contains("\"ok\":false")
}
