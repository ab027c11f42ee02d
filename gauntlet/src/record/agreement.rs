//! Agreement: what the other validators say of a record, `agree` or `differs(hotkey, reason)` (PROTOCOL section 6.0).
//!
//! A statement changes no θ: the record stays the input set. It shows a leader that leaves out or slips in submissions,
//! and [`Tally`] weighs it by stake. What a validator does not know is no difference.

use super::{Record, Verify};
use crate::fast_check::{Check, FailReason};
use crate::selection::Selection;
use crate::submission::Commitment;
use crate::{Digest, Error, Hotkey, Signature};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const SIGNED_AS: &[u8] = b"gauntlet record statement v1";

/// What a validator says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// It would have listed the same, as far as it knows.
    Agree,
    /// It would not.
    Differs {
        /// Over whom.
        hotkey: Hotkey,
        /// Why.
        reason: Difference,
    },
}

/// Where a record differs from what a validator saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// A listed object fails.
    Fails(FailReason),
    /// An object that passes, of a gather peer, is not listed.
    LeftOut,
    /// A listed commitment is another than the one read at the deadline.
    Commitment,
    /// The gather set of two windows on is another than the one that follows from the leader's published state.
    Selection,
    /// The leader's published judgement cannot be read, or contradicts the chain, the record, or its own past: nobody can
    /// say what selection follows.
    Judgement,
}

/// What a validator saw itself.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The gather set of the window.
    pub gather: &'a BTreeSet<Hotkey>,
    /// Commitments, as read at the deadline.
    pub commitments: &'a BTreeMap<Hotkey, Commitment>,
    /// Results of the checks.
    pub checks: &'a BTreeMap<Hotkey, Check>,
    /// The gather set of two windows on, judged again from the leader's facts ([`crate::replay`]); `None` where these
    /// are not known.
    pub selection: Option<&'a Selection>,
}

/// A signed view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Hash of the record.
    pub record: Digest,
    /// Who says it.
    pub validator: Hotkey,
    /// What.
    pub view: View,
    /// Over [`Statement::message`].
    pub signature: Signature,
}

impl Statement {
    /// What is signed: a name for the purpose, the record's hash, the view. Errors: [`Error::RecordBytes`].
    pub fn message(record: &Digest, view: &View) -> Result<Vec<u8>, Error> {
        let view = postcard::to_allocvec(view).map_err(|e| Error::RecordBytes { why: e.to_string() })?;
        Ok([SIGNED_AS, &record.0, &view].concat())
    }
}

/// Compares a record with what this validator saw: the first difference by hotkey, that of the selection last, or
/// agreement.
pub fn compare(record: &Record, seen: &Seen<'_>) -> View {
    let Seen { gather, commitments, checks, selection } = *seen;
    let listed: BTreeSet<Hotkey> = record.accepted.iter().map(|a| a.hotkey).collect();
    let theirs: BTreeMap<Hotkey, Digest> = record.commitments.iter().copied().collect();
    let everybody: BTreeSet<&Hotkey> =
        listed.iter().chain(gather).chain(theirs.keys()).chain(commitments.keys()).collect();
    let difference = |hotkey: &Hotkey| {
        let commitment = match commitments.get(hotkey) {
            Some(Commitment::InTime(digest)) => theirs.get(hotkey) != Some(digest),
            Some(Commitment::Late | Commitment::Absent) => theirs.contains_key(hotkey),
            Some(Commitment::Unknown(_)) | None => false,
        };
        match checks.get(hotkey) {
            Some(Check::Failed(reason)) if listed.contains(hotkey) => Some(Difference::Fails(*reason)),
            _ if commitment => Some(Difference::Commitment),
            Some(Check::Passed { .. }) if gather.contains(hotkey) && !listed.contains(hotkey) => {
                Some(Difference::LeftOut)
            }
            _ => None,
        }
    };
    let selected = || {
        let hotkey = differently_placed(&record.selection, selection?)?;
        Some((hotkey, Difference::Selection))
    };
    let found = everybody.into_iter().find_map(|hotkey| difference(hotkey).map(|reason| (*hotkey, reason)));
    found.or_else(selected).map_or(View::Agree, |(hotkey, reason)| View::Differs { hotkey, reason })
}

/// The first hotkey that two selections do not give the same place: none, the gather set, or one in the reserve.
fn differently_placed(a: &Selection, b: &Selection) -> Option<Hotkey> {
    let places = |s: &Selection| -> BTreeMap<Hotkey, usize> {
        let reserve = s.reserve.iter().enumerate().map(|(i, key)| (*key, i + 1));
        s.gather.iter().map(|key| (*key, 0)).chain(reserve).collect()
    };
    let (a, b) = (places(a), places(b));
    a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).min().copied()
}

/// Stake behind each view of one record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Stake that agrees.
    pub agree: u64,
    /// Stake that differs.
    pub differ: u64,
    /// Stake that said nothing valid, or both things.
    pub silent: u64,
}

impl Tally {
    /// Counts statements about `record`. A validator whose valid statements contradict each other counts as silent.
    /// Errors: [`Error::RecordBytes`].
    pub fn count(
        record: &Digest,
        statements: &[Statement],
        stakes: &BTreeMap<Hotkey, u64>,
        verify: &impl Verify,
    ) -> Result<Self, Error> {
        let mut views: BTreeMap<Hotkey, Option<View>> = BTreeMap::new();
        for said in
            statements.iter().filter(|said| said.record == *record && stakes.contains_key(&said.validator))
        {
            if verify.verify(&said.validator, &Statement::message(record, &said.view)?, &said.signature) {
                let known = views.entry(said.validator).or_insert(Some(said.view));
                *known = known.filter(|view| *view == said.view);
            }
        }
        let mut tally = Self::default();
        for (validator, stake) in stakes {
            let side = match views.get(validator).copied().flatten() {
                Some(View::Agree) => &mut tally.agree,
                Some(View::Differs { .. }) => &mut tally.differ,
                None => &mut tally.silent,
            };
            *side = side.saturating_add(*stake);
        }
        Ok(tally)
    }

    /// More stake differs than agrees: people should look.
    pub fn is_disputed(&self) -> bool {
        self.differ > self.agree
    }
}
