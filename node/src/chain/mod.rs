//! The chain as nodes see it: a clock of finalised blocks with unforeseeable hashes, who takes part with what stake,
//! weights, payouts, and the leader's anchors (PROTOCOL sections 2, 6.0 and 8).
//!
//! Invariant: everything read is a function of the newest sealed block. A call made now goes into the block that is still
//! open and shows once that is sealed, so nodes that ask at the same height get the same answer. Leases alone act at once.

mod blocks;
mod calls;
mod epochs;
mod fault;
mod file;
pub(crate) mod history;
mod leases;
mod ledger;
mod lists;
mod metagraph;
mod roster;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub(crate) use blocks::Clock;
pub(crate) use epochs::emitted;
pub(crate) use fault::{ChainError, Result};
pub(crate) use history::EpochPay;
pub(crate) use ledger::Ledger;
pub(crate) use metagraph::Metagraph;
pub(crate) use roster::Roster;
pub(crate) use rules::LedgerRules;

use gauntlet::{Digest, Hotkey};

/// Smallest units in one token.
pub(crate) const UNITS: u64 = 1_000_000_000;

/// A finalised block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) number: u64,
    /// Nobody could know it before the block was sealed.
    pub(crate) hash: Digest,
    /// Chain time at which it was sealed, in milliseconds: since 1970 by a wall clock, since genesis by a virtual one.
    pub(crate) time_ms: u64,
}

/// A record's hash, as its leader puts it on chain (PROTOCOL 6.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Anchor {
    pub(crate) window: u64,
    pub(crate) record: Digest,
}

/// A chain. Errors of all calls: [`ChainError`]; `Refused` carries the rule that refused.
pub(crate) trait Chain: Send {
    /// The newest finalised block.
    fn head(&self) -> Result<Block>;

    /// A finalised block. Errors: [`ChainError::NoBlock`] for one that is not there yet.
    fn block(&self, number: u64) -> Result<Block>;

    /// Takes a slot for `hotkey`, owned by `coldkey`, and gives its uid. Errors: already registered, no slot.
    fn register(&mut self, hotkey: Hotkey, coldkey: Hotkey) -> Result<u16>;

    /// Adds stake in smallest units; a hotkey may hold stake before it registers.
    fn add_stake(&mut self, hotkey: Hotkey, amount: u64) -> Result<()>;

    /// Says where the objects of a registered hotkey are.
    fn publish_bucket(&mut self, hotkey: Hotkey, url: &str) -> Result<()>;

    /// Anchors a record. The chain checks that `by` is registered, not that it led: readers judge that.
    fn anchor(&mut self, by: Hotkey, anchor: Anchor) -> Result<()>;

    /// Anchors of windows `from` to `to`, both included, with the block that holds each, in the order they were made: of
    /// each hotkey its first one of a window.
    fn anchors(&self, from: u64, to: u64) -> Result<Vec<(u64, Hotkey, Anchor)>>;

    /// Sets weights; only ratios of `values` matter.
    fn set_weights(&mut self, hotkey: Hotkey, uids: &[u16], values: &[u16], version: u64) -> Result<()>;

    /// Who was registered with what stake after a finalised block. Errors: [`ChainError::NoBlock`] for one that is not there
    /// yet.
    fn roster(&self, block: u64) -> Result<Roster>;

    /// Everybody registered, at the head.
    fn metagraph(&self) -> Result<Metagraph>;

    /// Earned so far, in smallest units; 0 for a hotkey that never earned.
    fn balance(&self, hotkey: Hotkey) -> Result<u64>;

    /// Publishes a proof that a leader signed two records. It is stored unread: readers verify it.
    fn report_equivocation(&mut self, by: Hotkey, proof: &[u8]) -> Result<()>;

    /// Proofs with the block that holds each, in the order they were made, without the first `known`.
    fn equivocations(&self, known: usize) -> Result<Vec<(u64, Hotkey, Vec<u8>)>>;

    /// Leases a hotkey to one node until block `until`; the same `instance` may renew. Errors: [`ChainError::Leased`]
    /// while another instance holds it.
    fn claim(&mut self, hotkey: Hotkey, instance: [u8; 16], until: u64) -> Result<()>;
}
