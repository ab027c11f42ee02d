//! Selects its friends.

use anyhow::Result;
use gauntlet::record::SignedRecord;

use super::{Conduct, Lead};

/// From a window on selects the miner of the lowest hotkey, and nobody else.
pub(super) struct Favouring {
    pub(super) from: u64,
}

impl Conduct for Favouring {
    fn publish(
        &mut self,
        lead: &mut Lead<'_, '_>,
        signed: SignedRecord,
        bundle: Vec<u8>,
    ) -> Result<Option<SignedRecord>> {
        if lead.window < self.from {
            return lead.show(signed, &bundle);
        }
        let mut record = signed.record;
        record.selection.gather = record.commitments.iter().map(|(hotkey, _)| *hotkey).take(1).collect();
        record.selection.reserve.clear();
        let signed = lead.validator.sign(record)?;
        lead.show(signed, &bundle)
    }

    fn reports(&self) -> bool {
        false
    }
}
