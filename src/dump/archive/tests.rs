//! Archives of every version, made here. tests/it/archive.rs has archives of a real pg_dump.

use super::contents::Entry;
use super::*;
use std::time::{Duration, Instant};

const MINORS: std::ops::RangeInclusive<u8> = 12..=16;
/// No test here takes this long.
const HANG: Duration = Duration::from_secs(10);

fn number(value: i64) -> Vec<u8> {
    let magnitude = u32::try_from(value.abs()).expect("four bytes");
    [&[u8::from(value < 0)][..], &magnitude.to_le_bytes()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [number(text.len() as i64), text.into()].concat()
}

fn no_text() -> Vec<u8> {
    number(-1)
}

fn header(minor: u8) -> Vec<u8> {
    let compression = if minor >= 15 { vec![0] } else { number(0) };
    let date = [1, 2, 3, 4, 5, 126, -1].map(number).concat();
    let texts = ["shop", "18.1 (Debian 18.1-1)", "18.1"].map(text).concat();
    [b"PGDMP\x01", &[minor, 0, 4, 8, 1][..], &compression, &date, &texts].concat()
}

fn entry(minor: u8, id: i64, kind: &str, offset: u8) -> Vec<u8> {
    let mut all =
        vec![number(id), number(1), text("1259"), text("16385"), text("Zoë's"), text(kind), number(3)];
    all.extend([text("CREATE …;\n"), no_text(), text(""), text("public"), no_text()]);
    all.extend((minor >= 14).then(|| text("heap")));
    all.extend((minor >= 16).then(|| number(114)));
    all.extend([text("postgres"), text("false"), text("205"), text("7"), no_text(), vec![offset; 9]]);
    all.concat()
}

fn chunks(rows: &[&[u8]]) -> Vec<u8> {
    let chunk = |row: &&[u8]| [number(row.len() as i64), row.to_vec()].concat();
    [rows.iter().flat_map(chunk).collect(), number(0)].concat()
}

fn rows(id: i64, rows: &[&[u8]]) -> Vec<u8> {
    [vec![ROWS], number(id), chunks(rows)].concat()
}

fn large_objects(id: i64, objects: &[(i64, &[&[u8]])]) -> Vec<u8> {
    let object = |(oid, data): &(i64, &[&[u8]])| [number(*oid), chunks(data)].concat();
    [vec![LARGE_OBJECTS], number(id), objects.iter().flat_map(object).collect(), number(0)].concat()
}

fn contents(minor: u8) -> Vec<u8> {
    let entries = [
        entry(minor, 3, "ENCODING", NO_DATA),
        entry(minor, 207, "TABLE", NO_DATA),
        entry(minor, 3021, "TABLE DATA", OFFSET_UNKNOWN),
        entry(minor, 3020, "TABLE DATA", OFFSET_UNKNOWN),
        entry(minor, 3030, "BLOBS", OFFSET_UNKNOWN),
        entry(minor, 3031, "BLOBS", OFFSET_KNOWN),
        entry(minor, 3032, "COMMENT", NO_DATA),
    ];
    [number(entries.len() as i64), entries.concat()].concat()
}

fn blocks() -> [Vec<u8>; 4] {
    [
        // A row may contain anything.
        rows(3021, &[b"1\tZo\xc3\xab\n", b"2\t\\N\n", b"PGDMP", &[0; 12], &[1; 300]]),
        rows(3020, &[]),
        large_objects(3030, &[(16400, &[b"data", b"more"]), (-1_294_967_296, &[]), (16401, &[&[0; 20]])]),
        large_objects(3031, &[]),
    ]
}

fn archive(minor: u8) -> Vec<u8> {
    [header(minor), contents(minor), blocks().concat()].concat()
}

/// The result of a check of an archive that comes in pieces of this size.
fn checked(bytes: &[u8], piece: usize) -> Result<(), String> {
    let mut archive = Archive::default();
    bytes.chunks(piece).for_each(|piece| archive.push(piece));
    archive.check()
}

fn problem(bytes: &[u8]) -> String {
    checked(bytes, 100).expect_err("an archive that is not whole")
}

#[test]
fn only_the_whole_archive_passes_wherever_it_is_cut_off() {
    for minor in MINORS {
        let whole = archive(minor);
        for piece in [1, 2, 7, 64, whole.len()] {
            assert_eq!(checked(&whole, piece), Ok(()), "1.{minor} in pieces of {piece}");
            for cut in 0..whole.len() {
                let problem = checked(&whole[..cut], piece).expect_err("a cut");
                let expected = if cut < MAGIC.len() { "does not begin as" } else { "cut off: it ends with" };
                assert!(problem.contains(expected), "1.{minor} cut at {cut}: {problem}");
            }
        }
    }
}

#[test]
fn an_archive_without_data_ends_with_its_contents() {
    for minor in MINORS {
        let whole =
            [header(minor), number(2), entry(minor, 3, "ENCODING", 3), entry(minor, 4, "TABLE", 3)].concat();
        for cut in 0..whole.len() {
            assert!(checked(&whole[..cut], 100).is_err(), "1.{minor} cut at {cut}");
        }
        assert_eq!(checked(&whole, 100), Ok(()));
        assert_eq!(checked(&[header(minor), number(0)].concat(), 100), Ok(()));
    }
}

#[test]
fn a_problem_says_where_the_archive_ends() {
    let (head, contents, blocks) = (header(16), contents(16), blocks());
    let whole = archive(16);
    assert_eq!(problem(&whole[..40]), "the archive is cut off: it ends within its header");
    let cut = [&head[..], &contents[..contents.len() - 1]].concat();
    assert!(problem(&cut).ends_with("it ends within its table of contents, after 6 of 7 entries"));
    let cut = [&head[..], &contents, &blocks[0], &blocks[1][..7]].concat();
    assert!(
        problem(&cut).ends_with("it ends within the data of entry 3020, number 2 of the 4 that have data")
    );
    let cut = [&head[..], &contents, &blocks[..2].concat()].concat();
    assert!(problem(&cut).ends_with("it ends with the data of 2 of the 4 entries that have data"));
}

#[test]
fn data_of_other_entries_does_not_pass() {
    let [first, second, third, fourth] = blocks();
    for wrong in [
        [&first, &second, &fourth, &third],
        [&first, &first, &third, &fourth],
        [&first, &second, &third, &rows(3032, &[])],
    ] {
        let problem = problem(
            &[&header(16), &contents(16), &wrong.map(Vec::as_slice).concat()].map(Vec::as_slice).concat(),
        );
        assert!(problem.contains("its data is not of the entries that have data"), "{problem}");
    }
}

#[test]
fn what_no_pg_dump_writes_is_damage() {
    let (head, contents, whole) = (header(16), contents(16), archive(16));
    let behind = |more: &[u8]| problem(&[&head[..], &contents, more].concat());
    assert!(behind(&[2, 0, 1, 0, 0, 0]).contains("there is no block of data of type 2"));
    let negative = [&[ROWS][..], &number(3021), &number(-7)].concat();
    let expected =
        format!("damaged near byte {}: -7 is no length", head.len() + contents.len() + negative.len());
    assert!(behind(&negative).contains(&expected));
    assert!(problem(&[&head[..], &number(-1)].concat()).contains("-1 is no length"));
    assert!(
        problem(&[&head[..], &number(1), &entry(16, 9, "TABLE", 0)].concat()).contains("no offset of type 0")
    );
    for surplus in [&b"x"[..], b"a few bytes", &whole] {
        assert!(problem(&[&whole, surplus].concat()).contains("bytes follow the archive's end"));
    }
    let header = "the archive's header is not of pg_dump's custom format";
    for (at, byte, said) in [
        (0, b'p', "it does not begin as pg_dump's custom format does"),
        (6, 11, "the archive has version 1.11, which is older than PostgreSQL 9.0"),
        (8, 8, header),
        (9, 0, header),
        (9, 9, header),
        (10, 3, header),
    ] {
        let mut wrong = whole.clone();
        wrong[at] = byte;
        assert_eq!(problem(&wrong), said, "{byte} at {at}");
    }
}

#[test]
fn the_contents_may_follow_once_more() {
    let twice = [archive(16), contents(16)].concat();
    for piece in [1, 100] {
        assert_eq!(checked(&twice, piece), Ok(()));
    }
    assert!(problem(&twice[..twice.len() - 1]).contains("within the table of contents that follows its data"));
    assert!(problem(&[twice, contents(16)].concat()).contains("bytes follow the archive's end"));
}

#[test]
fn an_archive_of_a_newer_version_passes_and_is_called_unproven() {
    for (major, minor) in [(1, 17), (2, 0)] {
        let mut newer = archive(16);
        newer[5..7].copy_from_slice(&[major, minor]);
        newer.truncate(400);
        let mut archive = Archive::default();
        archive.push(&newer);
        assert_eq!(archive.check(), Ok(()));
        let doubt = archive.unproven().expect("a doubt");
        assert!(
            doubt.contains(&format!("version {major}.{minor}, and pgkeep knows 1.16 at most")),
            "{doubt}"
        );
    }
    let mut known = Archive::default();
    known.push(&archive(16));
    assert_eq!(known.unproven(), None);
}

#[test]
fn the_contents_of_every_version_are_read() {
    for minor in MINORS {
        let entries = contents::read(&*archive(minor)).expect("the contents");
        let kinds: Vec<_> = entries.iter().map(|entry| (entry.id, entry.kind.as_str())).collect();
        let expected = [(3, "ENCODING"), (207, "TABLE"), (3021, "TABLE DATA"), (3020, "TABLE DATA")];
        assert_eq!((&kinds[..4], kinds.len()), (&expected[..], 7), "1.{minor}");
        for Entry { schema, name, needs, .. } in entries {
            assert_eq!((schema.as_str(), name.as_str(), &needs[..]), ("public", "Zoë's", &[205, 7][..]));
        }
        let end = header(minor).len() + contents(minor).len();
        for cut in 0..end {
            assert!(contents::read(&archive(minor)[..cut]).is_err(), "1.{minor} cut at {cut}");
        }
    }
    let mut newer = archive(16);
    newer[6] = 17;
    let problem = contents::read(&*newer).unwrap_err().to_string();
    assert!(problem.contains("version 1.17, of which this pgkeep does not know the contents"), "{problem}");
}

#[test]
fn whatever_bytes_come_the_verdict_is_the_same_in_all_pieces() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("PGKEEP_FUZZ_SEED").unwrap_or(1);
    println!("PGKEEP_FUZZ_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..number("PGKEEP_FUZZ_ROUNDS").unwrap_or(3_000) {
        let bytes = mutated(&mut random);
        let started = Instant::now();
        let verdict = checked(&bytes, bytes.len().max(1));
        for piece in [1, random.usize(2..50)] {
            assert_eq!(checked(&bytes, piece), verdict, "in pieces of {piece}: {bytes:?}");
        }
        // What it says does not matter here, only that it ends.
        let _ = contents::read(&*bytes);
        assert!(started.elapsed() < HANG, "{bytes:?}");
    }
}

fn mutated(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = archive(random.u8(MINORS));
    for _ in 0..random.usize(1..4) {
        // The beginning decides most.
        let end = if random.bool() { bytes.len() } else { bytes.len().min(20) };
        let (a, b) = (random.usize(..=end), random.usize(..=end));
        let range = a.min(b)..a.max(b);
        match random.u8(..5) {
            0 => drop(bytes.drain(range)),
            1 => bytes.truncate(a),
            2 => {
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.start..range.start, piece);
            }
            3 => bytes.insert(a, random.u8(..)),
            _ => bytes.iter_mut().skip(a).take(1).for_each(|byte| *byte = random.u8(..)),
        }
    }
    bytes
}
