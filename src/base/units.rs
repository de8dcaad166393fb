//! Numbers and times as people read them.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};

/// The time format in the names of backups and databases.
pub const TIMESTAMP: &str = "%Y-%m-%d_%H-%M-%S";

/// Bytes in decimal units, with about three digits: `648.2 MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} bytes");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as "1000.0".
    while value >= 999.95 {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A length of time with its two leading units: `4.2 s`, `3 min 20 s`, `2 d 4 h`.
pub fn duration(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", length.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A count with its noun: `1 backup`, `2 backups`.
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// `a, b and 3 more`: the first few of `count` names.
pub fn first_few(names: &[String], count: usize) -> String {
    let more = count.saturating_sub(names.len());
    names.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() }
}

/// `2026-11-23_03-00-00`, in UTC.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.format(TIMESTAMP).to_string()
}

/// `2026-11-23 03:00:00 +01:00 (2026-11-23 02:00:00 UTC)`.
pub fn both_times(instant: DateTime<Utc>) -> String {
    let local = instant.with_timezone(&Local);
    format!("{} ({} UTC)", local.format("%Y-%m-%d %H:%M:%S %:z"), instant.format("%Y-%m-%d %H:%M:%S"))
}

/// Limits a text to about `most` bytes: a longer text keeps its beginning and its end.
pub fn shortened(text: String, most: usize) -> String {
    if text.len() <= most {
        return text;
    }
    let boundary = |at: usize| (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let (end, begin) = (boundary(most / 2), boundary(text.len() - most / 2));
    format!("{} [… {} left out …] {}", &text[..end], bytes((begin - end) as u64), &text[begin..])
}

/// Makes a name from outside safe to print: nothing in it starts a line or controls a terminal.
pub fn printable(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_never_show_a_thousand_of_a_unit() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1000), "1.0 kB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(648_213_423), "648.2 MB");
        assert_eq!(bytes(u64::MAX), "18.4 EB");
    }

    #[test]
    fn a_long_text_loses_its_middle() {
        assert_eq!(shortened("é".repeat(50), 100), "é".repeat(50));
        let text = format!("begin {} end", "é".repeat(5000));
        for most in [100, 101, 102] {
            let short = shortened(text.clone(), most);
            assert!(short.starts_with("begin éé") && short.ends_with("éé end"), "{short}");
            assert!(short.contains("é [… 9.9 kB left out …] é") && short.len() < most + 40, "{short}");
        }
    }

    #[test]
    fn durations_show_their_two_leading_units() {
        assert_eq!(duration(Duration::from_millis(4200)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(duration(Duration::from_secs(7260)), "2 h 1 min");
        assert_eq!(duration(Duration::from_secs(187_200)), "2 d 4 h");
    }
}
