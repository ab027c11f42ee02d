//! Version 1 of the stored state: before the profile `reference-2026` (no count, histories, bans, SyncScore factor,
//! selection).

use super::PeerState;
use crate::Hotkey;
use crate::history::History;
use crate::rating::Rating;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The memory of one validator, version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The next window to judge.
    pub next_window: u64,
    /// Every hotkey ever seen.
    pub peers: BTreeMap<Hotkey, Peer>,
}

/// The memory of one peer, version 1; fields as in [`PeerState`], where `submissions` is `commitments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Peer {
    pub first_seen: u64,
    pub last_seen: Option<u64>,
    pub last_checked: Option<u64>,
    pub last_evaluated: Option<u64>,
    pub submissions: u64,
    pub evaluations: u32,
    pub positive: u32,
    pub unknown_debt: u32,
    pub proof: f64,
    pub mu: f64,
    pub sigma: f64,
}

impl From<State> for super::State {
    fn from(old: State) -> Self {
        let peers = old.peers.into_iter().map(|(hotkey, peer)| (hotkey, peer.into())).collect();
        Self { next_window: old.next_window, peers, selection: None }
    }
}

impl From<Peer> for PeerState {
    fn from(old: Peer) -> Self {
        Self {
            first_seen: old.first_seen,
            last_seen: old.last_seen,
            last_checked: old.last_checked,
            last_evaluated: old.last_evaluated,
            commitments: old.submissions,
            evaluations: old.evaluations,
            positive: old.positive,
            unknown_debt: old.unknown_debt,
            proof: old.proof,
            count: 0,
            rating: Rating { mu: old.mu, sigma: old.sigma },
            sync: 1.0,
            absent_streak: 0,
            miss_streak: 0,
            misses: History::default(),
            negatives: History::default(),
            negative_streak: 0,
            banned: 0,
            red_card: false,
        }
    }
}
