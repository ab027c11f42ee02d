//! What the files of a run hold: its events, the facts its rounds were judged by, its summary.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use gauntlet::incentive::Incentives;
use gauntlet::yuma::Neuron;
use gauntlet::{Event, EventKind, Hotkey, RoundFacts};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::cli::Usage;
use crate::simulate::spec::ValidatorKind;
use crate::storage::ss58;

/// Whether a run has come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is a summary, and every line counts.
    Ended,
    /// Files grow, or broke off where the run was killed: what counts are the windows that ended.
    Open,
}

/// A node of the run, as the events name it.
pub(super) struct Node {
    pub(super) hotkey: Hotkey,
    pub(super) name: String,
    pub(super) stake: u64,
    /// Whether it is a validator that keeps to the rules.
    pub(super) judges_honestly: bool,
}

/// An epoch's payout, and the neurons as it found them.
#[derive(Clone, Deserialize)]
pub(super) struct Epoch {
    pub(super) epoch: u64,
    pub(super) block: u64,
    pub(super) emission: u64,
    pub(super) owner: u64,
    pub(super) burned: u64,
    pub(super) previous: u64,
    /// By uid, as is `pays`.
    pub(super) neurons: Vec<Neuron>,
    pub(super) pays: Vec<Pay>,
}

/// What an epoch paid a neuron.
#[derive(Clone, Deserialize)]
pub(super) struct Pay {
    pub(super) uid: u16,
    #[serde(deserialize_with = "address")]
    pub(super) hotkey: Hotkey,
    pub(super) incentive: f64,
    pub(super) dividend: f64,
    pub(super) server: u64,
    pub(super) validator: u64,
}

/// Weights that a validator set in a block, and the split they should be of: the newest it had judged, with its window.
pub(super) struct Weights {
    pub(super) validator: Hotkey,
    pub(super) block: u64,
    pub(super) set: Vec<(u16, u16)>,
    pub(super) split: (u64, Incentives),
}

/// What `events.jsonl` holds.
#[derive(Default)]
pub(super) struct Events {
    pub(super) nodes: Vec<Node>,
    /// Events of rounds, with the validator that judged.
    pub(super) rounds: Vec<(Hotkey, Event)>,
    pub(super) epochs: Vec<Epoch>,
    pub(super) weights: Vec<Weights>,
    /// The newest split of each validator, with its window.
    splits: BTreeMap<Hotkey, (u64, Incentives)>,
}

impl Events {
    pub(super) fn read(path: &Path, stage: Stage) -> Result<Self> {
        let (mut events, mut open) = (Self::default(), Vec::new());
        lines(path, stage, |line: Value| {
            let closes = stage == Stage::Ended || matches!(line["kind"].as_str(), Some("window" | "node"));
            open.push(line);
            if closes { open.drain(..).try_for_each(|line| events.take(line)) } else { Ok(()) }
        })?;
        Ok(events)
    }

    fn take(&mut self, mut value: Value) -> Result<()> {
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match value["kind"].as_str() {
            Some("node") => self.nodes.push(Node {
                hotkey: ss58::decode(&text(&value, "hotkey"))?,
                name: text(&value, "name"),
                stake: value["stake"].as_u64().context("stake")?,
                judges_honestly: value["stake"] != 0
                    && text(&value, "behaviour").parse().is_ok_and(ValidatorKind::is_honest),
            }),
            Some("epoch") => self.epochs.push(serde_json::from_value(value)?),
            Some("weights") => {
                let validator = ss58::decode(&text(&value, "validator"))?;
                let split = self.splits.get(&validator).cloned().unwrap_or_default();
                let block = value["block"].as_u64().context("block")?;
                let set = serde_json::from_value(value["weights"].take())?;
                self.weights.push(Weights { validator, block, set, split });
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

    /// A node by hotkey (SS58 or hex) or name.
    pub(super) fn find(&self, wanted: &str) -> Result<&Node> {
        let hotkey = ss58::decode(wanted).ok().or_else(|| Hotkey::from_hex(wanted).ok());
        let found = self.nodes.iter().find(|n| n.name == wanted || Some(n.hotkey) == hotkey);
        let names = || self.nodes.iter().map(|n| n.name.as_str()).collect::<Vec<_>>().join(", ");
        found.ok_or_else(|| Usage(format!("{wanted}: nobody of this run; it had {}", names())).into())
    }

    /// The validator whose view the summary takes: the first that keeps to the rules, else the first.
    pub(super) fn observer(&self) -> Option<&Node> {
        let honest = self.nodes.iter().find(|n| n.judges_honestly);
        honest.or_else(|| self.nodes.iter().find(|n| n.stake > 0))
    }

    /// Name of a hotkey, or its address.
    pub(super) fn name(&self, hotkey: &Hotkey) -> String {
        let named = self.nodes.iter().find(|n| n.hotkey == *hotkey);
        named.map_or_else(|| ss58::encode(hotkey), |n| n.name.clone())
    }
}

/// The facts of all rounds, in the order in which they were judged.
pub(super) fn facts(path: &Path, stage: Stage) -> Result<Vec<RoundFacts>> {
    let mut all = Vec::new();
    lines(path, stage, |facts: RoundFacts| {
        all.push(facts);
        Ok(())
    })?;
    Ok(all)
}

/// Hands every line of a file of JSON lines on, but for one at the end of an open run's that is not whole. Errors name the
/// line.
fn lines<T: DeserializeOwned>(
    path: &Path,
    stage: Stage,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    let file = std::fs::File::open(path)
        .with_context(|| format!("cannot read {}; name the folder of a run with --run", path.display()))?;
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    for number in 1_u64.. {
        line.clear();
        file.read_until(b'\n', &mut line).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = line.ends_with(b"\n");
        if line.is_empty() || (stage == Stage::Open && !whole) {
            break;
        }
        let damaged = || format!("{}, line {number}: damaged, or of another version", path.display());
        take(serde_json::from_slice(&line).with_context(damaged)?).with_context(damaged)?;
    }
    Ok(())
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hotkey, D::Error> {
    let text = String::deserialize(deserializer)?;
    ss58::decode(&text).map_err(serde::de::Error::custom)
}
