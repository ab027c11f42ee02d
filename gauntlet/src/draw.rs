//! Seeded draws: a stream of numbers from BLAKE3 in extendable-output mode.
//!
//! Everything drawn in a window comes from public values (run, window, a block hash nobody could choose), so anyone
//! can draw again and compare. The reference used the process's own generator (R§3.2 F, G), which nobody could audit.
//! Bounded numbers are exact: values past the last whole multiple of the bound are thrown away.

use crate::{Digest, Hotkey};

/// A deterministic stream of numbers.
pub struct Draw {
    reader: blake3::OutputReader,
    block: [u8; 64],
    used: usize,
}

impl Draw {
    /// A stream for `seed` and a purpose; different purposes give unrelated streams.
    pub fn new(seed: Digest, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("gauntlet 2026 draw v1");
        hasher.update(&seed.0).update(purpose.as_bytes());
        Self { reader: hasher.finalize_xof(), block: [0; 64], used: 64 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        if self.used == self.block.len() {
            self.reader.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(bytes)
    }

    /// A number in `0..bound`, every value equally likely; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let value = self.bits();
            if value < limit {
                return value % bound;
            }
        }
    }

    /// `count` different numbers of `0..bound`, ascending; all of them where `count >= bound`. Floyd's method.
    pub fn distinct(&mut self, count: u64, bound: u64) -> Vec<u64> {
        let mut chosen = std::collections::BTreeSet::new();
        for top in bound - count.min(bound)..bound {
            let value = self.below(top + 1);
            if !chosen.insert(value) {
                chosen.insert(top);
            }
        }
        chosen.into_iter().collect()
    }
}

/// Where a hotkey stands in the order that a block hash gives: BLAKE3(block ‖ hotkey).
pub fn order_key(block: &Digest, hotkey: &Hotkey) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&block.0).update(&hotkey.0);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_numbers_are_even() {
        let mut draw = Draw::new(Digest([1; 32]), "test");
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[usize::try_from(draw.below(7)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|&n| (9_600..10_400).contains(&n)), "{counts:?}");
    }

    #[test]
    fn distinct_numbers_are_distinct_and_in_range() {
        let mut draw = Draw::new(Digest([2; 32]), "test");
        for (count, bound) in [(0, 0), (0, 5), (3, 10), (10, 10), (12, 10)] {
            let numbers = draw.distinct(count, bound);
            assert_eq!(numbers.len() as u64, count.min(bound));
            assert!(numbers.windows(2).all(|w| w[0] < w[1]) && numbers.iter().all(|&n| n < bound));
        }
    }

    #[test]
    fn seed_and_purpose_both_matter() {
        let first = |seed, purpose| Draw::new(Digest([seed; 32]), purpose).bits();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }
}
