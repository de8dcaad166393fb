//! A block of deflate with codes of its own: RFC 1951, 3.2.3 to 3.2.7.

use super::bits::Bits;
use super::huffman::Code;
use super::matches::{Match, LONGEST};

/// Literals, the end of the block, and lengths.
const SYMBOLS: usize = 286;
const END: usize = 256;
/// The first symbol of a length.
const LENGTHS: usize = 257;
const DISTANCES: usize = 30;
/// One less than deflate allows: four literals then fit between two writes.
const LONGEST_SYMBOL: usize = 14;
const LONGEST_DISTANCE: usize = 15;
/// The symbols of the header: 16 and above are repetitions.
const HEADER_SYMBOLS: usize = 19;
const LONGEST_HEADER_SYMBOL: usize = 7;
/// The order in which the header has the lengths of its own codes.
const HEADER_ORDER: [usize; HEADER_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// No header has more bits: 14 for each symbol's length, 3 for each of its own.
const LONGEST_HEADER: usize = 14 * (SYMBOLS + DISTANCES) + 3 * HEADER_SYMBOLS + 17;
/// The shortest match of each symbol for lengths, and the number of bits behind it.
const LENGTH_SYMBOLS: [(u16, u8); SYMBOLS - LENGTHS] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];
/// The symbol for each length, counted from [`LENGTHS`].
const SYMBOL_OF_LENGTH: [u8; LONGEST + 1] = {
    let mut symbols = [0; LONGEST + 1];
    let mut symbol = 0;
    while symbol < LENGTH_SYMBOLS.len() {
        let mut length = LENGTH_SYMBOLS[symbol].0 as usize;
        while length <= LONGEST {
            symbols[length] = symbol as u8;
            length += 1;
        }
        symbol += 1;
    }
    symbols
};

/// How often each symbol occurs.
struct Counts {
    symbols: [u32; SYMBOLS],
    distances: [u32; DISTANCES],
}

/// Writes a block with these bytes.
pub fn write(bits: &mut Bits, bytes: &[u8], matches: &[Match], last: bool) {
    let counts = Counts::new(bytes, matches);
    let symbols = Code::new(&counts.symbols, LONGEST_SYMBOL);
    let distances = Code::new(&counts.distances, LONGEST_DISTANCE);
    let behind = counts.bits_behind_symbols();
    bits.reserve(LONGEST_HEADER + symbols.cost(&counts.symbols) + distances.cost(&counts.distances) + behind);
    bits.put(u64::from(last), 1);
    bits.put(0b10, 2);
    write_header(bits, &symbols.lengths, &distances.lengths);
    write_bytes(bits, bytes, matches, &symbols, &distances);
    bits.put(u64::from(symbols.bits[END]), u32::from(symbols.lengths[END]));
    bits.write();
}

/// Writes an empty stored block, which ends at a byte's end.
pub fn flush(bits: &mut Bits) {
    bits.reserve(6 * 8);
    bits.put(0b000, 3);
    bits.align();
    // Its length, and the length's complement.
    bits.put(0xffff_0000, 32);
    bits.write();
}

impl Counts {
    fn new(mut bytes: &[u8], matches: &[Match]) -> Self {
        let (mut symbols, mut distances) = ([0; SYMBOLS], [0; DISTANCES]);
        // Four counters for each literal: a counter need not wait for the one before.
        let mut literals = [[0_u32; 256]; 4];
        for found in matches {
            let (own, rest) = bytes.split_at(found.literals as usize);
            let (fours, others) = own.as_chunks::<4>();
            for four in fours {
                for (literals, literal) in literals.iter_mut().zip(four) {
                    literals[usize::from(*literal)] += 1;
                }
            }
            others.iter().for_each(|literal| literals[0][usize::from(*literal)] += 1);
            bytes = &rest[usize::from(found.length)..];
            if found.length > 0 {
                symbols[LENGTHS + usize::from(SYMBOL_OF_LENGTH[usize::from(found.length)])] += 1;
                distances[distance_symbol(found.distance).0] += 1;
            }
        }
        for literal in 0..256 {
            symbols[literal] = literals.iter().map(|literals| literals[literal]).sum();
        }
        symbols[END] = 1;
        Counts { symbols, distances }
    }

    /// The number of bits behind the symbols of matches.
    fn bits_behind_symbols(&self) -> usize {
        let lengths = self.symbols[LENGTHS..].iter().zip(LENGTH_SYMBOLS);
        let of_lengths = lengths.map(|(count, (_, bits))| *count as usize * usize::from(bits));
        let distances = self.distances.iter().enumerate();
        let of_distances = distances.map(|(symbol, count)| *count as usize * (symbol / 2).saturating_sub(1));
        of_lengths.chain(of_distances).sum()
    }
}

