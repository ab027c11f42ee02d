//! The peers of the table, as the first validator that keeps to the rules sees them.

use std::collections::BTreeMap;

use anyhow::Result;
use gauntlet::{Event, EventKind, Hotkey, explain};

use super::Row;
use crate::chain::Chain;
use crate::simulate::node::Miner;
use crate::simulate::summary::why;
use crate::simulate::{Simulation, WindowResult};

/// Gathers events as they come, so that a window costs what happened in it.
#[derive(Default)]
pub(super) struct Rows {
    /// Events of the log that were read.
    read: usize,
    /// Of each peer, and of nobody in the last window.
    of: BTreeMap<Hotkey, Vec<Event>>,
    general: Vec<Event>,
}

impl Rows {
    /// A row a peer, after a window.
    pub(super) fn of(&mut self, simulation: &Simulation, result: &WindowResult) -> Result<Vec<Row>> {
        let Some(observer) = simulation.observer() else { return Ok(Vec::new()) };
        let me = observer.validator().hotkey();
        self.general.clear();
        for (validator, event) in simulation.log.events.iter().skip(self.read) {
            if *validator == me {
                match event.kind.hotkey() {
                    Some(hotkey) => self.of.entry(*hotkey).or_default().push(event.clone()),
                    None => self.general.push(event.clone()),
                }
            }
        }
        self.read = simulation.log.events.len();
        let rules = &simulation.run.manifest.gauntlet;
        let met = simulation.log.nodes.iter().skip(simulation.judges.len());
        let row = |(miner, met): (&Miner, &crate::simulate::log::Met)| {
            let hotkey = met.hotkey;
            let own = self.of.get(&hotkey).map(Vec::as_slice).unwrap_or_default();
            let state = observer.validator().state().peers.get(&hotkey);
            let events: Vec<Event> = own.iter().chain(&self.general).cloned().collect();
            let explanation = explain(rules, &events, hotkey, result.window);
            Ok(Row {
                name: met.name.clone(),
                status: status(miner, own, result),
                proof: state.map_or(0.0, |p| p.proof),
                loss_rating: state.map_or(0.0, |p| p.rating.loss_rating()),
                share: explanation.share,
                balance: simulation.chain.balance(hotkey)?,
                why: why(&explanation),
            })
        };
        simulation.miners.iter().zip(met).map(row).collect()
    }
}

/// What a peer was in the window, in a word.
fn status(miner: &Miner, own: &[Event], result: &WindowResult) -> &'static str {
    let hotkey = miner.identity.hotkey();
    if result.window < miner.from {
        return "to come";
    }
    if result.window > miner.until {
        return "left";
    }
    if result.apart.contains(&hotkey) {
        return "apart";
    }
    if result.listed.contains(&hotkey) {
        return "accepted";
    }
    let checked = |event: &Event| match event.kind {
        EventKind::CheckFailed { .. } | EventKind::EvaluationFailed { .. } => Some("refused"),
        EventKind::CheckUnknown { .. } => Some("unread"),
        EventKind::CheckPassed { .. } => Some("spare"),
        _ => None,
    };
    let now = own.iter().rev().take_while(|event| event.window == result.window);
    now.into_iter().find_map(checked).unwrap_or("unseen")
}
