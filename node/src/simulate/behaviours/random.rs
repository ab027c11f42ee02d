//! No work at all.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// Noise in place of a gradient.
pub(super) struct Random;

impl Behaviour for Random {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let noise = tools::normal(act, act.world.run.layout.total());
        tools::send_gradient(act, &noise, None).map(Some)
    }
}
