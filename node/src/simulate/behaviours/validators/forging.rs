//! Forges its past.

use gauntlet::State;
use gauntlet::rating::Rating;

use super::Conduct;
use crate::run::validator::Validator;

/// From a window on judges on top of a past in which the miner of the lowest hotkey is the best there is.
pub(super) struct Forging {
    pub(super) from: u64,
}

impl Conduct for Forging {
    fn before_judging(&mut self, validator: &mut Validator, window: u64) {
        if window >= self.from {
            let mut past = validator.state().clone();
            forge(&mut past);
            validator.pretend(past);
        }
    }

    fn reports(&self) -> bool {
        false
    }
}

/// Makes the first miner the best, as far as a state can say so.
fn forge(state: &mut State) {
    let windows = u32::try_from(state.next_window).unwrap_or(u32::MAX);
    if let Some(friend) = state.peers.values_mut().next() {
        (friend.proof, friend.rating) = (1.0, Rating { mu: 1e6, sigma: 1.0 });
        (friend.evaluations, friend.positive) = (windows, windows);
    }
}
