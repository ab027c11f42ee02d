//! `judge/{hotkey}`: by what a validator judged a window, and what it remembered of each peer before. Anyone can judge the
//! window again from it ([`super::audit`]).

use anyhow::{Context, Result};
use gauntlet::facts::RoundFacts;
use gauntlet::state::FORGOTTEN_AFTER;
use gauntlet::{Digest, Signature, State};
use serde::{Deserialize, Serialize};

use super::World;
use super::identity::{Identity, verify};

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

/// Bytes that no honest judgement of a run exceeds: what is known of everybody registered and of those who were lately, and
/// overlaps of all that are looked at with one another and with what was accepted lately.
pub(crate) fn limit(world: &World<'_>) -> u64 {
    // Of each slot the tenants of every window that are still remembered.
    let registered = u64::from(world.run.manifest.chain.ledger.subnet.registry.max_uids);
    usual(world).saturating_add(registered.saturating_mul(FORGOTTEN_AFTER).saturating_mul(160))
}

/// The same where nobody has lost a slot lately: what a reader waits for.
pub(super) fn usual(world: &World<'_>) -> u64 {
    let rules = &world.run.manifest.gauntlet;
    let registered = u64::from(world.run.manifest.chain.ledger.subnet.registry.max_uids);
    let places = u64::from(rules.selection.places) + u64::from(rules.selection.reserve);
    let looked_at = registered.min(places.saturating_add(u64::from(rules.fast.sample)));
    let accepted = rules.overlap.replay_windows.saturating_mul(places);
    let overlaps = looked_at.saturating_mul(looked_at.saturating_add(accepted));
    (1 << 20_u64) + registered.saturating_mul(4_096).saturating_add(overlaps.saturating_mul(96))
}
