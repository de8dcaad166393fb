//! Changes a plain dump on its way into psql. psql runs it with pgkeep's own key, on a server that may be
//! older than the pg_dump that wrote the dump.
//!
//! Some lines that pg_dump writes would cause trouble. They become empty lines, so that psql's messages still
//! name the right line:
//! - `\restrict KEY` in the header and `\unrestrict KEY` at the end. psql is already in its restricted mode
//!   and refuses both.
//! - `SET name = …;` in the header, if the server has no such setting: pg_dump sets what its own version has,
//!   such as transaction_timeout since 17.
//!
//! Rows of data may look like these lines, so the lines count only in the places where pg_dump writes them.
//! Everything else in a script is passed on unchanged; psql decides what to refuse. If a line is passed on by
//! mistake, the restore fails, but it never becomes unsafe.

use std::io::BufRead;
use std::mem;

/// The lines above are never longer.
const LONGEST: usize = 512;
const RESTRICT: &[u8] = b"\\restrict ";
const UNRESTRICT: &[u8] = b"\\unrestrict ";
/// The other statement of the header begins with this.
const SET_CONFIG: &[u8] = b"SELECT pg_catalog.set_config(";

/// Changes a dump as it passes, in pieces of any size.
#[derive(Default)]
pub struct Script {
    /// The settings that the server has, in lower case.
    known: Vec<String>,
    /// The settings that were left out.
    left_out: Vec<String>,
    /// Whether anything except comments and settings was seen.
    in_body: bool,
    /// The beginning of the current line.
    line: Vec<u8>,
    /// Whether the current line is longer than [`LONGEST`]. It is then passed on as it comes.
    long: bool,
    /// The line that ends this dump, if the dump began with `\restrict`.
    last: Option<Vec<u8>>,
    /// That line and the empty lines after it, held until it is clear that nothing follows.
    held: Vec<u8>,
    passed: Vec<u8>,
}

impl Script {
    /// For a server that has these settings, in lower case.
    pub fn new(known: Vec<String>) -> Self {
        Script { known, ..Script::default() }
    }

    /// Takes the next bytes of the dump, and returns what psql may get now.
    pub fn pass(&mut self, mut bytes: &[u8]) -> &[u8] {
        self.passed.clear();
        while !bytes.is_empty() {
            // Reading from memory cannot fail.
            let length = { bytes }.skip_until(b'\n').unwrap_or(bytes.len());
            let (piece, rest) = bytes.split_at(length);
            self.take(piece);
            bytes = rest;
        }
        &self.passed
    }

    /// Returns what is left when the dump has ended.
    pub fn end(&mut self) -> &[u8] {
        self.passed.clear();
        let line = mem::take(&mut self.line);
        if !line.is_empty() && !self.long {
            self.send(&line);
        }
        &self.passed
    }

    /// The settings that the server does not have.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// A line, or a piece of one.
    fn take(&mut self, piece: &[u8]) {
        if !self.long && self.line.len() + piece.len() > LONGEST {
            let line = mem::take(&mut self.line);
            self.send(&line);
            (self.long, self.in_body) = (true, true);
        }
        if self.long {
            self.passed.extend_from_slice(piece);
        } else {
            self.line.extend_from_slice(piece);
        }
        if piece.ends_with(b"\n") && !mem::take(&mut self.long) {
            let line = mem::take(&mut self.line);
            self.judge(&line);
            // Reuses the memory.
            self.line = line;
            self.line.clear();
        }
    }

    /// A whole line.
    fn judge(&mut self, line: &[u8]) {
        if self.last.as_deref() == Some(line) || (!self.held.is_empty() && line == b"\n") {
            self.held.extend_from_slice(line);
            return;
        }
        let dropped = !self.in_body && self.is_to_be_dropped(line);
        self.send(if dropped { b"\n" } else { line });
    }

    /// Passes bytes on. So the held line was not the end.
    fn send(&mut self, bytes: &[u8]) {
        self.passed.append(&mut self.held);
        self.passed.extend_from_slice(bytes);
    }

