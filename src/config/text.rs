//! A value as it was written: bytes become a text, and what editors and other programs put around it goes.

/// Some Windows programs write it at the beginning of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The text of a file.
///
/// # Errors
/// What the file is instead. It stands after the file's name.
pub fn decode(bytes: Vec<u8>) -> Result<String, &'static str> {
    // In UTF-16, every other byte of an English text is zero.
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) || bytes.contains(&0) {
        return Err("which is UTF-16 (it has zero bytes); save it as UTF-8");
    }
    String::from_utf8(bytes).map_err(|_| "which is not UTF-8; save it as UTF-8")
}

/// The value without what is around it and cannot be meant. Also names what that was, if there was anything.
pub fn trim(text: &str) -> (&str, Option<String>) {
    let around = |c: char| c.is_whitespace() || c == BYTE_ORDER_MARK;
    let start = text.trim_start_matches(around);
    let mut value = start.trim_end_matches(around);
    // In a connection string, a backslash before a space makes the space a part of the password.
    if value.ends_with('\\') && start[value.len()..].starts_with(' ') {
        value = &start[..=value.len()];
    }
    let gone = || text[..text.len() - start.len()].chars().chain(start[value.len()..].chars());
    let found: Vec<&str> = [
        (gone().any(|c| c == BYTE_ORDER_MARK), "a byte order mark"),
        (gone().any(|c| c == '\r'), "Windows line ends"),
        (gone().any(|c| c != BYTE_ORDER_MARK && c != '\r'), "white space"),
    ]
    .into_iter()
    .filter_map(|(is_there, name)| is_there.then_some(name))
    .collect();
    (value, (!found.is_empty()).then(|| found.join(" and ")))
}

/// Whether quotes are around the value. docker run --env-file and files pass them on; shells and compose
/// take them away.
pub fn is_quoted(value: &str) -> bool {
    value.len() > 1 && ['"', '\''].iter().any(|quote| value.starts_with(*quote) && value.ends_with(*quote))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_taken_away_and_named() {
        for (text, value, named) in [
            ("a b", "a b", None),
            (" a b\t", "a b", Some("white space")),
            ("a\n", "a", Some("white space")),
            ("a\r", "a", Some("Windows line ends")),
            ("\u{feff}a", "a", Some("a byte order mark")),
            ("\u{feff} a\r\n", "a", Some("a byte order mark and Windows line ends and white space")),
            ("\u{a0}a", "a", Some("white space")),
            (r"password=a\ ", r"password=a\ ", None),
            ("password=a\\ \n", r"password=a\ ", Some("white space")),
            ("a\\\n", "a\\", Some("white space")),
            (" \r\n", "", Some("Windows line ends and white space")),
        ] {
            assert_eq!(trim(text), (value, named.map(str::to_owned)), "{text:?}");
        }
    }

    #[test]
    fn only_utf_8_is_read() {
        assert_eq!(decode("hé".into()).unwrap(), "hé");
        for bytes in [&b"\xff\xfeh\0"[..], b"\xfe\xff\0h", b"h\0i\0"] {
            assert!(decode(bytes.to_vec()).unwrap_err().contains("UTF-16"));
        }
        assert!(decode(b"h\xe9".to_vec()).unwrap_err().contains("not UTF-8"));
    }
}
