//! Checks whether an archive in pg_dump's custom format is whole. The format has no end marker. But its table
//! of contents says which entries have data, and every piece of data marks its own end.
//!
//! The layout comes from PostgreSQL's src/bin/pg_dump: ReadHead, ReadToc, ReadInt, ReadStr and ReadOffset in
//! pg_backup_archiver.c, and the blocks of pg_backup_custom.c.
//!
//! ```text
//! header     "PGDMP", version (3 bytes), size of a number, size of an offset, format (a byte each),
//!            compression, date (7 numbers), names of the database and of two versions (3 texts)
//! contents   number of entries; each: its id, FIELDS, dependencies (texts, then no text), place of its data
//! blocks     one for each entry with data, in the order of the entries:
//!            1, entry's id, chunks                    rows of a table
//!            3, entry's id, (oid, chunks)..., 0       large objects
//! chunks     (length, that many bytes)..., 0          with compression and without
//! number     a byte for its sign, then four bytes, the least significant first
//! text       its length, then that many bytes; a negative length means no text
//! ```
//!
//! Only a few numbers are kept. Data is skipped, not copied.

pub mod contents;

const MAGIC: &[u8] = b"PGDMP";
/// The magic, three bytes for the version, two for sizes, one for the format.
const PREFIX: usize = 11;
/// The number of the custom format among pg_dump's formats.
const CUSTOM: u8 = 1;
/// The versions of archives that this reads: from PostgreSQL 9.0 to 17 and 18.
const OLDEST: (u8, u8) = (1, 12);
const NEWEST: (u8, u8) = (1, 16);
/// From this version on, the compression is a byte. Before, it is a number.
const COMPRESSION_IS_A_BYTE: u8 = 15;
/// A sign and four bytes: a C int. It has four bytes on every machine that PostgreSQL runs on.
const NUMBER: usize = 5;
/// Seven numbers, from the seconds to daylight saving.
const DATE: usize = 7 * NUMBER;
const HEADER_TEXTS: u8 = 3;
/// The fields of an entry after its id, each with the first version that has it.
const FIELDS: [(Field, u8); 15] = [
    (Field::Number, 0),  // whether pg_dump had data for it
    (Field::Text, 0),    // oid of its catalog
    (Field::Text, 0),    // its own oid
    (Field::Text, 0),    // name
    (Field::Text, 0),    // kind, such as TABLE DATA
    (Field::Number, 0),  // section
    (Field::Text, 0),    // statement that makes it
    (Field::Text, 0),    // statement that drops it
    (Field::Text, 0),    // COPY statement
    (Field::Text, 0),    // schema
    (Field::Text, 0),    // tablespace
    (Field::Text, 14),   // table access method
    (Field::Number, 16), // kind of relation
    (Field::Text, 0),    // owner
    (Field::Text, 0),    // whether it has OIDs
];
/// The byte before an offset: K_OFFSET_POS_NOT_SET (pg_dump writes this to a pipe), K_OFFSET_POS_SET, or
/// K_OFFSET_NO_DATA.
const OFFSET_UNKNOWN: u8 = 1;
const OFFSET_KNOWN: u8 = 2;
const NO_DATA: u8 = 3;
/// BLK_DATA and BLK_BLOBS.
const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;

#[derive(Clone, Copy)]
enum Field {
    Number,
    Text,
}

/// What the next bytes are.
#[derive(Clone, Copy, Default)]
enum Next {
    #[default]
    Prefix,
    /// A text of the header. This many more texts follow.
    HeaderText(u8),
    EntryCount,
    EntryId,
    /// A row of `FIELDS`.
    EntryField(usize),
    Dependency,
    Offset,
    /// A block's type and the id of its entry.
    Block,
    LargeObject,
    Chunk {
        of_large_object: bool,
    },
    /// Nothing more, or the contents once more. `pg_dump >file` of versions 16 to 18 writes them again after
    /// the blocks. It wants to replace the first ones, but the file is open for appending.
    End,
    /// Whatever a newer version has here.
    Unknown,
}

/// The ids of the entries with data, or of the blocks. In a whole archive both are the same, in the same
/// order: pg_dump writes them in this order, and pg_restore needs it to read from a pipe. A count and a
/// checksum are enough to compare them. Lists would grow with the archive.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Ids {
    count: u64,
    checksum: u64,
}

impl Ids {
    fn push(&mut self, id: i32) {
        /// FNV-1a's prime. It is odd, so no id gets lost in the product.
        const PRIME: u64 = 0x0100_0000_01b3;
        self.count += 1;
        self.checksum = (self.checksum ^ u64::from(id.cast_unsigned())).wrapping_mul(PRIME);
    }
}

