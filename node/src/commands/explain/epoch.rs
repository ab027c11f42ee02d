//! Whether an epoch came when it was due, found what calls and the epoch before had left, and paid what follows.

use gauntlet::Hotkey;
use gauntlet::yuma::Neuron;

use super::events::{Epoch, Events, Pay};
use super::payouts::Again;
use crate::chain::emitted;
use crate::run::manifest::Manifest;

/// An epoch under audit.
pub(super) struct Audit<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) events: &'a Events,
    pub(super) epoch: &'a Epoch,
    /// The same computed again.
    pub(super) again: &'a Again,
    /// The epoch before, if this is not the first.
    pub(super) before: Option<(&'a Epoch, &'a Again)>,
    /// What does not follow, in words.
    pub(super) strange: Vec<String>,
}

impl Audit<'_> {
    /// All that does not follow. `issued`: emitted by the epochs before.
    pub(super) fn run(mut self, issued: u64) -> Vec<String> {
        self.clock(issued);
        let (pays, neurons) = (&self.epoch.pays, &self.epoch.neurons);
        if pays.len() == neurons.len() {
            for (uid, (pay, neuron)) in pays.iter().zip(neurons).enumerate() {
                self.neuron(uid, pay, neuron);
            }
            self.payouts();
        } else {
            self.strange(format!("{} payouts to {} neurons", pays.len(), neurons.len()));
        }
        self.strange
    }

    fn strange(&mut self, what: String) {
        self.strange.push(format!("epoch {}: {what}", self.epoch.epoch));
    }

    /// When it came, and what there was to share out.
    fn clock(&mut self, issued: u64) {
        let (epoch, rules) = (self.epoch, &self.manifest.chain.ledger);
        let (number, previous) =
            self.before.map_or((1, 0), |(before, _)| (before.epoch.saturating_add(1), before.block));
        if epoch.epoch != number {
            self.strange(format!("epoch {number} should come here"));
        }
        if epoch.previous != previous {
            self.strange(format!("the epoch before closed block {previous}, not {}", epoch.previous));
        }
        let due = previous.saturating_add(rules.subnet.tempo);
        if epoch.block != due {
            self.strange(format!("it was due in block {due}, not in {}", epoch.block));
        }
        let emission = emitted(rules, epoch.block.saturating_sub(previous), issued);
        if epoch.emission != emission {
            self.strange(format!("the blocks since {previous} emit {emission}, not {}", epoch.emission));
        }
    }

    /// Whether the neuron `uid` is as calls and the epoch before left it.
    fn neuron(&mut self, uid: usize, pay: &Pay, neuron: &Neuron) {
        let (hotkey, name) = (pay.hotkey, self.events.name(&pay.hotkey));
        let same = self.epoch.pays.iter().filter(|other| other.hotkey == hotkey).count();
        if usize::from(pay.uid) != uid || same > 1 {
            self.strange(format!("uid {uid} is not that of {name}, or {name} has another"));
        }
        let stake = self.events.nodes.iter().find(|node| node.hotkey == hotkey).map_or(0, |node| node.stake);
        if neuron.stake != stake {
            self.strange(format!("the stake of {name} is {stake}, not {}", neuron.stake));
        }
        if neuron.is_owner != (self.manifest.chain.ledger.owner == Some(hotkey)) {
            self.strange(format!("{name} is taken for the owner, or the owner for somebody else"));
        }
        if neuron.waiting_commit.is_some() {
            self.strange(format!("{name} committed to weights, which this chain does not take"));
        }
        if !self.may_have_registered(uid, pay, neuron) {
            self.strange(format!("{name} cannot have registered in block {}", neuron.registered_at));
        }
        let (bonds, permit) = self.left(uid, pay);
        if neuron.bonds != bonds {
            self.strange(format!("the bonds of {name} are not those that the epoch before left"));
        }
        if neuron.permit != permit {
            self.strange(format!("the permit of {name} is not the one that the epoch before left"));
        }
        self.weights(neuron, hotkey, &name);
    }

    /// What the epoch before had in slot `uid`, if it was the same hotkey's.
    fn was(&self, uid: usize, pay: &Pay) -> Option<&Neuron> {
        let (before, _) = self.before?;
        before.neurons.get(uid).filter(|_| before.pays.get(uid).is_some_and(|p| p.hotkey == pay.hotkey))
    }

    /// Who was there stays; who is new came since the epoch before.
    fn may_have_registered(&self, uid: usize, pay: &Pay, neuron: &Neuron) -> bool {
        match self.was(uid, pay) {
            Some(was) => neuron.registered_at == was.registered_at,
            None => {
                let since = self.before.map_or(0, |(before, _)| before.block);
                since < neuron.registered_at && neuron.registered_at <= self.epoch.block
            }
        }
    }

    /// The bonds and the permit that the epoch before left to slot `uid`. Bonds on a slot with a new tenant are void.
    fn left(&self, uid: usize, pay: &Pay) -> (Vec<(u16, u16)>, bool) {
        let (Some((before, again)), Some(_)) = (self.before, self.was(uid, pay)) else {
            return (Vec::new(), false);
        };
        let tenant = |epoch: &Epoch, uid: u16| epoch.pays.get(usize::from(uid)).map(|p| p.hotkey);
        let stands = |(target, _): &&(u16, u16)| tenant(before, *target) == tenant(self.epoch, *target);
        let bonds = again.found.bonds.get(uid).map(Vec::as_slice).unwrap_or_default();
        let permit = again.found.permits.get(uid).copied().unwrap_or_default();
        (bonds.iter().filter(stands).copied().collect(), permit)
    }

    /// Whether the weights of a neuron are those it set last.
    fn weights(&mut self, neuron: &Neuron, hotkey: Hotkey, name: &str) {
        let mut calls = self.events.weights.iter().filter(|call| call.validator == hotkey).rev();
        let call = calls.find(|call| (neuron.registered_at..=self.epoch.block).contains(&call.block));
        let (block, set) =
            call.map_or((neuron.registered_at, [].as_slice()), |call| (call.block, call.set.as_slice()));
        // On who registered since, they are void, and gone from the chain.
        let counts = |(target, _): &&(u16, u16)| {
            let to = self.epoch.neurons.get(usize::from(*target));
            to.is_none_or(|to| to.registered_at < block)
        };
        let same = neuron.weights.iter().filter(counts).eq(set.iter().filter(counts));
        if neuron.last_update != block {
            self.strange(format!("{name} set weights in block {block} last, not in {}", neuron.last_update));
        }
        if !same {
            self.strange(format!("the weights of {name} are not those it set in block {block}"));
        }
    }

    /// Whether everybody was paid what follows from what the epoch found.
    fn payouts(&mut self) {
        let (found, due) = (&self.again.found, &self.again.payout);
        for (uid, pay) in self.epoch.pays.iter().enumerate() {
            let units = |of: &[u64]| of.get(uid).copied().unwrap_or_default();
            let share = |of: &[f64]| of.get(uid).copied().unwrap_or_default();
            let (server, validator) = (units(&due.servers), units(&due.validators));
            if (server, validator) != (pay.server, pay.validator) {
                let (name, paid) = (self.events.name(&pay.hotkey), (pay.server, pay.validator));
                self.strange(format!(
                    "{name} was paid {} as a peer and {} as a validator, {server} and {validator} follow",
                    paid.0, paid.1
                ));
            }
            let (incentive, dividend) = (share(&found.incentive), share(&found.dividends));
            if (incentive, dividend) != (pay.incentive, pay.dividend) {
                let name = self.events.name(&pay.hotkey);
                self.strange(format!(
                    "incentive and dividend of {name} are {} and {}, {incentive} and {dividend} follow",
                    pay.incentive, pay.dividend
                ));
            }
        }
        let owned = self.manifest.chain.ledger.owner.is_some();
        let rest = if owned { (due.owner, due.burned) } else { (0, due.burned.saturating_add(due.owner)) };
        let (owner, burned) = (self.epoch.owner, self.epoch.burned);
        if (owner, burned) != rest {
            self.strange(format!(
                "the owner got {owner} and {burned} were burned, {} and {} follow",
                rest.0, rest.1
            ));
        }
    }
}
