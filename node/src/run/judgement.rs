//! `judge/{hotkey}`: by what a validator judged a window, and what it remembered of each peer before. Anyone can judge the
//! window again from it, and so see whether a leader's choice of the gather set follows from its own facts (PROTOCOL 7.8).
//!
//! Compared are: the seed, the step, who took part with what stake, the gather set and the commitments with chain and
//! record, and the state before with the one that the leader's judgement of the window before ended in, where that was
//! judged again. Losses, overlaps and checks of peers that are not listed are the validator's word.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use gauntlet::facts::{Role, RoundFacts, WindowFacts};
use gauntlet::record::Record;
use gauntlet::selection::Selection;
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Hotkey, Signature, State, replay};
use serde::{Deserialize, Serialize};

use super::World;
use super::identity::{Identity, verify};
use crate::chain::Roster;

/// What is signed starts with this.
const SIGNED_AS: &[u8] = b"gauntlet judgement v1";

/// A signed judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Judgement {
    /// [`State::to_bytes`] before the window.
    pub(crate) before: Vec<u8>,
    pub(crate) facts: RoundFacts,
    /// Over BLAKE3 of [`SIGNED_AS`], the hash of `before`, the facts; by the validator that the facts name.
    pub(crate) signature: Signature,
}

impl Judgement {
    pub(crate) fn new(identity: &Identity, before: &State, facts: RoundFacts) -> Result<Self> {
        let before = before.to_bytes()?;
        let signature = identity.sign(&message(&before, &facts)?);
        Ok(Self { before, facts, signature })
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        postcard::to_allocvec(self).context("a judgement has no stored form")
    }

    /// Reads a judgement; `None` for bytes that are none, or that its validator did not sign.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (judgement, rest) = postcard::take_from_bytes::<Self>(bytes).ok()?;
        let message = message(&judgement.before, &judgement.facts).ok()?;
        let signed = verify(&judgement.facts.window.validator, &message, &judgement.signature);
        (rest.is_empty() && signed).then_some(judgement)
    }
}

fn message(before: &[u8], facts: &RoundFacts) -> Result<Vec<u8>> {
    let facts = postcard::to_allocvec(facts).context("facts have no stored form")?;
    Ok([SIGNED_AS, &Digest::of(before).0, &facts].concat())
}

/// Bytes that no honest judgement of a run exceeds: what is known of everybody registered, and overlaps of all that are
/// looked at with one another and with what was accepted lately.
pub(crate) fn limit(world: &World<'_>) -> u64 {
    let rules = &world.run.manifest.gauntlet;
    let registered = u64::from(world.run.manifest.chain.ledger.subnet.registry.max_uids);
    let places = u64::from(rules.selection.places) + u64::from(rules.selection.reserve);
    let looked_at = registered.min(places.saturating_add(u64::from(rules.fast.sample)));
    let accepted = rules.overlap.replay_windows.saturating_mul(places);
    let overlaps = looked_at.saturating_mul(looked_at.saturating_add(accepted));
    (1 << 20_u64) + registered.saturating_mul(4_096).saturating_add(overlaps.saturating_mul(96))
}

/// What another validator's judgement came to when it was judged again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Audit {
    /// The selection that follows from it, and the hash of the state it ends in.
    Follows(Selection, Digest),
    /// It contradicts what everybody can see.
    Contradicts(&'static str),
    /// It could not be read.
    Unknown,
}

/// What an audit compares with.
pub(crate) struct Public<'a> {
    pub(crate) record: &'a Record,
    pub(crate) roster: &'a Roster,
    /// First block after the reveal deadline.
    pub(crate) reveal_block: Digest,
    pub(crate) gather: &'a [Hotkey],
    /// Outer steps before the window, and its learning rate.
    pub(crate) step: u64,
    pub(crate) learning_rate: f64,
    /// Hash of the state that the leader's judgement of the window before ended in, where that was audited.
    pub(crate) state: Option<Digest>,
}

/// Judges a leader's window again, from what it published.
pub(crate) fn audit(world: &World<'_>, me: &Hotkey, public: &Public<'_>) -> Audit {
    let (w, leader) = (public.record.window, public.record.leader);
    let Some(bucket) = world.buckets.of(me, &leader) else { return Audit::Unknown };
    let bytes = match bucket.get(&world.run.keys.judgement(w, &leader), limit(world)) {
        Ok(bytes) => bytes,
        Err(fault) if fault.unknown().is_some() => return Audit::Unknown,
        Err(_) => return Audit::Contradicts("a leader publishes its judgement"),
    };
    let Some(Judgement { before, facts, .. }) = Judgement::from_bytes(&bytes) else {
        return Audit::Contradicts("it is no signed judgement");
    };
    if let Some(why) = contradiction(world, &facts.window, public) {
        return Audit::Contradicts(why);
    }
    if public.state.is_some_and(|state| Digest::of(&before) != state) {
        return Audit::Contradicts("it starts from another state than it ended in");
    }
    let Ok(before) = State::from_bytes(&before) else { return Audit::Contradicts("its state is damaged") };
    let Ok(finished) = replay(&world.run.manifest.gauntlet, before, &facts) else {
        return Audit::Contradicts("its facts are no round");
    };
    let accepted: Vec<Hotkey> = public.record.accepted.iter().map(|a| a.hotkey).collect();
    if finished.outcome.accepted != accepted {
        return Audit::Contradicts("it accepts others than the record");
    }
    match finished.state.to_bytes() {
        Ok(after) => Audit::Follows(finished.outcome.selection, Digest::of(&after)),
        Err(_) => Audit::Contradicts("its state has no stored form"),
    }
}

/// Where the facts say other than the chain and the record.
fn contradiction(world: &World<'_>, facts: &WindowFacts, public: &Public<'_>) -> Option<&'static str> {
    let Public { record, roster, .. } = public;
    let who: BTreeMap<Hotkey, (u16, u64, Role)> = roster
        .members
        .iter()
        .map(|m| (m.hotkey, (m.uid, m.stake, if m.is_validator() { Role::Validator } else { Role::Miner })))
        .collect();
    let named: BTreeMap<Hotkey, (u16, u64, Role)> =
        facts.peers.iter().map(|(hotkey, p)| (*hotkey, (p.uid, p.stake, p.role))).collect();
    let committed = facts.peers.iter().filter_map(|(hotkey, p)| match p.commitment {
        Commitment::InTime(content) => Some((*hotkey, content)),
        _ => None,
    });
    let rules = [
        (facts.run != world.run.id || facts.window != record.window, "it is of another window"),
        (facts.validator != record.leader, "it is another validator's"),
        (facts.reveal_block != public.reveal_block, "its seed is another block"),
        (facts.gather != public.gather, "its gather set is another"),
        (facts.step != public.step || facts.learning_rate != public.learning_rate, "its step is another"),
        (named != who, "its peers are not those registered"),
        (!committed.eq(record.commitments.iter().copied()), "its commitments are not the record's"),
    ];
    rules.into_iter().find_map(|(wrong, why)| wrong.then_some(why))
}
