//! gzip on several threads: blocks are compressed in parallel and joined to one ordinary gzip member.
//!
//! It works as pigz does. Each block uses the last 32 KiB of the block before as its dictionary and ends with
//! a sync flush, so the blocks are one deflate stream (RFC 1951), with one header and one trailer (RFC 1952).
//! Level 1 is pgkeep's own encoder (`dump::deflate`), the others are zlib's.
//!
//! One member for each block would be simpler, but it is a trap: a file that is cut between two members
//! passes `gzip -t`, and some readers stop after the first member.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::Crc;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Status, Strategy};

use super::deflate::Encoder;
use super::repeats::repeats;

/// Larger blocks cost memory. Smaller blocks compress worse, and their dictionaries take more time.
const BLOCK: usize = 256 * 1024;
/// Deflate looks back this far.
const DICTIONARY: usize = 32 * 1024;
/// Space for output is added in steps of this size. A flush needs more than a few bytes.
const STEP: usize = 64 * 1024;
/// Deflate, no name, no time, unknown file system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses what is put into [`Gzip::space`]. The memory that it needs depends only on the number of
/// threads.
pub struct Gzip<W> {
    output: W,
    jobs: Sender<Job>,
    /// The blocks that are being compressed, the oldest first.
    under_way: VecDeque<Receiver<Job>>,
    most_under_way: usize,
    /// Buffers that can be used again.
    spare: Vec<(Vec<u8>, Vec<u8>)>,
    /// The block that is being filled: its dictionary, then its bytes.
    input: Vec<u8>,
    dictionary: usize,
    filled: usize,
    sum: Crc,
}

/// A block, and its compressed form.
struct Job {
    input: Vec<u8>,
    dictionary: usize,
    filled: usize,
    last: bool,
    output: Vec<u8>,
    sum: Crc,
    done: Option<Sender<Job>>,
}

impl<W: Write> Gzip<W> {
    /// Compresses to `output` at `level` (1 to 9) on this many threads.
    ///
    /// # Errors
    /// No thread can be started, or the header cannot be written.
    pub fn new(mut output: W, level: u32, threads: NonZeroUsize) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        // Only the workers hold the queue. If they are gone, nothing waits in it for ever.
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads.get() {
            let queue = Arc::clone(&queue);
            thread::Builder::new().name("gzip".into()).spawn(move || work(&queue, level))?;
        }
        output.write_all(&HEADER)?;
        Ok(Gzip {
            output,
            jobs,
            under_way: VecDeque::new(),
            // The threads stay busy while this one writes their results.
            most_under_way: 2 * threads.get(),
            spare: Vec::new(),
            input: vec![0; DICTIONARY + BLOCK],
            dictionary: 0,
            filled: 0,
            sum: Crc::new(),
        })
    }

    /// The space for the next bytes, so that nothing has to be copied. It is never empty.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.input[self.filled..]
    }

    /// Takes the first `count` bytes of [`Gzip::space`].
    pub fn advance(&mut self, count: usize) -> io::Result<()> {
        self.filled += count;
        if self.filled == self.input.len() {
            self.submit(false)?;
        }
        Ok(())
    }

    /// The output, to look at it.
    pub fn output(&self) -> &W {
        &self.output
    }

    /// Ends the stream and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        self.most_under_way = 0;
        self.collect()?;
        // RFC 1952: the CRC and the length modulo 2^32, both little-endian.
        self.output.write_all(&self.sum.sum().to_le_bytes())?;
        self.output.write_all(&self.sum.amount().to_le_bytes())?;
        Ok(self.output)
    }

    /// Passes the block to the threads. The next block begins with its end as the dictionary.
    fn submit(&mut self, last: bool) -> io::Result<()> {
        let (mut next, output) =
            self.spare.pop().unwrap_or_else(|| (vec![0; DICTIONARY + BLOCK], Vec::with_capacity(STEP)));
        let dictionary = DICTIONARY.min(self.filled);
        next[..dictionary].copy_from_slice(&self.input[self.filled - dictionary..self.filled]);
        let (done, result) = mpsc::channel();
        let job = Job {
            input: std::mem::replace(&mut self.input, next),
            dictionary: self.dictionary,
            filled: self.filled,
            last,
            output,
            sum: Crc::new(),
            done: Some(done),
        };
        (self.dictionary, self.filled) = (dictionary, dictionary);
        self.jobs.send(job).map_err(|_| panicked())?;
        self.under_way.push_back(result);
        self.collect()
    }

    /// Writes finished blocks in order. Waits if too many are being compressed.
    fn collect(&mut self) -> io::Result<()> {
        while let Some(oldest) = self.under_way.front() {
            let job = if self.under_way.len() > self.most_under_way {
                oldest.recv().map_err(|_| panicked())?
            } else {
                match oldest.try_recv() {
                    Ok(job) => job,
                    Err(TryRecvError::Empty) => return Ok(()),
                    Err(TryRecvError::Disconnected) => return Err(panicked()),
                }
            };
            self.under_way.pop_front();
            self.output.write_all(&job.output)?;
            self.sum.combine(&job.sum);
            self.spare.push((job.input, job.output));
        }
        Ok(())
    }
}

