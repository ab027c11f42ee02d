//! Commit–reveal of weights: a hash now, the weights one epoch later (R§6.6).
//!
//! Where we differ from the chain: the hash is BLAKE3 over the postcard form of (hotkey, uids, values, salt, version)
//! instead of BLAKE2 over SCALE, and there is no time-lock variant, which needs a beacon outside the chain.

use crate::{ChainFault, Digest, Error, Hotkey};
use serde::{Deserialize, Serialize};

/// Epochs between committing and revealing.
pub const REVEAL_EPOCHS: u64 = 1;
/// Commitments of one validator that may wait.
pub const MAX_WAITING: usize = 10;

/// A commitment that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Its hash.
    pub hash: Digest,
    /// Block it was made in.
    pub block: u64,
    /// Epoch in which it can be revealed.
    pub due: u64,
}

/// What a validator commits to. Errors: [`Error::State`] if it cannot be encoded.
pub fn commitment(
    hotkey: &Hotkey,
    uids: &[u16],
    values: &[u16],
    salt: &[u8],
    version: u64,
) -> Result<Digest, Error> {
    let bytes = postcard::to_allocvec(&(hotkey, uids, values, salt, version));
    Ok(Digest::of(&bytes.map_err(|e| Error::State { why: e.to_string() })?))
}

/// Adds a commitment. Those whose epoch has passed are dropped first. Errors: [`ChainFault::TooManyCommits`].
pub fn commit(waiting: &mut Vec<Waiting>, hash: Digest, block: u64, epoch: u64) -> Result<(), ChainFault> {
    waiting.retain(|w| w.due >= epoch);
    if waiting.len() >= MAX_WAITING {
        return Err(ChainFault::TooManyCommits);
    }
    waiting.push(Waiting { hash, block, due: epoch.saturating_add(REVEAL_EPOCHS) });
    Ok(())
}

/// Takes a commitment out, with all that were made before it, and gives the block it was made in.
/// Errors: [`ChainFault::NoCommit`], [`ChainFault::RevealEpoch`].
pub fn reveal(waiting: &mut Vec<Waiting>, hash: Digest, epoch: u64) -> Result<u64, ChainFault> {
    let place = waiting.iter().position(|w| w.hash == hash).ok_or(ChainFault::NoCommit)?;
    let Waiting { block, due, .. } = waiting[place];
    if due != epoch {
        return Err(ChainFault::RevealEpoch { due, now: epoch });
    }
    waiting.drain(..=place);
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revealed_in_the_next_epoch_only() {
        let hash = |salt: &[u8]| commitment(&Hotkey([1; 32]), &[2], &[3], salt, 0).unwrap();
        assert_ne!(hash(b"a"), hash(b"b"));
        let mut waiting = Vec::new();
        commit(&mut waiting, hash(b"a"), 10, 4).unwrap();
        commit(&mut waiting, hash(b"b"), 11, 4).unwrap();
        assert_eq!(reveal(&mut waiting, hash(b"c"), 5), Err(ChainFault::NoCommit));
        assert_eq!(reveal(&mut waiting, hash(b"b"), 4), Err(ChainFault::RevealEpoch { due: 5, now: 4 }));
        assert_eq!(reveal(&mut waiting, hash(b"b"), 6), Err(ChainFault::RevealEpoch { due: 5, now: 6 }));
        assert_eq!(reveal(&mut waiting, hash(b"b"), 5), Ok(11));
        assert!(waiting.is_empty(), "the older one is void");
        for n in 0..MAX_WAITING {
            commit(&mut waiting, hash(&[n as u8]), 20, 7).unwrap();
        }
        assert_eq!(commit(&mut waiting, hash(b"x"), 20, 7), Err(ChainFault::TooManyCommits));
        assert_eq!(commit(&mut waiting, hash(b"x"), 50, 9), Ok(()), "those never revealed make room");
    }
}
