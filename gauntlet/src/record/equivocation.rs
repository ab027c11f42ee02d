//! Equivocation: two signed records of one leader for one window. Whoever shows them proves it; the leader leads no more
//! in this run (PROTOCOL section 6.0). The proof needs nothing but the two records, so every node judges it alike.

use super::{SignedRecord, Verify};
use crate::{Digest, Error, Hotkey, RecordFault};
use serde::{Deserialize, Serialize};

/// A proof that a leader signed two records for one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivocation {
    /// One of them.
    pub first: SignedRecord,
    /// The other.
    pub second: SignedRecord,
}

impl Equivocation {
    /// Who is proven to have signed both in `run`. Errors: [`Error::Record`] where they are of another run, differ in run,
    /// window or leader, are the same record, or a signature does not verify. Two signatures over one record prove nothing.
    pub fn culprit(&self, run: &Digest, verify: &impl Verify) -> Result<Hotkey, Error> {
        let (a, b) = (&self.first.record, &self.second.record);
        if a.run != *run {
            return Err(Error::Record { window: a.window, fault: RecordFault::Run(a.run) });
        }
        let same_place = (a.run, a.window, a.leader) == (b.run, b.window, b.leader);
        if !same_place || a.hash()? == b.hash()? {
            return Err(Error::Record { window: a.window, fault: RecordFault::NoProof });
        }
        self.first.check_signature(verify)?;
        self.second.check_signature(verify)?;
        Ok(a.leader)
    }
}
