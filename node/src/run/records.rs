//! Records as nodes find them: where they are served, who stands behind them, what the chain says about who may lead.

use std::collections::{BTreeMap, BTreeSet};

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
use crate::storage::{Found, Heard, Patience, Storage};

/// What validators show of a window, each in the order of hotkeys.
pub(super) struct Shown {
    /// Records that they serve, each its own or another's; not checked.
    pub(super) served: BTreeMap<Hotkey, SignedRecord>,
    pub(super) said: Vec<statement::Said>,
}

impl Shown {
    /// All records, those first that are served.
    pub(super) fn records(&self) -> impl Iterator<Item = &SignedRecord> {
        self.served.values().chain(self.said.iter().map(|said| &said.seen))
    }

    /// The record with hash `wanted`.
    pub(super) fn named(&self, wanted: Digest) -> Option<&SignedRecord> {
        self.records().find(|signed| is_named(signed, wanted))
    }
}

/// All that validators show of window `w`.
pub(super) fn shown(world: &World<'_>, me: &Hotkey, w: u64) -> Result<Shown> {
    shown_until(world, me, w, |_, _| false)
}

/// What validators show of window `w`, read at once, so that one that does not answer holds nobody up for longer than one
/// request; up to a record that is `sought`, with its holder.
pub(super) fn shown_until(
    world: &World<'_>,
    me: &Hotkey,
    w: u64,
    sought: impl Fn(&Hotkey, &SignedRecord) -> bool,
) -> Result<Shown> {
    let (keys, limit, stakes) = (&world.run.keys, record_limit(world), world.stakes(w)?);
    let (mut holders, mut wanted) = (Vec::new(), Vec::new());
    for holder in stakes.keys() {
        let Some(bucket) = world.buckets.of(me, holder) else { continue };
        wanted.push((bucket.clone(), keys.record(w), limit));
        wanted.push((bucket, keys.agreement(w, holder), statement::limit(limit)));
        holders.extend([*holder, *holder]);
    }
    // Records of an earlier run stay public, and anybody can sign two with a key of its own: neither is a record of w.
    let of_window = |signed: &SignedRecord| {
        let record = &signed.record;
        record.run == world.run.id && record.window == w && stakes.contains_key(&record.leader)
    };
    let (mut served, mut said) = (BTreeMap::new(), BTreeMap::new());
    let hear = |at: usize, found: Found| {
        let (Ok(found), Some(holder)) = (found, holders.get(at)) else { return Heard::Bad };
        let enough = if at.is_multiple_of(2) {
            let Some(record) = SignedRecord::from_bytes(&found.bytes).ok().filter(&of_window) else {
                return Heard::Bad;
            };
            let enough = sought(holder, &record);
            served.insert(*holder, record);
            enough
        } else {
            let theirs =
                |said: &statement::Said| said.statement.validator == *holder && of_window(&said.seen);
            let Some(statement) = statement::Said::from_bytes(&found.bytes).filter(theirs) else {
                return Heard::Bad;
            };
            let enough = sought(holder, &statement.seen);
            said.insert(*holder, statement);
            enough
        };
        if enough { Heard::Enough } else { Heard::Good }
    };
    // One that cannot be read shows nothing.
    let _ = Storage::fetch_either(&wanted, &[], Patience::default().soon(limit), hear);
    Ok(Shown { served, said: said.into_values().collect() })
}

/// The record of window `w` that `me` serves itself; not checked.
pub(super) fn own(world: &World<'_>, me: &Hotkey, w: u64) -> Option<SignedRecord> {
    let bytes = world.buckets.of(me, me)?.get(&world.run.keys.record(w), record_limit(world)).ok()?;
    let ours = |signed: &SignedRecord| signed.record.run == world.run.id && signed.record.window == w;
    SignedRecord::from_bytes(&bytes).ok().filter(ours)
}

/// The stake that counts in window `w`: of validators that were not barred by then.
fn counting(world: &World<'_>, barred: &BTreeMap<Hotkey, u64>, w: u64) -> Result<BTreeMap<Hotkey, u64>> {
    let mut stakes = world.stakes(w)?;
    stakes.retain(|hotkey, _| barred.get(hotkey).is_none_or(|from| w < *from));
    Ok(stakes)
}

fn sum<'a>(stakes: impl IntoIterator<Item = &'a u64>) -> u64 {
    stakes.into_iter().fold(0, |sum, stake| sum.saturating_add(*stake))
}

