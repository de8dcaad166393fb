//! Whether a block has what deflate's matching can use.
//!
//! Encrypted or compressed values, which pg_dump writes in hexadecimal, are the slowest to compress: matches of three
//! to five digits are everywhere, and they take more bits than the digits. Without matching, such a block takes a
//! third of the time and becomes smaller.

/// Deflate looks back this far.
const WINDOW: usize = 32 * 1024;
/// Six bytes: random hexadecimal digits hardly ever have a match of this length.
const WORD: u64 = 0xffff_ffff_ffff;
/// Only the words at every 16th position are remembered.
const REMEMBER: usize = 16;
/// Every third position is compared. As 3 and 16 have no common divisor, no distance of repeats is overlooked.
const COMPARE: usize = 3;
/// One in so many of those repeats a remembered word if repeats are about 3 % of the block. From there on, matching makes the
/// block smaller.
const RARE: usize = 500;
/// Twice as many places as a window has words to remember.
const PLACES: usize = 2 * WINDOW / REMEMBER;

/// Whether `bytes`, from `start` on, repeat anything within deflate's reach. What is before `start` came before.
/// There may be a megabyte of them. It is cheap for what repeats: a few kilobytes of it are enough.
pub fn repeats(bytes: &[u8], start: usize) -> bool {
    // The word in the upper 48 bits, its position divided by 16 below.
    let mut places = [0_u64; PLACES];
    let mut spare = (bytes.len() - start) / COMPARE / RARE;
    let mut remembered = 0;
    for at in (start..bytes.len().saturating_sub(7)).step_by(COMPARE) {
        while remembered < at {
            let word = word_at(bytes, remembered);
            places[place_of(word)] = word << 16 | (remembered / REMEMBER) as u64;
            remembered += REMEMBER;
        }
        let word = word_at(bytes, at);
        let known = places[place_of(word)];
        if known >> 16 == word && at - (known & 0xffff) as usize * REMEMBER <= WINDOW {
            if spare == 0 {
                return true;
            }
            spare -= 1;
        }
    }
    false
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) & WORD
}

/// A product's upper bits depend on all bits of the word.
fn place_of(word: u64) -> usize {
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hexadecimal digits, 60 of them on a line.
    fn digits(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
        (0..length)
            .map(|at| if at % 61 == 60 { b'\n' } else { b"0123456789abcdef"[random.usize(0..16)] })
            .collect()
    }

    #[test]
    fn random_values_do_not_repeat_anything() {
        let mut random = fastrand::Rng::with_seed(5);
        let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(200_000).collect();
        let base64: Vec<u8> = bytes.iter().map(|byte| b' ' + byte % 64).collect();
        for sample in [digits(&mut random, 200_000), bytes, base64] {
            assert!(!repeats(&sample, 0) && !repeats(&sample, WINDOW));
        }
    }

    #[test]
    fn text_and_what_was_there_before_are_repeats() {
        let mut random = fastrand::Rng::with_seed(6);
        let rows: String = (0..5000).map(|n| format!("{n}\t{}\tpaid\n", random.u32(..))).collect();
        assert!(repeats(rows.as_bytes(), 0));
        assert!(repeats(&[0; 10_000], 0));
        // A value, and then the same value, some bytes further than a multiple of the stride.
        let value = digits(&mut random, WINDOW - 5);
        assert!(repeats(&[&value[..], &value].concat(), value.len()));
        // Out of reach.
        assert!(!repeats(&[&value[..], &digits(&mut random, WINDOW), &value].concat(), value.len()));
    }

    #[test]
    fn a_few_per_cent_of_repeats_are_enough_and_fewer_are_not() {
        let mut random = fastrand::Rng::with_seed(7);
        // Between 50 bytes that were there once before, so many that are new.
        let mut rows = |new| {
            let mut rows = digits(&mut random, WINDOW);
            while rows.len() < 300_000 {
                let from = rows.len() - random.usize(1000..WINDOW - 1000);
                rows.extend_from_within(from..from + 50);
                rows.extend(digits(&mut random, new));
            }
            rows
        };
        assert!(repeats(&rows(950), WINDOW));
        assert!(!repeats(&rows(3950), WINDOW));
    }

    #[test]
    fn no_distance_of_repeats_is_overlooked() {
        let mut random = fastrand::Rng::with_seed(8);
        for (before, longer) in
            (0..REMEMBER).flat_map(|before| (0..REMEMBER).map(move |longer| (before, longer)))
        {
            let (before, value) = (digits(&mut random, before), digits(&mut random, 4000 + longer));
            let start = before.len() + value.len();
            assert!(
                repeats(&[&before[..], &value, &value].concat(), start),
                "{} bytes, {start}",
                value.len()
            );
        }
    }

    #[test]
    fn whatever_is_short_is_read() {
        for length in 0..20 {
            assert!(!repeats(&vec![7; length], length));
            repeats(&vec![7; length], length / 2);
        }
    }
}
