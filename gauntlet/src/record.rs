//! The window record: the input set of a window as a fact, not a view (PROTOCOL section 6.0).
//!
//! One signed record a window says exactly which submissions move θ, by hash; every node applies exactly these and never
//! its own guess. Parts: contents and validity (here), the chain of records with its anchors ([`chain`]), what the other
//! validators say of it ([`agreement`]), the proof that a leader signed two ([`equivocation`]), and whose turn it is
//! ([`succession`]). The reference had none of this: every node gathered for itself and hoped for the same set
//! (R§3.7, R§4.11), and its leader was a single point of failure.
//!
//! Stored form: postcard of the fields in order; bytes that do not come back the same when written again are refused.
//! Hash: BLAKE3 of that. Signatures are checked by whoever calls, through [`Verify`].

use crate::fast_check::Check;
use crate::selection::{SELECTION_DELAY, Selection};
use crate::{Digest, Error, Hotkey, RecordFault, Signature};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use succession::Turns;

pub mod agreement;
pub mod chain;
pub mod equivocation;
pub mod succession;

/// The version of the record's form and of the rules behind it.
pub const PROTOCOL_VERSION: u16 = 1;
const SIGNED_AS: &[u8] = b"gauntlet window record v1";

/// Checks signatures; the node plugs in sr25519.
pub trait Verify {
    /// Whether `signature` is the signer's, over `message`.
    fn verify(&self, signer: &Hotkey, message: &[u8], signature: &Signature) -> bool;
}

impl<F: Fn(&Hotkey, &[u8], &Signature) -> bool> Verify for F {
    fn verify(&self, signer: &Hotkey, message: &[u8], signature: &Signature) -> bool {
        self(signer, message, signature)
    }
}

/// An accepted submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// Whose.
    pub hotkey: Hotkey,
    /// BLAKE3 of the object.
    pub content: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A window record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`PROTOCOL_VERSION`].
    pub protocol: u16,
    /// The run.
    pub run: Digest,
    /// The window w.
    pub window: u64,
    /// Hash of the record of w − 1; of the first record, the run id.
    pub previous: Digest,
    /// θ hash before w.
    pub state_before: Digest,
    /// Submissions that move θ, ascending by hotkey.
    pub accepted: Vec<Accepted>,
    /// Hash of the bundle that holds exactly these objects.
    pub bundle: Digest,
    /// Commitments seen at the deadline, ascending by hotkey.
    pub commitments: Vec<(Hotkey, Digest)>,
    /// Gather set of w + 2.
    pub selection: Selection,
    /// Block in which it was published: says whose turn it was, so that anyone can check the leader again. It is the
    /// leader's own word; a leader that antedates it meets validators that saw no record by then, and the anchor.
    pub published: u64,
    /// Who signs.
    pub leader: Hotkey,
}

/// A record with its leader's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRecord {
    /// The record.
    pub record: Record,
    /// Over [`Record::message`].
    pub signature: Signature,
}

/// How long the lists may be, from the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordLimits {
    /// Places in the gather set with the reserve.
    pub gather: usize,
    /// Bytes of a submission.
    pub object_bytes: u64,
}

/// What a record must follow on.
#[derive(Clone, Copy, Debug)]
pub struct Before<'a> {
    /// The run.
    pub run: Digest,
    /// The window that comes next.
    pub window: u64,
    /// Hash of the record before.
    pub head: Digest,
    /// The gather set of the window; `None` in the first two windows, when nobody was selected yet.
    pub gather: Option<&'a BTreeSet<Hotkey>>,
    /// What the node itself and the chain say.
    pub here: Here<'a>,
}

/// What a node takes from itself and from the chain when it checks a record.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its θ hash.
    pub state: Digest,
    /// Hotkeys registered in the finalised block that opened the window.
    pub registered: &'a BTreeSet<Hotkey>,
    /// Whose turn it is when.
    pub turns: Turns<'a>,
    /// The newest block of the chain.
    pub block: u64,
}

/// Whether the listed objects are at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// All are, and all pass.
    Complete,
    /// These are still missing: wait, ask others, apply nothing.
    Waiting(Vec<Hotkey>),
}

