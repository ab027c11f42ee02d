//! Facts of a window: everything the judgement depends on, as plain data.
//!
//! The same facts and the same state give the same outcome, bit for bit, on every machine; who keeps the facts can
//! have any round judged again ([`crate::replay`]).

use crate::fast_check::Check;
use crate::loss_score::Losses;
use crate::overlap::Overlap;
use crate::submission::Commitment;
use crate::sync_score::SyncFact;
use crate::{Digest, Hotkey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is known when a round opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowFacts {
    /// The run.
    pub run: Digest,
    /// The window judged.
    pub window: u64,
    /// Outer steps applied before it.
    pub step: u64,
    /// α of the window: the learning rate of the outer step.
    pub learning_rate: f64,
    /// Whose judgement this is: part of the seed.
    pub validator: Hotkey,
    /// Hash of the first finalised block after the reveal deadline.
    pub reveal_block: Digest,
    /// Whether the validator reached its own bucket.
    pub own_storage: Reach,
    /// Gather set of this window, from the record that selected it.
    pub gather: Vec<Hotkey>,
    /// Everybody registered.
    pub peers: BTreeMap<Hotkey, PeerFacts>,
}

impl WindowFacts {
    /// The slot of each registered hotkey.
    pub fn uids(&self) -> BTreeMap<Hotkey, u16> {
        self.peers.iter().map(|(hotkey, peer)| (*hotkey, peer.uid)).collect()
    }

    /// Stake of each validator: who leads in which order follows from it ([`crate::record::succession::order`]).
    pub fn stakes(&self) -> BTreeMap<Hotkey, u64> {
        let validators = self.peers.iter().filter(|(_, peer)| peer.role == Role::Validator);
        validators.map(|(hotkey, peer)| (*hotkey, peer.stake)).collect()
    }
}

/// Whether storage answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It answered.
    Reached,
    /// It did not.
    Unreachable,
}

/// What is known of a registered hotkey.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerFacts {
    /// Its slot on chain; used for nothing but the weights.
    pub uid: u16,
    /// Its stake, in the chain's smallest unit.
    pub stake: u64,
    /// Whether it is judged.
    pub role: Role,
    /// Its commitment, as read at the deadline.
    pub commitment: Commitment,
}

/// What a registered hotkey does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Trains and is judged.
    Miner,
    /// Holds a validator permit: not judged (R§3.2 F).
    Validator,
}

/// What the fast evaluation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckFacts {
    /// Results for those whose object was looked at.
    pub checks: BTreeMap<Hotkey, Check>,
    /// Published values, where looked at.
    pub sync: BTreeMap<Hotkey, SyncFact>,
    /// Overlaps: all pairs of the gather set, others as measured, and against accepted submissions of before.
    pub overlaps: Vec<Overlap>,
}

/// All facts of a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundFacts {
    /// Known at the opening.
    pub window: WindowFacts,
    /// From the fast evaluation.
    pub checks: CheckFacts,
    /// From the primary evaluation.
    pub losses: BTreeMap<Hotkey, Losses>,
}
