//! "Every 90 minutes" → the nearest expressions.

const HOUR: u64 = 60;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
/// A month in the sense of `@every 720h`.
const MONTH: u64 = 30 * DAY;

/// The periods in minutes that one expression can keep. Steps start again with each hour and each day, so
/// only the divisors of 60 are evenly spaced for minutes, and only those of 24 for hours.
const EVEN: [u64; 21] = [
    1,
    2,
    3,
    4,
    5,
    6,
    10,
    12,
    15,
    20,
    30,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    4 * HOUR,
    6 * HOUR,
    8 * HOUR,
    12 * HOUR,
    DAY,
    WEEK,
    MONTH,
];

/// The three fields after the hour that mean every day.
pub const EVERY_DAY: &str = "* * *";

/// A clause that names the expression which fires every `seconds`, or its neighbours on both sides. `asked`
/// is the period as the user wrote it. If the period is an hour or longer, the expressions fire at the minute
/// `minute`. `days` are the fields after the hour.
pub fn nearest(asked: &str, seconds: u64, minute: &str, days: &str) -> String {
    let longest = if days == EVERY_DAY { MONTH } else { DAY };
    let periods = || EVEN.into_iter().filter(|period| *period <= longest);
    let shorter = periods().rfind(|period| period * 60 <= seconds);
    let longer = periods().find(|period| period * 60 >= seconds);
    let offer = |period| format!("`{}` fires every {}", expression(period, minute, days), name(period));
    match (shorter, longer) {
        (Some(shorter), Some(longer)) if shorter == longer => offer(shorter),
        _ => {
            let offers: Vec<String> = [shorter, longer].into_iter().flatten().map(offer).collect();
            format!("no expression fires evenly every {asked}, but {}", offers.join(" and "))
        }
    }
}

fn expression(period: u64, minute: &str, days: &str) -> String {
    match period {
        1 => format!("* * {days}"),
        2..HOUR => format!("*/{period} * {days}"),
        HOUR => format!("{minute} * {days}"),
        DAY => format!("{minute} 0 {days}"),
        WEEK => format!("{minute} 0 * * 0"),
        MONTH => format!("{minute} 0 1 * *"),
        _ => format!("{minute} */{} {days}", period / HOUR),
    }
}

fn name(period: u64) -> String {
    match period {
        1 => "minute".to_owned(),
        2..HOUR => format!("{period} minutes"),
        HOUR => "hour".to_owned(),
        DAY => "day".to_owned(),
        WEEK => "week".to_owned(),
        MONTH => "month".to_owned(),
        _ => format!("{} hours", period / HOUR),
    }
}

/// The seconds in a length of time as Go and systemd write it: `6h`, `1h30m`, `1d`.
pub fn seconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit = behind.chars().next()?;
        let length = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * HOUR,
            'd' => 60 * DAY,
            'w' => 60 * WEEK,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(length)?)?;
        rest = &behind[unit.len_utf8()..];
    }
    (total > 0).then_some(total)
}