/// Stake of the validators that stand behind a record: its leader's, and of all who `said` that they could follow it, and
/// all stake that counts. Somebody who differs on a submission still stands behind the record; a leader that was barred
/// since does not, for it may have signed another one.
pub(super) fn stake_behind(
    world: &World<'_>,
    barred: &BTreeMap<Hotkey, u64>,
    said: &[statement::Said],
    signed: &SignedRecord,
) -> Result<(u64, u64)> {
    let stakes = counting(world, barred, signed.record.window)?;
    let about = |said: &&statement::Said| said.seen.record == signed.record;
    let said = said.iter().filter(about);
    let leader = signed.record.leader;
    let mut behind: BTreeSet<Hotkey> = said.map(|said| said.statement.validator).chain([leader]).collect();
    if barred.contains_key(&leader) {
        behind.remove(&leader);
    }
    Ok((sum(behind.iter().filter_map(|validator| stakes.get(validator))), sum(stakes.values())))
}

/// Records that validators with more than half of the stake have anchored, from window `from` on, in order. A validator's
/// first anchor of a window counts.
pub(crate) fn anchored(
    world: &World<'_>,
    barred: &BTreeMap<Hotkey, u64>,
    from: u64,
) -> Result<Vec<(u64, Digest)>> {
    // Nobody can have followed a record that cannot be published yet, whatever was anchored for it.
    let Some(newest) = world.run.manifest.window.closing(world.chain.head()?.number) else {
        return Ok(Vec::new());
    };
    let mut said: BTreeMap<u64, BTreeMap<Hotkey, Digest>> = BTreeMap::new();
    for (_, by, Anchor { window, record }) in world.chain.anchors(from, newest)? {
        said.entry(window).or_default().entry(by).or_insert(record);
    }
    let mut found = Vec::new();
    for (window, said) in said {
        let stakes = counting(world, barred, window)?;
        let mut behind: BTreeMap<Digest, u64> = BTreeMap::new();
        for (by, record) in said {
            let stake = behind.entry(record).or_default();
            *stake = stake.saturating_add(stakes.get(&by).copied().unwrap_or(0));
        }
        let half = sum(stakes.values()) / 2;
        found.extend(
            behind.into_iter().filter(|(_, stake)| *stake > half).map(|(record, _)| (window, record)),
        );
    }
    Ok(found)
}

/// The record of window `w` with hash `wanted`, from whoever serves it.
pub(crate) fn named(world: &World<'_>, me: &Hotkey, w: u64, wanted: Digest) -> Result<Option<SignedRecord>> {
    Ok(shown_until(world, me, w, |_, signed| is_named(signed, wanted))?.named(wanted).cloned())
}

fn is_named(signed: &SignedRecord, wanted: Digest) -> bool {
    signed.record.hash().is_ok_and(|hash| hash == wanted) && signed.check_signature(&verify).is_ok()
}

/// Proofs of equivocation on chain, as far as a node has read them.
#[derive(Default)]
pub(crate) struct Proofs {
    read: usize,
    /// Those of windows that have not opened, by window and who signed, with the block that holds the first of them: who
    /// leads such a window nobody knows yet.
    early: BTreeMap<(u64, Hotkey), u64>,
}

impl Proofs {
    /// Bars in `chains` the leaders that the chain holds proofs against, but for those barred before. When and from which
    /// window on follows from the chain alone: nodes that start or join later must bar nobody else.
    pub(crate) fn bar(&mut self, world: &World<'_>, chains: &mut [&mut RecordChain]) -> Result<()> {
        let (window, head) = (&world.run.manifest.window, world.chain.head()?.number);
        let found = world.chain.equivocations(self.read)?;
        let due = |(of, _): &(u64, Hotkey)| window.opens(*of) <= head;
        if found.is_empty() && !self.early.first_key_value().is_some_and(|(at, _)| due(at)) {
            return Ok(());
        }
        let read = self.read + found.len();
        // Anything can be reported; what does not hold, or is of another run, proves nothing.
        let holds = |(block, _, bytes): (u64, Hotkey, Vec<u8>)| {
            let proof: Equivocation = postcard::from_bytes(&bytes).ok()?;
            let culprit = proof.culprit(&world.run.id, &verify).ok()?;
            Some(((proof.first.record.window, culprit), block))
        };
        // The chain takes a proof once, so one that is early has to count later.
        let mut early = self.early.clone();
        for (at, block) in found.into_iter().filter_map(holds) {
            early.entry(at).or_insert(block);
        }
        while let Some(entry) = early.first_entry().filter(|entry| due(entry.key())) {
            let ((of, culprit), block) = entry.remove_entry();
            if !world.stakes(of)?.contains_key(&culprit) {
                continue;
            }
            // What it led before stays, or who follows later could not: majorities say which of its two records counts.
            let open = block.saturating_sub(window.start_block) / window.blocks;
            let from = open.max(of.saturating_add(1));
            chains.iter_mut().for_each(|records| records.bar(culprit, from));
        }
        (self.read, self.early) = (read, early);
        Ok(())
    }
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
