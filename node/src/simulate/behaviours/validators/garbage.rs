//! Anchors what is no record.

use anyhow::Result;
use gauntlet::Digest;

use super::{Conduct, Lead};
use crate::chain::Anchor;

/// Honest otherwise; from a window on anchors hashes of no record.
pub(super) struct GarbageAnchors {
    pub(super) from: u64,
}

impl Conduct for GarbageAnchors {
    fn afterwards(&mut self, lead: &mut Lead<'_, '_>) -> Result<()> {
        if lead.window < self.from {
            return Ok(());
        }
        // Of a window followed, of the next, and of one that nobody will see.
        for window in [lead.window, lead.window.saturating_add(1), 1 << 40] {
            let record = Digest::of(&window.to_le_bytes());
            lead.world.chain.anchor(lead.validator.hotkey(), Anchor { window, record })?;
        }
        Ok(())
    }

    fn reports(&self) -> bool {
        false
    }
}
