use super::huffman::Code;
use super::matches::{Finder, Match, LONGEST};
use super::*;
use flate2::{Decompress, FlushDecompress, Status};

const WINDOW: usize = 32 * 1024;

/// Compresses `data` in blocks that end at these places, each with the window before it.
fn compress(encoder: &mut Encoder, data: &[u8], ends: &[usize]) -> Vec<u8> {
    let (mut output, mut at) = (Vec::new(), 0);
    for end in ends.iter().copied().chain([data.len()]) {
        let from = at - WINDOW.min(at);
        encoder.compress(&data[from..end], at - from, end == data.len(), &mut output);
        at = end;
    }
    output
}

/// What zlib-rs makes of a stream. It refuses distances beyond the window, and codes that are not complete.
fn decompress(stream: &[u8], length: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(length + 1);
    let mut inflate = Decompress::new(false);
    let status = inflate.decompress_vec(stream, &mut data, FlushDecompress::Finish);
    assert_eq!(status.expect("a stream"), Status::StreamEnd);
    assert_eq!(inflate.total_in(), stream.len() as u64, "something is behind the stream");
    data
}

/// All that dumps have: rows, digits, noise, runs, and pieces of what came before, near and far.
fn anything(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(length);
    while data.len() < length {
        let piece = random.usize(1..2 * LONGEST);
        match random.u32(0..6) {
            0 => data.extend((0..piece).map(|_| b"0123456789abcdef"[random.usize(0..16)])),
            1 => data.extend((0..piece).map(|_| random.u8(..))),
            2 => data.extend(std::iter::repeat_n(random.u8(..), piece)),
            3 => data.extend(format!("{}\t2026-01-{}\tpaid\n", data.len(), random.u8(..)).bytes()),
            _ if data.is_empty() => {}
            _ => {
                let distance = random.usize(1..=data.len().min(WINDOW + 10));
                let from = data.len() - distance;
                data.extend_from_within(from..from + piece.min(distance));
            }
        }
    }
    data.truncate(length);
    data
}

#[test]
fn whatever_is_compressed_reads_back_in_blocks_of_any_size() {
    let mut random = fastrand::Rng::with_seed(31);
    let mut encoder = Encoder::default();
    for round in 0..600 {
        let length = match round {
            0..300 => round,
            _ => random.usize(0..400_000),
        };
        let data = anything(&mut random, length);
        let mut ends: Vec<usize> = (0..random.usize(0..4)).map(|_| random.usize(0..=length)).collect();
        ends.retain(|end| *end < length);
        ends.sort_unstable();
        let stream = compress(&mut encoder, &data, &ends);
        assert!(decompress(&stream, length) == data, "round {round}: {length} bytes, blocks end at {ends:?}");
    }
}

#[test]
fn runs_and_copies_of_every_length_read_back() {
    let mut random = fastrand::Rng::with_seed(37);
    let mut encoder = Encoder::default();
    let noise: Vec<u8> = (0..1000).map(|_| random.u8(..)).collect();
    for length in 0..2 * LONGEST + 40 {
        let run = vec![b'x'; length];
        let copy = [&noise, &noise[..length], &noise[500..]].concat();
        for data in [run, copy] {
            let stream = compress(&mut encoder, &data, &[]);
            assert!(decompress(&stream, data.len()) == data, "{length}");
        }
    }
}

/// Holds the matches in `bytes` from `start` on against what they promise, and returns them.
fn matches(finder: &mut Finder, bytes: &[u8], start: usize) -> Vec<Match> {
    finder.begin(bytes, start);
    let (mut at, mut all) = (start, Vec::new());
    while at < bytes.len() {
        let (end, found) = finder.next(bytes, at);
        for one in found {
            at += one.literals as usize;
            let (length, distance) = (usize::from(one.length), usize::from(one.distance));
            if length > 0 {
                assert!((5..=LONGEST).contains(&length) && (1..=WINDOW.min(at)).contains(&distance));
                assert!(bytes[at..at + length] == bytes[at - distance..at + length - distance]);
            }
            at += length;
        }
        assert_eq!(at, end);
        all.extend_from_slice(found);
    }
    all
}

#[test]
fn matches_are_what_they_say() {
    let mut random = fastrand::Rng::with_seed(41);
    let mut finder = Finder::default();
    for _ in 0..50 {
        let length = random.usize(1..300_000);
        let data = anything(&mut random, length);
        matches(&mut finder, &data, random.usize(0..length.min(WINDOW)));
    }
}

