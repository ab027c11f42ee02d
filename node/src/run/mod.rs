//! A run: what its nodes know, and the one implementation of a window (`train → commit → reveal → record → evaluate →
//! apply`). The simulation and the network differ in clock, chain and storage, never here.

pub(crate) mod audit;
pub(crate) mod bundle;
pub(crate) mod checkpoint;
pub(crate) mod commitment;
pub(crate) mod compute;
pub(crate) mod conduct;
pub(crate) mod context;
pub(crate) mod evaluation;
pub(crate) mod follower;
pub(crate) mod identity;
pub(crate) mod judgement;
mod lease;
mod listed;
pub(crate) mod manifest;
pub(crate) mod miner_node;
pub(crate) mod node;
pub(crate) mod peer;
pub(crate) mod persist;
mod reach;
pub(crate) mod reader;
pub(crate) mod records;
pub(crate) mod statement;
pub(crate) mod stopwatch;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod theta;
pub(crate) mod validator;
pub(crate) mod validator_node;
pub(crate) mod values;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use gauntlet::{Digest, Hotkey};

use crate::chain::{Chain, ChainError, Roster};
use crate::storage::Storage;
use compute::Compute;
use context::Run;
use reader::Phase;

/// What a node reaches from where it stands.
pub(crate) struct World<'a> {
    pub(crate) run: &'a Run,
    pub(crate) compute: &'a mut Compute,
    pub(crate) chain: &'a mut dyn Chain,
    pub(crate) buckets: &'a dyn Buckets,
}

/// Where objects lie.
pub(crate) trait Buckets {
    /// The bucket of `owner` as `reader` sees it; none if it has none.
    fn of(&self, reader: &Hotkey, owner: &Hotkey) -> Option<Storage>;

    /// The bucket `owner` shows to some readers instead, if it shows two.
    fn second(&self, _owner: &Hotkey) -> Option<Storage> {
        None
    }
}

impl World<'_> {
    /// Hash of a finalised block.
    pub(crate) fn block(&self, number: u64) -> Result<Digest> {
        Ok(self.chain.block(number)?.hash)
    }

    /// Hash of the block that opens window `w`.
    pub(crate) fn opening(&self, w: u64) -> Result<Digest> {
        self.block(self.run.manifest.window.opens(w))
    }

    /// Puts an object into the bucket of `owner`, whose node this is.
    pub(crate) fn put(&self, owner: &Hotkey, key: &str, bytes: &[u8]) -> Result<()> {
        let Some(bucket) = self.buckets.of(owner, owner) else { bail!("{owner}: has no bucket") };
        bucket.put(key, bytes).with_context(|| format!("cannot put {key}"))
    }

    /// Deletes what `owner` put in window `old`, and its checkpoint; the record stays.
    pub(crate) fn forget(&self, owner: &Hotkey, old: u64) -> Result<()> {
        let Some(bucket) = self.buckets.of(owner, owner) else { return Ok(()) };
        let cannot = || format!("cannot take back what it put in window {old}");
        bucket.forget(&self.run.keys, owner, old).with_context(cannot)?;
        // One that cannot be replayed from helps nobody.
        checkpoint::withdraw(self.run, old, &bucket).with_context(cannot)
    }

    /// When commitments to window `w` are put.
    pub(crate) fn commit_phase(&self, w: u64) -> Result<Phase> {
        let window = &self.run.manifest.window;
        self.phase(window.opens(w.saturating_add(1)), window.commit)
    }

    /// When objects of window `w` are put.
    pub(crate) fn reveal_phase(&self, w: u64) -> Result<Phase> {
        let window = &self.run.manifest.window;
        self.phase(window.commit_deadline(w), window.reveal)
    }

    /// The `length` blocks after block `from`: as long as they took where they are there, else as long as they should.
    fn phase(&self, from: u64, length: u64) -> Result<Phase> {
        let opens_ms = self.chain.block(from)?.time_ms;
        let length_ms = match self.chain.block(from.saturating_add(length)) {
            Ok(end) => end.time_ms.saturating_sub(opens_ms),
            Err(ChainError::NoBlock { .. }) => {
                length.saturating_mul(self.run.manifest.chain.ledger.block_time_ms)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Phase { opens_ms, length_ms })
    }

    /// Who takes part in window `w`: who was registered when it opened, with the stake it had. Nobody in windows to come.
    pub(crate) fn roster(&self, w: u64) -> Result<Roster> {
        let mut roster = match self.chain.roster(self.run.manifest.window.opens(w)) {
            Err(ChainError::NoBlock { .. }) => return Ok(Roster::default()),
            found => found?,
        };
        // The subnet's owner holds a slot to burn to; it is no miner.
        let owner = self.run.manifest.chain.ledger.owner;
        roster.members.retain(|m| m.is_validator() || Some(m.hotkey) != owner);
        Ok(roster)
    }

    /// Stake of each validator of window `w`.
    pub(crate) fn stakes(&self, w: u64) -> Result<BTreeMap<Hotkey, u64>> {
        Ok(self.roster(w)?.stakes())
    }
}
