//! A validator: reads what peers put, judges it, leads or answers who leads, and sets weights.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Result, bail};
use gauntlet::draw::order_key;
use gauntlet::evaluation_sample::{own_sequences, random_sequences};
use gauntlet::facts::{CheckFacts, PeerFacts, Reach, Role, RoundFacts, WindowFacts};
use gauntlet::fast_check::{self, Check};
use gauntlet::incentive::{Incentives, chain_weights};
use gauntlet::loss_score::Losses;
use gauntlet::overlap::Overlap;
use gauntlet::record::agreement::{Seen, View, compare};
use gauntlet::record::{Accepted, PROTOCOL_VERSION, Record, SignedRecord};
use gauntlet::submission::Commitment;
use gauntlet::sync_score::SyncFact;
use gauntlet::{Digest, Finished, Hotkey, Round, State};
use gauntlet_demo::{Submission, outer_step};
use gauntlet_model::engine::Backend;

use super::follower::{Follower, expected};
use super::identity::Identity;
use super::statement::Said;
use super::{World, bundle, checkpoint, is_validator, reader, values};
use crate::chain::Anchor;

/// A validator with its state.
pub(crate) struct Validator {
    pub(crate) identity: Identity,
    pub(crate) follower: Follower,
    state: State,
    /// What it knows of the window that is being closed.
    open: Option<Closing>,
    /// The newest split, for the chain.
    incentives: Option<Incentives>,
}

/// A window being closed.
struct Closing {
    window: u64,
    gather: Vec<Hotkey>,
    commitments: BTreeMap<Hotkey, Commitment>,
    checks: BTreeMap<Hotkey, Check>,
    objects: BTreeMap<Hotkey, Sent>,
    finished: Option<Finished>,
}

struct Sent {
    bytes: Vec<u8>,
    submission: Submission,
}

/// A window judged: what was known, and what came of it.
pub(crate) struct Judged {
    pub(crate) facts: RoundFacts,
    pub(crate) finished: Finished,
}

impl Validator {
    /// A validator that remembers nobody.
    pub(crate) fn new(identity: Identity, mut follower: Follower) -> Self {
        follower.serve();
        Self { identity, follower, state: State::default(), open: None, incentives: None }
    }

    pub(crate) fn hotkey(&self) -> Hotkey {
        self.identity.hotkey()
    }

    /// What it remembers of each peer.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Reads all commitments to window `w`, at their deadline.
    pub(crate) fn read_commitments(&mut self, world: &World<'_>, w: u64) -> Result<()> {
        // What was read of the window it stands at is kept until its record is followed.
        if self.follower.window() != w || self.open.as_ref().is_some_and(|closing| closing.window == w) {
            return Ok(());
        }
        let me = self.hotkey();
        let graph = world.chain.metagraph()?;
        let read = |hotkey: Hotkey| {
            let bucket = world.buckets.of(&me, &hotkey);
            (hotkey, reader::commitment(world.run, bucket.as_ref(), w, &hotkey))
        };
        let miners = graph.neurons.iter().filter(|n| !is_validator(n));
        let commitments = miners.map(|n| read(n.hotkey)).collect();
        self.open = Some(Closing {
            window: w,
            gather: Vec::new(),
            commitments,
            checks: BTreeMap::new(),
            objects: BTreeMap::new(),
            finished: None,
        });
        Ok(())
    }

    /// Judges window `w`: fast evaluation, losses, scores. Only a validator that stands at `w` can.
    pub(crate) fn judge(&mut self, world: &mut World<'_>, w: u64) -> Result<Option<Judged>> {
        if self.follower.window() != w {
            return Ok(None);
        }
        let unjudged = |closing: &mut Closing| closing.window == w && closing.finished.is_none();
        let Some(mut closing) = self.open.take_if(unjudged) else { return Ok(None) };
        self.mark_late(world, &mut closing);
        let reveal = world.block(world.run.manifest.window.record_opens(w))?;
        closing.gather = self.gather(world, &closing, &reveal);
        let facts = self.facts(world, &closing, reveal)?;
        let rules = &world.run.manifest.gauntlet;
        let mut round = Round::open(rules, self.state.clone(), facts.clone())?;
        let plan = round.plan();
        self.fetch(world, &mut closing, &plan.fast)?;
        let checks = CheckFacts {
            checks: closing.checks.clone(),
            sync: self.published(world, &closing)?,
            overlaps: self.overlaps(world, &closing)?,
        };
        let checked = round.fast(&checks)?;
        let losses = self.losses(world, &closing, plan.seed, &checked.evaluate)?;
        round.primary(&losses)?;
        let finished = round.finish()?;
        closing.finished = Some(finished.clone());
        self.incentives = Some(finished.outcome.incentives.clone());
        self.open = Some(closing);
        Ok(Some(Judged { facts: RoundFacts { window: facts, checks, losses }, finished }))
    }

