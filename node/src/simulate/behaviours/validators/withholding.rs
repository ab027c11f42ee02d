//! Lists what nobody can have.

use anyhow::Result;
use gauntlet::Digest;
use gauntlet::record::SignedRecord;

use super::{Conduct, Lead};
use crate::chain::Anchor;

/// Lists, in one window, an object that nobody has, and anchors that record.
pub(super) struct Withholding {
    pub(super) at: u64,
}

impl Conduct for Withholding {
    fn publish(
        &mut self,
        lead: &mut Lead<'_, '_>,
        signed: SignedRecord,
        bundle: Vec<u8>,
    ) -> Result<Option<SignedRecord>> {
        if lead.window != self.at {
            return lead.show(signed, &bundle);
        }
        let mut record = signed.record;
        if let Some(listed) = record.accepted.first_mut() {
            listed.content = Digest::of(b"an object that nobody has");
            for (_, content) in record.commitments.iter_mut().filter(|(key, _)| *key == listed.hotkey) {
                *content = listed.content;
            }
        }
        let signed = lead.validator.sign(record)?;
        let anchor = Anchor { window: lead.window, record: signed.record.hash()? };
        lead.world.chain.anchor(lead.validator.hotkey(), anchor)?;
        lead.show(signed, &[])
    }

    fn reports(&self) -> bool {
        false
    }
}
