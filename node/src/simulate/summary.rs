//! `summary.json`: what a run came to. No times in it: the same manifest, seed and program give the same bytes.

use std::collections::BTreeMap;

use anyhow::Result;
use gauntlet::explain::Explanation;
use gauntlet::{Event, EventKind, FailReason, Hotkey};
use serde::Serialize;

use super::settings::Settings;
use super::{Simulation, WindowResult};
use crate::chain::{Chain, EpochPay};
use crate::run::manifest::Manifest;
use crate::storage::ss58;

/// The summary.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) version: &'static str,
    pub(crate) run: String,
    pub(crate) manifest: Manifest,
    pub(crate) corpus: String,
    pub(crate) seed: u64,
    pub(crate) windows: u64,
    /// Whether somebody stopped it before the last window that was asked for.
    pub(crate) interrupted: bool,
    pub(crate) parameters: usize,
    /// Tokens that honest peers trained on.
    pub(crate) honest_tokens: u64,
    pub(crate) theta_hash: String,
    /// Windows that were not closed by a record.
    pub(crate) stalled: u64,
    /// Windows whose record more stake differed from than agreed with.
    pub(crate) disputed: Vec<u64>,
    /// Whether all nodes that follow the rules ended with that θ.
    pub(crate) all_agree: bool,
    /// On held-out text, in nats a token and bits a byte; of the network and of the baseline.
    pub(crate) validation_loss: Option<f64>,
    pub(crate) baseline_loss: Option<f64>,
    pub(crate) bits_per_byte: Option<f64>,
    /// Mean bytes of a submission.
    pub(crate) submission_bytes: f64,
    pub(crate) chain: ChainSummary,
    pub(crate) validators: Vec<ValidatorSummary>,
    pub(crate) peers: Vec<PeerSummary>,
    pub(crate) behaviours: Vec<BehaviourSummary>,
}

/// What the chain paid.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChainSummary {
    pub(crate) blocks: u64,
    pub(crate) epochs: u64,
    /// In smallest units; the sum of all balances and what was burned.
    pub(crate) emission: u64,
    pub(crate) burned: u64,
    pub(crate) paid_to_peers: u64,
    pub(crate) paid_to_validators: u64,
    /// Whether the parts add up to the emission, exactly.
    pub(crate) adds_up: bool,
}

/// A validator.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ValidatorSummary {
    pub(crate) name: String,
    pub(crate) hotkey: String,
    pub(crate) behaviour: String,
    pub(crate) stake: u64,
    pub(crate) balance: u64,
    /// Windows it led.
    pub(crate) led: u64,
    pub(crate) agrees: bool,
}

/// A peer, by the first validator that follows the rules.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PeerSummary {
    pub(crate) name: String,
    pub(crate) hotkey: String,
    pub(crate) behaviour: String,
    pub(crate) honest: bool,
    pub(crate) speed: f64,
    /// μ_p.
    pub(crate) proof: f64,
    pub(crate) loss_rating: f64,
    pub(crate) score: f64,
    /// Steps its newest published values lie from the validator's; none where it published none.
    pub(crate) sync: Option<f64>,
    pub(crate) evaluations: u32,
    pub(crate) submissions: u64,
    /// Windows in which its submission moved θ.
    pub(crate) accepted: u64,
    /// Checks that failed, by reason.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Mean share of the split over all windows.
    pub(crate) incentive: f64,
    /// Earned, in smallest units.
    pub(crate) balance: u64,
    /// Earned, against the mean of the honest peers.
    pub(crate) of_honest_mean: f64,
    pub(crate) agrees: bool,
    /// Why it earns what it earns, in words.
    pub(crate) why: String,
}

/// All peers of one behaviour.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BehaviourSummary {
    pub(crate) behaviour: String,
    pub(crate) speed: f64,
    pub(crate) peers: usize,
    /// Mean income against the mean of the honest peers.
    pub(crate) of_honest_mean: f64,
    /// The same summed over the peers: what one machine earned that is all identities of a `sybil`.
    pub(crate) in_all: f64,
}

