//! Work of one window for all of them.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// Computes one gradient and sends it again in every window.
#[derive(Default)]
pub(super) struct Idle(Option<Vec<f32>>);

impl Behaviour for Idle {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let grads = match &self.0 {
            Some(grads) => grads,
            None => {
                let ids = act.peer.assigned(act.world, act.window, act.budget)?;
                self.0.insert(tools::gradient(act, &ids)?.0)
            }
        };
        tools::send_gradient(act, grads, None).map(Some)
    }
}
