//! What a block leaves behind, as one value: the subnet, who owns what, and what was paid.
//!
//! Stored form: BLAKE3 of the rest, then postcard. The hash is there because a flipped bit in a file of integers would
//! otherwise be a balance. Everything is keyed by hotkey, so a uid that changes hands hands nothing on.

use std::collections::BTreeMap;

use gauntlet::yuma::subnet::Subnet;
use gauntlet::{Digest, Hotkey};
use serde::{Deserialize, Serialize};

use super::LedgerRules;

/// The state after a block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) subnet: Subnet,
    /// Smallest units, of hotkeys registered or not.
    pub(super) stakes: BTreeMap<Hotkey, u64>,
    pub(super) coldkeys: BTreeMap<Hotkey, Hotkey>,
    pub(super) buckets: BTreeMap<Hotkey, String>,
    /// Earned so far, the owner's cut included.
    pub(super) balances: BTreeMap<Hotkey, u64>,
    pub(super) last: BTreeMap<Hotkey, LastEpoch>,
    /// All that was ever emitted: the sum of `balances` and `burned`, always.
    pub(super) issuance: u64,
    pub(super) burned: u64,
}

/// What the last epoch found about a hotkey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct LastEpoch {
    pub(super) incentive: f64,
    pub(super) dividend: f64,
    pub(super) consensus: f64,
}

impl State {
    pub(super) fn genesis(rules: &LedgerRules) -> Self {
        Self {
            subnet: Subnet::new(rules.subnet.clone(), rules.owner.into_iter().collect(), 0),
            stakes: BTreeMap::new(),
            coldkeys: BTreeMap::new(),
            buckets: BTreeMap::new(),
            balances: BTreeMap::new(),
            last: BTreeMap::new(),
            issuance: 0,
            burned: 0,
        }
    }

    /// Errors: why it cannot be stored.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let body = postcard::to_allocvec(self).map_err(|e| e.to_string())?;
        Ok([&Digest::of(&body).0[..], &body].concat())
    }

    /// Errors: what is wrong with the bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (hash, body) = bytes.split_first_chunk::<32>().ok_or("the stored state is cut off")?;
        if Digest::of(body).0 != *hash {
            return Err("the stored state does not match its hash".to_owned());
        }
        postcard::from_bytes(body).map_err(|e| format!("the stored state does not decode: {e}"))
    }
}
