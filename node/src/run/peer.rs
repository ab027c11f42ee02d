//! A miner: trains on what is assigned to it, commits, reveals, follows.

use std::sync::Arc;

use anyhow::Result;
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::object::{self, Header, KIND_DEMO};
use gauntlet_demo::{Pending, Recorded, Submission};

use super::follower::Follower;
use super::identity::Identity;
use super::records::named;
use super::stopwatch::Phase;
use super::theta::Theta;
use super::{World, commitment, values};
use crate::device::demo::Momentum;

/// A miner with its state.
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    pub(crate) follower: Follower,
    momentum: Momentum,
    /// The window of the last submission, until it is known whether its record lists it.
    unsettled: Option<u64>,
    /// Window and bytes of the object that this process put last.
    put: Option<(u64, u64)>,
}

impl Peer {
    /// A miner at `follower`'s place, with momentum 0.
    pub(crate) fn new(world: &World<'_>, identity: Identity, follower: Follower) -> Result<Self> {
        let momentum = world.compute.momentum(&world.run.demo, &world.run.format)?;
        Ok(Self { identity, follower, momentum, unsettled: None, put: None })
    }

    pub(crate) fn hotkey(&self) -> Hotkey {
        self.identity.hotkey()
    }

    /// What a restart needs: the momentum, and the window whose record has still to say whether it lists this peer.
    pub(super) fn memory(&self) -> (&Momentum, Option<u64>) {
        (&self.momentum, self.unsettled)
    }

    /// Goes on from a saved memory. Errors: coefficients or a submission of another model.
    pub(super) fn remember(
        &mut self,
        coefficients: &[f32],
        submissions: u64,
        waiting: Option<Pending>,
        unsettled: Option<u64>,
    ) -> Result<()> {
        self.momentum.restore(coefficients, submissions)?;
        if let Some(waiting) = waiting {
            self.momentum.restore_pending(waiting)?;
        }
        self.unsettled = unsettled;
        Ok(())
    }

    /// The first `n` sequences of D_p in window `w`.
    pub(crate) fn assigned(&self, world: &World<'_>, w: u64, n: u32) -> Result<Vec<u64>> {
        let assignment = world.run.assignment(&world.opening(w)?, &self.hotkey())?;
        Ok((0..u64::from(n)).map(|i| assignment.at(i)).collect())
    }

    /// Mean gradient over `ids` at θ, taken up by the momentum: what an honest peer sends. Gives the mean loss too.
    pub(crate) fn train(&mut self, world: &mut World<'_>, ids: &[u64]) -> Result<(Submission, f64)> {
        let theta = Arc::clone(self.follower.theta());
        let loss = world.compute.gradient(&world.run.corpus.train, &theta, ids)?;
        Ok((self.take_up(world)?, loss))
    }

    /// The momentum takes up the gradient that was computed or set last.
    pub(crate) fn take_up(&mut self, world: &mut World<'_>) -> Result<Submission> {
        let lr = world.run.learning_rate(self.follower.theta().steps);
        let sent = world.compute.take_up(&mut self.momentum, lr)?;
        self.unsettled = Some(self.follower.window());
        Ok(sent)
    }

    /// The signed object for `w`, made on `theta`.
    pub(crate) fn seal(
        &self,
        world: &World<'_>,
        w: u64,
        theta: &Theta,
        submission: &Submission,
        count: u32,
    ) -> Result<Vec<u8>> {
        let (hotkey, opening) = (self.hotkey().0, world.opening(w)?.0);
        Ok(world.compute.clock().during(Phase::Encode, || {
            let state_tag = gauntlet_demo::state_tag(&theta.values, w, &opening, &hotkey);
            let header = Header { kind: KIND_DEMO, run: world.run.id.0, window: w, hotkey, count, state_tag };
            object::seal(&header, &submission.encode(), self.identity.keypair())
        }))
    }

    /// Puts the commitment to `object` for window `w`.
    pub(crate) fn commit(&self, world: &World<'_>, w: u64, object: &[u8]) -> Result<()> {
        self.commit_to(world, w, &Digest::of(object))
    }

    /// Puts a commitment to a hash.
    pub(crate) fn commit_to(&self, world: &World<'_>, w: u64, content: &Digest) -> Result<()> {
        let bytes = commitment::seal(&self.identity, &world.run.id, w, content);
        world.put(&self.hotkey(), &world.run.keys.commitment(w, &self.hotkey()), &bytes)
    }

    /// Publishes values of `theta`, for SyncScore.
    pub(crate) fn publish_values(&self, world: &World<'_>, w: u64, theta: &Theta) -> Result<()> {
        let values = values::of(&theta.values, &world.run.id, &world.opening(w)?);
        let bytes = values::seal(&self.identity, &world.run.id, w, &values);
        world.put(&self.hotkey(), &world.run.keys.values(w, &self.hotkey()), &bytes)
    }

    /// Puts the object itself, once its commitment can no longer be used by anyone.
    pub(crate) fn reveal(&mut self, world: &World<'_>, w: u64, object: &[u8]) -> Result<()> {
        world.put(&self.hotkey(), &world.run.keys.submission(w, &self.hotkey()), object)?;
        self.put = Some((w, object.len() as u64));
        Ok(())
    }

    /// Bytes of the object that this process put for window `w`; none where it put none.
    pub(crate) fn put(&self, w: u64) -> Option<u64> {
        self.put.filter(|(window, _)| *window == w).map(|(_, bytes)| bytes)
    }

    /// Tells the momentum whether the record of the last submission lists it; whether it did. Call after following. What
    /// cannot be read yet is asked again, until the next submission.
    pub(crate) fn settle(&mut self, world: &World<'_>) -> Result<bool> {
        let Some(w) = self.unsettled.filter(|w| *w < self.follower.window()) else { return Ok(false) };
        let Some(listed) = self.listed(world, w)? else { return Ok(false) };
        self.momentum.settle(if listed { Recorded::Yes } else { Recorded::No })?;
        self.unsettled = None;
        Ok(true)
    }

    /// Whether the record of window `w` lists this miner, if that can be known.
    fn listed(&self, world: &World<'_>, w: u64) -> Result<Option<bool>> {
        let me = self.hotkey();
        if let Some(all) = self.follower.accepted(w) {
            return Ok(Some(all.iter().any(|(hotkey, _)| *hotkey == me)));
        }
        let Some(record) = self.follower.followed().get(&w) else { return Ok(None) };
        let found = named(world, &me, w, *record)?;
        Ok(found.map(|signed| signed.record.accepted.iter().any(|accepted| accepted.hotkey == me)))
    }
}
