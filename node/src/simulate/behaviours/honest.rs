//! Trains on what is assigned to it.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

pub(super) struct Honest;

impl Behaviour for Honest {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        tools::train(act, &ids).map(Some)
    }
}
