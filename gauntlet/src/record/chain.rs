//! The chain of records as a node follows it: head, gather sets to come, barred leaders, and the last anchor.
//!
//! A record's hash is anchored on chain every `anchor_every` windows. A node keeps θ of the last anchor; where the chain
//! shows another hash for a window than the node followed, it rolls back to that θ and replays (PROTOCOL section 6.0).
//! The hash that the chain showed is kept: in that window no other record is taken again.

use super::{Before, Here, RecordLimits, SignedRecord, Verify};
use crate::selection::{SELECTION_DELAY, Selection};
use crate::{Digest, Error, Hotkey, RecordFault};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What a node knows of the records so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordChain {
    run: Digest,
    next_window: u64,
    head: Digest,
    selections: BTreeMap<u64, Selection>,
    barred: BTreeMap<Hotkey, u64>,
    anchor: Anchor,
    since_anchor: BTreeMap<u64, Digest>,
    pending: BTreeMap<u64, Digest>,
}

/// The last point both the chain and the node agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The window after the anchored record: where replay starts.
    pub next_window: u64,
    /// Hash of that record; the run id at the start.
    pub head: Digest,
    /// Gather sets known there.
    pub selections: BTreeMap<u64, Selection>,
}

/// What an anchor seen on chain means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchored {
    /// It is the record the node followed: θ before `next_window` is what to keep.
    Confirmed {
        /// The window after it.
        next_window: u64,
    },
    /// Another record is anchored: go back to θ before `next_window` and replay the anchored chain from there.
    RollBack {
        /// The window to replay first.
        next_window: u64,
    },
    /// It is of a window before the last anchor: known.
    Old,
    /// It is of a window not followed yet.
    Ahead,
}

impl RecordChain {
    /// The chain of a run before its first record, in `window`.
    pub fn new(run: Digest, window: u64) -> Self {
        let anchor = Anchor { next_window: window, head: run, selections: BTreeMap::new() };
        let barred = BTreeMap::new();
        let (selections, since_anchor, pending) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { run, next_window: window, head: run, selections, barred, anchor, since_anchor, pending }
    }

    /// The window whose record comes next.
    pub fn next_window(&self) -> u64 {
        self.next_window
    }

    /// Hash of the newest record.
    pub fn head(&self) -> Digest {
        self.head
    }

    /// Leaders proven to have signed two records, with the window from which they lead no more.
    pub fn barred(&self) -> &BTreeMap<Hotkey, u64> {
        &self.barred
    }

    /// The last anchor.
    pub fn anchor(&self) -> &Anchor {
        &self.anchor
    }

    /// The gather set of a window, once the record two windows before is known.
    pub fn gather(&self, window: u64) -> Option<BTreeSet<Hotkey>> {
        self.selections.get(&window).map(|s| s.gather.iter().chain(&s.reserve).copied().collect())
    }

    /// Takes the next record, on top of our own θ. Errors: [`Error::Record`]; nothing changes then.
    pub fn extend(
        &mut self,
        signed: &SignedRecord,
        here: &Here<'_>,
        limits: &RecordLimits,
        verify: &impl Verify,
    ) -> Result<(), Error> {
        let record = &signed.record;
        if self.barred.get(&record.leader).is_some_and(|from| record.window >= *from) {
            return Err(Error::Record { window: record.window, fault: RecordFault::Barred(record.leader) });
        }
        let gather = self.gather(self.next_window);
        let before = Before {
            run: self.run,
            window: self.next_window,
            head: self.head,
            gather: gather.as_ref(),
            here: *here,
        };
        record.check(&before, limits)?;
        signed.check_signature(verify)?;
        let hash = record.hash()?;
        if let Some(anchored) = self.pending.get(&record.window).filter(|anchored| **anchored != hash) {
            return Err(Error::Record { window: record.window, fault: RecordFault::Anchored(*anchored) });
        }
        self.head = hash;
        self.since_anchor.insert(record.window, self.head);
        self.selections.insert(record.selection.window, record.selection.clone());
        self.next_window = record.window.saturating_add(1);
        self.selections.retain(|window, _| *window >= self.anchor.next_window);
        Ok(())
    }

    /// Bars a leader from window `from` on, for the rest of the run; what it led before stays valid, so a replay takes it
    /// again. `culprit` is what [`Equivocation::culprit`] gives of a proof. All nodes must use the same `from`, read off the
    /// chain: the window that the finalised block with the proof falls in, or later. The earliest counts where several are
    /// given.
    ///
    /// [`Equivocation::culprit`]: super::equivocation::Equivocation::culprit
    pub fn bar(&mut self, culprit: Hotkey, from: u64) {
        self.barred.entry(culprit).and_modify(|known| *known = from.min(*known)).or_insert(from);
    }

    /// Takes an anchor seen in a finalised block: hash `head` for the record of `window`. After a roll-back the chain
    /// stands at the last anchor and takes records from there on, of `window` only the anchored one; barred leaders stay
    /// barred. An anchor ahead of the chain is kept too; a caller hands it in again once the window is followed.
    pub fn anchored(&mut self, window: u64, head: Digest) -> Anchored {
        if window < self.anchor.next_window {
            return Anchored::Old;
        }
        match self.since_anchor.get(&window) {
            None => {
                self.pending.insert(window, head);
                Anchored::Ahead
            }
            Some(ours) if *ours == head => {
                let selections = self
                    .selections
                    .clone()
                    .into_iter()
                    .filter(|(w, _)| *w <= window.saturating_add(SELECTION_DELAY));
                let next_window = window.saturating_add(1);
                self.anchor = Anchor { next_window, head, selections: selections.collect() };
                self.since_anchor.retain(|w, _| *w > window);
                self.pending.retain(|w, _| *w > window);
                Anchored::Confirmed { next_window }
            }
            Some(_) => {
                self.next_window = self.anchor.next_window;
                self.head = self.anchor.head;
                self.selections = self.anchor.selections.clone();
                self.since_anchor.clear();
                self.pending.insert(window, head);
                Anchored::RollBack { next_window: self.next_window }
            }
        }
    }
}
