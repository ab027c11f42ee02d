//! `gauntlet explain`: why a peer earned what it earned, from the events of a run alone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use gauntlet::incentive::{Incentives, chain_weights};
use gauntlet::yuma::emission::payout;
use gauntlet::yuma::{self, Neuron};
use gauntlet::{Event, EventKind, Hotkey, explain};
use serde::Deserialize;
use serde_json::{Value, json};

use super::simulate::MANIFEST;
use crate::chain::UNITS;
use crate::cli::Usage;
use crate::output;
use crate::run::manifest::Manifest;
use crate::simulate::log::EVENTS;
use crate::storage::ss58;

/// Say why a peer earned what it earned, and what would raise it.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The peer: its hotkey or its name in the run.
    hotkey: String,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Window to explain [default: the last].
    #[arg(long)]
    window: Option<u64>,
    /// Validator whose view is taken, by hotkey or name [default: the first].
    #[arg(long)]
    validator: Option<String>,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

/// A node of the run, as the events name it.
struct Node {
    hotkey: Hotkey,
    name: String,
    stake: u64,
}

/// An epoch's payout, as the events hold it.
#[derive(Clone, Deserialize)]
struct Epoch {
    epoch: u64,
    block: u64,
    emission: u64,
    previous: u64,
    neurons: Vec<Neuron>,
    pays: Vec<Pay>,
}

#[derive(Clone, Deserialize)]
struct Pay {
    uid: u16,
    hotkey: String,
    server: u64,
    validator: u64,
}

/// What the file holds.
#[derive(Default)]
struct Events {
    nodes: Vec<Node>,
    rounds: Vec<(Hotkey, Event)>,
    epochs: Vec<Epoch>,
    /// The newest split of each validator, with its window.
    splits: BTreeMap<Hotkey, (u64, Incentives)>,
    weights: Vec<Weights>,
}

/// Weights that a validator set, and the split they are of.
struct Weights {
    validator: Hotkey,
    set: Vec<(u16, u16)>,
    split: (u64, Incentives),
}

