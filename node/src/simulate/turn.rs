//! The closing of a window: leaders in turn, statements, proofs, and everybody following.

use anyhow::{Context, Result};
use gauntlet::Hotkey;

use super::spec::{Kind, ValidatorKind};
use super::{Simulation, WindowResult};
use crate::run::World;
use crate::run::follower::{Followed, Follower};
use crate::run::manifest::WindowSection;
use crate::storage::ss58;

impl Simulation {
    /// Leaders publish in turn until the record of window `w` stands; who led.
    pub(super) fn close(&mut self, w: u64) -> Result<Option<Hotkey>> {
        let window = self.run.manifest.window.clone();
        let opens = window.record_opens(w);
        self.set_offline(w, true);
        let turns = (window.opens(w + 1) + window.blocks).saturating_sub(opens) / window.record;
        let mut led = None;
        for turn in 0..turns {
            self.advance_to(opens + turn * window.record);
            self.read_chain()?;
            let Some(leader) = self.turn_of(w, turn)? else { break };
            self.publish(w, leader)?;
            self.state_views(w, leader)?;
            if self.report(w)? {
                continue;
            }
            self.follow(w, Some(leader))?;
            if self.judges.iter().any(|judge| judge.validator.follower.window() > w) {
                led = Some(leader);
                break;
            }
        }
        self.set_offline(w, false);
        Ok(led)
    }

    /// Cuts off who misses this window's record, or lets them back.
    fn set_offline(&self, w: u64, offline: bool) {
        for miner in self.miners.iter().filter(|m| m.kind == Kind::Offline(w)) {
            self.buckets.set_offline(miner.identity.hotkey(), offline);
        }
    }

    /// Whose turn it is, by the first validator's view: all have the same.
    fn turn_of(&mut self, w: u64, turn: u64) -> Result<Option<Hotkey>> {
        let world = world!(self);
        let Some(judge) = self.judges.first() else { return Ok(None) };
        let leaders = judge.validator.follower.leaders(&world, w)?;
        Ok(usize::try_from(turn).ok().and_then(|turn| leaders.get(turn % leaders.len().max(1)).copied()))
    }

    fn publish(&mut self, w: u64, leader: Hotkey) -> Result<()> {
        let world = world!(self);
        let Some(judge) = self.judges.iter().find(|judge| judge.validator.hotkey() == leader) else {
            return Ok(());
        };
        if matches!(judge.kind, ValidatorKind::SilentLeader(from) if w >= from) {
            return Ok(());
        }
        let validator = &judge.validator;
        let Some((signed, bundle)) = validator.record(&world, w)? else { return Ok(()) };
        if judge.kind == ValidatorKind::EquivocatingLeader(w)
            && let Some(second) = world.buckets.second(&leader)
        {
            // The other record leaves everybody out.
            let mut other = signed.record.clone();
            other.accepted.clear();
            let nothing = crate::run::bundle::seal(std::iter::empty::<&[u8]>());
            other.bundle = gauntlet::Digest::of(&nothing);
            second.put(&world.run.keys.bundle(w), &nothing)?;
            second.put(&world.run.keys.record(w), &validator.sign(other)?.to_bytes()?)?;
        } else if let Some(second) = world.buckets.second(&leader) {
            second.put(&world.run.keys.bundle(w), &bundle)?;
            second.put(&world.run.keys.record(w), &signed.to_bytes()?)?;
        }
        validator.publish(&world, &signed, &bundle)?;
        self.log.record(w, &signed)
    }

    /// The other validators say what they think of the leader's record.
    fn state_views(&mut self, w: u64, leader: Hotkey) -> Result<()> {
        let world = world!(self);
        for judge in self.judges.iter().filter(|judge| judge.validator.hotkey() != leader) {
            if let Some(signed) = judge.validator.follower.record_of(&world, w, &leader) {
                judge.validator.state_view(&world, &signed)?;
            }
        }
        Ok(())
    }