impl Simulation {
    /// Sums the run up, and closes its log.
    pub(crate) fn summary(&mut self, settings: &Settings) -> Result<Summary> {
        self.log.payouts(&self.chain)?;
        self.log.flush()?;
        let epochs = self.chain.history(0)?;
        let windows: Vec<WindowResult> = self.log.windows.clone();
        let last = windows.last().cloned().unwrap_or_default();
        let theta = self.theta().hash;
        let graph = self.chain.metagraph()?;
        let (peers, honest_mean) = self.peers(&windows)?;
        let behaviours = behaviours(&peers);
        let validators: Vec<ValidatorSummary> = self
            .judges
            .iter()
            .map(|judge| {
                let hotkey = judge.validator().hotkey();
                Ok(ValidatorSummary {
                    name: judge.name.clone(),
                    hotkey: ss58::encode(&hotkey),
                    behaviour: judge.kind.to_string(),
                    stake: graph.neuron(&hotkey).map_or(0, |n| n.stake),
                    balance: self.chain.balance(hotkey)?,
                    led: windows.iter().filter(|w| w.leader == Some(hotkey)).count() as u64,
                    agrees: judge.validator().follower.theta().hash == theta,
                })
            })
            .collect::<Result<_>>()?;
        let all_agree = peers.iter().all(|p| p.agrees || !p.honest)
            && self.judges.iter().zip(&validators).all(|(judge, v)| v.agrees || !judge.kind.is_honest());
        let data = self.run.corpus.validation.as_ref();
        let bits = |loss: f64| data.map(|data| crate::train::bits_per_byte(loss, data));
        let (bytes, sent): (u64, u64) =
            windows.iter().fold((0, 0), |(bytes, sent), w| (bytes + w.bytes, sent + w.submissions));
        #[allow(clippy::cast_precision_loss)] // numbers of bytes and objects
        let submission_bytes = bytes as f64 / sent.max(1) as f64;
        debug_assert!(honest_mean >= 0.0);
        Ok(Summary {
            version: env!("CARGO_PKG_VERSION"),
            run: self.run.id.to_string(),
            manifest: self.run.manifest.clone(),
            corpus: self.run.corpus.source.clone(),
            seed: settings.seed,
            windows: windows.len() as u64,
            interrupted: (windows.len() as u64) < settings.windows,
            parameters: self.run.layout.total(),
            honest_tokens: windows.iter().map(|w| w.sequences).sum::<u64>()
                * self.run.manifest.data.seq as u64,
            theta_hash: theta.to_string(),
            stalled: self
                .observer()
                .map_or(0, |j| (windows.len() as u64).saturating_sub(j.validator().follower.window())),
            disputed: windows.iter().filter(|w| w.disputed).map(|w| w.window).collect(),
            all_agree,
            validation_loss: last.validation,
            baseline_loss: last.baseline,
            bits_per_byte: last.validation.and_then(bits),
            submission_bytes,
            chain: chain(&epochs, graph.block, self)?,
            validators,
            peers,
            behaviours,
        })
    }

    fn peers(&self, windows: &[WindowResult]) -> Result<(Vec<PeerSummary>, f64)> {
        let Some(observer) = self.observer() else { return Ok((Vec::new(), 0.0)) };
        let me = observer.validator().hotkey();
        let events: Vec<Event> = self
            .log
            .events
            .iter()
            .filter(|(validator, _)| *validator == me)
            .map(|(_, e)| e.clone())
            .collect();
        let rules = &self.run.manifest.gauntlet;
        let theta = observer.validator().follower.theta().hash;
        let last = windows.len().saturating_sub(1) as u64;
        let mut peers = Vec::new();
        for (miner, met) in self.miners.iter().zip(self.log.nodes.iter().skip(self.judges.len())) {
            let hotkey = met.hotkey;
            let state = observer.validator().state().peers.get(&hotkey);
            let score = state.map(|peer| gauntlet::peer_score::peer_score(rules, peer).score);
            let explanation = gauntlet::explain(rules, &events, hotkey, last);
            let why = why(&explanation);
            peers.push(PeerSummary {
                name: met.name.clone(),
                hotkey: ss58::encode(&hotkey),
                behaviour: met.behaviour.clone(),
                honest: miner.kind.is_honest(),
                speed: met.speed,
                proof: state.map_or(0.0, |p| p.proof),
                loss_rating: state.map_or(0.0, |p| p.rating.loss_rating()),
                score: score.unwrap_or(0.0),
                sync: explanation.last_sync.as_ref().and_then(|sync| sync.steps),
                evaluations: state.map_or(0, |p| p.evaluations),
                submissions: state.map_or(0, |p| p.commitments),
                accepted: windows.iter().filter(|w| w.listed.contains(&hotkey)).count() as u64,
                failures: failures(&events, &hotkey),
                incentive: mean_share(&events, &hotkey, windows.len()),
                balance: self.chain.balance(hotkey)?,
                of_honest_mean: 0.0,
                agrees: !(miner.from..miner.until).contains(&last)
                    || miner.node.as_ref().is_some_and(|node| node.peer.follower.theta().hash == theta),
                why,
            });
        }
        let whole = |p: &&PeerSummary| p.behaviour == "honest";
        let honest: Vec<u64> = peers.iter().filter(whole).map(|p| p.balance).collect();
        #[allow(clippy::cast_precision_loss)] // shown as a ratio
        let mean = honest.iter().sum::<u64>() as f64 / honest.len().max(1) as f64;
        #[allow(clippy::cast_precision_loss)]
        peers.iter_mut().for_each(|p| {
            p.of_honest_mean = if mean > 0.0 { p.balance as f64 / mean } else { 0.0 };
        });
        Ok((peers, mean))
    }
}

