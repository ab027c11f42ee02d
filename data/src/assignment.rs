//! Which sequences belong to a peer in a window.
//!
//! PROTOCOL section 4: the key is BLAKE3(run ‖ finalised block that opens the window ‖ hotkey). Position i of
//! the endless order lies in epoch e = ⌊i/n⌋, and
//!
//! ```text
//! id(i) = Permutation(BLAKE3_key("epoch" ‖ e as u64 LE), n).at(i mod n)
//! ```
//!
//! so no sequence repeats before all n were used. Invariant: only ids of the training split are drawn; the
//! held-out split is another [`crate::Dataset`] with ids of its own, which no assignment can reach.

use crate::error::{Error, Result};
use crate::permutation::Permutation;

/// The order of sequences of one peer in one window.
#[derive(Clone, Debug)]
pub struct Assignment {
    key: [u8; 32],
    n_sequences: u64,
}

impl Assignment {
    /// The assignment of `hotkey` in the window opened by the block with `block_hash`, over the
    /// `n_sequences` sequences of the training split.
    ///
    /// # Errors
    /// [`Error::NoSequences`] if `n_sequences` is 0.
    pub fn new(run_id: [u8; 32], block_hash: [u8; 32], hotkey: &[u8; 32], n_sequences: u64) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&run_id).update(&block_hash).update(hotkey);
        Self::from_key(*hasher.finalize().as_bytes(), n_sequences)
    }

    /// The endless, replacement-free-within-an-epoch order of sequence ids; [`Assignment::new`] iterated.
    ///
    /// # Errors
    /// [`Error::NoSequences`] if `n_sequences` is 0.
    pub fn sequences(
        run_id: [u8; 32],
        block_hash: [u8; 32],
        hotkey: &[u8; 32],
        n_sequences: u64,
    ) -> Result<Sequences> {
        Ok(Self::new(run_id, block_hash, hotkey, n_sequences)?.iter())
    }

    /// An order from any 32-byte key, such as a training seed.
    ///
    /// # Errors
    /// [`Error::NoSequences`] if `n_sequences` is 0.
    pub fn from_key(key: [u8; 32], n_sequences: u64) -> Result<Self> {
        if n_sequences == 0 {
            return Err(Error::NoSequences);
        }
        Ok(Self { key, n_sequences })
    }

    /// The number of sequences drawn from.
    pub fn n_sequences(&self) -> u64 {
        self.n_sequences
    }

    /// The sequence id at position `index`, in constant time and memory.
    pub fn at(&self, index: u64) -> u64 {
        self.epoch(index / self.n_sequences).at(index % self.n_sequences)
    }

    /// The order from its beginning.
    pub fn iter(&self) -> Sequences {
        Sequences { permutation: self.epoch(0), assignment: self.clone(), next: 0 }
    }

    /// The permutation of epoch `e`.
    fn epoch(&self, e: u64) -> Permutation {
        let mut input = [0u8; 13];
        input[..5].copy_from_slice(b"epoch");
        input[5..].copy_from_slice(&e.to_le_bytes());
        Permutation::new(*blake3::keyed_hash(&self.key, &input).as_bytes(), self.n_sequences)
    }
}

/// Iterator over an [`Assignment`]; never ends.
#[derive(Clone, Debug)]
pub struct Sequences {
    assignment: Assignment,
    permutation: Permutation,
    next: u64,
}

impl Iterator for Sequences {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let n = self.assignment.n_sequences;
        if self.next > 0 && self.next.is_multiple_of(n) {
            self.permutation = self.assignment.epoch(self.next / n);
        }
        let id = self.permutation.at(self.next % n);
        self.next += 1;
        Some(id)
    }

    /// Skips in constant time.
    fn nth(&mut self, skip: usize) -> Option<u64> {
        self.next = self.next.saturating_add(skip as u64);
        self.permutation = self.assignment.epoch(self.next / self.assignment.n_sequences);
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const RUN: [u8; 32] = [1; 32];
    const BLOCK: [u8; 32] = [2; 32];

    fn ids(hotkey: u8, n: u64, count: usize) -> Vec<u64> {
        Assignment::sequences(RUN, BLOCK, &[hotkey; 32], n).unwrap().take(count).collect()
    }

    proptest! {
        #[test]
        fn each_epoch_uses_every_sequence_once(n in 1u64..300, hotkey in any::<u8>()) {
            let count = usize::try_from(n).unwrap();
            let order = ids(hotkey, n, 3 * count);
            for epoch in order.chunks(count) {
                prop_assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), count);
            }
        }

        #[test]
        fn random_access_equals_iteration(n in 1u64..100_000, skip in 0usize..400_000) {
            let a = Assignment::new(RUN, BLOCK, &[9; 32], n).unwrap();
            let mut iter = a.iter();
            prop_assert_eq!(iter.nth(skip), Some(a.at(skip as u64)));
            prop_assert_eq!(iter.next(), Some(a.at(skip as u64 + 1)));
        }
    }

    #[test]
    fn epochs_differ() {
        let order = ids(1, 64, 128);
        assert_ne!(order[..64], order[64..]);
    }

    #[test]
    fn hotkeys_are_decorrelated() {
        // First 200 of 10,000 ids: two independent draws share 200²/10⁴ = 4 on average, σ ≈ 2.
        let n = 10_000;
        let sets: Vec<BTreeSet<u64>> = (0..20).map(|h| ids(h, n, 200).into_iter().collect()).collect();
        let mut shared = 0;
        let mut pairs = 0;
        for i in 0..sets.len() {
            for j in 0..i {
                let overlap = sets[i].intersection(&sets[j]).count();
                assert!(overlap < 20, "hotkeys {i} and {j} share {overlap} of 200");
                shared += overlap;
                pairs += 1;
            }
        }
        let mean = f64::from(u32::try_from(shared).unwrap()) / f64::from(pairs);
        assert!((3.0..5.0).contains(&mean), "mean overlap {mean}, expected 4");
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = Assignment::new(RUN, BLOCK, &[3; 32], 1 << 40).unwrap().at(0);
        let other = [
            Assignment::new([0; 32], BLOCK, &[3; 32], 1 << 40).unwrap().at(0),
            Assignment::new(RUN, [0; 32], &[3; 32], 1 << 40).unwrap().at(0),
            Assignment::new(RUN, BLOCK, &[0; 32], 1 << 40).unwrap().at(0),
        ];
        assert!(other.iter().all(|id| *id != base));
    }

    #[test]
    fn golden() {
        // Part of the protocol: these numbers never change.
        assert_eq!(ids(3, 1_000_003, 6), GOLDEN_SEQUENCES);
        assert_eq!(Assignment::new(RUN, BLOCK, &[3; 32], 1_000_003).unwrap().at(5_000_000), GOLDEN_EPOCH_4);
    }

    // Computed by an independent implementation of BLAKE3 and of the permutation, from their descriptions.
    const GOLDEN_SEQUENCES: [u64; 6] = [619_595, 894_178, 565_759, 577_298, 792_828, 665_182];
    const GOLDEN_EPOCH_4: u64 = 179_003;

    #[test]
    fn no_sequences_is_an_error() {
        assert!(matches!(Assignment::sequences(RUN, BLOCK, &[0; 32], 0), Err(Error::NoSequences)));
    }
}