#[test]
fn the_whole_window_is_searched_and_no_more() {
    let mut random = fastrand::Rng::with_seed(43);
    let mut finder = Finder::default();
    for (distance, length) in [(WINDOW, 200), (WINDOW - 1, 200), (WINDOW + 1, 0), (70_000, 0)] {
        let mut data: Vec<u8> = (0..distance).map(|_| random.u8(..)).collect();
        data.extend_from_within(..200);
        data.extend((0..100).map(|_| random.u8(..)));
        let found: u16 = matches(&mut finder, &data, 0).iter().map(|found| found.length).sum();
        assert_eq!(found, length, "at distance {distance}");
    }
}

/// The number of bits with a tree that is built one pair after the other.
fn least_cost(counts: &[u32]) -> usize {
    let mut weights: Vec<usize> =
        counts.iter().filter(|count| **count > 0).map(|count| *count as usize).collect();
    let mut cost = 0;
    while weights.len() > 1 {
        weights.sort_unstable_by(|one, other| other.cmp(one));
        let pair = weights.pop().unwrap() + weights.pop().unwrap();
        cost += pair;
        weights.push(pair);
    }
    cost
}

#[test]
fn codes_are_complete_and_the_shortest_there_are() {
    let mut random = fastrand::Rng::with_seed(47);
    for round in 0..400 {
        let mut counts = [0; 60];
        for _ in 0..random.usize(0..=60) {
            let most = 1 << random.u32(1..18);
            counts[random.usize(0..60)] = random.u32(1..=most);
        }
        let longest = random.usize(6..=15);
        let code = Code::new(&counts, longest);
        let used: Vec<usize> = (0..60).filter(|symbol| code.lengths[*symbol] > 0).collect();
        assert!(used.len() >= 2 && (0..60).all(|symbol| counts[symbol] == 0 || used.contains(&symbol)));
        assert!(used.len() == 2 || used.len() == counts.iter().filter(|count| **count > 0).count());
        let sum: usize = used.iter().map(|symbol| 1 << 15 >> code.lengths[*symbol]).sum();
        assert_eq!(sum, 1 << 15, "round {round}: not complete");
        assert!(used.iter().all(|symbol| usize::from(code.lengths[*symbol]) <= longest));
        // No code begins with another one.
        for (one, other) in used.iter().flat_map(|one| used.iter().map(move |other| (*one, *other))) {
            let mask = (1_u32 << code.lengths[one]) - 1;
            assert!(
                one == other || u32::from(code.bits[one]) != u32::from(code.bits[other]) & mask || {
                    code.lengths[other] < code.lengths[one]
                }
            );
        }
        // If none had to be made shorter.
        if used.len() > 2 && used.iter().all(|symbol| usize::from(code.lengths[*symbol]) < longest) {
            assert_eq!(code.cost(&counts), least_cost(&counts), "round {round}");
        }
    }
}

#[test]
fn codes_that_would_be_too_long_are_made_shorter() {
    // Fibonacci's numbers make the deepest trees.
    let mut counts = [1; 30];
    for at in 2..30 {
        counts[at] = counts[at - 1] + counts[at - 2];
    }
    for (longest, dearer) in [(14, 1.01), (7, 1.25), (5, 1.7)] {
        let code = Code::new(&counts, longest);
        assert!(code.lengths.iter().all(|length| (1..=longest).contains(&usize::from(*length))));
        assert_eq!(code.lengths.iter().map(|length| 1 << 15 >> length).sum::<usize>(), 1 << 15);
        let ratio = code.cost(&counts) as f64 / least_cost(&counts) as f64;
        assert!(ratio < dearer, "{longest} bits: {ratio}");
    }
}

#[test]
fn rows_are_as_small_as_with_gzip_6() {
    let mut random = fastrand::Rng::with_seed(53);
    let rows: String = (0..3000)
        .map(|row| {
            let (token, at, page) = (random.u128(..), 86_400 - row, random.u32(..977));
            format!("{row}\t2026-11-25 {at}+00\t{token:032x}\tvisited /products/{page} from 10.0.0.1\n")
        })
        .collect();
    let mut gzip = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
    std::io::Write::write_all(&mut gzip, rows.as_bytes()).unwrap();
    let (its, ours) =
        (gzip.finish().unwrap().len(), compress(&mut Encoder::default(), rows.as_bytes(), &[]).len());
    assert!(ours as f64 <= 1.03 * its as f64, "{ours} and {its} bytes");
}