fn chain(epochs: &[EpochPay], blocks: u64, simulation: &Simulation) -> Result<ChainSummary> {
    let sum = |part: fn(&EpochPay) -> u64| epochs.iter().map(part).sum::<u64>();
    let paid_to_peers = sum(|e| e.pay.iter().map(|p| p.server).sum());
    let paid_to_validators = sum(|e| e.pay.iter().map(|p| p.validator).sum());
    let (emission, burned, owner) = (sum(|e| e.emission), sum(|e| e.burned), sum(|e| e.owner));
    let mut balances = 0;
    for met in &simulation.log.nodes {
        balances += simulation.chain.balance(met.hotkey)?;
    }
    let parts = paid_to_peers + paid_to_validators + burned + owner;
    let adds_up = parts == emission && balances == paid_to_peers + paid_to_validators;
    let epochs = epochs.len() as u64;
    Ok(ChainSummary { blocks, epochs, emission, burned, paid_to_peers, paid_to_validators, adds_up })
}

/// Why a peer earns what it earns, in words: what presses most.
pub(crate) fn why(explanation: &Explanation) -> String {
    explanation.advice.first().map_or("earns its share".to_owned(), ToString::to_string)
}

/// A reason without its details.
fn reason(reason: FailReason) -> String {
    match serde_json::to_value(reason) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(serde_json::Value::Object(map)) => map.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

fn failures(events: &[Event], hotkey: &Hotkey) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        if let EventKind::CheckFailed { hotkey: of, reason: why, .. } = &event.kind
            && of == hotkey
        {
            *counts.entry(reason(*why)).or_default() += 1;
        }
    }
    counts
}

fn mean_share(events: &[Event], hotkey: &Hotkey, windows: usize) -> f64 {
    let share = |e: &Event| match &e.kind {
        EventKind::Paid { hotkey: of, share } if of == hotkey => Some(*share),
        _ => None,
    };
    #[allow(clippy::cast_precision_loss)] // a number of windows
    let windows = windows.max(1) as f64;
    // A sum of nothing is −0.
    events.iter().filter_map(share).fold(0.0, |a, b| a + b) / windows
}

fn behaviours(peers: &[PeerSummary]) -> Vec<BehaviourSummary> {
    let mut groups: Vec<BehaviourSummary> = Vec::new();
    for peer in peers {
        let same = |g: &&mut BehaviourSummary| g.behaviour == peer.behaviour && g.speed == peer.speed;
        match groups.iter_mut().find(same) {
            Some(group) => {
                group.peers += 1;
                group.in_all += peer.of_honest_mean;
            }
            None => groups.push(BehaviourSummary {
                behaviour: peer.behaviour.clone(),
                speed: peer.speed,
                peers: 1,
                of_honest_mean: 0.0,
                in_all: peer.of_honest_mean,
            }),
        }
    }
    #[allow(clippy::cast_precision_loss)] // a number of peers
    groups.iter_mut().for_each(|g| g.of_honest_mean = g.in_all / g.peers as f64);
    groups
}
