//! `agree/{hotkey}`: what a validator says of a record, together with the record it saw, so that two records of one
//! leader meet (PROTOCOL 6.0).

use anyhow::{Context, Result};
use gauntlet::record::SignedRecord;
use gauntlet::record::agreement::{Statement, View};
use serde::{Deserialize, Serialize};

use super::identity::{Identity, verify};

/// A statement with the record it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Said {
    pub(crate) statement: Statement,
    pub(crate) seen: SignedRecord,
}

impl Said {
    /// Signs a view of a record.
    pub(crate) fn new(identity: &Identity, seen: &SignedRecord, view: View) -> Result<Self> {
        let record = seen.record.hash()?;
        let signature = identity.sign(&Statement::message(&record, &view)?);
        let statement = Statement { record, validator: identity.hotkey(), view, signature };
        Ok(Self { statement, seen: seen.clone() })
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        postcard::to_allocvec(self).context("a statement has no stored form")
    }

    /// Reads a statement; `None` for bytes that are none, or that no validator signed.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (said, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let Statement { record, validator, view, signature } = &said.statement;
        let about = said.seen.record.hash().ok()? == *record;
        let signed = verify(validator, &Statement::message(record, view).ok()?, signature);
        (rest.is_empty() && about && signed && said.seen.check_signature(&verify).is_ok()).then_some(said)
    }
}

/// Bytes that no statement exceeds, where no record exceeds `record`.
pub(crate) fn limit(record: u64) -> u64 {
    record + 512
}
