//! A window of a simulation: the clock moves, and the nodes take the parts of each block, one after the other.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::Result;
use gauntlet::Hotkey;

use super::node::Miner;
use super::spec::{Kind, ValidatorKind};
use super::timing::Spent;
use super::{Simulation, WindowResult};
use crate::progress;
use crate::run::World;
use crate::run::conduct::Honest;
use crate::run::miner_node::MinerNode;
use crate::run::node::{Happened, Node, Part};
use crate::run::stopwatch::Phase;
use crate::run::validator_node::ValidatorNode;

/// A whole block but for the training of the next window, which belongs to the next window's result.
const CLOSING: [Part; 10] = [
    Part::CatchUp,
    Part::Commit,
    Part::Read,
    Part::Reveal,
    Part::Judge,
    Part::Publish,
    Part::State,
    Part::Report,
    Part::Follow,
    Part::Settle,
];

/// Where the time of a part goes, but for what is measured within it.
fn phase(part: Part) -> Phase {
    match part {
        Part::Train => Phase::Train,
        Part::Commit => Phase::Commit,
        Part::Reveal => Phase::Reveal,
        Part::Read | Part::Judge => Phase::Read,
        Part::CatchUp | Part::Publish | Part::State | Part::Report | Part::Follow | Part::Settle => {
            Phase::Record
        }
    }
}

/// What a window came to so far.
#[derive(Default)]
pub(super) struct Tally {
    window: u64,
    /// Sum of the losses of the honest miners' sequences, and which they are.
    loss: f64,
    ids: Vec<u64>,
    leader: Option<Hotkey>,
    /// Bytes of the submission that each miner put, by its place.
    put: BTreeMap<usize, u64>,
}

impl Simulation {
    /// Runs window `w` to its end: `train → commit → reveal → evaluate → record → apply`. None where the user stopped it
    /// while miners trained: nobody has shown anything of the window, so the run ends with the one before.
    pub(crate) fn window(&mut self, w: u64) -> Result<Option<WindowResult>> {
        let window = self.run.manifest.window.clone();
        self.tally = Tally { window: w, ..Tally::default() };
        self.advance_to(window.opens(w));
        if w > 0 {
            self.join(w)?;
        }
        // Who can only now follow what was missed can still train.
        while self.block(&Part::ALL)? {}
        if progress::stopped() {
            return Ok(None);
        }
        self.enlist(w + 1)?;
        self.advance_to(window.opens(w + 1));
        self.block(&CLOSING)?;
        self.advance_to(window.commit_deadline(w));
        self.spoil_buckets(w);
        self.set_offline(w, true);
        self.block(&CLOSING)?;
        self.watch.at(w, "closing", (0, 1))?;
        self.close(w)?;
        self.set_offline(w, false);
        let mut result = self.result(w)?;
        self.watch.at(w, "measuring", (0, 1))?;
        let clock = self.compute.clock().clone();
        clock.during(Phase::Measure, || self.measure(&mut result))?;
        let made = self.miners.iter().filter(|miner| miner.node.as_ref().is_some_and(|node| node.made(w)));
        self.times.close(w, made.count() as u64, self.compute.device_bytes()?);
        self.log.payouts(&self.chain)?;
        self.log.window(&result)?;
        Ok(Some(result))
    }

    /// The baseline's step on the sequences of the window, and what both models have learned.
    fn measure(&mut self, result: &mut WindowResult) -> Result<()> {
        let (started, before) = (Instant::now(), self.compute.busy());
        if let Some(baseline) = &mut self.baseline {
            baseline.step(&self.run, &mut self.compute, &self.tally.ids)?;
        }
        self.validate(result)?;
        let passes = self.compute.busy().saturating_sub(before);
        self.measured = self.measured.with(Spent { total: started.elapsed(), passes });
        Ok(())
    }

    /// Leaders have their turns until a validator has followed the record of window `w`, or the next window ends.
    fn close(&mut self, w: u64) -> Result<()> {
        let window = self.run.manifest.window.clone();
        let mut block = window.record_opens(w);
        while block < window.opens(w + 2) {
            self.advance_to(block);
            loop {
                let moved = self.block(&CLOSING)?;
                if self.judges.iter().any(|judge| judge.validator().follower.window() > w) {
                    return Ok(());
                }
                if !moved {
                    break;
                }
            }
            block = block.saturating_add(window.record);
        }
        Ok(())
    }

    /// All nodes take these parts of the newest block: validators first, and last the miners that wait for others; whether
    /// any moved θ.
    fn block(&mut self, parts: &[Part]) -> Result<bool> {
        let (clock, mut moved) = (self.compute.clock().clone(), false);
        for part in parts {
            moved |= clock.during(phase(*part), || self.take(*part))?;
        }
        Ok(moved)
    }

