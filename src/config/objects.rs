//! Reads what new objects get, and how they are cut into parts.

use percent_encoding::{utf8_percent_encode, NON_ALPHANUMERIC};

use super::reader::Reader;
use super::Settings;
use crate::s3::{LARGEST_PART, SMALLEST_PART};

/// What S3 allows (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>).
const MOST_TAGS: usize = 10;
const LONGEST_TAG: usize = 128;
const LONGEST_VALUE: usize = 256;
/// How a store may encrypt.
pub(super) const ENCRYPTIONS: [(&str, &str); 3] =
    [("AES256", "AES256"), ("aws:kms", "aws:kms"), ("aws:kms:dsse", "aws:kms:dsse")];
/// Objects in these classes have to be restored before they can be read.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

type Result<T> = std::result::Result<T, String>;

/// A storage class. Stores have names of their own.
pub(super) fn storage_class(text: &str) -> Result<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if plain && text.len() <= 64 {
        return Ok(text.to_owned());
    }
    Err(format!("is \"{text}\" and not the name of a storage class (letters, digits, _ and -)"))
}

/// The id, alias or ARN of a KMS key.
pub(super) fn kms_key(text: &str) -> Result<String> {
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err(format!("is \"{text}\" and not the id or ARN of a KMS key"))
}

/// Tags as the header has them: `name=value&…`, encoded as in a URL.
pub(super) fn tags(text: &str) -> Result<String> {
    let mut names = Vec::new();
    let mut encoded = Vec::new();
    for tag in text.split('&') {
        let (name, value) = tag.split_once('=').ok_or_else(|| format!("has \"{tag}\", which has no ="))?;
        let allowed = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
        if let Some(strange) = tag.chars().find(|c| !allowed(*c)) {
            return Err(format!(
                "has \"{tag}\": S3 allows no {strange:?} in a tag (write it plainly, pgkeep encodes it)"
            ));
        }
        if name.is_empty() || name.chars().count() > LONGEST_TAG || value.chars().count() > LONGEST_VALUE {
            let limits = format!("1 to {LONGEST_TAG} characters, and its value up to {LONGEST_VALUE}");
            return Err(format!("has \"{tag}\": a tag's name may have {limits}"));
        }
        if name.to_lowercase().starts_with("aws:") {
            return Err(format!("has \"{name}\": names that begin with aws: are AWS's own"));
        }
        if names.contains(&name) {
            return Err(format!("has \"{name}\" twice"));
        }
        names.push(name);
        let [name, value] = [name, value].map(|text| utf8_percent_encode(text, NON_ALPHANUMERIC));
        encoded.push(format!("{name}={value}"));
    }
    if names.len() > MOST_TAGS {
        return Err(format!("has {} tags, and an object can have {MOST_TAGS}", names.len()));
    }
    Ok(encoded.join("&"))
}

/// The size of a part.
pub(super) fn part_size(text: &str) -> Result<u64> {
    let bytes = || {
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let unit = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "mb" => 1_000_000,
            "mib" => 1 << 20,
            "gb" => 1_000_000_000,
            "gib" => 1 << 30,
            _ => return None,
        };
        let bytes = number.parse::<u64>().ok()?.checked_mul(unit)?;
        (SMALLEST_PART..=LARGEST_PART).contains(&bytes).then_some(bytes)
    };
    bytes().ok_or_else(|| format!("is \"{text}\" and not a size from 5MiB to 5GiB (units: MB, MiB, GB, GiB)"))
}

impl Settings {
    /// Checks what the encryption needs.
    pub(super) fn check_encryption(&self, from: &mut Reader) {
        let by_kms = self.properties.encryption.is_some_and(|kind| kind.starts_with("aws:kms"));
        if self.properties.kms_key.is_some() && !by_kms && !from.unreadable("S3_SSE") {
            let what = "is set, and S3_SSE is not aws:kms or aws:kms:dsse";
            from.problem("S3_SSE_KMS_KEY_ID", what, "for example S3_SSE=aws:kms");
        }
    }

    /// A sentence about a storage class that is hardly meant.
    pub(super) fn archive_warning(&self) -> Option<String> {
        let class = self.properties.storage_class.as_deref().filter(|class| ARCHIVES.contains(class))?;
        Some(format!(
            "S3_STORAGE_CLASS: a backup in {class} cannot be read until S3 has brought it back, which takes hours: \
             pgkeep restore, get, verify and drills fail until then"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{only_problem, read};
    use super::*;

    #[test]
    fn tags_are_encoded_as_in_a_url_and_kept_within_s3s_limits() {
        assert_eq!(tags("team=data").unwrap(), "team=data");
        assert_eq!(tags("a b=c+d=e&f=&ü=/@:").unwrap(), "a%20b=c%2Bd%3De&f=&%C3%BC=%2F%40%3A");
        let many = |count: usize| (0..count).map(|n| format!("t{n}=v")).collect::<Vec<_>>().join("&");
        assert!(tags(&many(10)).is_ok() && tags(&many(11)).unwrap_err().contains("11 tags"));
        let long = |name: usize, value: usize| tags(&format!("{}={}", "n".repeat(name), "ü".repeat(value)));
        assert!(long(128, 256).is_ok() && long(129, 1).is_err() && long(1, 257).is_err());
        for (text, says) in [
            ("team", "has no ="),
            ("a=b&", "has no ="),
            ("=b", "1 to 128"),
            ("a=b&a=c", "has \"a\" twice"),
            ("AWS:x=b", "AWS's own"),
            ("a=b%20c", "allows no '%'"),
            ("a=b\nc", "allows no '\\n'"),
        ] {
            let problem = tags(text).unwrap_err();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn a_part_has_a_size_that_s3_takes() {
        for (text, bytes) in [
            ("5242880", 5 << 20),
            ("16MB", 16_000_000),
            (" 16 MiB ", 16 << 20),
            ("1gb", 1_000_000_000),
            ("5GiB", 5 << 30),
        ] {
            assert_eq!(part_size(text), Ok(bytes), "{text}");
        }
        for text in ["5MB", "6GiB", "16", "16M", "1.5GiB", "-16MB", "", "99999999999999GiB"] {
            assert!(part_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (changes, says) in [
            (vec![("S3_SSE_KMS_KEY_ID", "k")], "S3_SSE_KMS_KEY_ID is set, and S3_SSE is not"),
            (
                vec![("S3_SSE_KMS_KEY_ID", "k"), ("S3_SSE", "AES256")],
                "S3_SSE_KMS_KEY_ID is set, and S3_SSE is not",
            ),
            (vec![("S3_SSE", "yes"), ("S3_SSE_KMS_KEY_ID", "k")], "S3_SSE is \"yes\" and not AES256"),
            (vec![("S3_STORAGE_CLASS", "a b")], "S3_STORAGE_CLASS is \"a b\""),
            (vec![("S3_MAX_PARTS", "10001")], "S3_MAX_PARTS is \"10001\""),
            (vec![("S3_PART_SIZE", "1MB")], "S3_PART_SIZE is \"1MB\""),
        ] {
            let problem = only_problem(&changes);
            assert!(problem.starts_with(says), "{problem}");
        }
        let config =
            read(&[("S3_SSE", "aws:kms"), ("S3_SSE_KMS_KEY_ID", "k"), ("S3_STORAGE_CLASS", "GLACIER")]);
        let warnings = config.unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("cannot be read"), "{warnings:?}");
    }
}