/// What an epoch paid the peer.
struct Line {
    epoch: u64,
    block: u64,
    /// What each validator gave it: name, share of the active stake, share of that validator's weights.
    weights: Vec<(String, f64, f64)>,
    /// Weight that enough stake stands behind; what lies above it is cut.
    consensus: f64,
    /// Its share of what peers get, and of what validators get.
    incentive: f64,
    dividend: f64,
    paid: u64,
    /// The same, computed again from the weights, stakes and bonds that the epoch found.
    recomputed: u64,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<()> {
    let manifest = Manifest::read(&args.run.join(MANIFEST))?;
    let events = Events::read(&args.run.join(EVENTS))?;
    let peer = events.find(&args.hotkey)?;
    let validator = match &args.validator {
        Some(name) => events.find(name)?.hotkey,
        None => {
            events.nodes.iter().find(|n| n.stake > 0).map(|n| n.hotkey).context("the run has no validator")?
        }
    };
    let rounds: Vec<Event> =
        events.rounds.iter().filter(|(by, _)| *by == validator).map(|(_, event)| event.clone()).collect();
    let last = rounds.iter().map(|e| e.window).max();
    let Some(window) = args.window.or(last) else {
        bail!("{}: no window was judged by {}", args.run.display(), ss58::encode(&validator));
    };
    let explanation = explain(&manifest.gauntlet, &rounds, peer.hotkey, window);
    let lines = events.payouts(&manifest, &peer.hotkey);
    let total = lines.iter().fold(0_u64, |sum, line| sum.saturating_add(line.paid));
    let strange = if lines.is_empty() { Vec::new() } else { events.strange_weights(&manifest) };
    let accounted = strange.is_empty() && lines.iter().all(|line| line.recomputed == line.paid);
    if output::wants_json(args.json) {
        let payouts = lines.iter().map(|l| {
            json!({
                "epoch": l.epoch, "block": l.block, "weights": l.weights, "consensus": l.consensus,
                "incentive": l.incentive, "dividend": l.dividend, "paid": l.paid, "recomputed": l.recomputed,
            })
        });
        let result = json!({
            "name": peer.name, "hotkey": ss58::encode(&peer.hotkey), "validator": ss58::encode(&validator),
            "explanation": explanation, "payouts": payouts.collect::<Vec<Value>>(), "balance": total,
            "accounted": accounted, "strange_weights": strange,
        });
        return output::text(&format!("{result:#}\n"));
    }
    let mut text = format!("{} ({})\n{explanation}", peer.name, ss58::encode(&peer.hotkey));
    text += "  payouts by the chain\n";
    for line in lines.iter().filter(|line| line.paid > 0) {
        let follows = if line.recomputed == line.paid { "follows" } else { "DOES NOT follow" };
        text += &format!("    epoch {}, block {}\n", line.epoch, line.block);
        for (name, stake, weight) in &line.weights {
            text += &format!(
                "      {name}, with {:.1} % of the stake, gave it {weight:.6} of its weights\n",
                stake * 100.0
            );
        }
        text += &format!(
            "      consensus {:.6}, incentive {:.6}, dividend {:.6}: {} units, which {follows} from the weights\n",
            line.consensus, line.incentive, line.dividend, line.paid
        );
    }
    for (name, window) in &strange {
        text += &format!("    {name} set weights after window {window} that are NOT those of its split\n");
    }
    #[allow(clippy::cast_precision_loss)] // shown in tokens; the units stand beside
    let tokens = total as f64 / UNITS as f64;
    text += &format!("  balance         {total} units = {tokens:.9} tokens, the sum of the lines above\n");
    output::text(&text)
}

impl Events {
    fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path).with_context(|| {
            format!("cannot read {}; name the folder of a run with --run", path.display())
        })?;
        let mut events = Self::default();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.with_context(|| format!("cannot read {}", path.display()))?;
            let damaged = || format!("{}, line {}: not an event", path.display(), number + 1);
            let value: Value = serde_json::from_str(&line).with_context(damaged)?;
            events.take(value).with_context(damaged)?;
        }
        Ok(events)
    }

    fn take(&mut self, mut value: Value) -> Result<()> {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match value["kind"].as_str() {
            Some("node") => self.nodes.push(Node {
                hotkey: ss58::decode(&text(&value, "hotkey"))?,
                name: text(&value, "name"),
                stake: value["stake"].as_u64().unwrap_or_default(),
            }),
            Some("epoch") => self.epochs.push(serde_json::from_value(value)?),
            Some("weights") => {
                let validator = ss58::decode(&text(&value, "validator"))?;
                let split = self.splits.get(&validator).cloned().unwrap_or_default();
                let set = serde_json::from_value(value["weights"].take())?;
                self.weights.push(Weights { validator, set, split });
            }
            Some(_) => {}
            None => {
                let validator = ss58::decode(&text(&value, "validator"))?;
                if let Some(map) = value.as_object_mut() {
                    map.remove("validator");
                }
                let event: Event = serde_json::from_value(value)?;
                self.split(validator, &event);
                self.rounds.push((validator, event));
            }
        }
        Ok(())
    }

    /// Gathers the split of a window from its events.
    fn split(&mut self, validator: Hotkey, event: &Event) {
        let split = self.splits.entry(validator).or_default();
        if split.0 != event.window {
            *split = (event.window, Incentives::default());
        }
        match &event.kind {
            EventKind::Paid { hotkey, share } => {
                split.1.shares.insert(*hotkey, *share);
            }
            EventKind::Split { burn, .. } => split.1.burn = *burn,
            _ => {}
        }
    }

    /// Validators whose weights on chain are not those of the split they judged, with the window.
    fn strange_weights(&self, manifest: &Manifest) -> Vec<(String, u64)> {
        let pays = self.epochs.last().map(|epoch| epoch.pays.as_slice()).unwrap_or_default();
        let uids: BTreeMap<Hotkey, u16> =
            pays.iter().filter_map(|pay| Some((ss58::decode(&pay.hotkey).ok()?, pay.uid))).collect();
        let owner = manifest.chain.ledger.owner.and_then(|owner| uids.get(&owner).copied());
        let strange = |w: &&Weights| chain_weights(&w.split.1, &uids, owner) != w.set;
        let named = |w: &Weights| (self.name(&ss58::encode(&w.validator)), w.split.0);
        self.weights.iter().filter(strange).map(named).collect()
    }

    /// A node by hotkey (SS58 or hex) or name.
    fn find(&self, wanted: &str) -> Result<&Node> {
        let hotkey = ss58::decode(wanted).ok().or_else(|| Hotkey::from_hex(wanted).ok());
        let found = self.nodes.iter().find(|n| n.name == wanted || Some(n.hotkey) == hotkey);
        let names = || self.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Usage(format!("{wanted}: nobody of this run; it had {}", names())).into())
    }

    /// What each epoch paid, with the same computed again from what the epoch found.
    fn payouts(&self, manifest: &Manifest, hotkey: &Hotkey) -> Vec<Line> {
        let address = ss58::encode(hotkey);
        let rules = &manifest.chain.ledger.subnet;
        let line = |epoch: &Epoch| {
            let pay = epoch.pays.iter().find(|p| p.hotkey == address)?;
            let uid = usize::from(pay.uid);
            let neurons = &epoch.neurons;
            let found = yuma::epoch(&rules.yuma, neurons, epoch.block, epoch.previous);
            let owners: Vec<bool> = neurons.iter().map(|n| n.is_owner).collect();
            let (servers, validators) = (&found.server_share, &found.validator_share);
            let again = payout(&rules.emission, epoch.emission, servers, validators, &owners);
            let active = yuma::mask::active_stake(&rules.yuma, neurons, &found.stake, epoch.block);
            let rows: Vec<usize> = (0..neurons.len()).filter(|uid| neurons[*uid].permit).collect();
            let matrix = yuma::mask::weights(neurons, &rows);
            let given = |(row, by): (usize, &usize)| {
                let name =
                    epoch.pays.iter().find(|p| usize::from(p.uid) == *by).map(|p| self.name(&p.hotkey))?;
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
                recomputed: units(&again.servers).saturating_add(units(&again.validators)),
            })
        };
        self.epochs.iter().filter_map(line).collect()
    }

    /// Name of the node with this address, or the address.
    fn name(&self, address: &str) -> String {
        let named = self.nodes.iter().find(|n| ss58::encode(&n.hotkey) == address);
        named.map_or(address.to_owned(), |n| n.name.clone())
    }
}
