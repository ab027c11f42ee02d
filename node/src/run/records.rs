//! Records as nodes find them: where they are served, who stands behind them, what the chain says about who may lead.

use std::collections::BTreeSet;

use anyhow::Result;
use gauntlet::record::chain::RecordChain;
use gauntlet::record::equivocation::Equivocation;
use gauntlet::record::succession::{self, Turns};
use gauntlet::record::{Here, SignedRecord};
use gauntlet::submission::Expected;
use gauntlet::{Digest, Hotkey};

use super::context::Run;
use super::identity::verify;
use super::theta::Theta;
use super::{World, statement};
use crate::chain::Anchor;

/// The record of window `w` that `holder` serves, its own or another's; not checked.
pub(super) fn served(world: &World<'_>, me: &Hotkey, w: u64, holder: &Hotkey) -> Option<SignedRecord> {
    let bucket = world.buckets.of(me, holder)?;
    let bytes = bucket.get(&world.run.keys.record(w), record_limit(world)).ok()?;
    SignedRecord::from_bytes(&bytes).ok().filter(|signed| signed.record.window == w)
}

/// Statements of all validators on window `w`.
pub(super) fn statements(world: &World<'_>, me: &Hotkey, w: u64) -> Result<Vec<statement::Said>> {
    let read = |hotkey: &Hotkey| {
        let bucket = world.buckets.of(me, hotkey)?;
        let key = world.run.keys.agreement(w, hotkey);
        let said =
            statement::Said::from_bytes(&bucket.get(&key, statement::limit(record_limit(world))).ok()?)?;
        (said.statement.validator == *hotkey && said.seen.record.window == w).then_some(said)
    };
    Ok(world.stakes(w)?.keys().filter_map(read).collect())
}

/// Stake of the validators that stand behind a record: its leader's, and of all whose statement is about it. A statement
/// that differs on a submission still says that this is the record of the window.
pub(super) fn stake_behind(world: &World<'_>, me: &Hotkey, signed: &SignedRecord) -> Result<u64> {
    let stakes = world.stakes(signed.record.window)?;
    let about = |said: &statement::Said| said.seen.record == signed.record;
    let said = statements(world, me, signed.record.window)?.into_iter().filter(about);
    let behind: BTreeSet<Hotkey> =
        said.map(|said| said.statement.validator).chain([signed.record.leader]).collect();
    Ok(behind.iter().filter_map(|validator| stakes.get(validator)).fold(0, |sum, s| sum.saturating_add(*s)))
}

/// The record that an anchor names, where its leader anchored it and validators with more than half of the stake stand
/// behind it.
pub(crate) fn backed(
    world: &World<'_>,
    me: &Hotkey,
    by: Hotkey,
    anchor: Anchor,
) -> Result<Option<SignedRecord>> {
    let stakes = world.stakes(anchor.window)?;
    let half = stakes.values().fold(0_u64, |sum, stake| sum.saturating_add(*stake)) / 2;
    let named = |signed: &SignedRecord| signed.record.hash().is_ok_and(|hash| hash == anchor.record);
    let copies = stakes.keys().filter_map(|holder| served(world, me, anchor.window, holder));
    let seen = statements(world, me, anchor.window)?.into_iter().map(|said| said.seen);
    let found = copies.chain(seen).find(named);
    let Some(signed) = found.filter(|s| s.record.leader == by && s.check_signature(&verify).is_ok()) else {
        return Ok(None);
    };
    Ok((stake_behind(world, me, &signed)? > half).then_some(signed))
}

/// Bars the leaders that the chain holds proofs against, but for the first `known` proofs; gives how many there are now.
pub(crate) fn bar_proven(world: &World<'_>, records: &mut RecordChain, known: usize) -> Result<usize> {
    let proofs = world.chain.equivocations()?;
    for (block, _, bytes) in proofs.iter().skip(known) {
        // Anything can be reported; what does not hold proves nothing.
        let Ok(proof) = postcard::from_bytes::<Equivocation>(bytes) else { continue };
        let window = &world.run.manifest.window;
        let open = block.saturating_sub(window.start_block) / window.blocks;
        // The closing of a window lies in the next one.
        let from = proof.first.record.window.max(open.saturating_sub(1));
        let _ = records.bar(&proof, from, &verify);
    }
    Ok(proofs.len())
}

/// What the chain says about who may lead and send, for the check of a record.
pub(crate) struct Standing {
    order: Vec<Hotkey>,
    registered: BTreeSet<Hotkey>,
    opens: u64,
}

impl Standing {
    /// For window `w`, with the leaders that `records` has barred left out.
    pub(crate) fn new(world: &World<'_>, records: &RecordChain, w: u64) -> Result<Self> {
        let roster = world.roster(w)?;
        let order = succession::order(&roster.stakes(), records.barred(), w);
        let registered = roster.hotkeys();
        Ok(Self { order, registered, opens: world.run.manifest.window.record_opens(w) })
    }

    /// For a node whose θ hash is `state`.
    pub(crate) fn here(&self, world: &World<'_>, state: Digest) -> Result<Here<'_>> {
        let deadline = world.run.manifest.window.record;
        let turns = Turns { order: &self.order, opens: self.opens, deadline };
        Ok(Here { state, registered: &self.registered, turns, block: world.chain.head()?.number })
    }
}

/// What an honest submission of `hotkey` for window `w` says.
pub(crate) fn expected(run: &Run, w: u64, theta: &Theta, opening: &Digest, hotkey: Hotkey) -> Expected {
    let state_tag = Digest(gauntlet_demo::state_tag(&theta.values, w, &opening.0, &hotkey.0));
    Expected { run: run.id, window: w, hotkey, state_tag }
}

/// Bytes that no record exceeds: two digests a registered hotkey, three a place.
pub(crate) fn record_limit(world: &World<'_>) -> u64 {
    let limits = world.run.record_limits();
    let registered = usize::from(world.run.manifest.chain.ledger.subnet.registry.max_uids);
    (1024 + 80 * registered + 160 * limits.gather) as u64
}
