//! The nodes of a simulation.

use super::spec::{Kind, ValidatorKind};
use crate::run::conduct::Behaviour;
use crate::run::identity::Identity;
use crate::run::miner_node::MinerNode;
use crate::run::validator::Validator;
use crate::run::validator_node::ValidatorNode;

/// A miner.
pub(crate) struct Miner {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    /// What it will do, until it joins.
    pub(crate) behaviour: Option<Box<dyn Behaviour>>,
    /// None before it joins.
    pub(crate) node: Option<MinerNode>,
    /// Sequences a window.
    pub(crate) budget: u32,
    /// First and last window it takes part in.
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// A validator.
pub(crate) struct Judge {
    pub(crate) name: String,
    pub(crate) kind: ValidatorKind,
    pub(crate) node: ValidatorNode,
}

impl Judge {
    pub(crate) fn validator(&self) -> &Validator {
        &self.node.validator
    }
}
