//! Texts that nobody would write, to test everything that reads texts from outside. They are made from right
//! texts: by cutting, doubling, swapping, and inserting pieces that mean something somewhere.
//!
//! `make test` makes a few rounds, always the same ones. `make fuzz` makes many (`PGKEEP_FUZZ_ROUNDS`), from
//! another seed each time. A failing test shows the seed; set `PGKEEP_FUZZ_SEED` to repeat it.

use std::env;
use std::time::{Duration, Instant};

/// Reading a text never takes this long.
const HANG: Duration = Duration::from_secs(10);
const SEED: u64 = 1;
const ROUNDS: usize = 3_000;
const TOKENS: [&str; 40] = [
    "",
    "'",
    "\"",
    "\\",
    "\\'",
    "=",
    "==",
    "@",
    ":",
    "/",
    "//",
    "?",
    "&",
    "%",
    "%00",
    "%zz",
    "%41",
    "#",
    "[",
    "]",
    ",",
    "*",
    "-",
    "*/0",
    "0",
    "99999999999999999999",
    "-1",
    " ",
    "\t",
    "\n",
    "\r\n",
    "\0",
    "é",
    "🐘",
    "\u{2028}",
    "<",
    "</",
    "<![CDATA[",
    "&lt;",
    "&#0;",
];

/// Gives `check` many texts made from `seeds`. Panics if `check` panics or hangs, and shows the text.
pub fn feed(seeds: &[&str], check: impl Fn(&str)) {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("PGKEEP_FUZZ_SEED").unwrap_or(SEED);
    let rounds =
        number("PGKEEP_FUZZ_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).expect("a number"));
    // Shown only if the test fails.
    println!("PGKEEP_FUZZ_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let text = mutated(seeds, &mut random);
        let started = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&text)));
        assert!(outcome.is_ok(), "{text:?}");
        assert!(started.elapsed() < HANG, "{text:?} took {:?}", started.elapsed());
    }
}

fn mutated(seeds: &[&str], random: &mut fastrand::Rng) -> String {
    let pick = |random: &mut fastrand::Rng| seeds[random.usize(..seeds.len())].to_owned();
    let mut text = pick(random);
    for _ in 0..random.usize(1..6) {
        let edges: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
        let (a, b) = (edges[random.usize(..edges.len())], edges[random.usize(..edges.len())]);
        let (from, to) = (a.min(b), a.max(b));
        match random.u8(..5) {
            0 => text.replace_range(from..to, ""),
            1 => text.insert_str(from, TOKENS[random.usize(..TOKENS.len())]),
            2 => {
                let piece = text[from..to].to_owned();
                text.insert_str(from, &piece);
            }
            3 => text.replace_range(from..to, &pick(random)),
            _ => text.insert(from, random.char(..)),
        }
        // A text that is doubled often would grow without limit.
        let end = (0..=text.len().min(2_000)).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
    text
}
