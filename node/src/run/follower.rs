//! What every node does with records: check them, fetch exactly what they list, move θ, go back where it followed a
//! wrong one (PROTOCOL 6.0).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use gauntlet::fast_check::{self, Check};
use gauntlet::record::agreement::{Statement, Tally};
use gauntlet::record::chain::{Anchored, RecordChain};
use gauntlet::record::equivocation::Equivocation;
use gauntlet::record::succession;
use gauntlet::record::{Accepted, SignedRecord};
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::Submission;

use super::identity::verify;
use super::records::{Proofs, Shown, Standing, anchored, expected, named, shown, shown_until, stake_behind};
use super::theta::{Shared, Theta};
use super::{World, bundle, checkpoint, listed};

/// Windows in which two records of one leader are looked for.
const SEARCHED: u64 = 16;

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
    proofs: Proofs,
    /// Whether it serves each record it applied with its objects, for others who cannot have them from their owners.
    serves: bool,
    /// Windows below it hold nothing of ours that may be deleted.
    forgotten: u64,
    /// Where it looked last among older windows for two records of one leader, and a proof that the chain did not hold yet.
    searched: u64,
    proof: Option<Equivocation>,
}

/// θ and the records that lead to it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) theta: Arc<Theta>,
    pub(super) records: RecordChain,
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
        Self {
            me,
            shared,
            anchor: place.clone(),
            place,
            followed,
            accepted,
            proofs: Proofs::default(),
            serves: false,
            forgotten: 0,
            searched: 0,
            proof: None,
        }
    }

    /// A node where it stood when it was saved. What was accepted in the last windows is read again: new objects are
    /// compared with it.
    pub(super) fn restored(
        world: &World<'_>,
        me: Hotkey,
        shared: Shared,
        place: Place,
        anchor: Place,
        followed: BTreeMap<u64, Digest>,
    ) -> Result<Self> {
        let mut follower = Self { anchor, followed, ..Self::at(me, place.records, place.theta, shared) };
        follower.recall(world)?;
        Ok(follower)
    }

    /// Reads what the newest records listed where it does not know it, after a start or a join, as far as it can be had
    /// now. Call it until it can.
    pub(super) fn recall(&mut self, world: &World<'_>) -> Result<()> {
        let (mut wanted, next) = (self.place.records.head(), self.window());
        let windows = next.saturating_sub(kept(world))..next;
        if windows.clone().all(|w| self.accepted.contains_key(&w)) {
            return Ok(());
        }
        for w in windows.rev() {
            let Some(signed) = named(world, &self.me, w, wanted)? else { break };
            wanted = signed.record.previous;
            if self.accepted.contains_key(&w) {
                continue;
            }
            let Ok(found) = listed::fetch(world, &self.me, &signed)? else { continue };
            let read = |(accepted, bytes): (&Accepted, &Vec<u8>)| {
                Some((accepted.hotkey, self.shared.decode(world.run, bytes).1?))
            };
            let listed = signed.record.accepted.iter().zip(&found).filter_map(read).collect();
            self.accepted.insert(w, listed);
        }
        Ok(())
    }

    /// Whose place it is.
    pub(crate) fn hotkey(&self) -> Hotkey {
        self.me
    }

    /// Where it stands, and where it goes back to.
    pub(super) fn places(&self) -> (&Place, &Place) {
        (&self.place, &self.anchor)
    }

    /// Hashes of the records followed since the last anchor, by window.
    pub(super) fn followed(&self) -> &BTreeMap<u64, Digest> {
        &self.followed
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

    /// That window, and the record that leads to it: after a roll-back it may be another one.
    pub(crate) fn position(&self) -> (u64, Digest) {
        (self.window(), self.place.records.head())
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
        Ok(succession::order(&world.stakes(w)?, self.place.records.barred(), w))
    }

    /// Serves what it applies from now on.
    pub(crate) fn serve(&mut self) {
        self.serves = true;
    }

    /// Deletes what this node put in windows that nobody needs any more.
    pub(crate) fn forget(&mut self, world: &World<'_>) -> Result<()> {
        let keep = world.run.manifest.window.keep;
        let Some(until) = self.window().checked_sub(keep).filter(|_| keep > 0) else { return Ok(()) };
        // Far behind after a start: what is older was deleted before it.
        for w in self.forgotten.max(until.saturating_sub(keep))..until {
            world.forget(&self.me, w)?;
            self.forgotten = w.saturating_add(1);
        }
        Ok(())
    }

    /// Takes the proofs of equivocation that the chain holds: a proven leader leads no more. Which of its earlier records
    /// counts, majorities and later records say.
    pub(crate) fn read_proofs(&mut self, world: &World<'_>) -> Result<()> {
        let Self { place, anchor, proofs, .. } = self;
        proofs.bar(world, &mut [&mut place.records, &mut anchor.records])
    }

    /// Takes anchors that the chain shows, and goes back where they name another record than the one followed. An anchor
    /// counts where validators with more than half of the stake made it.
    pub(crate) fn read_anchors(&mut self, world: &World<'_>) -> Result<()> {
        let barred = self.place.records.barred().clone();
        for (window, record) in anchored(world, &barred, self.anchor.records.next_window())? {
            let place = self.place.clone();
            match self.place.records.anchored(window, record) {
                // The place a node goes back to is the newest one the chain has confirmed.
                Anchored::Confirmed { next_window } if next_window == self.window() => {
                    self.anchor = self.place.clone();
                    self.followed.retain(|w, _| *w >= next_window);
                }
                Anchored::RollBack { .. } => {
                    self.place = place;
                    if let Some(signed) = named(world, &self.me, window, record)? {
                        let trail = self.trail(world, signed)?;
                        self.retrace(world, window, None, &trail)?;
                    }
                }
                Anchored::Confirmed { .. } | Anchored::Old | Anchored::Ahead => {}
            }
        }
        Ok(())
    }

    /// Goes back to the last anchor and follows `trail` from there; keeps its place if that leads nowhere.
    fn retrace(
        &mut self,
        world: &World<'_>,
        last: u64,
        leader: Option<Hotkey>,
        trail: &Trail,
    ) -> Result<Followed> {
        let (place, followed, accepted) = (self.place.clone(), self.followed.clone(), self.accepted.clone());
        self.place = self.anchor.clone();
        self.followed.clear();
        let next = self.window();
        self.accepted.retain(|w, _| *w < next);
        let result = self.follow_known(world, last, leader, trail)?;
        if result != Followed::Applied {
            (self.place, self.followed, self.accepted) = (place, followed, accepted);
        }
        Ok(result)
    }

    /// Records of window `w`: its leader's own, copies that other validators serve, and what their statements carry; with
    /// these.
    pub(super) fn records_of(&self, world: &World<'_>, w: u64) -> Result<(Vec<SignedRecord>, Shown)> {
        let shown = shown(world, &self.me, w)?;
        let mut found: Vec<SignedRecord> = Vec::new();
        for signed in shown.records() {
            if !found.contains(signed) && signed.check_signature(&verify).is_ok() {
                found.push(signed.clone());
            }
        }
        Ok((found, shown))
    }

    /// The record of window `w` by `leader`: from its own bucket, else from whoever serves a copy.
    pub(crate) fn record_of(
        &self,
        world: &World<'_>,
        w: u64,
        leader: &Hotkey,
    ) -> Result<Option<SignedRecord>> {
        let theirs = |signed: &SignedRecord| {
            signed.record.leader == *leader && signed.check_signature(&verify).is_ok()
        };
        // Copies count where the leader shows none of its own.
        let shown = shown_until(world, &self.me, w, |holder, signed| holder == leader && theirs(signed))?;
        let own = shown.served.get(leader).filter(|signed| theirs(signed));
        Ok(own.or_else(|| shown.records().find(|signed| theirs(signed))).cloned())
    }

    /// Records of an earlier window, those first that validators with most stake stand behind.
    fn candidates(&self, world: &World<'_>, w: u64) -> Result<Vec<SignedRecord>> {
        let (records, shown) = self.records_of(world, w)?;
        let mut found = Vec::new();
        for signed in records {
            let (behind, _) = stake_behind(world, self.place.records.barred(), &shown.said, &signed)?;
            found.push((behind, signed));
        }
        found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.record.leader.cmp(&b.1.record.leader)));
        Ok(found.into_iter().map(|(_, signed)| signed).collect())
    }

    /// What stake says of the newest record followed.
    pub(crate) fn tally(&self, world: &World<'_>) -> Result<Tally> {
        let Some(w) = self.window().checked_sub(1) else { return Ok(Tally::default()) };
        let (stakes, head) = (world.stakes(w)?, self.place.records.head());
        let shown = shown(world, &self.me, w)?;
        let leader = shown.named(head).map(|signed| signed.record.leader);
        let said = shown.said.into_iter().map(|said| said.statement);
        // Who leads says so by leading, once, whatever it says besides.
        let said: Vec<Statement> = said.filter(|said| Some(said.validator) != leader).collect();
        let mut tally = Tally::count(&head, &said, &stakes, &verify)?;
        if let Some(leader) = leader {
            let stake = stakes.get(&leader).copied().unwrap_or(0);
            tally.silent = tally.silent.saturating_sub(stake);
            tally.agree = tally.agree.saturating_add(stake);
        }
        Ok(tally)
    }

    /// Two records of one leader that leads on, for a window since the last anchor, if any were seen.
    ///
    /// The newest two windows are searched in every call, of the older ones one in turn: what is shown of them late is found
    /// a few blocks later. A proof that was found is kept until its leader is barred.
    pub(crate) fn equivocation(&mut self, world: &World<'_>) -> Result<Option<Equivocation>> {
        let barred = self.place.records.barred().clone();
        let known = |e: &Equivocation| barred.contains_key(&e.first.record.leader);
        self.proof.take_if(|proof| known(proof));
        if self.proof.is_none() {
            for w in self.searching() {
                self.proof = self.equivocation_in(world, w)?.filter(|found| !known(found));
                if self.proof.is_some() {
                    break;
                }
            }
        }
        Ok(self.proof.clone())
    }

    /// Windows to search now.
    fn searching(&mut self) -> Vec<u64> {
        let newest = self.window();
        // Where no anchor comes, older ones are of no more use.
        let from = self.anchor.records.next_window().max(newest.saturating_sub(SEARCHED));
        let mut windows: Vec<u64> = (from..=newest).rev().take(2).collect();
        let older = from..newest.saturating_sub(1);
        if !older.is_empty() {
            let next = self.searched.checked_sub(1).filter(|w| older.contains(w));
            self.searched = next.unwrap_or(older.end - 1);
            windows.push(self.searched);
        }
        windows
    }

    fn equivocation_in(&self, world: &World<'_>, w: u64) -> Result<Option<Equivocation>> {
        let mut seen: BTreeMap<Hotkey, SignedRecord> = BTreeMap::new();
        for signed in self.records_of(world, w)?.0 {
            match seen.get(&signed.record.leader) {
                Some(first) if first.record != signed.record => {
                    let proof = Equivocation { first: first.clone(), second: signed };
                    if proof.culprit(&world.run.id, &verify).is_ok() {
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
        let result = self.follow_known(world, last, leader, &Trail::new())?;
        if !matches!(result, Followed::Refused(_)) || self.window() <= self.anchor.records.next_window() {
            return Ok(result);
        }
        // The record that was refused leads elsewhere, if it names another past.
        let w = self.window();
        let newest = match leader {
            Some(leader) if w == last => self.record_of(world, w, &leader)?,
            _ => self.candidates(world, w)?.into_iter().next(),
        };
        let Some(newest) = newest else { return Ok(result) };
        // Any leader can make up a past, so it must be the majority's.
        let said = shown(world, &self.me, newest.record.window)?.said;
        let (behind, all) = stake_behind(world, self.place.records.barred(), &said, &newest)?;
        if behind <= all / 2 {
            return Ok(result);
        }
        let trail = self.trail(world, newest)?;
        let own = self.followed.iter().all(|(w, hash)| trail.get(w).is_none_or(|(theirs, _)| theirs == hash));
        if own { Ok(result) } else { self.retrace(world, last, leader, &trail) }
    }

    /// Follows what was closed without this node: of windows before `closing` whichever record extends what it has, of
    /// `closing` itself one that validators with more than half of the stake stand behind.
    pub(crate) fn catch_up(&mut self, world: &World<'_>, closing: u64) -> Result<Followed> {
        let mut result = Followed::Nothing;
        if let Some(earlier) = closing.checked_sub(1).filter(|earlier| self.window() <= *earlier) {
            result = self.follow(world, earlier, None)?;
        }
        if self.window() == closing
            && let Some(leader) = self.majority(world, closing)?
        {
            result = self.follow(world, closing, Some(leader))?;
        }
        Ok(result)
    }

    /// The leader of a record of window `w` that validators with more than half of the stake stand behind, if it signed
    /// no other.
    fn majority(&self, world: &World<'_>, w: u64) -> Result<Option<Hotkey>> {
        let ((found, shown), barred) = (self.records_of(world, w)?, self.place.records.barred());
        for signed in &found {
            let leader = signed.record.leader;
            // Two signatures over one record are one record.
            let alone =
                found.iter().all(|other| other.record.leader != leader || other.record == signed.record);
            if alone && !barred.contains_key(&leader) {
                let (behind, all) = stake_behind(world, barred, &shown.said, signed)?;
                if behind > all / 2 {
                    return Ok(Some(leader));
                }
            }
        }
        Ok(None)
    }

    /// Goes on from the newest checkpoint that an anchor vouches for, if that is ahead; whether it was.
    pub(crate) fn rejoin(&mut self, world: &World<'_>) -> Result<bool> {
        let joined = checkpoint::join(world, self.me, self.shared.clone())?;
        let Some(joined) = joined.filter(|joined| joined.window() > self.window()) else { return Ok(false) };
        *self = Self { serves: self.serves, ..joined };
        Ok(true)
    }

    fn follow_known(
        &mut self,
        world: &World<'_>,
        last: u64,
        leader: Option<Hotkey>,
        trail: &Trail,
    ) -> Result<Followed> {
        let mut result = Followed::Nothing;
        while self.window() <= last {
            let w = self.window();
            let records = match (trail.get(&w), leader) {
                (Some((_, signed)), _) => vec![signed.clone()],
                // Of its two records nobody knows which counts: the next leader's does.
                (None, Some(leader)) if w == last && self.place.records.barred().contains_key(&leader) => {
                    Vec::new()
                }
                (None, Some(leader)) if w == last => self.record_of(world, w, &leader)?.into_iter().collect(),
                (None, _) => self.candidates(world, w)?,
            };
            result = self.follow_one(world, &records)?;
            if result != Followed::Applied {
                break;
            }
        }
        Ok(result)
    }

    /// `newest` and the records before it since the last anchor, each named by its successor.
    fn trail(&self, world: &World<'_>, newest: SignedRecord) -> Result<Trail> {
        let (last, mut wanted) = (newest.record.window, newest.record.previous);
        let mut trail = Trail::from([(last, (newest.record.hash()?, newest))]);
        for window in (self.anchor.records.next_window()..last).rev() {
            let Some(signed) = named(world, &self.me, window, wanted)? else { break };
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
            let (listed, bytes) = match self.objects(world, signed)? {
                Ok(found) => found,
                // Another record of this window may have all of its objects.
                Err(reason) => {
                    refused = reason;
                    continue;
                }
            };
            let theta = self.shared.apply(world.run, world.compute, &self.place.theta, &listed)?;
            self.followed.insert(w, records.head());
            self.place = Place { theta, records };
            if self.serves && signed.record.leader != self.me {
                self.put_copy(world, signed, &bytes);
            }
            let listed = listed.into_iter().map(|(hotkey, _, submission)| (hotkey, submission)).collect();
            self.accepted.insert(w, listed);
            self.accepted.retain(|window, _| window.saturating_add(kept(world)) > w);
            return Ok(Followed::Applied);
        }
        Ok(refused)
    }

    /// Puts a record and its bundle where others find them too. They have others to turn to where this fails.
    fn put_copy(&self, world: &World<'_>, signed: &SignedRecord, objects: &[Vec<u8>]) {
        let (w, keys) = (signed.record.window, &world.run.keys);
        let bundle = bundle::seal(objects.iter().map(Vec::as_slice));
        if let (Some(bucket), Ok(record)) = (world.buckets.of(&self.me, &self.me), signed.to_bytes()) {
            let _ = bucket.put(&keys.bundle(w), &bundle).and_then(|()| bucket.put(&keys.record(w), &record));
        }
    }

    /// Whether this node could follow a record from where it stands: it extends what it has, and all objects are there.
    pub(crate) fn could_follow(&self, world: &World<'_>, signed: &SignedRecord) -> Result<bool> {
        let mut records = self.place.records.clone();
        if records.barred().contains_key(&signed.record.leader) {
            return Ok(false);
        }
        let standing = Standing::new(world, &records, signed.record.window)?;
        let here = standing.here(world, self.place.theta.hash)?;
        let extends = records.extend(signed, &here, &world.run.record_limits(), &verify).is_ok();
        Ok(extends && self.objects(world, signed)?.is_ok())
    }

    /// Exactly the objects a record lists; each must pass the checks of PROTOCOL 5.
    fn objects(&self, world: &World<'_>, signed: &SignedRecord) -> Result<Result<Found, Followed>> {
        let (record, run) = (&signed.record, world.run);
        let found = match listed::fetch(world, &self.me, signed)? {
            Ok(found) => found,
            Err(missing) => return Ok(Err(Followed::Missing(missing))),
        };
        let opening = world.opening(record.window)?;
        let mut objects = Vec::with_capacity(found.len());
        for (accepted, bytes) in record.accepted.iter().zip(&found) {
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
        Ok(Ok((objects, found)))
    }
}

type Objects = Vec<(Hotkey, Digest, Arc<Submission>)>;

/// A record's objects, read and as bytes.
type Found = (Objects, Vec<Vec<u8>>);

/// Windows of which the accepted submissions are kept. The newest always is: a miner asks whether it was listed.
fn kept(world: &World<'_>) -> u64 {
    world.run.manifest.gauntlet.overlap.replay_windows.max(1)
}

/// Records by window, each with its hash.
type Trail = BTreeMap<u64, (Digest, SignedRecord)>;