    /// A commitment that was not there at the deadline and is now came late.
    fn mark_late(&self, world: &World<'_>, closing: &mut Closing) {
        let me = self.hotkey();
        for (hotkey, commitment) in &mut closing.commitments {
            if *commitment == Commitment::Absent {
                let bucket = world.buckets.of(&me, hotkey);
                if let Commitment::InTime(_) =
                    reader::commitment(world.run, bucket.as_ref(), closing.window, hotkey)
                {
                    *commitment = Commitment::Late;
                }
            }
        }
    }

    /// The gather set: by the record of two windows before or, before there is one, committed peers in the order of
    /// the block hash.
    fn gather(&self, world: &World<'_>, closing: &Closing, reveal: &Digest) -> Vec<Hotkey> {
        if let Some(gather) = self.follower.records().gather(closing.window) {
            return gather.into_iter().collect();
        }
        let committed = |(key, c): (&Hotkey, &Commitment)| matches!(c, Commitment::InTime(_)).then_some(*key);
        let mut peers: Vec<Hotkey> = closing.commitments.iter().filter_map(committed).collect();
        peers.sort_by_cached_key(|key| order_key(reveal, key));
        peers.truncate(world.run.manifest.gauntlet.selection.places as usize);
        peers.sort();
        peers
    }

    fn facts(&self, world: &World<'_>, closing: &Closing, reveal: Digest) -> Result<WindowFacts> {
        let theta = self.follower.theta();
        let peers = world.chain.metagraph()?.neurons.into_iter().map(|n| {
            let role = if is_validator(&n) { Role::Validator } else { Role::Miner };
            let commitment = closing.commitments.get(&n.hotkey).copied().unwrap_or(Commitment::Absent);
            (n.hotkey, PeerFacts { uid: n.uid, stake: n.stake, role, commitment })
        });
        Ok(WindowFacts {
            run: world.run.id,
            window: closing.window,
            step: theta.steps,
            learning_rate: f64::from(world.run.learning_rate(theta.steps)),
            validator: self.hotkey(),
            reveal_block: reveal,
            own_storage: Reach::Reached,
            gather: closing.gather.clone(),
            peers: peers.collect(),
        })
    }

    /// Fetches and checks the objects of `peers`.
    fn fetch(&self, world: &World<'_>, closing: &mut Closing, peers: &[Hotkey]) -> Result<()> {
        let (me, w, run) = (self.hotkey(), closing.window, world.run);
        let opening = world.opening(w)?;
        for hotkey in peers {
            let commitment = closing.commitments.get(hotkey).copied().unwrap_or(Commitment::Absent);
            let bucket = world.buckets.of(&me, hotkey);
            let read = reader::object(run, bucket.as_ref(), w, hotkey);
            let expected = expected(run, w, self.follower.theta(), &opening, *hotkey);
            let check = fast_check::check(&run.manifest.gauntlet.fast, &expected, commitment, &read.object);
            closing.checks.insert(*hotkey, check);
            if let (Check::Passed { .. }, Some((bytes, submission))) = (check, read.decoded) {
                closing.objects.insert(*hotkey, Sent { bytes, submission });
            }
        }
        Ok(())
    }

    /// Values of θ that the checked peers published, beside our own.
    fn published(&self, world: &World<'_>, closing: &Closing) -> Result<BTreeMap<Hotkey, SyncFact>> {
        let (me, w, run) = (self.hotkey(), closing.window, world.run);
        let ours = values::of(&self.follower.theta().values, &run.id, &world.opening(w)?);
        let mut sync = BTreeMap::new();
        for hotkey in closing.checks.keys() {
            let Some(bucket) = world.buckets.of(&me, hotkey) else { continue };
            let fact = match bucket.get(&run.keys.values(w, hotkey), values::LEN as u64) {
                Ok(bytes) => values::open(&bytes, &run.id, w, hotkey).map_or(SyncFact::Missing, |theirs| {
                    SyncFact::Values { ours: ours.clone(), theirs, movement: Vec::new() }
                }),
                // What cannot be read says nothing.
                Err(fault) if fault.unknown().is_some() => continue,
                Err(_) => SyncFact::Missing,
            };
            sync.insert(*hotkey, fact);
        }
        Ok(sync)
    }

