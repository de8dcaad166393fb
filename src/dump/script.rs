//! A plain dump on its way into psql, which runs it under a key and in a transaction of pgkeep's own.
//!
//! Two things that pg_dump writes would get in the way, and become empty lines, so that psql's messages still
//! name the right line:
//! - `\restrict KEY` in the header and `\unrestrict KEY` at the end. psql is in its restricted mode already,
//!   and refuses both.
//! - `BEGIN;` and `COMMIT;` around the contents of large objects. This COMMIT would end pgkeep's transaction
//!   in the middle of the restore.
//!
//! Rows of data may look like these lines, so they count only where pg_dump writes them. Whatever else
//! a script holds is passed on as it is: to refuse it is psql's part. A line that is wrongly passed on makes a
//! restore fail; it never makes one unsafe.

use std::io::BufRead;
use std::mem;

/// A longer line is none of those above. Names have at most 63 bytes.
const LONGEST: usize = 512;
const RESTRICT: &[u8] = b"\\restrict ";
const UNRESTRICT: &[u8] = b"\\unrestrict ";
/// How the statement begins and ends that the rows of a table follow, up to a line `\.`.
const COPY: (&[u8], &[u8]) = (b"COPY ", b" FROM stdin;\n");
/// What stands in the comment above the contents of large objects; in between is their name.
const LARGE_OBJECTS: (&[u8], &[u8]) = (b"-- Data for Name: ", b"; Type: BLOBS; Schema: -; Owner: ");
/// What follows that comment, line by line.
const ANNOUNCED: [&[u8]; 3] = [b"--\n", b"\n", b"BEGIN;\n"];
/// What each statement between this BEGIN and its COMMIT begins with.
const WRITES: &[u8] = b"SELECT pg_catalog.lo";

/// Where in a dump the current line is.
enum Place {
    /// Nothing but comments and empty lines so far.
    Header,
    Statements,
    Rows,
    LargeObjects,
}

/// Changes a dump as it goes by, in pieces of any size.
pub struct Script {
    one_transaction: bool,
    place: Place,
    /// The beginning of the current line.
    line: Vec<u8>,
    /// Whether the current line is longer than [`LONGEST`]: then it is passed on as it comes.
    long: bool,
    /// The end of a long line.
    tail: Vec<u8>,
    /// How much of the lines above the contents of large objects was just seen.
    announced: usize,
    /// The line that ends this dump, if it began with `\restrict`.
    last: Option<Vec<u8>>,
    /// That line and the empty ones behind it, until it is known that nothing follows.
    held: Vec<u8>,
    passed: Vec<u8>,
}

