//! The closing of a window: leaders in turn, statements, proofs, and everybody following.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use gauntlet::Hotkey;

use super::node::Judge;
use super::spec::{Kind, ValidatorKind};
use super::{Simulation, WindowResult};
use crate::chain::Anchor;
use crate::run::World;
use crate::run::checkpoint;
use crate::run::follower::{Followed, Follower};
use crate::run::stopwatch::Phase;
use crate::storage::ss58;

impl Simulation {
    /// Closes every window up to `w` that is still open, as far as there is time before the next one ends; who led `w`.
    /// A window nobody could close in its time is closed later, and those in which everybody waited for it are empty.
    pub(super) fn close_pending(&mut self, w: u64) -> Result<Option<Hotkey>> {
        loop {
            let Some(open) = self.judges.iter().map(|judge| judge.validator.follower.window()).max() else {
                return Ok(None);
            };
            if open > w {
                return Ok(None);
            }
            self.judge(open)?;
            let leader = self.close(open, self.run.manifest.window.opens(w + 2))?;
            if open == w || leader.is_none() {
                return Ok(leader);
            }
        }
    }

    /// Every validator that stands at window `w` judges it, unless it has.
    pub(super) fn judge(&mut self, w: u64) -> Result<()> {
        let clock = self.compute.clock().clone();
        for judge in &mut self.judges {
            let mut world = world!(self);
            let judged = clock.during(Phase::Read, || {
                judge.validator.read_commitments(&world, w)?;
                judge.validator.judge(&mut world, w)
            })?;
            if let Some(judged) = judged {
                self.times.judged(judged.facts.losses.len());
                self.log.judged(judge.validator.hotkey(), &judged)?;
            }
        }
        Ok(())
    }

