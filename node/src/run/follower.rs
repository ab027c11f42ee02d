//! What every node does with records: check them, fetch exactly what they list, move θ, go back where it followed a
//! wrong one (PROTOCOL 6.0).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use gauntlet::fast_check::{self, Check};
use gauntlet::record::chain::{Anchored, RecordChain};
use gauntlet::record::equivocation::Equivocation;
use gauntlet::record::succession::{self, Turns};
use gauntlet::record::{Accepted, Here, SignedRecord};
use gauntlet::submission::{Commitment, Expected};
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::Submission;

use super::context::Run;
use super::identity::verify;
use super::theta::{Shared, Theta};
use super::{World, bundle, stakes, statement};

/// Submissions a record lists, each with its owner.
pub(crate) type Listed = Vec<(Hotkey, Arc<Submission>)>;

/// A node's place in the run.
pub(crate) struct Follower {
    me: Hotkey,
    shared: Shared,
    place: Place,
    /// Where it goes back to: the place at the last anchor the chain confirmed.
    anchor: Place,
    /// Hashes of the records followed since then, by window.
    followed: BTreeMap<u64, Digest>,
    /// Submissions accepted in the last windows, for the comparison with new ones.
    accepted: BTreeMap<u64, Listed>,
}

#[derive(Clone)]
struct Place {
    theta: Arc<Theta>,
    records: RecordChain,
}

/// What came of looking for a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Followed {
    /// θ moved.
    Applied,
    /// There is none yet.
    Nothing,
    /// One is there, but these objects of it are nowhere to be had.
    Missing(Vec<Hotkey>),
    /// One is there that does not follow on what this node has.
    Refused(String),
}

impl Follower {
    /// A node at the beginning of the run.
    pub(crate) fn new(me: Hotkey, run: Digest, theta: Arc<Theta>, shared: Shared) -> Self {
        Self::at(me, RecordChain::new(run, 0), theta, shared)
    }

    /// A node at a place it was told of: a checkpoint.
    pub(crate) fn at(me: Hotkey, records: RecordChain, theta: Arc<Theta>, shared: Shared) -> Self {
        let place = Place { theta, records };
        let (followed, accepted) = (BTreeMap::new(), BTreeMap::new());
        Self { me, shared, anchor: place.clone(), place, followed, accepted }
    }

    pub(crate) fn theta(&self) -> &Arc<Theta> {
        &self.place.theta
    }

    pub(crate) fn records(&self) -> &RecordChain {
        &self.place.records
    }

    /// The window whose record comes next: the one θ belongs to.
    pub(crate) fn window(&self) -> u64 {
        self.place.records.next_window()
    }

    /// What was accepted in window `w`, if that is not too long ago.
    pub(crate) fn accepted(&self, w: u64) -> Option<&Listed> {
        self.accepted.get(&w)
    }

    /// All that was accepted lately.
    pub(crate) fn lately(&self) -> impl Iterator<Item = (u64, &Listed)> {
        self.accepted.iter().map(|(w, listed)| (*w, listed))
    }

    /// Validators in the order in which they lead window `w`.
    pub(crate) fn leaders(&self, world: &World<'_>, w: u64) -> Result<Vec<Hotkey>> {
        Ok(succession::order(&stakes(&world.chain.metagraph()?), self.place.records.barred(), w))
    }

    /// Takes the proofs of equivocation that the chain holds. A proven leader leads no more from the window of its two
    /// records on: both are void, and a node that applied one of them goes back.
    pub(crate) fn read_proofs(&mut self, world: &World<'_>) -> Result<()> {
        bar_proven(world, &mut self.anchor.records)?;
        for proof in bar_proven(world, &mut self.place.records)? {
            let void = [&proof.first, &proof.second].map(|signed| signed.record.hash().ok());
            let followed = self.followed.get(&proof.first.record.window).copied();
            if followed.is_some() && void.contains(&followed) {
                self.go_back();
            }
        }
        Ok(())
    }

    /// Takes anchors that the chain shows, and goes back where they name another record than the one followed.
    pub(crate) fn read_anchors(&mut self, world: &World<'_>) -> Result<()> {
        let from = self.anchor.records.next_window();
        let leaders = stakes(&world.chain.metagraph()?);
        for (_, by, anchor) in world.chain.anchors(from)? {
            if !leaders.contains_key(&by) {
                continue;
            }
            match self.place.records.anchored(anchor.window, anchor.record) {
                // The place a node goes back to is the newest one the chain has confirmed.
                Anchored::Confirmed { next_window } if next_window == self.window() => {
                    self.anchor = self.place.clone();
                    self.followed.retain(|w, _| *w >= next_window);
                }
                Anchored::RollBack { .. } => self.go_back(),
                Anchored::Confirmed { .. } | Anchored::Old | Anchored::Ahead => {}
            }
        }
        Ok(())
    }

    fn go_back(&mut self) {
        self.place = self.anchor.clone();
        self.followed.clear();
        let next = self.window();
        self.accepted.retain(|w, _| *w < next);
    }

