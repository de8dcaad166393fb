//! Signs that nothing should be deleted now. This code is pure: S3 is asked elsewhere.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Backup, MOST_SKEW};
use crate::base::units;

/// How many backups before the newest are examined: about what a week or a working day brings.
pub const WATCHED: usize = 7;
/// A backup this many times smaller than usual has suddenly shrunk.
const SHRINKAGE: u64 = 2;
/// If backups have been small for this long, that size is the new usual size.
const NEW_USUAL: TimeDelta = TimeDelta::days(7);

/// A reason to delete nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The age of every backup may be wrong.
    Clock {
        /// The time here.
        here: DateTime<Utc>,
        /// The time at S3 in the same moment.
        there: DateTime<Utc>,
    },
    /// The database may have lost data that the older backups have.
    Shrunk {
        /// The newest backup's size in bytes.
        size: u64,
        /// The usual size before.
        usual: u64,
        /// When the first small backup was made.
        since: DateTime<Utc>,
    },
    /// The older backups may be of another server.
    OtherServer {
        /// The key of the newest backup that is of another server.
        key: String,
    },
}

/// What S3 says about a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its key.
    pub key: String,
    /// The PostgreSQL cluster that it was made from, if the backup says so.
    pub cluster: Option<String>,
    /// The time here when S3 answered.
    pub here: DateTime<Utc>,
    /// The time at S3 when it answered, if it says so.
    pub there: Option<DateTime<Utc>>,
}

/// All doubts about `past`, the backups up to now, the oldest first. `seen` is what S3 says about the newest
/// of them and the ones before it, the newest first.
pub fn doubts(past: &[Backup], seen: &[Seen], shrink_guard: bool) -> Vec<Doubt> {
    let shrunk = if shrink_guard { shrunk(past) } else { None };
    [clock(seen), shrunk, other_server(seen)].into_iter().flatten().collect()
}

/// Whether this host's clock and S3's differ. If a store does not say its time, there is nothing to compare.
fn clock(seen: &[Seen]) -> Option<Doubt> {
    let Seen { here, there, .. } = seen.first()?;
    let there = (*there)?;
    ((*here - there).abs() > MOST_SKEW).then_some(Doubt::Clock { here: *here, there })
}

/// Whether the newest backup is less than half of the usual size: the median of the last [`WATCHED`] of its
/// format.
///
/// If the newest is small, some before it may be small already. They are left out. Otherwise a database that
/// came back empty would become its own measure after four backups: four nights, or four hours. Instead, a
/// week of small backups is the new usual size, however many they are. So after the first warning the good
/// backups stay for a week, even if the retention is a day. If somebody has deleted data on purpose, they
/// need not do anything.
///
/// One earlier backup is enough to compare with: a short retention leaves no more, and loses good backups
/// fastest. If the number is even, the larger of the two middle ones counts: a wrong doubt costs only a
/// warning.
fn shrunk(past: &[Backup]) -> Option<Doubt> {
    let (newest, before) = past.split_last()?;
    let dwarfs = |size: u64| size > newest.size.saturating_mul(SHRINKAGE);
    let before: Vec<&Backup> = before.iter().filter(|backup| backup.format == newest.format).collect();
    let last_large = before.iter().rposition(|backup| dwarfs(backup.size))?;
    let since = before.get(last_large + 1).map_or(newest.time, |backup| backup.time);
    let mut sizes: Vec<u64> =
        before[..=last_large].iter().rev().take(WATCHED).map(|backup| backup.size).collect();
    sizes.sort_unstable();
    let usual = sizes[sizes.len() / 2];
    let suddenly = newest.time - since < NEW_USUAL;
    (dwarfs(usual) && suddenly).then_some(Doubt::Shrunk { size: newest.size, usual, since })
}