    /// Overlap of every two objects of this window, and of each with what was accepted lately.
    fn overlaps(&self, world: &World<'_>, closing: &Closing) -> Result<Vec<Overlap>> {
        let mut overlaps = Vec::new();
        let w = closing.window;
        let mut add =
            |hotkey: &Hotkey, other: &Hotkey, window, a: &Submission, b: &Submission| -> Result<()> {
                let fraction = a.overlap(b)?;
                overlaps.push(Overlap { hotkey: *hotkey, other: *other, window, fraction });
                Ok(())
            };
        let back = world.run.manifest.gauntlet.overlap.replay_windows;
        for (i, (hotkey, sent)) in closing.objects.iter().enumerate() {
            for (other, earlier) in closing.objects.iter().take(i) {
                add(hotkey, other, w, &sent.submission, &earlier.submission)?;
            }
            for (window, listed) in self.follower.lately().filter(|(v, _)| *v < w && v + back >= w) {
                for (other, earlier) in listed {
                    add(hotkey, other, window, &sent.submission, earlier)?;
                }
            }
        }
        Ok(overlaps)
    }

    /// Losses before and after each peer's trial step, on its own data and on data nobody was given (PROTOCOL 7.3).
    fn losses(
        &self,
        world: &mut World<'_>,
        closing: &Closing,
        seed: Digest,
        peers: &[Hotkey],
    ) -> Result<BTreeMap<Hotkey, Losses>> {
        let run = world.run;
        let (rules, data) = (&run.manifest.gauntlet.loss, &run.corpus.train);
        let opening = world.opening(closing.window)?;
        let mut given = BTreeSet::new();
        for (hotkey, check) in &closing.checks {
            if let Check::Passed { count } = check {
                let assignment = run.assignment(&opening, hotkey)?;
                let count = (*count).min(run.manifest.window.max_sequences);
                given.extend((0..u64::from(count)).map(|i| assignment.at(i)));
            }
        }
        // Claims that leave no sequence for a fair comparison cost everybody this window's evaluation, and nothing else.
        let drawn =
            random_sequences(seed, run.sequences, rules.eval_random_sequences, |id| given.contains(&id));
        let Ok(random) = drawn else { return Ok(BTreeMap::new()) };
        let theta = Arc::clone(self.follower.theta());
        let lr = run.learning_rate(theta.steps);
        let mut random_before = None;
        let mut losses = BTreeMap::new();
        for hotkey in peers {
            let Some(sent) = closing.objects.get(hotkey) else { continue };
            let Some(Check::Passed { count }) = closing.checks.get(hotkey) else { continue };
            let assignment = run.assignment(&opening, hotkey)?;
            let count = (*count).min(run.manifest.window.max_sequences);
            let own: Vec<u64> = own_sequences(seed, hotkey, count, rules.eval_own_sequences)
                .into_iter()
                .map(|i| assignment.at(i))
                .collect();
            let random_before = match random_before {
                Some(loss) => loss,
                None => *random_before.insert(world.compute.loss(data, &theta.values, &random)?),
            };
            let own_before = world.compute.loss(data, &theta.values, &own)?;
            #[allow(clippy::cast_possible_truncation)] // a factor from the manifest
            let c = rules.trial_step as f32;
            let make = |cpu: &gauntlet_model::engine::cpu::Cpu, out: &mut [f32]| -> Result<()> {
                Ok(cpu.scope(|| outer_step::trial(&theta.values, &sent.submission, lr, c, out))?)
            };
            let after = world.compute.trial(data, make, &[&own, &random])?;
            let [own_after, random_after] = after.as_slice() else { bail!("two losses are measured") };
            let (own_after, random_after) = (*own_after, *random_after);
            let marginal = None;
            losses.insert(*hotkey, Losses { own_before, own_after, random_before, random_after, marginal });
        }
        Ok(losses)
    }

    /// The record of window `w` by this validator, and its bundle.
    pub(crate) fn record(&self, world: &World<'_>, w: u64) -> Result<Option<(SignedRecord, Vec<u8>)>> {
        let Some(closing) = self.open.as_ref().filter(|c| c.window == w && self.follower.window() == w)
        else {
            return Ok(None);
        };
        let Some(finished) = &closing.finished else { return Ok(None) };
        let sent = |hotkey: &Hotkey| closing.objects.get(hotkey).map(|sent| (*hotkey, sent));
        let objects: Vec<(Hotkey, &Sent)> = finished.outcome.accepted.iter().filter_map(sent).collect();
        let bundle = bundle::seal(objects.iter().map(|(_, sent)| sent.bytes.as_slice()));
        let accepted = objects.iter().map(|(hotkey, sent)| Accepted {
            hotkey: *hotkey,
            content: Digest::of(&sent.bytes),
            size: sent.bytes.len() as u64,
        });
        let commitments = closing.commitments.iter().filter_map(|(hotkey, commitment)| match commitment {
            Commitment::InTime(digest) => Some((*hotkey, *digest)),
            _ => None,
        });
        let record = Record {
            protocol: PROTOCOL_VERSION,
            run: world.run.id,
            window: w,
            previous: self.follower.records().head(),
            state_before: self.follower.theta().hash,
            accepted: accepted.collect(),
            bundle: Digest::of(&bundle),
            commitments: commitments.collect(),
            selection: finished.outcome.selection.clone(),
            published: world.chain.head()?.number,
            leader: self.hotkey(),
        };
        Ok(Some((self.sign(record)?, bundle)))
    }

