//! Whether all that was paid follows: facts → events of rounds → splits → weights set → weights that epochs found →
//! payouts → balances, with everything else that an epoch looks at.
//!
//! The chain of a simulation is rebuilt from what it is known to do: stakes stand from the beginning, bonds and permits
//! are those the epoch before left, epochs come every `tempo` blocks and share out what those blocks emit. Losses, and what
//! was read of commitments and objects, are the validators' word (`docs/simulate.md`).

use std::collections::BTreeMap;

use gauntlet::{Event, Hotkey, RoundFacts, State};
use serde_json::Value;

use super::epoch::Audit;
use super::events::{Events, Stage};
use super::payouts::Again;
use crate::run::manifest::Manifest;
use crate::storage::ss58;

/// States of a validator that are kept: the newest, and those before windows that it may have judged twice.
const KEPT: usize = 4;

/// An account under audit.
pub(super) struct Account<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) events: &'a Events,
    pub(super) stage: Stage,
    /// The epochs computed again.
    pub(super) again: &'a [Again],
    /// In words; empty where all follows.
    pub(super) strange: Vec<String>,
}

impl Account<'_> {
    /// Judges every round again; what it gives must be the events of that round.
    pub(super) fn rounds(&mut self, facts: &[RoundFacts]) {
        let mut told: BTreeMap<Hotkey, Vec<&Event>> = BTreeMap::new();
        for (validator, event) in &self.events.rounds {
            told.entry(*validator).or_default().push(event);
        }
        let mut read: BTreeMap<Hotkey, usize> = BTreeMap::new();
        let mut states: BTreeMap<Hotkey, Vec<State>> = BTreeMap::new();
        for facts in facts {
            let (validator, window) = (facts.window.validator, facts.window.window);
            let all = told.get(&validator).map_or(0, Vec::len);
            if self.stage == Stage::Open && read.get(&validator).copied().unwrap_or_default() >= all {
                // Of a window that has not ended.
                continue;
            }
            let states = states.entry(validator).or_default();
            // A validator that was killed judges its window again, from what it had kept before.
            let before = states.iter().rev().find(|state| state.next_window <= window);
            let finished =
                gauntlet::replay(&self.manifest.gauntlet, before.cloned().unwrap_or_default(), facts);
            let at = read.entry(validator).or_default();
            let told = told.get(&validator).and_then(|events| events.get(*at..)).unwrap_or_default();
            let same = finished.is_ok_and(|finished| {
                *at += finished.events.len();
                states.push(finished.state);
                states.drain(..states.len().saturating_sub(KEPT));
                let again = told.iter().copied().take(finished.events.len());
                again.map(text).eq(finished.events.iter().map(text))
            });
            if !same {
                let name = self.events.name(&validator);
                self.strange
                    .push(format!("events of window {window} by {name} are not those that its facts give"));
                return;
            }
        }
        for (validator, events) in told {
            if read.get(&validator).copied().unwrap_or_default() < events.len() {
                let name = self.events.name(&validator);
                self.strange.push(format!("there are events by {name} without facts"));
            }
        }
    }

    /// Weights as set are those of the splits that validators judged.
    pub(super) fn splits(&mut self) {
        let owner = self.manifest.chain.ledger.owner;
        for weights in &self.events.weights {
            let uids = self.uids_before(weights.block);
            // Who registered after the last epoch has a uid that no epoch shows, and was paid by none.
            let mut named = weights.split.1.shares.keys().chain([&weights.validator]);
            let known = named.all(|hotkey| uids.contains_key(hotkey));
            if !known && self.events.epochs.last().is_none_or(|last| last.block < weights.block) {
                continue;
            }
            let uid = |hotkey: Hotkey| uids.get(&hotkey).copied();
            let (owner, own) = (owner.and_then(uid), uid(weights.validator));
            if gauntlet::incentive::chain_weights(&weights.split.1, &uids, owner, own) != weights.set {
                let (name, window) = (self.events.name(&weights.validator), weights.split.0);
                self.strange.push(format!(
                    "weights set by {name} in block {} are not those of its split of window {window}",
                    weights.block
                ));
            }
        }
    }

    /// Who had which uid when block `block` was open: by the epoch that came next, and the one before it.
    fn uids_before(&self, block: u64) -> BTreeMap<Hotkey, u16> {
        let epochs = &self.events.epochs;
        let next = epochs.partition_point(|epoch| epoch.block < block).min(epochs.len().saturating_sub(1));
        let mut tenants = BTreeMap::new();
        for epoch in epochs.get(next.saturating_sub(1)..).into_iter().flatten().take(2) {
            for (pay, neuron) in epoch.pays.iter().zip(&epoch.neurons) {
                if neuron.registered_at < block {
                    tenants.insert(pay.uid, pay.hotkey);
                }
            }
        }
        tenants.into_iter().map(|(uid, hotkey)| (hotkey, uid)).collect()
    }

    /// Each epoch came when it was due, found what had been left to it, and paid what follows.
    pub(super) fn epochs(&mut self) {
        let (events, manifest, mut issued) = (self.events, self.manifest, 0_u64);
        let mut before = None;
        for (epoch, again) in events.epochs.iter().zip(self.again) {
            let audit = Audit { manifest, events, epoch, again, before, strange: Vec::new() };
            self.strange.extend(audit.run(issued));
            issued = issued.saturating_add(epoch.emission);
            before = Some((epoch, again));
        }
    }

    /// The sums are the balances, and the rest of what the summary says of the chain.
    pub(super) fn balances(&mut self, summary: &Value) {
        let mut strange = |what: String| self.strange.push(format!("summary.json: {what}"));
        if self.manifest.id().is_ok_and(|id| summary["run"] != id.to_string()) {
            strange("it is of another run than manifest.toml".into());
        }
        let mut listed = 0;
        for node in ["validators", "peers"].iter().filter_map(|list| summary[*list].as_array()).flatten() {
            listed += 1;
            let Some(known) = self.events.nodes.iter().find(|n| node["hotkey"] == ss58::encode(&n.hotkey))
            else {
                strange(format!("{} is no node of the events", node["hotkey"]));
                continue;
            };
            let pays = self.events.epochs.iter().flat_map(|epoch| &epoch.pays);
            let paid = total(pays.filter(|p| p.hotkey == known.hotkey).flat_map(|p| [p.server, p.validator]));
            if node["balance"] != paid {
                strange(format!(
                    "the balance of {} is {}, its payouts are {paid}",
                    known.name, node["balance"]
                ));
            }
            if !node["stake"].is_null() && node["stake"] != known.stake {
                strange(format!(
                    "the stake of {} is {}, by the events {}",
                    known.name, node["stake"], known.stake
                ));
            }
        }
        if listed != self.events.nodes.len() {
            strange(format!("it lists {listed} nodes, the events {}", self.events.nodes.len()));
        }
        let (epochs, chain) = (&self.events.epochs, &summary["chain"]);
        let pays = || epochs.iter().flat_map(|epoch| &epoch.pays);
        for (key, found) in [
            ("epochs", epochs.len() as u64),
            ("emission", total(epochs.iter().map(|epoch| epoch.emission))),
            ("burned", total(epochs.iter().map(|epoch| epoch.burned))),
            ("paid_to_peers", total(pays().map(|pay| pay.server))),
            ("paid_to_validators", total(pays().map(|pay| pay.validator))),
        ] {
            if chain[key] != found {
                strange(format!("chain.{key} is {}, the epochs give {found}", chain[key]));
            }
        }
        let due = chain["blocks"].as_u64().unwrap_or_default() / self.manifest.chain.ledger.subnet.tempo;
        if due != epochs.len() as u64 {
            strange(format!("{} blocks make {due} epochs, not {}", chain["blocks"], epochs.len()));
        }
    }
}

/// An event as it is written: what is not a number equals itself there.
fn text(event: &Event) -> Option<String> {
    serde_json::to_string(event).ok()
}

/// A sum that a file of any numbers cannot overflow.
fn total(parts: impl Iterator<Item = u64>) -> u64 {
    parts.fold(0, u64::saturating_add)
}
