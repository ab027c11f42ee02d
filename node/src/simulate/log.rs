//! `events.jsonl`: everything that happened in a run, one JSON object a line, in order (an epoch's payouts at the end of
//! the window that ran it); and each validator's state.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gauntlet::record::SignedRecord;
use gauntlet::{Event, Hotkey, State};
use serde::Serialize;
use serde_json::json;

use super::WindowResult;
use crate::chain::{EpochPay, Ledger};
use crate::run::node::Happened;
use crate::run::validator::{Judged, Stated};
use crate::storage::ss58;

/// Name of the file in a run folder.
pub(crate) const EVENTS: &str = "events.jsonl";

/// Name of the file of facts.
pub(crate) const FACTS: &str = "facts.jsonl";

/// A node, as far as a report needs it.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) hotkey: Hotkey,
    pub(crate) name: String,
    pub(crate) behaviour: String,
    pub(crate) speed: f64,
}

/// Writes the files, and remembers what a summary is made of.
pub(crate) struct Log {
    file: Lines,
    /// `facts.jsonl`: what each round was judged by, so that anyone can judge it again.
    facts: Lines,
    states: PathBuf,
    pub(crate) nodes: Vec<Met>,
    /// Events of each validator's rounds.
    pub(crate) events: Vec<(Hotkey, Event)>,
    pub(crate) windows: Vec<WindowResult>,
    pub(crate) troubles: Vec<(u64, String, String)>,
    /// The last epoch that is in the file.
    epoch: u64,
}

/// A file of JSON lines, to which what a window came to is added at once.
struct Lines {
    path: PathBuf,
    file: File,
    /// Lines of the window that is open.
    open: Vec<u8>,
}

