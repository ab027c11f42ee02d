//! How peers behave: one file each, against one trait. To add one, write a file and name it in [`make`].

mod copycat;
mod data;
mod gradient;
mod honest;
mod mixing;
mod objects;
mod sybil;
#[cfg(test)]
mod tests;
mod timing;
pub(crate) mod tools;

use std::sync::Arc;

use anyhow::Result;

use super::spec::{Kind, SybilForm, Tardy};
use crate::run::World;
use crate::run::peer::Peer;
use crate::run::theta::Theta;

/// What a peer made for a window.
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
    /// Made before a restart.
    pub(super) fn made(object: Vec<u8>) -> Self {
        Self::new(object, None)
    }

    /// Made on the common state.
    fn new(object: Vec<u8>, loss: Option<f64>) -> Self {
        Self { object, loss, state: None }
    }
}

/// A peer in a window.
pub(crate) struct Act<'a, 'w> {
    pub(crate) peer: &'a mut Peer,
    pub(crate) world: &'a mut World<'w>,
    /// The window.
    pub(crate) window: u64,
    /// Sequences its machine trains on in a window.
    pub(crate) budget: u32,
}

/// A way to take part.
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

    /// Whether it waits in every phase for the others.
    fn waits(&self) -> bool {
        false
    }

    /// Whether it shows two faces: some readers see another bucket.
    fn has_two_faces(&self) -> bool {
        false
    }
}

/// The behaviours of the peers of one entry: one each, or a group that knows of itself.
pub(crate) fn make(kind: &Kind, peers: usize) -> Vec<Box<dyn Behaviour>> {
    let each = |new: &dyn Fn() -> Box<dyn Behaviour>| (0..peers).map(|_| new()).collect();
    match kind.clone() {
        Kind::Honest | Kind::Joiner(..) | Kind::Leaver(_) | Kind::Offline(_) | Kind::Restart(_) => {
            each(&|| Box::new(honest::Honest))
        }
        Kind::Lazy => each(&|| Box::new(data::Lazy)),
        Kind::Idle => each(&|| Box::new(gradient::Idle::default())),
        Kind::Random => each(&|| Box::new(gradient::Random)),
        Kind::Zero => each(&|| Box::new(gradient::Zero)),
        Kind::SignFlip => each(&|| Box::new(gradient::SignFlip)),
        Kind::Noise(x) => each(&|| Box::new(gradient::Noise(x))),
        Kind::Stale(k) => each(&|| Box::new(data::Stale::new(k))),
        Kind::Copycat => each(&|| Box::new(copycat::Copycat::default())),
        Kind::LateCopycat => each(&|| Box::new(copycat::LateCopycat)),
        Kind::EarlyReader => each(&|| Box::new(copycat::EarlyReader::default())),
        Kind::Mixer(own) => each(&|| Box::new(mixing::Mixer { own })),
        Kind::Replayer(own) => each(&|| Box::new(mixing::Replayer { own })),
        Kind::Shuffler => each(&|| Box::new(mixing::Shuffler)),
        Kind::TwoFace => each(&|| Box::new(objects::TwoFace)),
        Kind::Eraser => each(&|| Box::new(timing::Eraser)),
        Kind::Late(Tardy::Commitment) => each(&|| Box::new(timing::Late)),
        Kind::Late(Tardy::Object) => each(&|| Box::new(timing::LateObject)),
        Kind::Absent(p) => each(&|| Box::new(timing::Absent(p))),
        Kind::Malformed => each(&|| Box::new(objects::Malformed)),
        Kind::Concentrate => each(&|| Box::new(objects::Concentrate)),
        Kind::Sybil(SybilForm::Split, _) => each(&|| Box::new(honest::Honest)),
        Kind::Sybil(form, n) => sybil::group(form, n, peers),
    }
}
