//! How large the parts of an upload are.

/// S3's limits of a multipart upload
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>).
pub const MOST_PARTS: u32 = 10_000;
/// No part but the last is smaller than this.
pub const SMALLEST_PART: u64 = 5 << 20;
/// No part is larger than this.
pub const LARGEST_PART: u64 = 5 << 30;
/// The parts of small databases: large enough for a fast upload, and small enough for a small disk.
const USUAL_PART: u64 = 16 << 20;
/// A dump may be larger than its database: it has no indexes, but text takes more room.
const GROWTH: u64 = 4;

/// How parts are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSize {
    /// The size, unless a larger one is needed.
    pub usual: u64,
    /// How many parts the store takes.
    pub most_parts: u32,
}

impl Default for PartSize {
    fn default() -> Self {
        PartSize { usual: USUAL_PART, most_parts: MOST_PARTS }
    }
}

impl PartSize {
    /// The size of all parts but the last. A compressed dump of four times the database's size has to fit into
    /// as many parts as the store takes.
    pub fn of(&self, database_size: u64) -> u64 {
        let needed = database_size.saturating_mul(GROWTH).div_ceil(self.most_parts.into());
        if needed <= self.usual {
            return self.usual;
        }
        needed.min(LARGEST_PART).next_multiple_of(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_with_the_database_so_that_four_times_its_size_fits() {
        let usual = PartSize::default();
        assert_eq!(usual.of(0), 16 << 20);
        assert_eq!(usual.of(40 << 30), 17 << 20);
        for most_parts in [MOST_PARTS, 1000] {
            let sizes = PartSize { most_parts, ..usual };
            for size in [1, 600 << 20, 41 << 30, 500 << 30, 1 << 40] {
                let part = sizes.of(size);
                assert!(part * u64::from(most_parts) >= size * GROWTH, "{size}");
                assert_eq!(part % (1 << 20), 0);
            }
        }
        assert_eq!(usual.of(u64::MAX), LARGEST_PART);
    }

    #[test]
    fn a_given_size_is_kept_exactly_until_it_does_not_suffice() {
        let given = PartSize { usual: 16_000_000, most_parts: 1000 };
        assert_eq!(given.of(4_000_000_000), 16_000_000);
        assert_eq!(given.of(4_000_000_001), 16 << 20);
    }
}