/// The symbol of a distance, the number of bits behind it, and these bits.
#[inline(always)]
fn distance_symbol(distance: u16) -> (usize, u32, u64) {
    let from_zero = u32::from(distance) - 1;
    if from_zero < 4 {
        return (from_zero as usize, 0, 0);
    }
    // A symbol stands for the highest two bits.
    let bits = from_zero.ilog2() - 1;
    let symbol = 2 * (bits + 1) + (from_zero >> bits & 1);
    (symbol as usize, bits, u64::from(from_zero & ((1 << bits) - 1)))
}

fn write_bytes(
    bits: &mut Bits,
    mut bytes: &[u8],
    matches: &[Match],
    symbols: &Code<SYMBOLS>,
    distances: &Code<DISTANCES>,
) {
    // What a literal and a length take: bits, and their number.
    let of_literal: [(u16, u8); 256] = std::array::from_fn(|at| (symbols.bits[at], symbols.lengths[at]));
    let of_length: [(u32, u8); LONGEST + 1] = std::array::from_fn(|length| {
        let at = usize::from(SYMBOL_OF_LENGTH[length]);
        let ((base, more), symbol) = (LENGTH_SYMBOLS[at], LENGTHS + at);
        let own = symbols.lengths[symbol];
        (u32::from(symbols.bits[symbol]) | (length as u32).saturating_sub(base.into()) << own, own + more)
    });
    for found in matches {
        let (own, rest) = bytes.split_at(found.literals as usize);
        let (fours, others) = own.as_chunks::<4>();
        let put = |bits: &mut Bits, literals: &[u8]| {
            for literal in literals {
                let (value, count) = of_literal[usize::from(*literal)];
                bits.put(value.into(), count.into());
            }
            bits.write();
        };
        fours.iter().for_each(|four| put(bits, four));
        put(bits, others);
        bytes = &rest[usize::from(found.length)..];
        if found.length > 0 {
            let (value, count) = of_length[usize::from(found.length)];
            bits.put(value.into(), count.into());
            let (symbol, more, value) = distance_symbol(found.distance);
            bits.put(distances.bits[symbol].into(), distances.lengths[symbol].into());
            bits.put(value, more);
            bits.write();
        }
    }
}

/// The lengths of all codes: RFC 1951, 3.2.7.
fn write_header(bits: &mut Bits, symbols: &[u8; SYMBOLS], distances: &[u8; DISTANCES]) {
    let used = |lengths: &[u8]| lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1);
    let (symbols, distances) = (&symbols[..used(symbols)], &distances[..used(distances)]);
    let repeated = repetitions(&[symbols, distances].concat());
    let mut counts = [0; HEADER_SYMBOLS];
    repeated.iter().for_each(|(symbol, ..)| counts[usize::from(*symbol)] += 1);
    let code = Code::new(&counts, LONGEST_HEADER_SYMBOL);
    let order = HEADER_ORDER.map(|symbol| code.lengths[symbol]);
    let own = &order[..used(&order).max(4)];
    bits.put((symbols.len() - LENGTHS) as u64, 5);
    bits.put((distances.len() - 1) as u64, 5);
    bits.put((own.len() - 4) as u64, 4);
    for length in own {
        bits.write();
        bits.put((*length).into(), 3);
    }
    for (symbol, value, count) in repeated {
        bits.write();
        bits.put(code.bits[usize::from(symbol)].into(), code.lengths[usize::from(symbol)].into());
        bits.put(value.into(), count);
    }
    bits.write();
}

/// The lengths with repetitions: each symbol, the bits behind it, and their number.
fn repetitions(lengths: &[u8]) -> Vec<(u8, u8, u32)> {
    let mut symbols = Vec::new();
    for run in lengths.chunk_by(|one, other| one == other) {
        let (length, mut left) = (run[0], run.len());
        if length > 0 {
            // A repetition refers to the length before.
            symbols.push((length, 0, 0));
            left -= 1;
        }
        while left > 0 {
            let (symbol, least, most, bits) = match (length, left) {
                (0, 11..) => (18, 11, 138, 7),
                (0, 3..) => (17, 3, 10, 3),
                (1.., 3..) => (16, 3, 6, 2),
                _ => (length, 1, 1, 0),
            };
            let taken = left.min(most);
            symbols.push((symbol, (taken - least) as u8, bits));
            left -= taken;
        }
    }
    symbols
}
