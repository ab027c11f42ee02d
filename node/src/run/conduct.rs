//! What a node does where nothing can make it do what it should: a miner with its object, a validator with its turn. All
//! defaults are honest; the simulation brings others.

use std::sync::Arc;

use anyhow::Result;
use gauntlet::record::SignedRecord;

use super::World;
use super::peer::Peer;
use super::theta::Theta;
use super::validator::Validator;

/// What a miner made for a window.
#[derive(Clone)]
pub(crate) struct Draft {
    /// The signed object.
    pub(crate) object: Vec<u8>,
    /// Mean loss of the sequences trained on, where any were.
    pub(crate) loss: Option<f64>,
    /// The state it was made on, where that is not the common one.
    pub(crate) state: Option<Arc<Theta>>,
}

impl Draft {
    /// Made on the common state.
    pub(crate) fn new(object: Vec<u8>, loss: Option<f64>) -> Self {
        Self { object, loss, state: None }
    }
}

/// A miner in a window.
pub(crate) struct Act<'a, 'w> {
    pub(crate) peer: &'a mut Peer,
    pub(crate) world: &'a mut World<'w>,
    /// The window.
    pub(crate) window: u64,
    /// Sequences its machine trains on in a window.
    pub(crate) budget: u32,
}

/// A miner's conduct.
pub(crate) trait Behaviour {
    /// While the window is open: makes what it will send, or nothing.
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>>;

    /// In the commit phase.
    fn commit(&mut self, act: &mut Act<'_, '_>, draft: &Draft) -> Result<()> {
        act.peer.commit(act.world, act.window, &draft.object)
    }

    /// In the reveal phase.
    fn reveal(&mut self, act: &mut Act<'_, '_>, draft: &Draft) -> Result<()> {
        act.peer.reveal(act.world, act.window, &draft.object)
    }

    /// When the put window is over and nobody has looked yet.
    fn overdue(&mut self, _act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        Ok(())
    }

    /// When the validators have looked.
    fn afterwards(&mut self, _act: &mut Act<'_, '_>) -> Result<()> {
        Ok(())
    }
}

/// A validator in a window.
pub(crate) struct Lead<'a, 'w> {
    pub(crate) validator: &'a Validator,
    pub(crate) world: &'a mut World<'w>,
    /// The window it leads, or that was closed.
    pub(crate) window: u64,
}

impl Lead<'_, '_> {
    /// Shows a record and its bundle to everybody.
    pub(crate) fn show(&self, signed: SignedRecord, bundle: &[u8]) -> Result<Option<SignedRecord>> {
        self.validator.publish(self.world, &signed, bundle)?;
        Ok(Some(signed))
    }
}

/// A validator's conduct.
pub(crate) trait Conduct {
    /// Before it judges a window.
    fn before_judging(&mut self, _validator: &mut Validator, _window: u64) {}

    /// In its turn: shows the record it signed, and its bundle. Gives what it showed, if anything.
    fn publish(
        &mut self,
        lead: &mut Lead<'_, '_>,
        signed: SignedRecord,
        bundle: Vec<u8>,
    ) -> Result<Option<SignedRecord>> {
        lead.show(signed, &bundle)
    }

    /// When the window is closed, and it has set its weights and anchored what it followed.
    fn afterwards(&mut self, _lead: &mut Lead<'_, '_>) -> Result<()> {
        Ok(())
    }

    /// Whether it puts proofs against others on chain.
    fn reports(&self) -> bool {
        true
    }
}

/// Does what it should.
pub(crate) struct Honest;

impl Behaviour for Honest {
    /// Trains on what is assigned to it.
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        let (submission, loss) = act.peer.train(act.world, &ids)?;
        let theta = act.peer.follower.theta();
        let object = act.peer.seal(act.world, act.window, theta, &submission, act.budget)?;
        Ok(Some(Draft::new(object, Some(loss))))
    }
}

impl Conduct for Honest {}
