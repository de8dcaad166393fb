//! A small picture of how the backups' sizes change, for `pgkeep list` on a terminal.

use chrono::TimeDelta;

use crate::base::units;
use crate::store::Backup;

/// This many of the newest backups are shown.
const SHOWN: usize = 30;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Over a shorter time, growth says nothing.
const SHORTEST: TimeDelta = TimeDelta::days(2);
const MONTH: TimeDelta = TimeDelta::days(30);

/// The picture, with the growth if enough time has passed. `None` for a single backup. `backups` has the
/// oldest first.
pub(super) fn picture(backups: &[Backup]) -> Option<String> {
    let shown = &backups[backups.len().saturating_sub(SHOWN)..];
    let largest = shown.iter().map(|backup| backup.size).max()?.max(1);
    let (first, last) = (shown.first()?, shown.last().filter(|_| shown.len() > 1)?);
    let last_bar = BARS.len() as u64 - 1;
    let bar = |backup: &Backup| {
        let height = u128::from(backup.size) * u128::from(last_bar) / u128::from(largest);
        BARS[usize::try_from(height).unwrap_or_default()]
    };
    let bars: String = shown.iter().map(bar).collect();
    let span = last.time - first.time;
    let growth = if span < SHORTEST {
        String::new()
    } else {
        let months = span.num_seconds() as f64 / MONTH.num_seconds() as f64;
        let change = (last.size as f64 - first.size as f64) / months;
        let sign = if change < 0.0 { '-' } else { '+' };
        format!(", {sign}{} a month", units::bytes(change.abs() as u64))
    };
    Some(format!("sizes of the last {}: {bars}{growth}", shown.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Format;
    use chrono::DateTime;

    fn nightly(sizes: &[u64]) -> Vec<Backup> {
        let day = |number: usize| DateTime::UNIX_EPOCH + TimeDelta::days(number as i64);
        let backup = |(number, size): (usize, &u64)| Backup {
            key: String::new(),
            time: day(number),
            format: Format::Plain,
            encrypted: false,
            size: *size,
        };
        sizes.iter().enumerate().map(backup).collect()
    }

    #[test]
    fn sizes_are_bars_and_their_change_is_told_by_the_month() {
        assert_eq!(picture(&nightly(&[])), None);
        assert_eq!(picture(&nightly(&[7])), None);
        assert_eq!(picture(&nightly(&[0, 0])).unwrap(), "sizes of the last 2: ▁▁");
        assert_eq!(
            picture(&nightly(&[0, 3500, 7000])).unwrap(),
            "sizes of the last 3: ▁▄█, +105.0 kB a month"
        );
        assert_eq!(
            picture(&nightly(&[9000, 0, 7000])).unwrap(),
            "sizes of the last 3: █▁▆, -30.0 kB a month"
        );
        let many = picture(&nightly(&[u64::MAX; 40])).unwrap();
        assert!(many.contains(&"█".repeat(30)) && many.starts_with("sizes of the last 30: "), "{many}");
    }
}
