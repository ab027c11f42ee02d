//! Tries to replace the past.

use anyhow::Result;
use gauntlet::record::{Record, SignedRecord};

use super::{Conduct, Lead};

/// Says nothing in its turn of one window, and in the next shows a record of that turn with another on top of it.
pub(super) struct Forking {
    pub(super) at: u64,
    /// The record it keeps for later.
    pub(super) withheld: Option<SignedRecord>,
}

impl Conduct for Forking {
    fn publish(
        &mut self,
        lead: &mut Lead<'_, '_>,
        mut signed: SignedRecord,
        bundle: Vec<u8>,
    ) -> Result<Option<SignedRecord>> {
        if lead.window == self.at {
            self.withheld = Some(signed);
            return Ok(None);
        }
        if lead.window.checked_sub(1) == Some(self.at)
            && let Some(withheld) = self.withheld.take()
        {
            let key = lead.world.run.keys.record(self.at);
            lead.world.put(&lead.validator.hotkey(), &key, &withheld.to_bytes()?)?;
            let previous = withheld.record.hash()?;
            signed = lead.validator.sign(Record { previous, ..signed.record })?;
        }
        lead.show(signed, &bundle)
    }

    fn reports(&self) -> bool {
        false
    }
}
