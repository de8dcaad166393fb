//! What shows that a dump is whole: the end marker of pg_dump's plain format, or what an archive in the
//! custom format says about itself.

use super::archive::Archive;
use crate::postgres::Format;

/// pg_dump's plain format ends with the first of these, and pg_dumpall's output with the second. `\unrestrict`
/// with its key may follow.
const END_MARKERS: [&[u8]; 2] =
    [b"\n-- PostgreSQL database dump complete\n", b"\n-- PostgreSQL database cluster dump complete\n"];
const TAIL: usize = 1024;

/// Reads a dump as it passes.
pub struct Witness {
    seen: Seen,
    /// The number of bytes so far.
    pub length: u64,
}

enum Seen {
    /// The last bytes.
    Plain(Vec<u8>),
    Custom(Archive),
}

impl Witness {
    /// Witnesses a dump in this format.
    pub fn new(format: Format) -> Self {
        let seen = match format {
            Format::Plain => Seen::Plain(Vec::new()),
            Format::Custom => Seen::Custom(Archive::default()),
        };
        Witness { seen, length: 0 }
    }

    /// Takes the next bytes of the dump.
    pub fn push(&mut self, bytes: &[u8]) {
        match &mut self.seen {
            Seen::Plain(tail) => {
                tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
                tail.drain(..tail.len().saturating_sub(TAIL));
            }
            Seen::Custom(archive) => archive.push(bytes),
        }
        self.length += bytes.len() as u64;
    }

    /// Says what is missing if the dump ends here.
    ///
    /// # Errors
    /// A sentence, if the dump is not whole.
    pub fn check(&self) -> Result<(), String> {
        match &self.seen {
            Seen::Plain(tail) if ends_with_the_marker(tail) => Ok(()),
            Seen::Plain(_) => Err("the dump has no end marker: it is not whole, or not of pg_dump".into()),
            Seen::Custom(archive) => archive.check(),
        }
    }

    /// Why a dump that passes the check may still not be whole.
    pub fn unproven(&self) -> Option<String> {
        match &self.seen {
            Seen::Plain(_) => None,
            Seen::Custom(archive) => archive.unproven(),
        }
    }
}

/// Whether the end marker is there and only comments and `\unrestrict` follow it. So a dump that stopped
/// inside a table does not pass, even if a row of that table contains the marker's text.
fn ends_with_the_marker(tail: &[u8]) -> bool {
    let behind = END_MARKERS.iter().filter_map(|marker| {
        let at = tail.windows(marker.len()).rposition(|window| window == *marker)?;
        Some(&tail[at + marker.len()..])
    });
    let Some(behind) = behind.min_by_key(|behind| behind.len()) else { return false };
    let behind = String::from_utf8_lossy(behind);
    behind.ends_with('\n')
        && behind.lines().all(|line| line.is_empty() || line == "--" || line.starts_with("\\unrestrict "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(format: Format, text: &str, chunk: usize) -> bool {
        let mut witness = Witness::new(format);
        text.as_bytes().chunks(chunk).for_each(|bytes| witness.push(bytes));
        assert_eq!(witness.length, text.len() as u64);
        witness.check().is_ok()
    }

    #[test]
    fn only_a_dump_with_its_end_marker_is_whole() {
        let rows = "1\ttext\n".repeat(1000);
        let end = "--\n-- PostgreSQL database dump complete\n--\n\n";
        for chunk in [1, 7, 1000, 100_000] {
            let plain = |text: &str| whole(Format::Plain, text, chunk);
            assert!(plain(&format!("{rows}{end}")));
            assert!(plain(&format!("{rows}{end}\\unrestrict 4fNx\n\n")));
            assert!(plain("CREATE ROLE a;\n\n--\n-- PostgreSQL database cluster dump complete\n--\n\n"));
            for cut in 1..=end.len() {
                let cut_off = format!("{rows}{end}");
                let cut_off = &cut_off[..cut_off.len() - cut];
                // Only the marker itself and the line feed after it count.
                let complete = cut_off.ends_with("complete\n--\n");
                assert_eq!(plain(cut_off), complete, "{cut} bytes cut off");
            }
            assert!(!plain(&format!("{rows}{end}{rows}")));
            assert!(!plain(&rows));
            assert!(!plain(""));
        }
    }

    #[test]
    fn a_custom_dump_is_an_archive() {
        for chunk in [1, 3, 100] {
            for no_archive in ["", "PGDM", "PGDMP\u{1}\u{10} and so on", "-- PostgreSQL database dump\n"] {
                assert!(!whole(Format::Custom, no_archive, chunk), "{no_archive}");
            }
        }
    }
}
