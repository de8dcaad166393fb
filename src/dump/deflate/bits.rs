//! Bits into bytes, the lowest first: RFC 1951, 3.1.1.

/// Writes eight bytes at a time, so there has to be space for them.
const WORD: usize = 8;

pub struct Bits<'a> {
    output: &'a mut Vec<u8>,
    /// The number of bytes that are written.
    length: usize,
    /// The bits that are not written yet.
    waiting: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Begins with the byte behind `output`.
    pub fn append(output: &'a mut Vec<u8>) -> Self {
        Bits { length: output.len(), output, waiting: 0, count: 0 }
    }

    /// Makes space for so many bits.
    pub fn reserve(&mut self, bits: usize) {
        self.output.resize(self.length + bits / 8 + 2 * WORD, 0);
    }

    /// Takes the lowest `count` bits of `value`; its other bits are 0. At most 56 bits fit between two calls of
    /// [`Bits::write`].
    #[inline(always)]
    pub fn put(&mut self, value: u64, count: u32) {
        self.waiting |= value << self.count;
        self.count += count;
    }

    /// Writes the whole bytes. The space for them has to be there.
    #[inline(always)]
    pub fn write(&mut self) {
        self.output[self.length..self.length + WORD].copy_from_slice(&self.waiting.to_le_bytes());
        self.length += self.count as usize / 8;
        self.waiting >>= self.count & !7;
        self.count &= 7;
    }

    /// Fills the last byte with zeros.
    pub fn align(&mut self) {
        self.count = self.count.next_multiple_of(8);
        self.write();
    }

    /// Leaves nothing but what was put in.
    pub fn finish(mut self) {
        self.reserve(8);
        self.align();
        self.output.truncate(self.length);
    }
}