/// A thread can lose a block only if it panics.
fn panicked() -> io::Error {
    io::Error::other("a thread that compresses has panicked")
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    let mut compress: Box<dyn FnMut(&mut Job)> = match level {
        1 => {
            let mut encoder = Encoder::default();
            Box::new(move |job| {
                encoder.compress(&job.input[..job.filled], job.dictionary, job.last, &mut job.output)
            })
        }
        _ => {
            let mut zlib = Zlib::new(level);
            Box::new(move |job| zlib.compress(job))
        }
    };
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        job.sum.update(&job.input[job.dictionary..job.filled]);
        job.output.clear();
        compress(&mut job);
        if let Some(done) = job.done.take() {
            // If the backup has failed, nobody waits for the block any more.
            let _ = done.send(job);
        }
    }
}

/// zlib's encoder. A block that repeats nothing (`dump::repeats`) is compressed without matches.
struct Zlib {
    matching: Deflate,
    plain: Deflate,
}

impl Zlib {
    fn new(level: u32) -> Self {
        // Less than zero: without zlib's header.
        let config = DeflateConfig { level: level as i32, window_bits: -15, ..DeflateConfig::default() };
        let plain = DeflateConfig { strategy: Strategy::HuffmanOnly, ..config };
        Zlib { matching: Deflate::new_with_config(config), plain: Deflate::new_with_config(plain) }
    }

