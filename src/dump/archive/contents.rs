//! Reads the table of contents of an archive: what it restores, and what needs what. `pg_restore --list` prints
//! it for people, so names with spaces in them cannot be told apart there.

use std::io::{self, Read};

use anyhow::{bail, ensure, Context, Error, Result};

use super::{number, Archive, Next, FIELDS, HEADER_TEXTS, NUMBER, PREFIX};

/// The rows of `FIELDS` that are kept.
const NAME: usize = 3;
const KIND: usize = 4;
const SCHEMA: usize = 9;

/// An entry of the table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// By this number pg_restore knows it.
    pub id: i32,
    /// Such as TABLE, TABLE DATA or FK CONSTRAINT.
    pub kind: String,
    /// Its schema. Empty if it is in none.
    pub schema: String,
    /// Such as `orders`, or `orders orders_pkey` for a constraint.
    pub name: String,
    /// The ids of the entries that it needs. Some of them may not be in the archive.
    pub needs: Vec<i32>,
}

/// The entries of an archive, in the order in which they are restored.
///
/// # Errors
/// The archive cannot be read, is damaged, or has a version that is not known here.
pub fn read(mut from: impl Read) -> Result<Vec<Entry>> {
    let mut prefix = [0; PREFIX];
    from.read_exact(&mut prefix)?;
    let mut archive = Archive::default();
    if let Next::Unknown = archive.prefix(&prefix).map_err(Error::msg)? {
        let (major, minor) = archive.version;
        bail!("the archive has version {major}.{minor}, of which this pgkeep does not know the contents");
    }
    skip(&mut from, archive.skip)?;
    for _ in 0..HEADER_TEXTS {
        read_text(&mut from)?;
    }
    let count = read_number(&mut from)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let entry = read_entry(&mut from, &archive);
        entries
            .push(entry.with_context(|| format!("entry {} of {count} cannot be read", entries.len() + 1))?);
    }
    Ok(entries)
}

fn read_entry(from: &mut impl Read, archive: &Archive) -> Result<Entry> {
    let mut entry = Entry { id: read_number(from)?, ..Entry::default() };
    for (row, (field, since)) in FIELDS.into_iter().enumerate() {
        if since > archive.version.1 {
            continue;
        }
        match field {
            super::Field::Number => drop(read_number(from)?),
            super::Field::Text => {
                let text = read_text(from)?.unwrap_or_default();
                match row {
                    NAME => entry.name = text,
                    KIND => entry.kind = text,
                    SCHEMA => entry.schema = text,
                    _ => {}
                }
            }
        }
    }
    while let Some(need) = read_text(from)? {
        entry.needs.push(need.parse().with_context(|| format!("\"{need}\" is no id"))?);
    }
    skip(from, archive.offset_size as u64)?;
    Ok(entry)
}

fn read_number(from: &mut impl Read) -> Result<i32> {
    let mut bytes = [0; NUMBER];
    from.read_exact(&mut bytes)?;
    Ok(number(&bytes))
}

/// A text, if there is one. The length is not believed: memory grows only with what is there.
fn read_text(from: &mut impl Read) -> Result<Option<String>> {
    let Ok(length) = u64::try_from(read_number(from)?) else { return Ok(None) };
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == length, "it ends within a text");
    // In the encoding of the database, which may not be UTF-8.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn skip(from: &mut impl Read, length: u64) -> Result<()> {
    let skipped = io::copy(&mut from.take(length), &mut io::sink())?;
    ensure!(skipped == length, "it ends too early");
    Ok(())
}