    /// The record of window `w` by `owner`, as it serves it.
    pub(crate) fn record_of(&self, world: &World<'_>, w: u64, owner: &Hotkey) -> Option<SignedRecord> {
        let bucket = world.buckets.of(&self.me, owner)?;
        let bytes = bucket.get(&world.run.keys.record(w), record_limit(world)).ok()?;
        SignedRecord::from_bytes(&bytes).ok().filter(|s| s.record.window == w && s.record.leader == *owner)
    }

    /// Statements of all validators on window `w`.
    pub(crate) fn statements(&self, world: &World<'_>, w: u64) -> Result<Vec<statement::Said>> {
        let graph = world.chain.metagraph()?;
        let read = |hotkey: &Hotkey| {
            let bucket = world.buckets.of(&self.me, hotkey)?;
            let key = world.run.keys.agreement(w, hotkey);
            let said =
                statement::Said::from_bytes(&bucket.get(&key, statement::limit(record_limit(world))).ok()?)?;
            (said.statement.validator == *hotkey && said.seen.record.window == w).then_some(said)
        };
        Ok(stakes(&graph).keys().filter_map(read).collect())
    }

    /// Two records of one leader for window `w`, if any were seen.
    pub(crate) fn equivocation(&self, world: &World<'_>, w: u64) -> Result<Option<Equivocation>> {
        let mut seen: BTreeMap<Hotkey, SignedRecord> = BTreeMap::new();
        let own = self.leaders(world, w)?.iter().find_map(|leader| self.record_of(world, w, leader));
        for signed in self.statements(world, w)?.into_iter().map(|said| said.seen).chain(own) {
            match seen.get(&signed.record.leader) {
                Some(first) if first.record != signed.record => {
                    let proof = Equivocation { first: first.clone(), second: signed };
                    if proof.culprit(&verify).is_ok() {
                        return Ok(Some(proof));
                    }
                }
                Some(_) => {}
                None => {
                    seen.insert(signed.record.leader, signed);
                }
            }
        }
        Ok(None)
    }

    /// Follows the records up to window `last`. Of `last` itself only `leader`'s counts, because it is its turn; of
    /// earlier windows whichever extends what this node has. A node that had followed another record than everybody
    /// else goes back to its last anchor and takes the others' records from there.
    pub(crate) fn follow(
        &mut self,
        world: &World<'_>,
        last: u64,
        leader: Option<Hotkey>,
    ) -> Result<Followed> {
        let result = self.follow_known(world, last, leader, &BTreeMap::new())?;
        if !matches!(result, Followed::Refused(_)) || self.window() <= self.anchor.records.next_window() {
            return Ok(result);
        }
        let trail = self.trail(world)?;
        let own = self.followed.iter().all(|(w, hash)| trail.get(w).is_none_or(|(theirs, _)| theirs == hash));
        if own {
            return Ok(result);
        }
        self.go_back();
        self.follow_known(world, last, leader, &trail)
    }

    fn follow_known(
        &mut self,
        world: &World<'_>,
        last: u64,
        leader: Option<Hotkey>,
        trail: &BTreeMap<u64, (Digest, SignedRecord)>,
    ) -> Result<Followed> {
        let mut result = Followed::Nothing;
        while self.window() <= last {
            let w = self.window();
            let leaders = match leader {
                Some(leader) if w == last => vec![leader],
                _ => self.leaders(world, w)?,
            };
            let records: Vec<SignedRecord> = match trail.get(&w) {
                Some((_, signed)) => vec![signed.clone()],
                None => leaders.iter().filter_map(|leader| self.record_of(world, w, leader)).collect(),
            };
            result = self.follow_one(world, &records)?;
            if result != Followed::Applied {
                break;
            }
        }
        Ok(result)
    }

    /// The records since the last anchor that the newest one names as its predecessors, with their hashes.
    fn trail(&self, world: &World<'_>) -> Result<BTreeMap<u64, (Digest, SignedRecord)>> {
        let (w, mut trail) = (self.window(), BTreeMap::new());
        let newest = self.leaders(world, w)?.iter().find_map(|leader| self.record_of(world, w, leader));
        let Some(newest) = newest else { return Ok(trail) };
        let mut wanted = newest.record.previous;
        for window in (self.anchor.records.next_window()..w).rev() {
            let holders = stakes(&world.chain.metagraph()?);
            let served = holders.keys().filter_map(|holder| self.record_of(world, window, holder));
            let seen = self.statements(world, window)?.into_iter().map(|said| said.seen);
            let found = served.chain(seen).find(|signed| signed.record.hash().is_ok_and(|h| h == wanted));
            let Some(signed) = found else { break };
            let previous = signed.record.previous;
            trail.insert(window, (wanted, signed));
            wanted = previous;
        }
        Ok(trail)
    }

