//! Batches for centralised training: a shuffled, endless order whose position is a pure function of the step.
//!
//! Shapes: B sequences per batch, T tokens per sequence; `tokens` and `targets` are [B, T], row-major, and
//! targets[b, t] = tokens[b, t + 1] of the same sequence. Step s, row b draws position s·B + b of an
//! [`Assignment`] keyed by the seed, so resuming at step s needs nothing but s.

use crate::assignment::Assignment;
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Domain separation of training orders from everything else keyed by a seed.
const ORDER_CONTEXT: &str = "gauntlet-data v1 centralised training order";

/// The training order of one run over one dataset.
#[derive(Clone, Debug)]
pub struct Batches {
    order: Assignment,
    batch: usize,
    sequence: usize,
}

impl Batches {
    /// Batches of `batch` × `sequence` tokens of `dataset`, shuffled by `seed`.
    ///
    /// # Errors
    /// [`Error::SequenceTooLong`] if not one sequence fits into the dataset, [`Error::ZeroLength`] if
    /// `batch` or `sequence` is 0.
    pub fn new(dataset: &Dataset, seed: u64, batch: usize, sequence: usize) -> Result<Self> {
        if batch == 0 {
            return Err(Error::ZeroLength);
        }
        let key = blake3::derive_key(ORDER_CONTEXT, &seed.to_le_bytes());
        let order = Assignment::from_key(key, dataset.n_sequences(sequence)?)?;
        Ok(Self { order, batch, sequence })
    }

    /// Tokens in one batch, B·T.
    pub fn tokens_per_step(&self) -> usize {
        self.batch * self.sequence
    }

    /// Steps after which every sequence was seen at least once.
    pub fn steps_per_epoch(&self) -> u64 {
        self.order.n_sequences().div_ceil(self.batch as u64)
    }

    /// Sequence id of row `row` at step `step`.
    pub fn id(&self, step: u64, row: usize) -> u64 {
        self.order.at(step.wrapping_mul(self.batch as u64).wrapping_add(row as u64))
    }

    /// Fills `tokens` and `targets`, both [B, T], for `step`. Allocates nothing.
    ///
    /// # Errors
    /// [`Error::Buffer`] for buffers that are not B·T long; errors of [`Dataset::read`].
    pub fn fill(&self, dataset: &Dataset, step: u64, tokens: &mut [u32], targets: &mut [u32]) -> Result<()> {
        check(self.tokens_per_step(), tokens, targets)?;
        let rows = tokens.chunks_exact_mut(self.sequence).zip(targets.chunks_exact_mut(self.sequence));
        for (row, (tokens, targets)) in rows.enumerate() {
            dataset.read_pair(self.id(step, row), tokens, targets)?;
        }
        Ok(())
    }
}

/// Fills `tokens` and `targets`, both [ids.len(), T], with the sequences `ids`: what a peer trains on and a
/// validator evaluates. Allocates nothing.
///
/// # Errors
/// [`Error::Buffer`] for buffers of another size; errors of [`Dataset::read`].
pub fn fill_sequences(
    dataset: &Dataset,
    ids: &[u64],
    sequence: usize,
    tokens: &mut [u32],
    targets: &mut [u32],
) -> Result<()> {
    if sequence == 0 {
        return Err(Error::ZeroLength);
    }
    check(ids.len() * sequence, tokens, targets)?;
    let rows = tokens.chunks_exact_mut(sequence).zip(targets.chunks_exact_mut(sequence));
    for (id, (tokens, targets)) in ids.iter().zip(rows) {
        dataset.read_pair(*id, tokens, targets)?;
    }
    Ok(())
}

/// Both buffers hold `expected` tokens.
fn check(expected: usize, tokens: &[u32], targets: &[u32]) -> Result<()> {
    for found in [tokens.len(), targets.len()] {
        if found != expected {
            return Err(Error::Buffer { expected, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn dataset() -> Dataset {
        Dataset::from_tokens("counting", (0..101).collect(), 101).unwrap()
    }

    #[test]
    fn targets_are_shifted_and_an_epoch_covers_all() {
        let data = dataset();
        let batches = Batches::new(&data, 5, 3, 7).unwrap();
        let (mut tokens, mut targets) = (vec![0; 21], vec![0; 21]);
        let mut starts = BTreeSet::new();
        for step in 0..batches.steps_per_epoch() {
            batches.fill(&data, step, &mut tokens, &mut targets).unwrap();
            for (row, shifted) in tokens.chunks(7).zip(targets.chunks(7)) {
                assert!(row.windows(2).all(|w| w[1] == w[0] + 1));
                assert!(row.iter().zip(shifted).all(|(x, y)| x + 1 == *y));
                starts.insert(row[0]);
            }
        }
        assert_eq!(starts.len(), 14);
    }

    #[test]
    fn the_step_alone_decides() {
        let data = dataset();
        let (a, b) = (Batches::new(&data, 5, 2, 4).unwrap(), Batches::new(&data, 5, 2, 4).unwrap());
        let mut first = (vec![0; 8], vec![0; 8]);
        let mut second = first.clone();
        for step in 0..40 {
            a.fill(&data, step, &mut first.0, &mut first.1).unwrap();
        }
        b.fill(&data, 39, &mut second.0, &mut second.1).unwrap();
        assert_eq!(first, second);
        let other = Batches::new(&data, 6, 2, 4).unwrap();
        assert!((0..10).any(|step| other.id(step, 0) != a.id(step, 0)));
    }

    #[test]
    fn chosen_sequences() {
        let data = dataset();
        let (mut tokens, mut targets) = (vec![0; 4], vec![0; 4]);
        fill_sequences(&data, &[49, 0], 2, &mut tokens, &mut targets).unwrap();
        assert_eq!((tokens.as_slice(), targets.as_slice()), (&[98, 99, 0, 1][..], &[99, 100, 1, 2][..]));
        let error = fill_sequences(&data, &[50, 0], 2, &mut tokens, &mut targets);
        assert!(matches!(error, Err(Error::SequenceRange { index: 50, count: 50 })), "{error:?}");
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let data = dataset();
        let batches = Batches::new(&data, 0, 2, 4).unwrap();
        let error = batches.fill(&data, 0, &mut [0; 8], &mut [0; 7]);
        assert!(matches!(error, Err(Error::Buffer { expected: 8, found: 7 })));
        assert!(matches!(Batches::new(&data, 0, 2, 101), Err(Error::SequenceTooLong { tokens: 101, .. })));
        assert!(matches!(Batches::new(&data, 0, 0, 4), Err(Error::ZeroLength)));
    }
}