/// Whether another PostgreSQL server writes backups with the same names. This is so if the backup before the
/// newest is another server's, or if two servers take turns: a backup of this server is older than one of
/// another server.
///
/// After a move to another server (pg_upgrade counts too), all backups of the old server are older than the
/// new server's. So nothing is pruned after the first new backup, but after the next one it is. A backup that
/// does not name its server is ignored here.
fn other_server(seen: &[Seen]) -> Option<Doubt> {
    let own = seen.first()?.cluster.as_deref()?;
    let known = seen[1..].iter().filter_map(|seen| Some((&seen.key, seen.cluster.as_deref()? == own)));
    let known: Vec<(&String, bool)> = known.collect();
    let foreign = known.iter().position(|(_, own)| !own)?;
    let turns = known[foreign..].iter().any(|(_, own)| *own);
    (foreign == 0 || turns).then(|| Doubt::OtherServer { key: known[foreign].0.clone() })
}

impl Doubt {
    /// What is wrong.
    pub fn what(&self) -> String {
        match self {
            Doubt::Clock { here, there } => format!(
                "this host's clock and S3's differ by {}: {} here, {} at S3",
                units::duration((*here - *there).abs().to_std().unwrap_or_default()),
                here.format("%Y-%m-%d %H:%M:%S"),
                there.format("%Y-%m-%d %H:%M:%S")
            ),
            Doubt::Shrunk { size, usual, since } => format!(
                "the newest backup has {}, and until {} UTC {} were usual",
                units::bytes(*size),
                since.format("%Y-%m-%d %H:%M"),
                units::bytes(*usual)
            ),
            Doubt::OtherServer { key } => {
                format!("{key} was made of another PostgreSQL server than the newest backup")
            }
        }
    }

    /// What to do about it.
    fn remedy(&self) -> String {
        match self {
            Doubt::Clock { .. } => "set this host's clock (NTP keeps it right)".to_owned(),
            Doubt::Shrunk { since, .. } => format!(
                "is all data still in the database? if it is, BACKUP_SHRINK_GUARD=false prunes at once; if the backups \
                 stay small, pruning goes on by itself after {}",
                (*since + NEW_USUAL).format("%Y-%m-%d %H:%M UTC")
            ),
            Doubt::OtherServer { .. } => "two servers need two values of S3_PATH; if the database has moved to \
                                          another server, pruning goes on by itself with the next backup"
                .to_owned(),
        }
    }
}