impl Script {
    /// Of a dump that is restored in one transaction, or statement by statement.
    pub fn new(one_transaction: bool) -> Self {
        Script {
            one_transaction,
            place: Place::Header,
            line: Vec::new(),
            long: false,
            tail: Vec::new(),
            announced: 0,
            last: None,
            held: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Takes the next bytes of the dump, and returns what psql may get by now.
    pub fn pass(&mut self, mut bytes: &[u8]) -> &[u8] {
        self.passed.clear();
        while !bytes.is_empty() {
            // Reading from memory does not fail.
            let length = { bytes }.skip_until(b'\n').unwrap_or(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            self.take(piece);
            bytes = rest;
        }
        &self.passed
    }

    /// What is left when the dump has ended.
    pub fn end(&mut self) -> &[u8] {
        self.passed.clear();
        if !self.line.is_empty() && !self.long {
            let line = mem::take(&mut self.line);
            self.send(&line);
        }
        &self.passed
    }

    /// A line, or a piece of one.
    fn take(&mut self, piece: &[u8]) {
        let room = LONGEST - self.line.len();
        let (kept, more) = piece.split_at(piece.len().min(room));
        self.line.extend_from_slice(kept);
        if !more.is_empty() {
            self.take_more(more);
        }
        if piece.ends_with(b"\n") {
            let line = mem::take(&mut self.line);
            if self.long {
                self.follow(&line);
            } else {
                self.judge(&line);
            }
            (self.line, self.long) = (line, false);
            self.line.clear();
        }
    }

    /// What of a line is too much to be kept.
    fn take_more(&mut self, more: &[u8]) {
        if !self.long {
            let line = mem::take(&mut self.line);
            self.send(&line);
            self.tail.clone_from(&line);
            (self.line, self.long) = (line, true);
        }
        self.passed.extend_from_slice(more);
        self.tail.extend_from_slice(&more[more.len().saturating_sub(LONGEST)..]);
        self.tail.drain(..self.tail.len().saturating_sub(LONGEST));
    }

    /// A whole line.
    fn judge(&mut self, line: &[u8]) {
        if self.last.as_deref() == Some(line) || (!self.held.is_empty() && line == b"\n") {
            self.held.extend_from_slice(line);
            return;
        }
        let dropped = self.follow(line);
        self.send(if dropped { b"\n" } else { line });
    }

    /// Passes bytes on. What was held was not the end.
    fn send(&mut self, bytes: &[u8]) {
        self.passed.append(&mut self.held);
        self.passed.extend_from_slice(bytes);
    }

    /// Keeps track of the place; returns whether the line is one to be dropped. Of a long line this is the
    /// beginning.
    fn follow(&mut self, line: &[u8]) -> bool {
        match self.place {
            Place::Header => return self.follow_header(line),
            Place::Statements => return self.follow_statement(line),
            Place::Rows if line == b"\\.\n" => self.place = Place::Statements,
            Place::LargeObjects if line == b"COMMIT;\n" => {
                self.place = Place::Statements;
                return true;
            }
            Place::LargeObjects if line != b"\n" && !line.starts_with(WRITES) => {
                self.place = Place::Statements;
            }
            Place::Rows | Place::LargeObjects => {}
        }
        false
    }

    fn follow_header(&mut self, line: &[u8]) -> bool {
        if line == b"\n" || line.starts_with(b"--") {
            return false;
        }
        self.place = Place::Statements;
        let key = line.strip_prefix(RESTRICT).and_then(|rest| rest.strip_suffix(b"\n"));
        match key.filter(|key| !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric)) {
            Some(key) => {
                self.last = Some([UNRESTRICT, key, b"\n"].concat());
                true
            }
            None => self.follow_statement(line),
        }
    }

    fn follow_statement(&mut self, line: &[u8]) -> bool {
        let end = if self.long { &self.tail } else { line };
        if line.starts_with(COPY.0) && end.ends_with(COPY.1) {
            self.place = Place::Rows;
        }
        if !self.one_transaction {
            return false;
        }
        let (begin, within) = LARGE_OBJECTS;
        if line.starts_with(begin) && line.windows(within.len()).any(|part| part == within) {
            self.announced = 1;
        } else if self.announced > 0 && line == ANNOUNCED[self.announced - 1] {
            self.announced += 1;
        } else {
            self.announced = 0;
        }
        let begun = self.announced > ANNOUNCED.len();
        if begun {
            (self.place, self.announced) = (Place::LargeObjects, 0);
        }
        begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "--\n-- PostgreSQL database dump\n--\n\n";
    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";
    /// As pg_dump 15 to 18 write it.
    const OBJECTS: &str = "--\n-- Data for Name: 9..12; Type: BLOBS; Schema: -; Owner: r\n--\n\nBEGIN;\n\n\
        SELECT pg_catalog.lo_open('9', 131072);\nSELECT pg_catalog.lo_close(0);\n\n\
        SELECT pg_catalog.lo_open('12', 131072);\nSELECT pg_catalog.lowrite(0, '\\x00');\n\
        SELECT pg_catalog.lo_close(0);\n\nCOMMIT;\n\n";

    /// What psql gets of a text in one transaction, whatever the pieces are that it comes in.
    fn passed(text: &str) -> String {
        let by = |size| {
            let mut script = Script::new(true);
            let mut passed = Vec::new();
            text.as_bytes().chunks(size).for_each(|bytes| passed.extend_from_slice(script.pass(bytes)));
            passed.extend_from_slice(script.end());
            String::from_utf8(passed).unwrap()
        };
        let whole = by(1 << 20);
        for size in [1, 2, 3, 7, 100, LONGEST, LONGEST + 1] {
            assert_eq!(by(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn the_dumps_own_restriction_goes_and_every_other_line_stays() {
        // A function's body, and what rows look like: their backslashes are doubled.
        let body = "AS $$\n\\restrict abc\n\\unrestrict abc\nCOMMIT;\n$$;\n\n\
                    COPY public.t (a) FROM stdin;\n\\\\restrict abc\n\\\\unrestrict k3Y\n\\\\.\nBEGIN;\n\nCOMMIT;\n\\.\n\n\n";
        let restricted = format!("{HEADER}\\restrict k3Y\n\n{body}{END}\\unrestrict k3Y\n\n");
        assert_eq!(passed(&restricted), format!("{HEADER}\n\n{body}{END}"));
        let plain = format!("{HEADER}{body}{END}");
        assert_eq!(passed(&plain), plain);
        assert_eq!(passed(""), "");
    }

    #[test]
    fn only_the_header_and_the_end_of_a_dump_restrict_it() {
        for kept in [
            "SELECT 1;\n\\restrict k3Y\n\\unrestrict k3Y\n",
            "-- x\n\\restrict\n",
            "-- x\n\\restrict \n",
            "-- x\n\\restrict `id`\n",
            "-- x\n\\restrict a b\n",
            " \\restrict k3Y\n",
            "\\unrestrict k3Y\n",
            "\\unrestrict k3Y",
        ] {
            assert_eq!(passed(kept), kept);
        }
        for behind in ["\\! id\n", "\n\nSELECT 1;\n", "\\unrestrict other\n", &"x".repeat(2 * LONGEST), "x"] {
            let text = format!("SELECT 1;\n\\unrestrict k3Y\n{behind}");
            assert_eq!(passed(&format!("\\restrict k3Y\n{text}")), format!("\n{text}"));
        }
        // A second one is the script's own doing.
        let twice = "\\restrict k3Y\n\\restrict k3Y\n";
        assert_eq!(passed(twice), "\n\\restrict k3Y\n");
    }

    #[test]
    fn large_objects_are_restored_in_the_transaction_of_all_the_rest() {
        let rows = format!("COPY t (a) FROM stdin;\n{OBJECTS}\\.\n");
        let text = format!("SET a = b;\n{OBJECTS}{OBJECTS}{rows}COMMIT;\n");
        let without = OBJECTS.replace("BEGIN;", "").replace("COMMIT;", "");
        assert_eq!(passed(&text), format!("SET a = b;\n{without}{without}{rows}COMMIT;\n"));
        // Statement by statement, they need a transaction of their own.
        assert_eq!(Script::new(false).pass(text.as_bytes()), text.as_bytes());
    }

    #[test]
    fn what_only_looks_like_large_objects_ends_a_transaction() {
        for (is, looks) in [
            ("SELECT pg_catalog.lo_close(0);\n\nCOMMIT", "SELECT pg_catalog.lo_close(0);\nSELECT 1;\nCOMMIT"),
            ("--\n\nBEGIN", "--\nBEGIN"),
            ("Type: BLOBS", "Type: TABLE DATA"),
        ] {
            let text = format!("SET a = b;\n{}", OBJECTS.replace(is, looks));
            assert!(passed(&text).contains("\nCOMMIT;\n"), "{looks}");
        }
    }

    #[test]
    fn whatever_comes_is_passed_on_the_same_in_any_pieces_and_line_by_line() {
        let copy = "COPY t (a) FROM stdin;\na\\tb\n\\.\n";
        let dump = format!("{HEADER}\\restrict k3Y\n\n{copy}{OBJECTS}SELECT 1;\n{END}\\unrestrict k3Y\n\n");
        crate::base::fuzz::feed(&[&dump, OBJECTS, copy], |text| {
            // Of lines that were dropped at the end nothing is left.
            let (lines, left) = (text.lines().count(), passed(text).lines().count());
            assert!(lines == left || text.contains("\\unrestrict k3Y\n") && left < lines);
        });
    }

    #[test]
    fn long_lines_are_passed_on_and_understood() {
        let columns = "a column, ".repeat(LONGEST);
        let rows = format!("{}\n", "x".repeat(3 * LONGEST)).repeat(3);
        let text = format!("SET a = b;\nCOPY t ({columns}b) FROM stdin;\n{rows}{OBJECTS}\\.\n{rows}");
        assert_eq!(passed(&text), text);
        let write = format!("SELECT pg_catalog.lowrite(0, '\\x{}');\n", "0".repeat(3 * LONGEST));
        let objects = OBJECTS.replace("SELECT pg_catalog.lowrite(0, '\\x00');\n", &write);
        let without = objects.replace("BEGIN;", "").replace("COMMIT;", "");
        assert_eq!(passed(&format!("SET a = b;\n{objects}")), format!("SET a = b;\n{without}"));
    }
}