    fn follow_one(&mut self, world: &World<'_>, candidates: &[SignedRecord]) -> Result<Followed> {
        let mut refused = Followed::Nothing;
        for signed in candidates {
            let w = signed.record.window;
            let mut records = self.place.records.clone();
            let standing = Standing::new(world, &records, w)?;
            let here = standing.here(world, self.place.theta.hash)?;
            if let Err(error) = records.extend(signed, &here, &world.run.record_limits(), &verify) {
                refused = Followed::Refused(error.to_string());
                continue;
            }
            let listed = match self.objects(world, signed)? {
                Ok(listed) => listed,
                Err(refusal @ Followed::Refused(_)) => {
                    refused = refusal;
                    continue;
                }
                Err(missing) => return Ok(missing),
            };
            let theta = self.shared.apply(world.run, world.compute.cpu(), &self.place.theta, &listed)?;
            self.followed.insert(w, records.head());
            self.place = Place { theta, records };
            let kept = world.run.manifest.gauntlet.overlap.replay_windows;
            let listed = listed.into_iter().map(|(hotkey, _, submission)| (hotkey, submission)).collect();
            self.accepted.insert(w, listed);
            self.accepted.retain(|window, _| window.saturating_add(kept) > w);
            return Ok(Followed::Applied);
        }
        Ok(refused)
    }

    /// Exactly the objects a record lists, by hash: from their owners, else from any validator's bundle; each must pass
    /// the checks of PROTOCOL 5.
    fn objects(&self, world: &World<'_>, signed: &SignedRecord) -> Result<Result<Objects, Followed>> {
        let record = &signed.record;
        let run = world.run;
        let own = |accepted: &Accepted| {
            let bucket = world.buckets.of(&self.me, &accepted.hotkey)?;
            let key = run.keys.submission(record.window, &accepted.hotkey);
            let bytes = bucket.get(&key, accepted.size).ok()?;
            (Digest::of(&bytes) == accepted.content).then_some(bytes)
        };
        let mut found: Vec<Option<Vec<u8>>> = record.accepted.iter().map(own).collect();
        if found.iter().any(Option::is_none)
            && let Some(bundle) = self.bundle(world, signed)?
        {
            found = bundle.into_iter().map(Some).collect();
        }
        let missing: Vec<Hotkey> = record
            .accepted
            .iter()
            .zip(&found)
            .filter(|(_, bytes)| bytes.is_none())
            .map(|(accepted, _)| accepted.hotkey)
            .collect();
        if !missing.is_empty() {
            return Ok(Err(Followed::Missing(missing)));
        }
        let opening = world.opening(record.window)?;
        let mut objects = Vec::with_capacity(found.len());
        for (accepted, bytes) in record.accepted.iter().zip(found.into_iter().flatten()) {
            let Accepted { hotkey, content, .. } = *accepted;
            let (object, submission) = self.shared.decode(run, bytes);
            let expected = expected(run, record.window, &self.place.theta, &opening, hotkey);
            let rules = &run.manifest.gauntlet.fast;
            let check = fast_check::check(rules, &expected, Commitment::InTime(content), &object);
            match (check, submission) {
                (Check::Passed { .. }, Some(submission)) => objects.push((hotkey, content, submission)),
                (check, _) => return Ok(Err(Followed::Refused(format!("object of {hotkey}: {check:?}")))),
            }
        }
        Ok(Ok(objects))
    }

    fn bundle(&self, world: &World<'_>, signed: &SignedRecord) -> Result<Option<Vec<Vec<u8>>>> {
        let record = &signed.record;
        let key = world.run.keys.bundle(record.window);
        let limit = bundle::limit(record.accepted.len(), world.run.max_object());
        let holders: BTreeSet<Hotkey> = stakes(&world.chain.metagraph()?).into_keys().collect();
        let first = std::iter::once(record.leader).chain(holders.into_iter().filter(|h| *h != record.leader));
        for holder in first {
            let Some(bucket) = world.buckets.of(&self.me, &holder) else { continue };
            let Ok(bytes) = bucket.get(&key, limit) else { continue };
            if let Some(objects) = bundle::open(&bytes, record) {
                return Ok(Some(objects.into_iter().map(<[u8]>::to_vec).collect()));
            }
        }
        Ok(None)
    }
}

type Objects = Vec<(Hotkey, Digest, Arc<Submission>)>;

/// Bars the leaders that the chain holds proofs against; gives the proofs that hold.
pub(crate) fn bar_proven(world: &World<'_>, records: &mut RecordChain) -> Result<Vec<Equivocation>> {
    let mut proven = Vec::new();
    for (_, _, bytes) in world.chain.equivocations()? {
        // Anything can be reported; what does not hold proves nothing.
        let Ok(proof) = postcard::from_bytes::<Equivocation>(&bytes) else { continue };
        if records.bar(&proof, proof.first.record.window, &verify).is_ok() {
            proven.push(proof);
        }
    }
    Ok(proven)
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
        let graph = world.chain.metagraph()?;
        let order = succession::order(&stakes(&graph), records.barred(), w);
        let registered = graph.neurons.iter().map(|n| n.hotkey).collect();
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
