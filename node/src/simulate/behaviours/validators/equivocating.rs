//! Signs two records.

use anyhow::Result;
use gauntlet::Digest;
use gauntlet::record::SignedRecord;

use super::{Conduct, Lead};
use crate::run::bundle;

/// Shows half of the readers, in one window, another record: one that leaves everybody out.
pub(super) struct Equivocating {
    pub(super) at: u64,
}

impl Conduct for Equivocating {
    fn publish(
        &mut self,
        lead: &mut Lead<'_, '_>,
        signed: SignedRecord,
        bundle: Vec<u8>,
    ) -> Result<Option<SignedRecord>> {
        let (w, keys) = (lead.window, &lead.world.run.keys);
        let second = lead.world.buckets.second(&lead.validator.hotkey());
        if let Some(second) = second.filter(|_| w == self.at) {
            let mut record = signed.record.clone();
            record.accepted.clear();
            let objects = bundle::seal(std::iter::empty::<&[u8]>());
            record.bundle = Digest::of(&objects);
            second.put(&keys.bundle(w), &objects)?;
            second.put(&keys.record(w), &lead.validator.sign(record)?.to_bytes()?)?;
        }
        lead.show(signed, &bundle)
    }

    fn reports(&self) -> bool {
        false
    }
}