/// What is wrong, and what to do.
impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Format;

    fn night(number: usize) -> DateTime<Utc> {
        let first: DateTime<Utc> = "2026-11-01T03:00:00Z".parse().unwrap();
        first + TimeDelta::days(i64::try_from(number).unwrap())
    }

    /// Nightly backups with these sizes.
    fn nightly(sizes: &[u64]) -> Vec<Backup> {
        let backup = |(number, size): (usize, &u64)| Backup {
            key: format!("night {number}"),
            time: night(number),
            format: Format::Plain,
            encrypted: false,
            size: *size,
        };
        sizes.iter().enumerate().map(backup).collect()
    }

    #[test]
    fn a_backup_below_half_of_the_usual_has_shrunk() {
        for (sizes, usual) in [
            (&[] as &[u64], None),
            (&[1], None),
            (&[100, 50], None),
            // One is enough to compare with, and of two the larger one counts.
            (&[100, 49], Some(100)),
            (&[100, 10, 4], Some(100)),
            (&[10, 100, 10], Some(100)),
            // One that is too large by chance is not the usual size.
            (&[10, 10, 100, 10], None),
            (&[100, 100, 100, 40, 100, 100, 100, 49], Some(100)),
            // If the size grows again, it is no longer shrunk.
            (&[100, 100, 10, 50], None),
            // The last seven count, but not those that are small already.
            (&[1000, 1000, 1000, 20, 20, 20, 20, 20, 20, 20, 9], Some(20)),
            (&[100, 100, 100, 100, 100, 100, 100, 10, 10, 10, 10, 10, 10], Some(100)),
            (&[0, 0], None),
            (&[u64::MAX, u64::MAX], None),
            (&[u64::MAX, 0], Some(u64::MAX)),
        ] {
            let found = shrunk(&nightly(sizes));
            let found = found.map(|doubt| match doubt {
                Doubt::Shrunk { usual, .. } => usual,
                other => panic!("{other:?}"),
            });
            assert_eq!(found, usual, "{sizes:?}");
        }
    }

    #[test]
    fn a_week_of_small_backups_is_the_new_usual_however_many_they_are() {
        let mut backups = nightly(&[100, 100, 100, 3, 3, 3, 3, 3, 3, 3]);
        let doubt = shrunk(&backups).unwrap();
        assert_eq!(doubt, Doubt::Shrunk { size: 3, usual: 100, since: night(3) });
        assert!(doubt.to_string().ends_with("by itself after 2026-11-11 03:00 UTC"), "{doubt}");
        backups.extend(nightly(&[3; 11]).pop());
        assert_eq!(shrunk(&backups), None);
        // Every hour, with a retention that left two good backups.
        let hourly = |hours: i64| -> Vec<Backup> {
            let small = (0..=hours)
                .map(|hour| Backup { time: night(1) + TimeDelta::hours(hour), ..nightly(&[3]).remove(0) });
            nightly(&[100]).into_iter().chain(small).collect()
        };
        assert!(shrunk(&hourly(7 * 24 - 1)).is_some());
        assert_eq!(shrunk(&hourly(7 * 24)), None);
    }

    #[test]
    fn only_backups_of_one_format_are_compared() {
        let mut backups = nightly(&[100, 100, 10]);
        backups[2].format = Format::Custom;
        assert_eq!(shrunk(&backups), None);
        backups[1].format = Format::Custom;
        assert!(shrunk(&backups).is_some());
    }

    fn seen(cluster: Option<&str>, number: usize) -> Seen {
        Seen {
            key: format!("{number}"),
            cluster: cluster.map(str::to_owned),
            here: night(0),
            there: Some(night(0)),
        }
    }

    #[test]
    fn another_server_is_noticed_if_it_is_the_last_or_takes_turns() {
        // The newest first. ? does not say which server it is of. The number is the other server's backup.
        for (clusters, other) in [
            ("", None),
            ("A", None),
            ("AAAAAAAA", None),
            ("AB", Some("1")),
            ("ABBBBBBB", Some("1")),
            // A move.
            ("AAB", None),
            ("AAABBBBB", None),
            // Two servers take turns, whichever is faster.
            ("AABA", Some("2")),
            ("AAABBBBA", Some("3")),
            ("ABAB", Some("1")),
            ("?BA", None),
            ("A?B", Some("2")),
            ("AA?B?", None),
            ("A??????", None),
        ] {
            let seen: Vec<Seen> = clusters
                .chars()
                .enumerate()
                .map(|(number, cluster)| {
                    seen((cluster != '?').then(|| cluster.to_string()).as_deref(), number)
                })
                .collect();
            let found = other_server(&seen);
            assert_eq!(found, other.map(|key| Doubt::OtherServer { key: key.into() }), "{clusters}");
        }
    }

    #[test]
    fn clocks_may_differ_by_a_quarter_of_an_hour_in_either_direction() {
        for (there, doubtful) in [
            (None, false),
            (Some(0), false),
            (Some(900), false),
            (Some(901), true),
            (Some(-900), false),
            (Some(-901), true),
        ] {
            let there = there.map(|seconds| night(0) + TimeDelta::seconds(seconds));
            assert_eq!(clock(&[Seen { there, ..seen(None, 0) }]).is_some(), doubtful, "{there:?}");
        }
        assert_eq!(clock(&[]), None);
    }

    #[test]
    fn all_doubts_are_told_each_with_what_to_do() {
        let there = Some(night(400));
        let looked = [Seen { there, ..seen(Some("A"), 0) }, seen(Some("B"), 1)];
        let small = nightly(&[100, 10]);
        let told: Vec<String> = doubts(&small, &looked, true).iter().map(Doubt::to_string).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        for (told, remedy) in
            told.iter().zip(["set this host's clock", "BACKUP_SHRINK_GUARD=false", "two values of S3_PATH"])
        {
            assert!(told.contains(remedy), "{told}");
        }
        assert_eq!(doubts(&small, &looked, false).len(), 2);
    }
}
