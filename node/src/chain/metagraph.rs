//! Everybody registered, as of one block.

use gauntlet::Hotkey;

use super::state::State;

/// The subnet after block `block`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Metagraph {
    pub(crate) block: u64,
    /// Epochs run.
    pub(crate) epoch: u64,
    /// Block that the last of them closed; 0 before the first.
    pub(crate) last_epoch: u64,
    /// By uid.
    pub(crate) neurons: Vec<MetaNeuron>,
    /// All that was ever emitted: every balance, and what was burned. In smallest units, as all amounts.
    pub(crate) issuance: u64,
    pub(crate) burned: u64,
}

/// A registered hotkey.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct MetaNeuron {
    pub(crate) uid: u16,
    pub(crate) hotkey: Hotkey,
    pub(crate) coldkey: Hotkey,
    pub(crate) stake: u64,
    /// Whether it may weigh others: a validator.
    pub(crate) permit: bool,
    /// Whether it set weights, or registered, recently enough to count.
    pub(crate) active: bool,
    /// Of the last epoch, as are the next three; 0 before a hotkey's first.
    pub(crate) incentive: f64,
    pub(crate) dividend: f64,
    pub(crate) consensus: f64,
    /// Paid by it.
    pub(crate) emission: u64,
    /// Earned so far.
    pub(crate) balance: u64,
    /// Block in which it last set weights, or registered.
    pub(crate) last_update: u64,
    pub(crate) registered_at: u64,
    pub(crate) bucket: Option<String>,
    /// (uid, weight), largest 65,535.
    pub(crate) weights: Vec<(u16, u16)>,
}

impl Metagraph {
    /// A hotkey's neuron.
    pub(crate) fn neuron(&self, hotkey: &Hotkey) -> Option<&MetaNeuron> {
        self.neurons.iter().find(|n| n.hotkey == *hotkey)
    }

    pub(super) fn of(state: &State, block: u64) -> Self {
        let subnet = &state.subnet;
        let cutoff = subnet.rules.yuma.activity_cutoff;
        let neuron = |(slot, uid): (&gauntlet::yuma::subnet::Slot, u16)| {
            let last = state.last.get(&slot.hotkey).copied().unwrap_or_default();
            let neuron = &slot.neuron;
            MetaNeuron {
                uid,
                hotkey: slot.hotkey,
                coldkey: state.coldkeys.get(&slot.hotkey).copied().unwrap_or(slot.hotkey),
                stake: neuron.stake,
                permit: neuron.permit,
                active: neuron.last_update.saturating_add(cutoff) >= block,
                incentive: last.incentive,
                dividend: last.dividend,
                consensus: last.consensus,
                emission: slot.emission,
                balance: state.balances.get(&slot.hotkey).copied().unwrap_or(0),
                last_update: neuron.last_update,
                registered_at: neuron.registered_at,
                bucket: state.buckets.get(&slot.hotkey).cloned(),
                weights: neuron.weights.clone(),
            }
        };
        Self {
            block,
            epoch: subnet.epoch,
            last_epoch: subnet.last_epoch,
            neurons: subnet.slots.iter().zip(0..).map(neuron).collect(),
            issuance: state.issuance,
            burned: state.burned,
        }
    }
}