/// Reads an archive as it passes, from its first byte on.
#[derive(Default)]
pub struct Archive {
    next: Next,
    /// The beginning of the next value, if a push ended inside it.
    partial: [u8; PREFIX],
    partial_length: usize,
    /// Bytes to skip before the next value.
    skip: u64,
    /// The number of bytes so far.
    position: u64,
    version: (u8, u8),
    /// The size of a byte that says whether there is data, plus the offset.
    offset_size: usize,
    entries: i32,
    entries_left: i32,
    /// The id of the entry or block that began last.
    id: i32,
    with_data: Ids,
    blocks: Ids,
    /// Whether the contents have come a second time, after the blocks.
    repeated: bool,
    fault: Option<String>,
}

impl Archive {
    /// Takes the next bytes of the archive.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.fault.is_none() && !matches!(self.next, Next::Unknown) {
            let taken = match (self.skip, self.next) {
                (0, Next::Chunk { .. }) if self.partial_length == 0 => self.take_chunks(bytes),
                (0, _) => self.take_value(bytes),
                (skip, _) => {
                    let taken = usize::try_from(skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
                    self.skip -= taken as u64;
                    taken
                }
            };
            self.position += taken as u64;
            bytes = &bytes[taken..];
        }
    }

    /// Reads the chunks that are whole in `bytes`, and the next number. Each row of a table is a chunk, so
    /// most of the time is spent here.
    fn take_chunks(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while let Some((length, behind)) = rest.split_at_checked(NUMBER) {
            let Ok(length @ 1..) = usize::try_from(number(length)) else { break };
            let Some(behind) = behind.get(length..) else { break };
            rest = behind;
        }
        bytes.len() - rest.len() + self.take_value(rest)
    }

    /// Reads the next value, or the part of it that is there.
    fn take_value(&mut self, bytes: &[u8]) -> usize {
        let width = self.width();
        let begin = self.partial_length;
        let taken = (width - begin).min(bytes.len());
        let end = begin + taken;
        self.partial[begin..end].copy_from_slice(&bytes[..taken]);
        self.partial_length = end % width;
        if end == width {
            let value = self.partial;
            if let Err(fault) = self.read(&value[..width]) {
                self.fault = Some(fault);
            }
        }
        taken
    }

    /// Says what is missing if the archive ends here.
    ///
    /// # Errors
    /// A sentence, if the archive is not whole.
    pub fn check(&self) -> Result<(), String> {
        match &self.fault {
            Some(fault) if self.position > PREFIX as u64 => {
                return Err(format!("the archive is damaged near byte {}: {fault}", self.position));
            }
            Some(fault) => return Err(fault.clone()),
            None => {}
        }
        let (begun, all) = (self.blocks.count, self.with_data.count);
        let place = match self.next {
            Next::Unknown => return Ok(()),
            Next::Prefix if !self.partial[..self.partial_length].starts_with(MAGIC) => {
                return Err(not_custom())
            }
            Next::End if self.partial_length == 0 => return Ok(()),
            Next::End => return Err(surplus()),
            Next::Block => format!("with the data of {begun} of the {all} entries that have data"),
            Next::LargeObject | Next::Chunk { .. } => {
                format!("within the data of entry {}, number {begun} of the {all} that have data", self.id)
            }
            _ if self.repeated => "within the table of contents that follows its data".into(),
            Next::Prefix | Next::HeaderText(_) | Next::EntryCount => "within its header".into(),
            _ => {
                let read = self.entries - self.entries_left;
                format!("within its table of contents, after {read} of {} entries", self.entries)
            }
        };
        Err(format!("the archive is cut off: it ends {place}"))
    }

    /// Why an archive that passes the check may still not be whole: its version is not known here. An upgrade
    /// of PostgreSQL must not make every backup fail.
    pub fn unproven(&self) -> Option<String> {
        let Next::Unknown = self.next else { return None };
        let ((major, minor), (newest_major, newest_minor)) = (self.version, NEWEST);
        Some(format!(
            "the archive has version {major}.{minor}, and pgkeep knows {newest_major}.{newest_minor} at most: only its \
             beginning was checked, so that it is not proven whole; a newer pgkeep may know more"
        ))
    }

    fn width(&self) -> usize {
        match self.next {
            Next::Prefix => PREFIX,
            Next::Offset => self.offset_size,
            Next::Block => 1 + NUMBER,
            _ => NUMBER,
        }
    }

    /// Reads a value, and decides what comes next.
    fn read(&mut self, value: &[u8]) -> Result<(), String> {
        self.next = match self.next {
            Next::Prefix => self.prefix(value)?,
            Next::HeaderText(left) => {
                self.text(value);
                left.checked_sub(1).map_or(Next::EntryCount, Next::HeaderText)
            }
            Next::EntryCount => self.contents(number(value))?,
            Next::EntryId => {
                self.id = number(value);
                self.field(0)
            }
            Next::EntryField(row) => {
                if let (Field::Text, _) = FIELDS[row] {
                    self.text(value);
                }
                self.field(row + 1)
            }
            Next::Dependency => match self.text(value) {
                true => Next::Dependency,
                false => Next::Offset,
            },
            Next::Offset => self.offset(value[0])?,
            Next::Block => self.block(value[0], number(&value[1..]))?,
            // An oid above two billion is written as a negative number.
            Next::LargeObject if number(value) != 0 => Next::Chunk { of_large_object: true },
            Next::LargeObject => self.block_or_end()?,
            Next::Chunk { of_large_object } => match number(value) {
                0 if of_large_object => Next::LargeObject,
                0 => self.block_or_end()?,
                length => {
                    self.skip = u64::try_from(length).map_err(|_| negative(length))?;
                    self.next
                }
            },
            Next::End if self.repeated || number(value) != self.entries => return Err(surplus()),
            Next::End => {
                self.repeated = true;
                self.contents(self.entries)?
            }
            Next::Unknown => Next::Unknown,
        };
        Ok(())
    }

    fn prefix(&mut self, value: &[u8]) -> Result<Next, String> {
        let &[.., major, minor, _, number_size, offset_size, format] = value else {
            return Err(not_custom());
        };
        if !value.starts_with(MAGIC) {
            return Err(not_custom());
        }
        self.version = (major, minor);
        if self.version > NEWEST {
            return Ok(Next::Unknown);
        }
        if self.version < OLDEST {
            return Err(format!(
                "the archive has version {major}.{minor}, which is older than PostgreSQL 9.0"
            ));
        }
        if usize::from(number_size) + 1 != NUMBER || !(1..=8).contains(&offset_size) || format != CUSTOM {
            return Err("the archive's header is not of pg_dump's custom format".into());
        }
        self.offset_size = 1 + usize::from(offset_size);
        let compression = if minor >= COMPRESSION_IS_A_BYTE { 1 } else { NUMBER };
        self.skip = (compression + DATE) as u64;
        Ok(Next::HeaderText(HEADER_TEXTS - 1))
    }

    /// Skips a text of this length. Returns whether there is a text.
    fn text(&mut self, length: &[u8]) -> bool {
        let length = u64::try_from(number(length));
        self.skip = length.unwrap_or_default();
        length.is_ok()
    }

    /// This many entries come next.
    fn contents(&mut self, entries: i32) -> Result<Next, String> {
        if entries < 0 {
            return Err(negative(entries));
        }
        self.entries = entries;
        self.entries_left = entries;
        self.entry_or_data()
    }

    fn entry_or_data(&self) -> Result<Next, String> {
        if self.entries_left > 0 {
            Ok(Next::EntryId)
        } else {
            self.block_or_end()
        }
    }

    /// The field in this row, or the next field that this version has.
    fn field(&self, row: usize) -> Next {
        let known = |row: &usize| FIELDS[*row].1 <= self.version.1;
        (row..FIELDS.len()).find(known).map_or(Next::Dependency, Next::EntryField)
    }

    fn offset(&mut self, kind: u8) -> Result<Next, String> {
        match kind {
            NO_DATA => {}
            OFFSET_UNKNOWN | OFFSET_KNOWN if self.repeated => {}
            OFFSET_UNKNOWN | OFFSET_KNOWN => self.with_data.push(self.id),
            other => return Err(format!("there is no offset of type {other}")),
        }
        self.entries_left -= 1;
        self.entry_or_data()
    }

    fn block(&mut self, kind: u8, id: i32) -> Result<Next, String> {
        self.id = id;
        self.blocks.push(id);
        match kind {
            ROWS => Ok(Next::Chunk { of_large_object: false }),
            LARGE_OBJECTS => Ok(Next::LargeObject),
            other => Err(format!("there is no block of data of type {other}")),
        }
    }

    fn block_or_end(&self) -> Result<Next, String> {
        if self.blocks.count < self.with_data.count {
            return Ok(Next::Block);
        }
        if self.blocks != self.with_data {
            return Err("its data is not of the entries that have data".into());
        }
        Ok(Next::End)
    }
}

/// ReadInt, including what it does with a number that does not fit a C int.
fn number(bytes: &[u8]) -> i32 {
    let &[sign, a, b, c, d, ..] = bytes else { return 0 };
    let magnitude = i32::from_le_bytes([a, b, c, d]);
    if sign == 0 {
        magnitude
    } else {
        magnitude.wrapping_neg()
    }
}

fn negative(number: i32) -> String {
    format!("{number} is no length")
}

fn not_custom() -> String {
    "it does not begin as pg_dump's custom format does".into()
}

fn surplus() -> String {
    "bytes follow the archive's end".into()
}

#[cfg(test)]
mod tests;
