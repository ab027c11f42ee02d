//! Falls silent.

use anyhow::Result;
use gauntlet::record::SignedRecord;

use super::{Conduct, Lead};

/// Publishes no record from a window on.
pub(super) struct Silent {
    pub(super) from: u64,
}

impl Conduct for Silent {
    fn publish(
        &mut self,
        lead: &mut Lead<'_, '_>,
        signed: SignedRecord,
        bundle: Vec<u8>,
    ) -> Result<Option<SignedRecord>> {
        if lead.window >= self.from { Ok(None) } else { lead.show(signed, &bundle) }
    }

    fn reports(&self) -> bool {
        false
    }
}