    fn compress(&mut self, job: &mut Job) {
        let (dictionary, data) = job.input[..job.filled].split_at(job.dictionary);
        let engine = match repeats(&job.input[..job.filled], job.dictionary) {
            true => &mut self.matching,
            false => &mut self.plain,
        };
        engine.reset();
        if !dictionary.is_empty() {
            engine.set_dictionary(dictionary).expect("a raw stream takes a dictionary at its beginning");
        }
        let flush = if job.last { DeflateFlush::Finish } else { DeflateFlush::SyncFlush };
        let (mut taken, mut made) = (0, 0);
        loop {
            job.output.resize(made + STEP, 0);
            let (before, after) = (engine.total_in(), engine.total_out());
            let status = engine
                .compress(&data[taken..], &mut job.output[made..], flush)
                .expect("the stream is in order");
            let count = |total: u64| usize::try_from(total).expect("less than a block");
            taken += count(engine.total_in() - before);
            made += count(engine.total_out() - after);
            // If there is space left, nothing is held back.
            if status == Status::StreamEnd || (!job.last && made < job.output.len()) {
                return job.output.truncate(made);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::{GzDecoder, MultiGzDecoder};
    use std::io::Read;
    use std::path::Path;
    use std::process::Command;

    /// Compresses `data`, in pieces of at most `piece` bytes.
    fn gzip(data: &[u8], piece: usize, level: u32, threads: usize) -> Vec<u8> {
        let mut gzip = Gzip::new(Vec::new(), level, NonZeroUsize::new(threads).unwrap()).unwrap();
        let mut data = data;
        while !data.is_empty() {
            let space = gzip.space();
            let count = space.len().min(piece).min(data.len());
            space[..count].copy_from_slice(&data[..count]);
            gzip.advance(count).unwrap();
            data = &data[count..];
        }
        gzip.finish().unwrap()
    }

    /// Often the one that is not zlib's.
    fn level(random: &mut fastrand::Rng) -> u32 {
        if random.bool() {
            1
        } else {
            random.u32(2..=9)
        }
    }

    /// Reads the one member, with a decoder that stops after the first member.
    fn gunzip(file: &[u8]) -> Vec<u8> {
        let mut decoder = GzDecoder::new(file);
        let mut data = Vec::new();
        decoder.read_to_end(&mut data).unwrap();
        assert!(decoder.into_inner().is_empty(), "something is behind the first member");
        data
    }

    /// Half of it is text that repeats at all distances, half is noise.
    fn sample(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
        let mut data: Vec<u8> = Vec::with_capacity(length + 64);
        while data.len() < length {
            match random.u32(0..3) {
                0 => data.extend_from_slice(
                    format!("{}\tvisited /products/{}\n", data.len(), random.u8(..)).as_bytes(),
                ),
                1 if data.len() > 100 => {
                    let from = random.usize(0..data.len() - 50);
                    data.extend_from_within(from..from + 50);
                }
                _ => data.extend(std::iter::repeat_with(|| random.u8(..)).take(40)),
            }
        }
        data.truncate(length);
        data
    }

    #[test]
    fn what_is_compressed_is_one_member_that_decompresses_to_the_same() {
        let mut random = fastrand::Rng::with_seed(11);
        let all = sample(&mut random, 4 * BLOCK);
        let first = DICTIONARY + BLOCK;
        // First lengths near the edges of blocks and dictionaries, then any length.
        let edges = [0, 1, DICTIONARY, BLOCK, first, first + BLOCK, first + 2 * BLOCK];
        let around = edges.into_iter().flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]);
        let anything: Vec<usize> = (0..40).map(|_| random.usize(0..all.len())).collect();
        for length in around.chain(anything) {
            let (piece, level, threads) = (random.usize(1..300_000), level(&mut random), random.usize(1..=4));
            let data = &all[..length];
            let file = gzip(data, piece, level, threads);
            assert!(gunzip(&file) == data, "{length} bytes, by {piece}, level {level}, {threads} threads");
        }
    }

    /// Blocks of all kinds, in any order: text, random bytes, random digits, and what came before.
    fn blocks(random: &mut fastrand::Rng) -> Vec<u8> {
        let mut data = Vec::new();
        for _ in 0..random.usize(1..6) {
            let length = random.usize(1..2 * BLOCK);
            match random.u32(0..4) {
                0 => data.extend(sample(random, length)),
                1 => data.extend(std::iter::repeat_with(|| random.u8(..)).take(length)),
                2 => data.extend((0..length).map(|_| b"0123456789abcdef"[random.usize(0..16)])),
                _ => data.extend_from_within(data.len().saturating_sub(length.min(DICTIONARY))..),
            }
        }
        data
    }

    /// What a program makes of a file on its standard input. None if it is not installed.
    fn read_by(program: &[&str], file: &Path) -> Option<Vec<u8>> {
        let input = std::fs::File::open(file).unwrap();
        let output = match Command::new(program[0]).args(&program[1..]).stdin(input).output() {
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return None,
            output => output.unwrap(),
        };
        assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
        Some(output.stdout)
    }

    #[test]
    fn every_reader_reads_blocks_of_all_kinds() {
        let python = "import gzip, sys; sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))";
        let readers: [&[&str]; 4] =
            [&["gunzip", "-c"], &["pigz", "-dc"], &["busybox", "gunzip", "-c"], &["python3", "-c", python]];
        let mut random = fastrand::Rng::with_seed(23);
        for round in 0..12 {
            let data = blocks(&mut random);
            let written = gzip(&data, random.usize(1..300_000), level(&mut random), random.usize(1..=3));
            assert!(gunzip(&written) == data, "round {round}");
            let mut all = Vec::new();
            MultiGzDecoder::new(&written[..]).read_to_end(&mut all).unwrap();
            assert!(all == data, "round {round}: MultiGzDecoder");
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&written).unwrap();
            for reader in readers {
                match read_by(reader, file.path()) {
                    Some(read) => assert!(read == data, "round {round}: {reader:?}"),
                    None => eprintln!("NOT TRIED: {} is not installed", reader[0]),
                }
            }
        }
    }

    #[test]
    fn random_digits_take_hardly_more_than_four_bits_each() {
        let mut random = fastrand::Rng::with_seed(29);
        let digits: Vec<u8> = (0..4 * BLOCK).map(|_| b"0123456789abcdef"[random.usize(0..16)]).collect();
        for level in [1, 3] {
            let written = gzip(&digits, BLOCK, level, 2);
            assert!(gunzip(&written) == digits);
            // With zlib's matches it is 0.53.
            let ratio = written.len() as f64 / digits.len() as f64;
            assert!(ratio < 0.515, "level {level}: {ratio}");
        }
    }

    #[test]
    fn a_failing_output_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::new(Full(300_000), 6, NonZeroUsize::MIN).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        let failure = (0..1000).find_map(|_| {
            let space = gzip.space();
            random.fill(space);
            let count = space.len();
            gzip.advance(count).err()
        });
        assert_eq!(failure.expect("a failure").kind(), io::ErrorKind::StorageFull);
    }
}
