//! What shows that a dump is whole: its first bytes, and the end marker that pg_dump writes last.

use crate::postgres::Format;

/// What pg_dump's plain format ends with, and what may follow: `\unrestrict` with its key.
const END_MARKER: &[u8] = b"\n-- PostgreSQL database dump complete\n";
const TAIL: usize = 1024;
/// What pg_dump's custom format begins with. It has no marker at its end: there, pg_dump's status and gzip's
/// checksum of all that it wrote have to do.
const CUSTOM_MAGIC: &[u8] = b"PGDMP";

/// Watches a dump go by.
pub struct Witness {
    format: Format,
    head: Vec<u8>,
    tail: Vec<u8>,
    /// Bytes so far.
    pub length: u64,
}

impl Witness {
    /// Of a dump in this format.
    pub fn new(format: Format) -> Self {
        Witness { format, head: Vec::new(), tail: Vec::new(), length: 0 }
    }

    /// The next bytes of the dump.
    pub fn push(&mut self, bytes: &[u8]) {
        let wanted = (CUSTOM_MAGIC.len() - self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..wanted]);
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        self.length += bytes.len() as u64;
    }

    /// What is missing in a dump that ends here.
    ///
    /// # Errors
    /// A sentence, where the dump is not whole.
    pub fn check(&self) -> Result<(), &'static str> {
        match self.format {
            Format::Plain if !self.ends_with_the_marker() => {
                Err("the dump has no end marker: it is not whole, or not of pg_dump")
            }
            Format::Custom if self.head != CUSTOM_MAGIC => {
                Err("it does not begin as pg_dump's custom format does")
            }
            _ => Ok(()),
        }
    }

    /// Whether the end marker is there, with nothing behind it but comments and `\unrestrict`: a dump that
    /// stopped within a table whose rows contain the marker's text does not pass.
    fn ends_with_the_marker(&self) -> bool {
        let Some(at) = self.tail.windows(END_MARKER.len()).rposition(|window| window == END_MARKER) else {
            return false;
        };
        let behind = String::from_utf8_lossy(&self.tail[at + END_MARKER.len()..]);
        behind.ends_with('\n')
            && behind.lines().all(|line| line.is_empty() || line == "--" || line.starts_with("\\unrestrict "))
    }
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
            for cut in 1..=end.len() {
                let cut_off = format!("{rows}{end}");
                let cut_off = &cut_off[..cut_off.len() - cut];
                // The marker itself and the line feed behind it are what counts.
                let complete = cut_off.ends_with("complete\n--\n");
                assert_eq!(plain(cut_off), complete, "{cut} bytes cut off");
            }
            assert!(!plain(&format!("{rows}{end}{rows}")));
            assert!(!plain(&rows));
            assert!(!plain(""));
        }
    }

    #[test]
    fn a_custom_dump_shows_its_magic() {
        for chunk in [1, 3, 100] {
            assert!(whole(Format::Custom, "PGDMP\u{1}and so on", chunk));
            assert!(!whole(Format::Custom, "PGDM", chunk));
            assert!(!whole(Format::Custom, "-- PostgreSQL database dump\n", chunk));
            assert!(!whole(Format::Custom, "", chunk));
        }
    }
}