impl Lines {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, file, open: Vec::new() })
    }

    fn add(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.open, line)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        self.open.push(b'\n');
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let written = self.file.write_all(&self.open);
        self.open.clear();
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A validator's event with its window.
#[derive(Serialize)]
struct Line<'a> {
    validator: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl Log {
    /// Creates the files in `out`.
    pub(crate) fn create(out: &Path) -> Result<Self> {
        let (file, facts) = (Lines::create(out.join(EVENTS))?, Lines::create(out.join(FACTS))?);
        let states = out.join("states");
        std::fs::create_dir_all(&states).with_context(|| format!("cannot create {}", states.display()))?;
        let (nodes, events, windows, troubles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { file, facts, states, nodes, events, windows, troubles, epoch: 0 })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        self.file.add(line)
    }

    /// A node of the run.
    pub(crate) fn meet(
        &mut self,
        hotkey: Hotkey,
        name: &str,
        behaviour: &str,
        speed: f64,
        stake: u64,
    ) -> Result<()> {
        let (name, behaviour) = (name.to_owned(), behaviour.to_owned());
        self.line(&json!({
            "kind": "node", "hotkey": ss58::encode(&hotkey), "name": name, "behaviour": behaviour, "speed": speed,
            "stake": stake,
        }))?;
        self.nodes.push(Met { hotkey, name, behaviour, speed });
        Ok(())
    }

    /// Something that a node did.
    pub(crate) fn happened(&mut self, by: Hotkey, name: &str, event: &Happened) -> Result<()> {
        match event {
            Happened::Judged(judged) => self.judged(by, judged),
            Happened::Published(signed) => self.record(signed),
            Happened::Stated { window, leader, stated } => self.view(*window, by, *leader, stated),
            Happened::Reported { window, leader } => self.equivocation(*window, by, *leader),
            Happened::Weighed { window, block, weights } => self.weights(*window, by, *block, weights),
            Happened::Trouble { window, what } => self.trouble(*window, name, what),
            Happened::Settled(state) => self.state(by, state),
            Happened::Trained { .. } | Happened::Followed { .. } => Ok(()),
        }
    }

    /// A round of a validator.
    fn judged(&mut self, validator: Hotkey, judged: &Judged) -> Result<()> {
        self.facts.add(&judged.facts)?;
        for event in &judged.finished.events {
            self.line(&Line { validator: ss58::encode(&validator), event })?;
            self.events.push((validator, event.clone()));
        }
        Ok(())
    }

    /// A record as published.
    fn record(&mut self, signed: &SignedRecord) -> Result<()> {
        let record = &signed.record;
        let accepted: Vec<String> = record.accepted.iter().map(|a| ss58::encode(&a.hotkey)).collect();
        self.line(&json!({
            "kind": "record", "window": record.window, "leader": ss58::encode(&record.leader), "hash": record.hash()?,
            "accepted": accepted, "commitments": record.commitments.len(), "state_before": record.state_before,
        }))
    }

    /// What a validator says of a leader's record.
    fn view(&mut self, window: u64, by: Hotkey, leader: Hotkey, stated: &Stated) -> Result<()> {
        let mut line = json!({
            "kind": "statement", "window": window, "validator": ss58::encode(&by),
            "leader": ss58::encode(&leader), "view": stated.view,
        });
        if let Some(why) = stated.why {
            line["why"] = why.into();
        }
        self.line(&line)
    }

    /// A proof that went on chain.
    fn equivocation(&mut self, window: u64, by: Hotkey, leader: Hotkey) -> Result<()> {
        self.line(&json!({
            "kind": "equivocation", "window": window, "by": ss58::encode(&by), "leader": ss58::encode(&leader),
        }))
    }

    /// A node that joined in `window`, where its own state was that of window `from`.
    pub(crate) fn joined(&mut self, window: u64, node: &str, from: u64) -> Result<()> {
        self.line(&json!({ "kind": "joined", "window": window, "node": node, "from": from }))
    }

    /// A node that could not follow a record.
    fn trouble(&mut self, window: u64, node: &str, what: &str) -> Result<()> {
        self.troubles.push((window, node.to_owned(), what.to_owned()));
        self.line(&json!({ "kind": "trouble", "window": window, "node": node, "what": what }))
    }

    /// Weights as set on chain, in block `block`.
    fn weights(&mut self, window: u64, by: Hotkey, block: u64, weights: &[(u16, u16)]) -> Result<()> {
        self.line(&json!({
            "kind": "weights", "window": window, "validator": ss58::encode(&by), "block": block, "weights": weights,
        }))
    }

    /// Payouts of the epochs that ran since the last call.
    pub(crate) fn payouts(&mut self, chain: &Ledger) -> Result<()> {
        for pay in chain.history(self.epoch + 1)? {
            self.payout(&pay)?;
            self.epoch = pay.epoch;
        }
        Ok(())
    }

    fn payout(&mut self, pay: &EpochPay) -> Result<()> {
        let pays = pay.pay.iter().map(|p| {
            json!({
                "uid": p.uid, "hotkey": ss58::encode(&p.hotkey), "incentive": p.incentive, "dividend": p.dividend,
                "server": p.server, "validator": p.validator,
            })
        });
        self.line(&json!({
            "kind": "epoch", "epoch": pay.epoch, "block": pay.block, "emission": pay.emission,
            "owner": pay.owner, "burned": pay.burned, "previous": pay.previous, "neurons": pay.neurons, "pays": pays.collect::<Vec<_>>(),
        }))
    }

    /// A window that ended. What came up to here is in the files, whatever happens to the program.
    pub(crate) fn window(&mut self, result: &WindowResult) -> Result<()> {
        let mut line = json!({ "kind": "window" });
        if let (Some(line), serde_json::Value::Object(result)) = (line.as_object_mut(), json!(result)) {
            line.extend(result);
        }
        self.line(&line)?;
        self.windows.push(result.clone());
        self.flush()
    }

    /// A validator's state, kept with every window.
    fn state(&mut self, validator: Hotkey, state: &State) -> Result<()> {
        let path = self.states.join(format!("{}.state", ss58::encode(&validator)));
        crate::files::write(&path, state.to_bytes()?)
    }

    /// All that happened is in the files: facts first, so that a program that is killed leaves none out.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.facts.write()?;
        self.file.write()
    }
}
