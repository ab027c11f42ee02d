//! The calls of a chain, answered by the ledger.

use gauntlet::yuma::weights::Call;
use gauntlet::{ChainFault, Digest, Hotkey};
use rusqlite::{OptionalExtension, Transaction};

use super::ledger::{Ledger, int};
use super::{Anchor, Block, Chain, ChainError, Metagraph, Result, Roster};

/// Longest address of a bucket, in bytes.
const MAX_BUCKET: usize = 512;

impl Chain for Ledger {
    fn head(&self) -> Result<Block> {
        self.catch_up()?;
        self.block(self.sealed(&self.connection)?)
    }

    fn block(&self, number: u64) -> Result<Block> {
        let read = || {
            let query = "SELECT hash FROM blocks WHERE number = ?1";
            self.db(self.connection.query_row(query, [int(number)], |row| row.get(0)).optional())
        };
        let mut hash = read()?;
        if hash.is_none() {
            self.catch_up()?;
            hash = read()?;
        }
        match hash {
            Some(hash) => Ok(Block { number, hash: Digest(hash), time_ms: self.time_ms(number) }),
            None => Err(ChainError::NoBlock { number, head: self.sealed(&self.connection)? }),
        }
    }

    fn register(&mut self, hotkey: Hotkey, coldkey: Hotkey) -> Result<u16> {
        self.change(&("register", hotkey, coldkey), |state, block| {
            let stake = state.stakes.get(&hotkey).copied().unwrap_or(0);
            let done = state.subnet.register(hotkey, stake, block).map_err(|f| refused(hotkey, f))?;
            state.coldkeys.insert(hotkey, coldkey);
            if let Some(gone) = done.replaced {
                state.coldkeys.remove(&gone);
                state.buckets.remove(&gone);
                state.last.remove(&gone);
            }
            Ok(done.uid)
        })
    }

    fn add_stake(&mut self, hotkey: Hotkey, amount: u64) -> Result<()> {
        self.change(&("stake", hotkey, amount), |state, _| {
            let stake = state.stakes.entry(hotkey).or_default();
            *stake = stake.checked_add(amount).ok_or_else(|| ChainError::Argument {
                field: "amount",
                want: format!("must keep the stake of {hotkey} below 2^64"),
            })?;
            let stake = *stake;
            match state.subnet.set_stake(&hotkey, stake) {
                // Staked first, registered later.
                Ok(()) | Err(ChainFault::NotRegistered) => Ok(()),
                Err(fault) => Err(refused(hotkey, fault)),
            }
        })
    }

    fn publish_bucket(&mut self, hotkey: Hotkey, url: &str) -> Result<()> {
        if url.is_empty() || url.len() > MAX_BUCKET || url.chars().any(char::is_control) {
            let want = format!("must be 1 to {MAX_BUCKET} bytes of text without control characters");
            return Err(ChainError::Argument { field: "bucket", want });
        }
        self.change(&("bucket", hotkey, url), |state, _| {
            state.subnet.uid(&hotkey).ok_or_else(|| refused(hotkey, ChainFault::NotRegistered))?;
            state.buckets.insert(hotkey, url.to_owned());
            Ok(())
        })
    }

    fn anchor(&mut self, by: Hotkey, anchor: Anchor) -> Result<()> {
        self.add_anchor(by, anchor)
    }

    fn anchors(&self, from: u64, to: u64) -> Result<Vec<(u64, Hotkey, Anchor)>> {
        self.sealed_anchors(from, to)
    }

    fn set_weights(&mut self, hotkey: Hotkey, uids: &[u16], values: &[u16], version: u64) -> Result<()> {
        self.change(&("weights", hotkey, uids, values, version), |state, block| {
            let call = Call { uids, values, version };
            state.subnet.set_weights(&hotkey, &call, block).map_err(|fault| refused(hotkey, fault))
        })
    }

    fn roster(&self, block: u64) -> Result<Roster> {
        self.sealed_roster(block)
    }

    fn metagraph(&self) -> Result<Metagraph> {
        let (block, state) = self.sealed_state()?;
        Ok(Metagraph::of(&state, block))
    }

    fn balance(&self, hotkey: Hotkey) -> Result<u64> {
        let (_, state) = self.sealed_state()?;
        Ok(state.balances.get(&hotkey).copied().unwrap_or(0))
    }

    fn report_equivocation(&mut self, by: Hotkey, proof: &[u8]) -> Result<()> {
        self.add_equivocation(by, proof)
    }

    fn equivocations(&self, known: usize) -> Result<Vec<(u64, Hotkey, Vec<u8>)>> {
        self.sealed_equivocations(known)
    }

    fn claim(&mut self, hotkey: Hotkey, instance: [u8; 16], until: u64) -> Result<()> {
        self.lease(hotkey, instance, until)
    }
}

impl Ledger {
    /// Errors: refused, for a hotkey without a slot.
    pub(super) fn registered(&self, tx: &Transaction<'_>, hotkey: Hotkey) -> Result<()> {
        match self.newest_state(tx)?.subnet.uid(&hotkey) {
            Some(_) => Ok(()),
            None => Err(refused(hotkey, ChainFault::NotRegistered)),
        }
    }
}

fn refused(hotkey: Hotkey, fault: ChainFault) -> ChainError {
    ChainError::Refused { hotkey, fault }
}