    fn take(&mut self, part: Part) -> Result<bool> {
        self.restart(part)?;
        let (block, mut moved) = (self.height.load(Ordering::Acquire), false);
        let (now, of) = (self.tally.window, self.judges.len());
        for (done, judge) in self.judges.iter_mut().enumerate() {
            if part == Part::Judge {
                self.watch.at(now, "judging", (done, of))?;
            }
            let mut happened = Vec::new();
            judge.node.take(&mut world!(self), block, part, &mut happened)?;
            for event in happened {
                match &event {
                    Happened::Followed { window, leader } => {
                        moved = true;
                        let leader = leader.filter(|_| *window == self.tally.window);
                        self.tally.leader = self.tally.leader.or(leader);
                    }
                    Happened::Judged(judged) => self.times.judged(judged.facts.losses.len()),
                    _ => {}
                }
                self.log.happened(judge.validator().hotkey(), &judge.name, &event)?;
            }
        }
        for (done, &i) in self.order.iter().enumerate() {
            if part == Part::Train {
                if progress::stopped() {
                    break;
                }
                self.watch.at(now, "training", (done, self.order.len()))?;
            }
            let Miner { name, kind, node, budget, until, .. } = &mut self.miners[i];
            // Who has left is gone.
            let Some(node) = node.as_mut().filter(|node| node.peer.follower.window() <= *until) else {
                continue;
            };
            let mut happened = Vec::new();
            node.take(&mut world!(self), block, part, &mut happened)?;
            // Noted at once: a node that is killed does not know it any more.
            self.tally.put.extend(node.peer.put(now).map(|bytes| (i, bytes)));
            for event in happened {
                match event {
                    Happened::Followed { .. } => moved = true,
                    Happened::Trained { loss: Some(loss) } if kind.is_honest() => {
                        self.tally.loss += loss * f64::from(*budget);
                        let ids = node.peer.assigned(&world!(self), self.tally.window, *budget)?;
                        self.tally.ids.extend(ids);
                    }
                    _ => {}
                }
                self.log.happened(node.peer.hotkey(), name, &event)?;
            }
        }
        Ok(moved)
    }

    /// Nodes that are killed before `part` come back with nothing but what they kept.
    fn restart(&mut self, part: Part) -> Result<()> {
        let now = self.tally.window;
        let killed = |w: u64, before: Option<Part>| w == now && before.is_none_or(|before| before == part);
        for miner in &mut self.miners {
            let Kind::Restart(w, before) = miner.kind else { continue };
            if killed(w, before)
                && let Some(disk) = miner.node.take().and_then(MinerNode::killed)
            {
                let (shared, identity) = (self.shared.clone(), miner.identity.clone());
                let node = MinerNode::restore(
                    &mut world!(self),
                    identity,
                    Box::new(Honest),
                    miner.budget,
                    disk,
                    shared,
                )?;
                miner.node = Some(node);
            }
        }
        for judge in &mut self.judges {
            let ValidatorKind::Restart(w, before) = judge.kind else { continue };
            if killed(w, before)
                && let Some(disk) = judge.node.killed()
            {
                let (shared, identity) = (self.shared.clone(), judge.validator().identity.clone());
                judge.node =
                    ValidatorNode::restore(&mut world!(self), identity, Box::new(Honest), disk, shared)?;
            }
        }
        Ok(())
    }

    /// Cuts off who misses the closing of this window, or lets them back.
    fn set_offline(&self, w: u64, offline: bool) {
        for miner in self.miners.iter().filter(|m| m.kind == Kind::Offline(w)) {
            self.buckets.set_offline(miner.identity.hotkey(), offline);
        }
        for judge in self.judges.iter().filter(|j| j.kind == ValidatorKind::Offline(w)) {
            self.buckets.set_offline(judge.validator().hotkey(), offline);
        }
    }

    /// From now on the stores of these validators fail, for those who ask for their judgements or for everybody.
    fn spoil_buckets(&self, w: u64) {
        for judge in &self.judges {
            let hotkey = judge.validator().hotkey();
            match judge.kind {
                ValidatorKind::MuteJudge(from) if w >= from => self.buckets.mute(hotkey),
                ValidatorKind::BucketDown(from) if w >= from => self.buckets.take_down(hotkey),
                _ => {}
            }
        }
    }

    /// What the window came to, for whoever shows it.
    fn result(&mut self, w: u64) -> Result<WindowResult> {
        let world = world!(self);
        let followers = || self.judges.iter().map(|judge| &judge.validator().follower);
        let disputed = match followers().find(|follower| follower.window() == w + 1) {
            Some(follower) => follower.tally(&world)?.is_disputed(),
            None => false,
        };
        let accepted = followers().find_map(|follower| follower.accepted(w));
        let listed: Vec<Hotkey> = accepted.into_iter().flatten().map(|(hotkey, _)| *hotkey).collect();
        let theta = self.theta().hash;
        let miners = self.miners.iter().filter(|m| m.until > w).filter_map(|m| m.node.as_ref());
        let apart = miners.map(|node| &node.peer.follower).chain(followers());
        let apart = apart.filter(|follower| follower.theta().hash != theta).map(|f| f.hotkey()).collect();
        let Tally { loss, ids, leader, put, .. } = &self.tally;
        let (bytes, submissions) = (put.values().sum(), put.len() as u64);
        #[allow(clippy::cast_precision_loss)] // a number of sequences
        let train_loss = (!ids.is_empty()).then(|| loss / ids.len() as f64);
        Ok(WindowResult {
            window: w,
            train_loss,
            leader: *leader,
            submissions,
            accepted: listed.len(),
            listed,
            theta: theta.to_string(),
            apart,
            bytes,
            sequences: ids.len() as u64,
            disputed,
            validation: None,
            baseline: None,
        })
    }
}
