//! What each epoch paid a peer, and the same computed again from what the epoch found.

use gauntlet::Hotkey;
use gauntlet::yuma::emission::{Payout, payout};
use gauntlet::yuma::{self, mask};

use super::events::{Epoch, Events};
use crate::chain::LedgerRules;

/// What an epoch paid the peer.
pub(super) struct Line {
    pub(super) epoch: u64,
    pub(super) block: u64,
    /// What each validator gave it: name, share of the active stake, share of that validator's weights.
    pub(super) weights: Vec<(String, f64, f64)>,
    /// Weight that enough stake stands behind; what lies above it is cut.
    pub(super) consensus: f64,
    /// Its share of what peers get, and of what validators get.
    pub(super) incentive: f64,
    pub(super) dividend: f64,
    pub(super) paid: u64,
    /// The same, computed again from the weights, stakes and bonds that the epoch found.
    pub(super) recomputed: u64,
}

/// An epoch computed again.
pub(super) struct Again {
    pub(super) found: yuma::Epoch,
    pub(super) payout: Payout,
}

impl Again {
    pub(super) fn new(rules: &LedgerRules, epoch: &Epoch) -> Self {
        let found = yuma::epoch(&rules.subnet.yuma, &epoch.neurons, epoch.block, epoch.previous);
        let owners: Vec<bool> = epoch.neurons.iter().map(|n| n.is_owner).collect();
        let shares = (&found.server_share, &found.validator_share);
        let payout = payout(&rules.subnet.emission, epoch.emission, shares.0, shares.1, &owners);
        Self { found, payout }
    }
}

/// What each epoch paid `hotkey`; `again` are the same epochs.
pub(super) fn of(rules: &LedgerRules, events: &Events, again: &[Again], hotkey: &Hotkey) -> Vec<Line> {
    let line = |(epoch, again): (&Epoch, &Again)| {
        let pay = epoch.pays.iter().find(|p| p.hotkey == *hotkey)?;
        let (uid, neurons) = (usize::from(pay.uid), &epoch.neurons);
        let found = &again.found;
        let active = mask::active_stake(&rules.subnet.yuma, neurons, &found.stake, epoch.block);
        let rows: Vec<usize> = (0..neurons.len()).filter(|uid| neurons[*uid].permit).collect();
        let matrix = mask::weights(neurons, &rows);
        let given = |(row, by): (usize, &usize)| {
            let name =
                epoch.pays.iter().find(|p| usize::from(p.uid) == *by).map(|p| events.name(&p.hotkey))?;
            let weight = matrix.get((row, uid)).copied().filter(|weight| *weight > 0.0)?;
            Some((name, active.get(*by).copied()?, weight))
        };
        let of = |values: &[f64]| values.get(uid).copied().unwrap_or_default();
        let units = |values: &[u64]| values.get(uid).copied().unwrap_or_default();
        Some(Line {
            epoch: epoch.epoch,
            block: epoch.block,
            weights: rows.iter().enumerate().filter_map(given).collect(),
            consensus: of(&found.consensus),
            incentive: of(&found.incentive),
            dividend: of(&found.dividends),
            paid: pay.server.saturating_add(pay.validator),
            recomputed: units(&again.payout.servers).saturating_add(units(&again.payout.validators)),
        })
    };
    events.epochs.iter().zip(again).filter_map(line).collect()
}