    /// Signs a record.
    pub(crate) fn sign(&self, record: Record) -> Result<SignedRecord> {
        let signature = self.identity.sign(&record.message()?);
        Ok(SignedRecord { record, signature })
    }

    /// Publishes a record and its bundle; the bundle first, so that who sees the record can have it.
    pub(crate) fn publish(&self, world: &World<'_>, signed: &SignedRecord, bundle: &[u8]) -> Result<()> {
        let w = signed.record.window;
        self.put(world, &world.run.keys.bundle(w), bundle)?;
        self.put(world, &world.run.keys.record(w), &signed.to_bytes()?)
    }

    /// Says what it thinks of the record `signed`; `None` where it knows nothing of the window.
    pub(crate) fn state_view(&self, world: &World<'_>, signed: &SignedRecord) -> Result<Option<View>> {
        let w = signed.record.window;
        let Some(closing) = self.open.as_ref().filter(|c| c.window == w) else { return Ok(None) };
        let gather = closing.gather.iter().copied().collect();
        let (commitments, checks) = (&closing.commitments, &closing.checks);
        // A copy passes its own check and is left out by the round's verdict: that is no difference.
        let mut checks = checks.clone();
        if let Some(finished) = &closing.finished {
            checks.retain(|key, check| {
                !matches!(check, Check::Passed { .. }) || finished.outcome.accepted.contains(key)
            });
        }
        let view =
            compare(&signed.record, &Seen { gather: &gather, commitments, checks: &checks, selection: None });
        let said = Said::new(&self.identity, signed, view)?;
        self.put(world, &world.run.keys.agreement(w, &self.hotkey()), &said.to_bytes()?)?;
        Ok(Some(view))
    }

    /// Keeps the state of window `w` once its record is applied, and serves the bundle as well.
    pub(crate) fn settle(&mut self, world: &World<'_>) -> Result<Option<State>> {
        let window = self.follower.window();
        let Some(closing) = self.open.take_if(|closing| closing.window < window) else { return Ok(None) };
        if let Some((signed, bundle)) = self.follower.newest() {
            let record = (world.run.keys.record(signed.record.window), signed.to_bytes()?);
            let own = signed.record.leader == self.hotkey();
            if !own {
                self.put(world, &world.run.keys.bundle(signed.record.window), &bundle)?;
                self.put(world, &record.0, &record.1)?;
            }
        }
        let Some(finished) = closing.finished else { return Ok(None) };
        self.state = finished.state;
        Ok(Some(self.state.clone()))
    }

    /// Sets weights by the newest split.
    pub(crate) fn set_weights(&self, world: &mut World<'_>) -> Result<Option<Vec<(u16, u16)>>> {
        let Some(incentives) = &self.incentives else { return Ok(None) };
        let graph = world.chain.metagraph()?;
        let uids = graph.neurons.iter().map(|n| (n.hotkey, n.uid)).collect();
        let weights = chain_weights(incentives, &uids, None);
        if weights.is_empty() {
            return Ok(None);
        }
        let (uids, values): (Vec<u16>, Vec<u16>) = weights.iter().copied().unzip();
        world.chain.set_weights(self.hotkey(), &uids, &values, 0)?;
        Ok(Some(weights))
    }

    /// Anchors the record of window `w` on chain.
    pub(crate) fn anchor(&self, world: &mut World<'_>, w: u64) -> Result<()> {
        let record = self.follower.records().head();
        Ok(world.chain.anchor(self.hotkey(), Anchor { window: w, record })?)
    }

    /// Publishes a checkpoint of where it stands.
    pub(crate) fn checkpoint(&self, world: &World<'_>) -> Result<()> {
        let me = self.hotkey();
        let Some(bucket) = world.buckets.of(&me, &me) else { bail!("{me}: has no bucket") };
        checkpoint::publish(world, &self.follower, &bucket)
    }

    fn put(&self, world: &World<'_>, key: &str, bytes: &[u8]) -> Result<()> {
        let me = self.hotkey();
        let Some(bucket) = world.buckets.of(&me, &me) else { bail!("{me}: has no bucket") };
        bucket.put(key, bytes)?;
        Ok(())
    }
}
