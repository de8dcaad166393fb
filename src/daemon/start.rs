//! `BACKUP_ON_START`: whether the daemon backs up before its first fire time, and whether that is safe.

use chrono::{DateTime, TimeDelta, Utc};

use crate::base::units::{self, both_times};
use crate::store::is_future;

/// If the daemon is started again and again, it makes a backup at its start at most this often.
const START_DISTANCE: TimeDelta = TimeDelta::hours(1);

/// Whether the daemon backs up at its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStart {
    /// Never.
    #[default]
    No,
    /// Always, unless there is a very recent backup.
    Yes,
    /// If the newest backup is older than the last fire time.
    Missed,
}

impl OnStart {
    /// All values.
    pub const ALL: [OnStart; 3] = [OnStart::No, OnStart::Yes, OnStart::Missed];

    /// The variable's value.
    pub fn name(self) -> &'static str {
        match self {
            OnStart::No => "false",
            OnStart::Yes => "true",
            OnStart::Missed => "missed",
        }
    }

    /// The reason against a backup at the start, if there is one. So a container that is started again and
    /// again fills neither bucket nor disk.
    pub(super) fn reason_to_wait(
        self,
        newest: Option<DateTime<Utc>>,
        last_fire: Option<DateTime<Utc>>,
        broken_off: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Option<String> {
        let recent = |time: &DateTime<Utc>| is_recent(*time, now);
        let distance = units::duration(START_DISTANCE.to_std().unwrap_or_default());
        if let Some(since) = broken_off.filter(recent) {
            let since = both_times(since);
            return Some(format!(
                "one that began at {since}, less than {distance} ago, was broken off or still runs"
            ));
        }
        let newest = newest?;
        match self {
            OnStart::Missed if last_fire.is_some_and(|last| newest < last) => None,
            OnStart::Yes if !recent(&newest) => None,
            OnStart::Yes => {
                Some(format!("the newest is of {}, less than {distance} ago", both_times(newest)))
            }
            _ => Some(format!("no fire time was missed since the newest, of {}", both_times(newest))),
        }
    }
}

/// Whether a backup of this time is so recent that the start makes no other.
pub(super) fn is_recent(time: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    now - time < START_DISTANCE && !is_future(time, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        format!("2026-11-{}Z", time.replace(' ', "T")).parse().unwrap()
    }

    #[test]
    fn a_backup_at_the_start_is_made_where_it_is_wanted_and_safe() {
        let (now, last_fire) = (at("23 12:00:00"), Some(at("23 03:00:00")));
        let waits = |on_start: OnStart, newest: &str, broken_off: &str| {
            let time = |text: &str| (!text.is_empty()).then(|| at(text));
            on_start.reason_to_wait(time(newest), last_fire, time(broken_off), now)
        };
        // Missed: the newest backup is older than the last fire time, or there is none.
        assert_eq!(waits(OnStart::Missed, "22 03:00:00", ""), None);
        assert_eq!(waits(OnStart::Missed, "", ""), None);
        assert!(waits(OnStart::Missed, "23 03:00:00", "").unwrap().contains("no fire time was missed"));
        // Always, but not one right after the other.
        assert_eq!(waits(OnStart::Yes, "23 11:00:00", ""), None);
        assert_eq!(waits(OnStart::Yes, "", ""), None);
        assert!(waits(OnStart::Yes, "23 11:00:01", "").unwrap().contains("less than 1 h 0 min ago"));
        // A crash in the middle of a backup leaves no backup, but the daemon still does not try again at
        // once.
        for on_start in [OnStart::Missed, OnStart::Yes] {
            assert!(waits(on_start, "", "23 11:30:00").unwrap().contains("broken off"));
            assert_eq!(waits(on_start, "", "23 11:00:00"), None);
            // That backup came from a wrong clock.
            assert_eq!(waits(on_start, "", "25 12:00:00"), None);
        }
    }
}
