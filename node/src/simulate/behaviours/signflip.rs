//! Work against everybody's.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// The honest gradient, turned around.
pub(super) struct SignFlip;

impl Behaviour for SignFlip {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        let (mut grads, loss) = tools::gradient(act, &ids)?;
        grads.iter_mut().for_each(|g| *g = -*g);
        tools::send_gradient(act, &grads, Some(loss)).map(Some)
    }
}
