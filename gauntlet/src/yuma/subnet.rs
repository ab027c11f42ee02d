//! A subnet: neurons, weights, bonds and commitments as one state, moved by calls and epochs. Used by the embedded ledger.
//!
//! It has no clock: every call carries its block. Balances belong to the ledger; an epoch says what to pay to whom.

use super::emission::{EmissionRules, Payout, payout};
use super::registry::{RegistryRules, Tenant, slot};
use super::reveal::{self, Waiting};
use super::weights::{self, Call, Caller, WeightRules, WeightSetting};
use super::{Epoch, Neuron, YumaRules, epoch};
use crate::{ChainFault, Digest, Error, Hotkey};
use serde::{Deserialize, Serialize};

/// All constants of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubnetRules {
    /// Blocks between epochs.
    pub tempo: u64,
    /// The epoch.
    pub yuma: YumaRules,
    /// The payout.
    pub emission: EmissionRules,
    /// Setting weights.
    pub weights: WeightRules,
    /// Registration.
    pub registry: RegistryRules,
}

impl Default for SubnetRules {
    /// The chain's defaults (R§6.2).
    fn default() -> Self {
        Self {
            tempo: 360,
            yuma: YumaRules::default(),
            emission: EmissionRules::default(),
            weights: WeightRules::default(),
            registry: RegistryRules::default(),
        }
    }
}

/// A slot and its tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Who.
    pub hotkey: Hotkey,
    /// What an epoch sees.
    pub neuron: Neuron,
    /// What the last epoch paid it.
    pub emission: u64,
    /// Block in which it last set or committed weights.
    pub last_set: Option<u64>,
    /// Commitments that wait.
    pub waiting: Vec<Waiting>,
}

/// The state of a subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its constants.
    pub rules: SubnetRules,
    /// By uid.
    pub slots: Vec<Slot>,
    /// Hotkeys of the subnet owner.
    pub owners: Vec<Hotkey>,
    /// Epochs run.
    pub epoch: u64,
    /// Block of the last one.
    pub last_epoch: u64,
}

/// A registration that went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The slot.
    pub uid: u16,
    /// Whom it replaces.
    pub replaced: Option<Hotkey>,
}

impl Subnet {
    /// An empty subnet at `block`.
    pub fn new(rules: SubnetRules, owners: Vec<Hotkey>, block: u64) -> Self {
        Self { rules, slots: Vec::new(), owners, epoch: 0, last_epoch: block }
    }

    /// The uid of a hotkey.
    pub fn uid(&self, hotkey: &Hotkey) -> Option<u16> {
        self.slots.iter().position(|s| s.hotkey == *hotkey).and_then(|uid| u16::try_from(uid).ok())
    }

    /// Registers a hotkey with its stake. Where it replaces another, all weights and bonds on the former tenant are gone:
    /// a later update of who set them must not turn them to the newcomer. Errors: [`ChainFault::AlreadyRegistered`], [`ChainFault::NoSlot`].
    pub fn register(&mut self, hotkey: Hotkey, stake: u64, block: u64) -> Result<Registered, ChainFault> {
        if self.uid(&hotkey).is_some() {
            return Err(ChainFault::AlreadyRegistered);
        }
        let tenant = |s: &Slot| Tenant {
            registered_at: s.neuron.registered_at,
            emission: s.emission,
            is_owner: s.neuron.is_owner,
        };
        let tenants: Vec<Tenant> = self.slots.iter().map(tenant).collect();
        let uid = slot(&self.rules.registry, &tenants, block)?;
        let is_owner = self.owners.contains(&hotkey);
        let neuron =
            Neuron { stake, registered_at: block, last_update: block, is_owner, ..Neuron::default() };
        let fresh = Slot { hotkey, neuron, emission: 0, last_set: None, waiting: Vec::new() };
        let replaced = match self.slots.get_mut(usize::from(uid)) {
            Some(slot) => Some(std::mem::replace(slot, fresh).hotkey),
            None => {
                self.slots.push(fresh);
                None
            }
        };
        for slot in &mut self.slots {
            slot.neuron.weights.retain(|(target, _)| *target != uid);
            slot.neuron.bonds.retain(|(target, _)| *target != uid);
        }
        Ok(Registered { uid, replaced })
    }

    /// Sets the stake of a hotkey. Errors: [`ChainFault::NotRegistered`].
    pub fn set_stake(&mut self, hotkey: &Hotkey, stake: u64) -> Result<(), ChainFault> {
        self.slot_mut(hotkey)?.1.neuron.stake = stake;
        Ok(())
    }