    /// Two records of one leader go on chain, by whoever saw both; whether there were any that the chain did not know.
    fn report(&mut self, w: u64) -> Result<bool> {
        let world = world!(self);
        let judges = self.judges.iter().filter(|judge| judge.kind == ValidatorKind::Honest);
        let judges = judges.map(|judge| (judge.validator.hotkey(), &judge.validator.follower));
        let miners = self.miners.iter().filter_map(|miner| miner.peer.as_ref());
        let miners = miners.map(|peer| (peer.hotkey(), &peer.follower));
        for (by, follower) in judges.chain(miners) {
            let Some(proof) = follower.equivocation(&world, w)? else { continue };
            let leader = proof.first.record.leader;
            if follower.records().barred().contains_key(&leader) {
                continue;
            }
            let bytes = postcard::to_allocvec(&proof).context("a proof has no stored form")?;
            world.chain.report_equivocation(by, &bytes)?;
            self.log.equivocation(w, by, leader)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Everybody reads proofs and anchors.
    fn read_chain(&mut self) -> Result<()> {
        let world = world!(self);
        let miners = self.miners.iter_mut().filter_map(|m| m.peer.as_mut()).map(|p| &mut p.follower);
        for follower in miners.chain(self.judges.iter_mut().map(|j| &mut j.validator.follower)) {
            follower.read_proofs(&world)?;
            follower.read_anchors(&world)?;
        }
        Ok(())
    }

    /// Everybody follows the records up to window `w`.
    fn follow(&mut self, w: u64, leader: Option<Hotkey>) -> Result<()> {
        let world = world!(self);
        let log = &mut self.log;
        let mut one = |world: &World<'_>, name: &str, follower: &mut Follower| -> Result<()> {
            match follower.follow(world, w, leader)? {
                Followed::Applied | Followed::Nothing => Ok(()),
                Followed::Missing(peers) => {
                    log.trouble(w, name, &format!("objects missing: {}", list(&peers)))
                }
                Followed::Refused(why) => log.trouble(w, name, &format!("record refused: {why}")),
            }
        };
        for judge in &mut self.judges {
            one(&world, &judge.name, &mut judge.validator.follower)?;
        }
        for miner in &mut self.miners {
            if let Some(peer) = miner.peer.as_mut().filter(|_| miner.until >= w) {
                one(&world, &miner.name, &mut peer.follower)?;
            }
        }
        Ok(())
    }

    /// Settles state and momentum, sets weights, anchors; and says what the window came to.
    pub(super) fn finish(&mut self, w: u64, leader: Option<Hotkey>) -> Result<WindowResult> {
        for miner in &mut self.miners {
            if let Some(peer) = &mut miner.peer {
                peer.settle();
            }
        }
        let every = self.run.manifest.chain.windows_per_weights;
        let WindowSection { anchor_every, checkpoint_every, .. } = self.run.manifest.window;
        for judge in &mut self.judges {
            let mut world = world!(self);
            let validator = &mut judge.validator;
            if let Some(state) = validator.settle(w) {
                self.log.state(validator.hotkey(), &state)?;
            }
            if (w + 1).is_multiple_of(every)
                && let Some(weights) = validator.set_weights(&mut world)?
            {
                self.log.weights(w, validator.hotkey(), &weights)?;
            }
            if (w + 1).is_multiple_of(anchor_every) && Some(validator.hotkey()) == leader {
                validator.anchor(&mut world, w)?;
            }
            let due = (w + 1).is_multiple_of(checkpoint_every) && validator.follower.window() == w + 1;
            if due && Some(validator.hotkey()) == leader {
                validator.checkpoint(&world)?;
            }
        }
        let accepted = self.judges.iter().find_map(|j| j.validator.follower.accepted(w));
        let listed: Vec<Hotkey> = accepted.into_iter().flatten().map(|(hotkey, _)| *hotkey).collect();
        let theta = self.observer().map_or(self.initial.hash, |judge| judge.validator.follower.theta().hash);
        let followers = self.miners.iter().filter(|m| m.until > w).filter_map(|m| m.peer.as_ref());
        let apart = followers
            .map(|peer| (peer.hotkey(), peer.follower.theta().hash))
            .chain(self.judges.iter().map(|j| (j.validator.hotkey(), j.validator.follower.theta().hash)))
            .filter(|(_, hash)| *hash != theta)
            .map(|(hotkey, _)| hotkey)
            .collect();
        let (accepted, theta) = (listed.len(), theta.to_string());
        Ok(WindowResult { window: w, leader, accepted, listed, theta, apart, ..WindowResult::default() })
    }
}

fn list(hotkeys: &[Hotkey]) -> String {
    hotkeys.iter().map(ss58::encode).collect::<Vec<_>>().join(", ")
}
