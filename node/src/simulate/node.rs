//! The nodes of a simulation.

use gauntlet::record::SignedRecord;

use super::behaviours::{Behaviour, Draft};
use super::spec::{Kind, ValidatorKind};
use crate::run::identity::Identity;
use crate::run::peer::Peer;
use crate::run::persist::Disk;
use crate::run::validator::Validator;

/// A miner: a behaviour and what it acts through.
pub(crate) struct Miner {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) behaviour: Box<dyn Behaviour>,
    pub(crate) identity: Identity,
    /// None before it joins.
    pub(crate) peer: Option<Peer>,
    /// Sequences a window.
    pub(crate) budget: u32,
    /// First and last window it takes part in.
    pub(crate) from: u64,
    pub(crate) until: u64,
    /// What it sends in this window.
    pub(crate) draft: Option<Draft>,
    /// Where it keeps its state, if it will be killed.
    pub(crate) disk: Option<Disk>,
}

/// A validator.
pub(crate) struct Judge {
    pub(crate) name: String,
    pub(crate) kind: ValidatorKind,
    pub(crate) validator: Validator,
    /// A record it signed and shows later, if it is one that does.
    pub(crate) withheld: Option<SignedRecord>,
    /// Where it keeps its state, if it will be killed.
    pub(crate) disk: Option<Disk>,
}
