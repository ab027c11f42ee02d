//! A run: what its nodes know, and the one implementation of a window (`train → commit → reveal → record → evaluate →
//! apply`). The simulation and the network differ in clock, chain and storage, never here.

pub(crate) mod bundle;
pub(crate) mod checkpoint;
pub(crate) mod commitment;
pub(crate) mod compute;
pub(crate) mod context;
pub(crate) mod follower;
pub(crate) mod identity;
pub(crate) mod manifest;
pub(crate) mod peer;
pub(crate) mod reader;
pub(crate) mod statement;
pub(crate) mod theta;
pub(crate) mod validator;
pub(crate) mod values;

use std::collections::BTreeMap;

use anyhow::Result;
use gauntlet::{Digest, Hotkey};

use crate::chain::{Chain, Metagraph};
use crate::storage::Storage;
use compute::Compute;
use context::Run;

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
}

/// Stake of each validator: who leads follows from it.
pub(crate) fn stakes(graph: &Metagraph) -> BTreeMap<Hotkey, u64> {
    graph.neurons.iter().filter(|n| is_validator(n)).map(|n| (n.hotkey, n.stake)).collect()
}

/// Whether a neuron is a validator: it has stake. Miners of a run have none.
pub(crate) fn is_validator(neuron: &crate::chain::MetaNeuron) -> bool {
    neuron.stake > 0
}