impl Record {
    /// The stored form. Errors: [`Error::RecordBytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        postcard::to_allocvec(self).map_err(|e| Error::RecordBytes { why: e.to_string() })
    }

    /// BLAKE3 of the stored form. Errors: [`Error::RecordBytes`].
    pub fn hash(&self) -> Result<Digest, Error> {
        Ok(Digest::of(&self.to_bytes()?))
    }

    /// What the leader signs: a name for the purpose, then the hash. Errors: [`Error::RecordBytes`].
    pub fn message(&self) -> Result<Vec<u8>, Error> {
        Ok([SIGNED_AS, &self.hash()?.0].concat())
    }

    /// Whether the record extends what we have. Errors: [`Error::Record`] with the first fault.
    pub fn check(&self, before: &Before<'_>, limits: &RecordLimits) -> Result<(), Error> {
        let fault = |fault| Err(Error::Record { window: self.window, fault });
        if self.protocol != PROTOCOL_VERSION {
            return fault(RecordFault::Protocol(self.protocol));
        }
        if self.run != before.run {
            return fault(RecordFault::Run(self.run));
        }
        if self.window != before.window {
            return fault(RecordFault::Window { next: before.window });
        }
        if self.previous != before.head {
            return fault(RecordFault::Previous(self.previous));
        }
        if self.published > before.here.block {
            return fault(RecordFault::Published(self.published));
        }
        if before.here.turns.leader(self.published) != Some(self.leader) {
            return fault(RecordFault::Leader(self.leader));
        }
        if self.state_before != before.here.state {
            return fault(RecordFault::State(self.state_before));
        }
        match self.list_fault(before, limits) {
            Some(found) => fault(found),
            None => Ok(()),
        }
    }

    /// Whether each listed object passes PROTOCOL section 5, as far as `checks` go. An object that is unknown, or not in
    /// `checks`, is waited for. Errors: [`Error::Record`] for one that fails.
    pub fn check_objects(&self, checks: &BTreeMap<Hotkey, Check>) -> Result<Objects, Error> {
        let mut waiting = Vec::new();
        for object in &self.accepted {
            match checks.get(&object.hotkey) {
                Some(Check::Passed { .. }) => {}
                Some(Check::Failed(_)) => {
                    let fault = RecordFault::Object(object.hotkey);
                    return Err(Error::Record { window: self.window, fault });
                }
                Some(Check::Unknown(_)) | None => waiting.push(object.hotkey),
            }
        }
        Ok(if waiting.is_empty() { Objects::Complete } else { Objects::Waiting(waiting) })
    }

    fn list_fault(&self, before: &Before<'_>, limits: &RecordLimits) -> Option<RecordFault> {
        let lengths = [
            (self.accepted.len() > limits.gather, "accepted"),
            (self.accepted.iter().any(|a| a.size > limits.object_bytes), "an accepted object"),
            (self.commitments.len() > before.here.registered.len(), "commitments"),
            (self.selection.gather.len() + self.selection.reserve.len() > limits.gather, "selection"),
        ];
        let selected: BTreeSet<&Hotkey> =
            self.selection.gather.iter().chain(&self.selection.reserve).collect();
        let repeated = selected.len() < self.selection.gather.len() + self.selection.reserve.len();
        let orders = [
            (!self.accepted.is_sorted_by(|a, b| a.hotkey < b.hotkey), "accepted"),
            (!self.commitments.is_sorted_by(|a, b| a.0 < b.0), "commitments"),
            (repeated || !self.selection.gather.is_sorted(), "selection"),
        ];
        let committed: BTreeMap<Hotkey, Digest> = self.commitments.iter().copied().collect();
        let named = self.commitments.iter().map(|(key, _)| key).chain(selected.iter().copied());
        let stranger = named.copied().find(|key| !before.here.registered.contains(key));
        let not_selected = |a: &&Accepted| before.gather.is_some_and(|gather| !gather.contains(&a.hotkey));
        let not_committed = |a: &&Accepted| committed.get(&a.hotkey) != Some(&a.content);
        let name = |list: &[(bool, &'static str)]| list.iter().find(|(bad, _)| *bad).map(|(_, name)| *name);
        name(&lengths)
            .map(RecordFault::Length)
            .or_else(|| name(&orders).map(RecordFault::Order))
            .or_else(|| {
                let due = self.window.checked_add(SELECTION_DELAY);
                (Some(self.selection.window) != due).then_some(RecordFault::Selection)
            })
            .or_else(|| stranger.map(RecordFault::NotRegistered))
            .or_else(|| self.accepted.iter().find(not_selected).map(|a| RecordFault::NotSelected(a.hotkey)))
            .or_else(|| self.accepted.iter().find(not_committed).map(|a| RecordFault::NotCommitted(a.hotkey)))
    }
}

impl SignedRecord {
    /// The stored form. Errors: [`Error::RecordBytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        postcard::to_allocvec(self).map_err(|e| Error::RecordBytes { why: e.to_string() })
    }

    /// Reads the stored form. Any bytes give a record or an error; whatever length they claim, no list reserves more than
    /// 1 MiB before its entries are there.
    /// Errors: [`Error::RecordBytes`], also for bytes that are not the stored form of what they say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let refuse = |why: String| Error::RecordBytes { why };
        let record: Self = postcard::from_bytes(bytes).map_err(|e| refuse(e.to_string()))?;
        if record.to_bytes()? != bytes {
            return Err(refuse("not in canonical form".to_owned()));
        }
        Ok(record)
    }

    /// Checks the signature. Errors: [`Error::Record`].
    pub fn check_signature(&self, verify: &impl Verify) -> Result<(), Error> {
        let leader = self.record.leader;
        if verify.verify(&leader, &self.record.message()?, &self.signature) {
            return Ok(());
        }
        Err(Error::Record { window: self.record.window, fault: RecordFault::Signature(leader) })
    }
}
