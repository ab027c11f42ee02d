//! No work at all, and nothing sent.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// Nothing at all, signed.
pub(super) struct Zero;

impl Behaviour for Zero {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        tools::send_gradient(act, &vec![0.0; act.world.run.layout.total()], None).map(Some)
    }
}