    /// Whether a line of the header, or the line that ends the header, must be dropped.
    fn is_to_be_dropped(&mut self, line: &[u8]) -> bool {
        if line == b"\n" || line.starts_with(b"--") || line.starts_with(SET_CONFIG) {
            return false;
        }
        if let Some(name) = setting(line) {
            let known = self.known.is_empty() || self.known.contains(&name);
            if !known {
                self.left_out.push(name);
            }
            return !known;
        }
        let key = line.strip_prefix(RESTRICT).and_then(|rest| rest.strip_suffix(b"\n"));
        match key.filter(|key| !key.is_empty() && key.iter().all(u8::is_ascii_alphanumeric)) {
            Some(key) if self.last.is_none() => {
                self.last = Some([UNRESTRICT, key, b"\n"].concat());
                true
            }
            Some(_) | None => {
                self.in_body = true;
                false
            }
        }
    }
}

/// The name in `SET name = value;`.
fn setting(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?;
    let (name, _) = line.strip_prefix("SET ")?.strip_suffix(";\n")?.split_once(" = ")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(plain).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "--\n-- PostgreSQL database dump\n--\n\n";
    const END: &str = "--\n-- PostgreSQL database dump complete\n--\n\n";

    /// What psql gets for a text, however it is cut into pieces, and what was left out.
    fn changed(text: &str) -> (String, Vec<String>) {
        let by = |size| {
            let mut script = Script::new(vec!["lock_timeout".into(), "client_encoding".into()]);
            let mut passed = Vec::new();
            text.as_bytes().chunks(size).for_each(|bytes| passed.extend_from_slice(script.pass(bytes)));
            passed.extend_from_slice(script.end());
            (String::from_utf8(passed).unwrap(), script.left_out().to_vec())
        };
        let whole = by(1 << 20);
        for size in [1, 2, 3, 7, 100, LONGEST, LONGEST + 1] {
            assert_eq!(by(size), whole, "in pieces of {size}");
        }
        whole
    }

    fn passed(text: &str) -> String {
        changed(text).0
    }

    #[test]
    fn the_dumps_own_restriction_goes_and_every_other_line_stays() {
        // A function's body, and lines that look like rows: in rows, backslashes are doubled.
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
        // If there is a second one, the script itself wrote it.
        let twice = "\\restrict k3Y\n\\restrict k3Y\n";
        assert_eq!(passed(twice), "\n\\restrict k3Y\n");
    }

    #[test]
    fn a_setting_of_the_header_that_the_server_does_not_have_is_left_out() {
        let config = "SELECT pg_catalog.set_config('search_path', '', false);\n";
        let body = "CREATE TABLE t ();\nSET transaction_timeout = 0;\n";
        let header = |setting: &str| {
            format!("{HEADER}SET lock_timeout = 0;\n{setting}{config}SET client_encoding = 'UTF8';\n")
        };
        let (passed, left_out) = changed(&format!("{}{body}", header("SET transaction_timeout = 0;\n")));
        assert_eq!(passed, format!("{}{body}", header("\n")));
        assert_eq!(left_out, ["transaction_timeout"]);
        // Other lines that begin like this are no settings of pg_dump.
        for kept in
            ["SET SESSION AUTHORIZATION x;\n", "SET a = 1; SET b = 2\n", "SET \"a\" = 1;\n", "SET a.b = 1;\n"]
        {
            assert_eq!(changed(&header(kept)), (header(kept), vec![]));
        }
    }

    #[test]
    fn whatever_comes_is_passed_on_the_same_in_any_pieces_and_line_by_line() {
        let copy = "COPY t (a) FROM stdin;\na\\tb\n\\.\n";
        let dump =
            format!("{HEADER}\\restrict k3Y\n\nSET x = 1;\n{copy}SELECT 1;\n{END}\\unrestrict k3Y\n\n");
        crate::base::fuzz::feed(&[&dump, copy], |text| {
            // Nothing is left of the lines that were dropped at the end.
            let (lines, left) = (text.lines().count(), passed(text).lines().count());
            assert!(lines == left || text.contains("\\unrestrict k3Y\n") && left < lines);
        });
    }

    #[test]
    fn long_lines_are_passed_on() {
        let columns = "a column, ".repeat(LONGEST);
        let rows = format!("{}\n", "x".repeat(3 * LONGEST)).repeat(3);
        let text = format!("SET client_encoding = b;\nCOPY t ({columns}b) FROM stdin;\n{rows}\\.\n{rows}");
        assert_eq!(passed(&text), text);
    }
}