    /// Sets weights at once. Errors: as R§6.3, in order; [`ChainFault::CommitReveal`] where they must be committed.
    pub fn set_weights(&mut self, hotkey: &Hotkey, call: &Call<'_>, block: u64) -> Result<(), ChainFault> {
        if self.rules.weights.setting == WeightSetting::CommitReveal {
            return Err(ChainFault::CommitReveal);
        }
        let checked = self.check(hotkey, call, Some(block))?;
        let (_, slot) = self.slot_mut(hotkey)?;
        slot.neuron.weights = checked;
        slot.neuron.last_update = block;
        slot.last_set = Some(block);
        Ok(())
    }

    /// Commits to weights; the time of the update is this one (R§6.3.5). Errors: [`ChainFault`].
    pub fn commit_weights(&mut self, hotkey: &Hotkey, hash: Digest, block: u64) -> Result<(), ChainFault> {
        if self.rules.weights.setting == WeightSetting::Direct {
            return Err(ChainFault::NoCommitReveal);
        }
        let (rules, epoch) = (self.rules.weights.clone(), self.epoch);
        let (_, slot) = self.slot_mut(hotkey)?;
        weights::check_rate(&rules, slot.last_set, block)?;
        reveal::commit(&mut slot.waiting, hash, block, epoch)?;
        slot.neuron.last_update = block;
        slot.last_set = Some(block);
        Ok(())
    }

    /// Reveals committed weights; those on uids that changed hands since the commitment are void. Errors: [`Error::Chain`].
    pub fn reveal_weights(&mut self, hotkey: &Hotkey, call: &Call<'_>, salt: &[u8]) -> Result<(), Error> {
        let hash = reveal::commitment(hotkey, call.uids, call.values, salt, call.version)?;
        let epoch = self.epoch;
        let mut checked = self.check(hotkey, call, None)?;
        let (_, slot) = self.slot_mut(hotkey)?;
        let committed = reveal::reveal(&mut slot.waiting, hash, epoch)?;
        let held = |uid: u16| self.slots.get(usize::from(uid)).map(|s| s.neuron.registered_at);
        checked.retain(|(target, _)| held(*target).is_some_and(|since| since < committed));
        self.slot_mut(hotkey)?.1.neuron.weights = checked;
        Ok(())
    }

    /// Whether an epoch is due at `block`.
    pub fn is_due(&self, block: u64) -> bool {
        block.saturating_sub(self.last_epoch) >= self.rules.tempo
    }

    /// Runs an epoch over `emission`, stores bonds and permits, and says what to pay.
    pub fn run_epoch(&mut self, block: u64, emission: u64) -> (Epoch, Payout) {
        for slot in &mut self.slots {
            slot.neuron.waiting_commit =
                slot.waiting.iter().filter(|w| w.due >= self.epoch).map(|w| w.block).min();
        }
        let neurons: Vec<Neuron> = self.slots.iter().map(|s| s.neuron.clone()).collect();
        let result = epoch(&self.rules.yuma, &neurons, block, self.last_epoch);
        let owners: Vec<bool> = neurons.iter().map(|n| n.is_owner).collect();
        let paid =
            payout(&self.rules.emission, emission, &result.server_share, &result.validator_share, &owners);
        for (uid, slot) in self.slots.iter_mut().enumerate() {
            slot.neuron.bonds = result.bonds[uid].clone();
            slot.neuron.permit = result.permits[uid];
            slot.emission = paid.servers[uid].saturating_add(paid.validators[uid]);
        }
        self.epoch = self.epoch.saturating_add(1);
        self.last_epoch = block;
        (result, paid)
    }

    fn check(
        &self,
        hotkey: &Hotkey,
        call: &Call<'_>,
        now: Option<u64>,
    ) -> Result<Vec<(u16, u16)>, ChainFault> {
        let caller = self.uid(hotkey).map(|uid| {
            let Slot { neuron, last_set, .. } = &self.slots[usize::from(uid)];
            Caller { uid, stake: neuron.stake, permit: neuron.permit, last_set: *last_set }
        });
        weights::check(&self.rules.weights, self.slots.len(), caller.as_ref(), call, now)
    }

    fn slot_mut(&mut self, hotkey: &Hotkey) -> Result<(usize, &mut Slot), ChainFault> {
        let found = self.slots.iter_mut().enumerate().find(|(_, slot)| slot.hotkey == *hotkey);
        found.ok_or(ChainFault::NotRegistered)
    }
}