    /// Leaders publish in turn, before block `end`, until the record of window `w` stands; who led.
    fn close(&mut self, w: u64, end: u64) -> Result<Option<Hotkey>> {
        let (opens, length) = (self.run.manifest.window.record_opens(w), self.run.manifest.window.record);
        let mut led = None;
        let mut turn = self.height.load(Ordering::Acquire).saturating_sub(opens).div_ceil(length);
        while opens + turn * length < end {
            self.advance_to(opens + turn * length);
            self.read_chain()?;
            self.judge(w)?;
            let Some(leader) = self.turn_of(w, turn)? else { break };
            turn += 1;
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
        self.settle(w, led)?;
        Ok(led)
    }

    /// Cuts off who misses the closing of this window, or lets them back.
    pub(super) fn set_offline(&self, w: u64, offline: bool) {
        for miner in self.miners.iter().filter(|m| m.kind == Kind::Offline(w)) {
            self.buckets.set_offline(miner.identity.hotkey(), offline);
        }
        for judge in self.judges.iter().filter(|j| j.kind == ValidatorKind::Offline(w)) {
            self.buckets.set_offline(judge.validator.hotkey(), offline);
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
        let Some(judge) = self.judges.iter_mut().find(|judge| judge.validator.hotkey() == leader) else {
            return Ok(());
        };
        if matches!(judge.kind, ValidatorKind::SilentLeader(from) if w >= from) {
            return Ok(());
        }
        let Some((mut signed, mut bundle)) = judge.validator.record(&world, w)? else { return Ok(()) };
        let validator = &judge.validator;
        if let Some(disk) = &judge.disk {
            disk.save_validator(world.run.id, validator)?;
        }
        match judge.kind {
            ValidatorKind::WithholdingLeader(at) if at == w => {
                let mut record = signed.record.clone();
                if let Some(listed) = record.accepted.first_mut() {
                    listed.content = gauntlet::Digest::of(b"an object that nobody has");
                    for (_, content) in record.commitments.iter_mut().filter(|(key, _)| *key == listed.hotkey)
                    {
                        *content = listed.content;
                    }
                }
                (signed, bundle) = (validator.sign(record)?, Vec::new());
                world.chain.anchor(leader, Anchor { window: w, record: signed.record.hash()? })?;
            }
            ValidatorKind::ForkingLeader(at) if at == w => {
                judge.withheld = Some(signed);
                return Ok(());
            }
            ValidatorKind::ForkingLeader(at) if at + 1 == w => {
                if let Some(withheld) = judge.withheld.take() {
                    world.put(&leader, &world.run.keys.record(at), &withheld.to_bytes()?)?;
                    let previous = withheld.record.hash()?;
                    signed = validator.sign(gauntlet::record::Record { previous, ..signed.record })?;
                }
            }
            ValidatorKind::FavouringLeader(from) if w >= from => {
                let mut record = signed.record.clone();
                record.selection.gather =
                    record.commitments.iter().map(|(hotkey, _)| *hotkey).take(1).collect();
                record.selection.reserve.clear();
                signed = validator.sign(record)?;
            }
            _ => {}
        }
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
        // What a store refuses now it may take in the next turn.
        if let Err(error) = validator.publish(&world, &signed, &bundle) {
            return self.log.trouble(w, &judge.name, &format!("record not published: {error:#}"));
        }
        self.log.record(w, &signed)
    }

    /// The other validators say what they think of the leader's record.
    fn state_views(&mut self, w: u64, leader: Hotkey) -> Result<()> {
        let world = world!(self);
        for judge in self.judges.iter_mut().filter(|judge| judge.validator.hotkey() != leader) {
            if let Some(signed) = judge.validator.follower.record_of(&world, w, &leader)?
                && let Some(view) = judge.validator.state_view(&world, &signed)?
            {
                self.log.view(w, judge.validator.hotkey(), leader, &view)?;
            }
        }
        Ok(())
    }

    /// Two records of one leader go on chain, by whoever saw both; whether there were any that the chain did not know.
    fn report(&mut self, w: u64) -> Result<bool> {
        let world = world!(self);
        let judges = self.judges.iter().filter(|judge| judge.kind.is_honest());
        let judges = judges.map(|judge| (judge.validator.hotkey(), &judge.validator.follower));
        let miners = self.miners.iter().filter_map(|miner| miner.peer.as_ref());
        let miners = miners.map(|peer| (peer.hotkey(), &peer.follower));
        for (by, follower) in judges.chain(miners) {
            let Some(proof) = follower.equivocation(&world)? else { continue };
            let leader = proof.first.record.leader;
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

    /// Who missed something takes the records up to window `w`, from a checkpoint where their objects are gone.
    pub(super) fn catch_up(&mut self, w: u64) -> Result<()> {
        self.read_chain()?;
        self.follow(w, None)?;
        let keep = self.run.manifest.window.keep;
        let shared = self.shared.clone();
        let world = world!(self);
        let far_behind = |follower: &Follower| keep > 0 && follower.window() + keep <= w;
        for peer in self.miners.iter_mut().filter_map(|miner| miner.peer.as_mut()) {
            if far_behind(&peer.follower)
                && let Some(joined) = checkpoint::join(&world, peer.hotkey(), shared.clone())?
                && joined.window() > peer.follower.window()
            {
                peer.follower = joined;
                peer.follower.follow(&world, w, None)?;
            }
        }
        for validator in self.judges.iter_mut().map(|judge| &mut judge.validator) {
            if far_behind(&validator.follower)
                && let Some(mut joined) = checkpoint::join(&world, validator.hotkey(), shared.clone())?
                && joined.window() > validator.follower.window()
            {
                joined.serve();
                validator.follower = joined;
                validator.follower.follow(&world, w, None)?;
            }
        }
        self.settle(w, None)
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

    /// Settles state and momentum of a window that was closed, sets weights, anchors, publishes checkpoints.
    fn settle(&mut self, w: u64, leader: Option<Hotkey>) -> Result<()> {
        let world = world!(self);
        for miner in &mut self.miners {
            if let Some(peer) = &mut miner.peer {
                peer.settle()?;
                peer.follower.forget(&world)?;
            }
        }
        for judge in &mut self.judges {
            let mut world = world!(self);
            let validator = &mut judge.validator;
            if let Some(state) = validator.settle(&world)? {
                self.log.state(validator.hotkey(), &state)?;
            }
            if leader.is_none() {
                continue;
            }
            let after = validator.afterwards(&mut world, w)?;
            if let Some(weights) = after.weights {
                self.log.weights(w, validator.hotkey(), &weights)?;
            }
            for what in after.refused {
                self.log.trouble(w, &judge.name, &what)?;
            }
            if matches!(judge.kind, ValidatorKind::GarbageAnchors(from) if w >= from) {
                // Of a window followed, of the next, and of one that nobody will see.
                for window in [w, w + 1, 1 << 40] {
                    let record = gauntlet::Digest::of(&window.to_le_bytes());
                    world.chain.anchor(validator.hotkey(), Anchor { window, record })?;
                }
            }
        }
        Ok(())
    }

    /// What the window came to, for whoever shows it.
    pub(super) fn result(&mut self, w: u64) -> Result<WindowResult> {
        let world = world!(self);
        let followed = |judge: &&Judge| judge.validator.follower.window() == w + 1;
        let disputed = match self.judges.iter().find(followed) {
            Some(judge) => judge.validator.follower.tally(&world)?.is_disputed(),
            None => false,
        };
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
        Ok(WindowResult { window: w, accepted, listed, theta, apart, disputed, ..WindowResult::default() })
    }
}

fn list(hotkeys: &[Hotkey]) -> String {
    hotkeys.iter().map(ss58::encode).collect::<Vec<_>>().join(", ")
}
