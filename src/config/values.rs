//! Turns texts into values. An error says what is wrong with the text. It stands after the variable's name
//! and before an example.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use rusty_s3::UrlStyle;
use ureq::tls::{parse_pem, Certificate, PemItem};
use url::Url;

use crate::postgres::Conninfo;
use crate::schedule::{Interval, Schedule};

/// More than any host needs, but few enough to keep memory small.
pub const MOST_THREADS: usize = 64;
/// At most this many are used unless more are asked for: pg_dump is no faster, and each thread takes memory.
const MOST_USUAL_THREADS: usize = 8;
/// Where chrono looks for the time zones of the tz database.
const ZONE_DIRECTORIES: [&str; 4] =
    ["/usr/share/zoneinfo", "/share/zoneinfo", "/etc/zoneinfo", "/usr/share/lib/zoneinfo"];
/// The levels of the log.
pub const LOG_LEVELS: [(&str, LevelFilter); 4] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
];

type Result<T> = std::result::Result<T, String>;

/// How to reach a server.
pub fn conninfo(text: &str) -> Result<Conninfo> {
    Conninfo::parse(text).map_err(|problem| format!("cannot be read: {problem}"))
}

/// The value that a word stands for. `all` lists the words for people.
pub fn one_of<T: Copy>(text: &str, words: &[(&str, T)], all: &str) -> Result<T> {
    let known = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    known.map(|(_, value)| *value).ok_or_else(|| format!("is \"{text}\" and not {all}"))
}

/// A crontab(5) expression.
pub fn interval(text: &str) -> Result<Interval> {
    let schedule =
        Schedule::parse(text).map_err(|problem| format!("is not a crontab expression: {problem}"))?;
    Ok(Interval { expression: text.to_owned(), schedule })
}

/// A whole number from `first` to `last`.
pub fn number(text: &str, first: u32, last: u32) -> Result<u32> {
    let number = text.parse().ok().filter(|number| (first..=last).contains(number));
    number.ok_or_else(|| format!("is \"{text}\" and not a whole number from {first} to {last}"))
}

/// A number of days, up to a hundred years.
pub fn days(text: &str) -> Result<u32> {
    number(text, 1, 36_500).map_err(|problem| format!("{problem} of days"))
}

/// A number of backups to keep: up to one for each hour of a hundred years.
pub fn backups(text: &str) -> Result<u32> {
    number(text, 1, 876_600)
}

/// The usual number of threads on a host with so many processors.
pub fn usual_threads(processors: NonZeroUsize) -> NonZeroUsize {
    processors.min(NonZeroUsize::new(MOST_USUAL_THREADS).expect("not 0"))
}

/// A number of threads.
pub fn count(text: &str) -> Result<NonZeroUsize> {
    let count = number(text, 1, MOST_THREADS as u32)?;
    Ok(NonZeroUsize::new(count as usize).expect("from 1"))
}

/// A whole number and a unit, from 1 second to 24 hours.
pub fn duration(text: &str) -> Result<Duration> {
    let seconds = || {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let unit = match unit.trim() {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            _ => return None,
        };
        let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
        (1..=86_400).contains(&seconds).then_some(seconds)
    };
    let seconds = seconds()
        .ok_or_else(|| format!("is \"{text}\" and not a length of time from 1s to 24h (units: s, min, h)"))?;
    Ok(Duration::from_secs(seconds))
}

/// A bucket's name (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>; other
/// stores are less strict).
pub fn bucket(text: &str) -> Result<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if plain && (3..=63).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("is not the name of a bucket (3 to 63 letters, digits, dots and hyphens; a folder within it is S3_PATH)"
        .into())
}

/// A prefix of keys that needs no encoding anywhere.
pub fn path(text: &str) -> Result<String> {
    let path = text.trim_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let segments = path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if path.bytes().all(plain) && (path.is_empty() || segments) && path.len() <= 512 {
        return Ok(path.to_owned());
    }
    Err("may only have letters, digits, dots, underscores, hyphens and single slashes".into())
}

/// A region's name.
pub fn region(text: &str) -> Result<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if plain {
        return Ok(text.to_owned());
    }
    Err("is not the name of a region".into())
}

/// Where the bucket is in an address.
pub fn style(text: &str) -> Result<UrlStyle> {
    match text {
        "path" => Ok(UrlStyle::Path),
        "virtual" => Ok(UrlStyle::VirtualHost),
        _ => Err("is neither path nor virtual".into()),
    }
}

/// The word that [`style`] reads.
pub fn style_name(style: UrlStyle) -> &'static str {
    match style {
        UrlStyle::Path => "path",
        UrlStyle::VirtualHost => "virtual",
    }
}

/// The URL of an S3-compatible store.
pub fn endpoint(text: &str) -> Result<Url> {
    // No Unicode tables are built in (see idna_adapter in Cargo.toml).
    if !text.is_ascii() || text.contains('%') {
        return Err("is not all ASCII without %: write such a host in its xn-- form".into());
    }
    let url = Url::parse(text).map_err(|problem| format!("is not a URL ({problem})"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err("does not begin with http:// or https:// and a host".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("contains credentials, which belong into S3_ACCESS_KEY and S3_SECRET_KEY".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a ? or # part".into());
    }
    Ok(url)
}

/// The certificates in a PEM text.
pub fn certificates(text: &str) -> Result<Arc<Vec<Certificate<'static>>>> {
    let none = "holds no certificate (in PEM form): S3_CA_FILE names a file with the authority's \
                -----BEGIN CERTIFICATE----- and what follows";
    let mut certificates = Vec::new();
    for item in parse_pem(text.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| none)? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(none.into());
    }
    Ok(Arc::new(certificates))
}

/// A directory with PostgreSQL's clients.
pub fn client_directory(text: &str) -> Result<PathBuf> {
    let directory = PathBuf::from(text);
    if directory.join("pg_dump").is_file() {
        return Ok(directory);
    }
    Err(format!("names {text}, where there is no pg_dump"))
}

/// A directory.
pub fn directory(text: &str) -> Result<PathBuf> {
    let directory = PathBuf::from(text);
    if directory.is_dir() {
        return Ok(directory);
    }
    Err(format!("names {text}, which is not a directory"))
}

/// A file for node_exporter, which reads only those that end so.
pub fn metrics_file(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if !text.ends_with(".prom") {
        return Err(format!("names {text}, which does not end in .prom"));
    }
    match path.parent().filter(|parent| parent.is_dir()) {
        Some(_) => Ok(path),
        None => Err(format!("names {text}, and there is no such directory")),
    }
}

/// A time zone. If chrono does not find a zone, it silently uses UTC, so this looks for the zone first.
pub fn time_zone(text: &str) -> Result<String> {
    let zone = text.strip_prefix(':').unwrap_or(text);
    let found = ZONE_DIRECTORIES.iter().any(|directory| is_zone(&Path::new(directory).join(zone)));
    if (found || matches!(zone, "UTC" | "UTC0")) && zone.split('/').all(|segment| segment != "..") {
        return Ok(text.to_owned());
    }
    Err(format!("is \"{text}\", which is no time zone of this system (the package tzdata has the zones)"))
}

/// Whether a file contains time zone data (RFC 9636).
fn is_zone(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"TZif"))
}
