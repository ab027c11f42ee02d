//! What an epoch does to balances: Yuma's payout, credited by hotkey.
//!
//! Invariant: issuance = Σ balances + burned, to the last unit, after every epoch.

use super::LedgerRules;
use super::history::{EpochPay, Pay};
use super::state::{LastEpoch, State};

/// No more is ever emitted: what a database integer holds. At the default rate that is 292 years of one-second blocks.
const SUPPLY: u64 = i64::MAX as u64;

/// What `blocks` blocks emit, of which an epoch shares out all, where `issued` was emitted before them. Smallest units.
pub(crate) fn emitted(rules: &LedgerRules, blocks: u64, issued: u64) -> u64 {
    blocks.saturating_mul(rules.emission_per_block).min(SUPPLY - issued.min(SUPPLY))
}

/// Runs the epoch that `block` closes, over all that was emitted since the one before.
pub(super) fn run(state: &mut State, rules: &LedgerRules, block: u64) -> EpochPay {
    let previous = state.subnet.last_epoch;
    let emission = emitted(rules, block.saturating_sub(previous), state.issuance);
    let neurons = state.subnet.slots.iter().map(|slot| slot.neuron.clone()).collect();
    let (found, payout) = state.subnet.run_epoch(block, emission);
    let (owner, burned) = match rules.owner {
        Some(owner) => {
            credit(state, owner, payout.owner);
            (payout.owner, payout.burned)
        }
        None => (0, payout.burned + payout.owner),
    };
    state.issuance += emission;
    state.burned += burned;
    let hotkeys: Vec<_> = state.subnet.slots.iter().map(|slot| slot.hotkey).collect();
    state.last.clear();
    let mut pay = Vec::with_capacity(hotkeys.len());
    for (at, (hotkey, uid)) in hotkeys.into_iter().zip(0_u16..).enumerate() {
        let (server, validator) = (payout.servers[at], payout.validators[at]);
        credit(state, hotkey, server + validator);
        let (incentive, dividend) = (found.incentive[at], found.dividends[at]);
        state.last.insert(hotkey, LastEpoch { incentive, dividend, consensus: found.consensus[at] });
        pay.push(Pay { uid, hotkey, incentive, dividend, server, validator });
    }
    EpochPay { epoch: state.subnet.epoch, block, emission, owner, burned, previous, neurons, pay }
}

fn credit(state: &mut State, hotkey: gauntlet::Hotkey, amount: u64) {
    if amount > 0 {
        *state.balances.entry(hotkey).or_default() += amount;
    }
}
