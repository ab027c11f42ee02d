//! A validator: reads what peers put, judges it, leads or answers who leads, and sets weights.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, bail};
use gauntlet::draw::order_key;
use gauntlet::facts::{CheckFacts, PeerFacts, Reach, Role, RoundFacts, WindowFacts};
use gauntlet::fast_check::{self, Check};
use gauntlet::incentive::{Incentives, chain_weights};
use gauntlet::record::agreement::{Difference, Seen, View, compare};
use gauntlet::record::{Accepted, PROTOCOL_VERSION, Record, SignedRecord};
use gauntlet::submission::{Commitment, PutTime};
use gauntlet::{Digest, Finished, Hotkey, Round, State, replay};
use gauntlet_demo::Submission;
use serde::{Deserialize, Serialize};

use super::audit::{Audit, Audits, Public};
use super::follower::Follower;
use super::identity::{Identity, verify};
use super::judgement::Judgement;
use super::records::{expected, own};
use super::statement::Said;
use super::{World, bundle, checkpoint, reader};
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
    audits: Audits,
    /// The newest record it signed: two of one window would be a proof against it.
    signed: Option<SignedRecord>,
}

/// What a restart needs.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    /// [`State::to_bytes`].
    pub(super) state: Vec<u8>,
    pub(super) incentives: Option<Incentives>,
    pub(super) audits: Audits,
    pub(super) signed: Option<SignedRecord>,
    /// Commitments as read at their deadline, with the window, and whether others were out of reach then.
    pub(super) read: Option<(u64, BTreeMap<Hotkey, Commitment>, bool)>,
    /// By what that window was judged, and the objects that its record lists: nobody need have them any more.
    pub(super) facts: Option<RoundFacts>,
    pub(super) objects: BTreeMap<Hotkey, Digest>,
}

/// A window being closed.
pub(super) struct Closing {
    pub(super) window: u64,
    pub(super) gather: Vec<Hotkey>,
    commitments: BTreeMap<Hotkey, Commitment>,
    /// Whether others were out of reach when the commitments were read: then they are read again.
    cut_off: bool,
    pub(super) checks: BTreeMap<Hotkey, Check>,
    pub(super) objects: BTreeMap<Hotkey, Sent>,
    /// By what it was judged, and what came of it.
    facts: Option<RoundFacts>,
    finished: Option<Finished>,
    /// Whether everybody can read the facts.
    announced: bool,
}

pub(super) struct Sent {
    bytes: Vec<u8>,
    pub(super) submission: Submission,
}

/// A window judged: what was known, and what came of it.
pub(crate) struct Judged {
    pub(crate) facts: RoundFacts,
    pub(crate) finished: Finished,
}

impl Closing {
    fn new(window: u64, commitments: BTreeMap<Hotkey, Commitment>, cut_off: bool) -> Self {
        let (checks, objects) = (BTreeMap::new(), BTreeMap::new());
        let (gather, facts, finished, announced) = (Vec::new(), None, None, false);
        Self { window, gather, commitments, cut_off, checks, objects, facts, finished, announced }
    }

    /// Objects that the record lists.
    fn accepted(&self) -> impl Iterator<Item = (Hotkey, &Sent)> {
        let accepted = self.finished.iter().flat_map(|finished| &finished.outcome.accepted);
        accepted.filter_map(move |hotkey| Some((*hotkey, self.objects.get(hotkey)?)))
    }
}

/// What a validator said of a record.
pub(crate) struct Stated {
    pub(crate) view: View,
    /// What the leader's judgement contradicts, if anything.
    pub(crate) why: Option<&'static str>,
}

/// What came of [`Validator::afterwards`].
#[derive(Default)]
pub(crate) struct Afterwards {
    /// Each with the window they are due after.
    pub(crate) weights: Option<(u64, Vec<(u16, u16)>)>,
    pub(crate) refused: Vec<(u64, String)>,
}

impl Validator {
    /// A validator that remembers nobody.
    pub(crate) fn new(identity: Identity, mut follower: Follower) -> Self {
        follower.serve();
        Self {
            identity,
            follower,
            state: State::default(),
            open: None,
            incentives: None,
            audits: Audits::default(),
            signed: None,
        }
    }

    pub(crate) fn hotkey(&self) -> Hotkey {
        self.identity.hotkey()
    }

    /// What it remembers of each peer.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Remembers something else from now on, as nobody should.
    pub(crate) fn pretend(&mut self, state: State) {
        self.state = state;
    }

    /// What a restart needs. Errors: a state without stored form.
    pub(super) fn memory(&self) -> Result<Memory> {
        let open = self.open.as_ref();
        let objects = open.into_iter().flat_map(Closing::accepted);
        Ok(Memory {
            state: self.state.to_bytes()?,
            incentives: self.incentives.clone(),
            audits: self.audits.clone(),
            signed: self.signed.clone(),
            read: open.map(|c| (c.window, c.commitments.clone(), c.cut_off)),
            facts: open.and_then(|c| c.facts.clone()),
            objects: objects.map(|(hotkey, sent)| (hotkey, Digest::of(&sent.bytes))).collect(),
        })
    }

    /// The objects that [`Memory::objects`] names.
    pub(super) fn objects(&self) -> impl Iterator<Item = &[u8]> {
        self.open.iter().flat_map(Closing::accepted).map(|(_, sent)| sent.bytes.as_slice())
    }

    /// Goes on from a saved memory, with the objects it names. Errors: a damaged state.
    pub(super) fn remember(
        &mut self,
        world: &World<'_>,
        memory: Memory,
        objects: BTreeMap<Hotkey, Vec<u8>>,
    ) -> Result<()> {
        self.state = State::from_bytes(&memory.state)?;
        (self.incentives, self.audits, self.signed) = (memory.incentives, memory.audits, memory.signed);
        let Some((window, commitments, cut_off)) = memory.read else { return Ok(()) };
        let mut closing = Closing::new(window, commitments, cut_off);
        if let Some(facts) = memory.facts {
            // What it judged stays judged: others may have taken back by now what it saw.
            closing.gather.clone_from(&facts.window.gather);
            closing.checks.clone_from(&facts.checks.checks);
            for (hotkey, bytes) in objects {
                let read = reader::decode(world.run, bytes, PutTime::InTime).decoded;
                closing.objects.extend(read.map(|(bytes, submission)| (hotkey, Sent { bytes, submission })));
            }
            closing.finished = Some(replay(&world.run.manifest.gauntlet, self.state.clone(), &facts)?);
            closing.facts = Some(facts);
        }
        self.open = Some(closing);
        Ok(())
    }

    /// Reads all commitments to window `w`, at their deadline, unless it has; whether it did.
    pub(crate) fn read_commitments(&mut self, world: &World<'_>, w: u64) -> Result<bool> {
        // What was read of the window it stands at is kept until its record is followed.
        if self.follower.window() != w || self.open.as_ref().is_some_and(|closing| closing.window == w) {
            return Ok(false);
        }
        self.settle_state();
        let (me, phase) = (self.hotkey(), world.commit_phase(w)?);
        let commitments = reader::commitments(world, &me, world.roster(w)?.miners(), w, phase);
        let cut_off = !self.reaches_others(world, &commitments, w)?;
        self.open = Some(Closing::new(w, commitments, cut_off));
        Ok(true)
    }

    /// Judges window `w`: fast evaluation, losses, scores. Only a validator that stands at `w` can. Save the node before
    /// it is announced.
    pub(crate) fn judge(&mut self, world: &mut World<'_>, w: u64) -> Result<Option<Judged>> {
        if self.follower.window() != w {
            return Ok(None);
        }
        let unjudged = |closing: &mut Closing| closing.window == w && closing.finished.is_none();
        let Some(mut closing) = self.open.take_if(unjudged) else { return Ok(None) };
        if closing.cut_off {
            // The stores' clocks say what was in time.
            let (me, phase) = (self.hotkey(), world.commit_phase(w)?);
            let commitments = reader::commitments(world, &me, world.roster(w)?.miners(), w, phase);
            closing = Closing::new(w, commitments, false);
            if !self.reaches_others(world, &closing.commitments, w)? {
                self.open = Some(Closing { cut_off: true, ..closing });
                return Ok(None);
            }
        }
        // After a roll-back: it knows what it thinks of this window.
        if self.state.next_window > w {
            self.open = Some(closing);
            return Ok(None);
        }
        self.audits.follow(world, &self.identity.hotkey(), w, self.state.next_window)?;
        self.mark_late(world, &mut closing)?;
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
        self.incentives = Some(finished.outcome.incentives.clone());
        let facts = RoundFacts { window: facts, checks, losses };
        (closing.facts, closing.finished) = (Some(facts.clone()), Some(finished.clone()));
        self.open = Some(closing);
        Ok(Some(Judged { facts, finished }))
    }

    /// Publishes by what it judged the open window, once.
    pub(crate) fn announce(&mut self, world: &World<'_>) -> Result<()> {
        let me = self.hotkey();
        let Some(closing) = self.open.as_mut().filter(|closing| !closing.announced) else { return Ok(()) };
        let Some(facts) = &closing.facts else { return Ok(()) };
        let judgement = Judgement::new(&self.identity, &self.state, facts.clone())?;
        world.put(&me, &world.run.keys.judgement(closing.window, &me), &judgement.to_bytes()?)?;
        closing.announced = true;
        Ok(())
    }

    /// A commitment that was not there at the deadline and is now came late.
    fn mark_late(&self, world: &World<'_>, closing: &mut Closing) -> Result<()> {
        let (me, phase) = (self.hotkey(), world.commit_phase(closing.window)?);
        let absent = closing.commitments.iter().filter(|(_, c)| **c == Commitment::Absent);
        let absent: Vec<Hotkey> = absent.map(|(hotkey, _)| *hotkey).collect();
        for (hotkey, found) in reader::commitments(world, &me, absent, closing.window, phase) {
            if matches!(found, Commitment::InTime(_) | Commitment::Late) {
                closing.commitments.insert(hotkey, Commitment::Late);
            }
        }
        Ok(())
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
        let peers = world.roster(closing.window)?.members.into_iter().map(|m| {
            let role = if m.is_validator() { Role::Validator } else { Role::Miner };
            let commitment = closing.commitments.get(&m.hotkey).copied().unwrap_or(Commitment::Absent);
            (m.hotkey, PeerFacts { uid: m.uid, stake: m.stake, role, commitment })
        });
        Ok(WindowFacts {
            run: world.run.id,
            window: closing.window,
            step: theta.steps,
            learning_rate: f64::from(world.run.learning_rate(theta.steps)),
            validator: self.hotkey(),
            reveal_block: reveal,
            own_storage: self.own_storage(world, closing.window),
            gather: closing.gather.clone(),
            peers: peers.collect(),
        })
    }

    /// Fetches and checks the objects of `peers`.
    fn fetch(&self, world: &World<'_>, closing: &mut Closing, peers: &[Hotkey]) -> Result<()> {
        let (me, w, run) = (self.hotkey(), closing.window, world.run);
        let (opening, phase) = (world.opening(w)?, world.reveal_phase(w)?);
        for (hotkey, read) in reader::objects(world, &me, peers.iter().copied(), w, phase) {
            let commitment = closing.commitments.get(&hotkey).copied().unwrap_or(Commitment::Absent);
            let expected = expected(run, w, self.follower.theta(), &opening, hotkey);
            let check = fast_check::check(&run.manifest.gauntlet.fast, &expected, commitment, &read.object);
            closing.checks.insert(hotkey, check);
            if let (Check::Passed { .. }, Some((bytes, submission))) = (check, read.decoded) {
                closing.objects.insert(hotkey, Sent { bytes, submission });
            }
        }
        Ok(())
    }

    /// The record of window `w` by this validator, and its bundle; none where it has not judged the window. Save the node
    /// before it is published: it signs one record a window, whatever happens.
    pub(crate) fn record(&mut self, world: &World<'_>, w: u64) -> Result<Option<(SignedRecord, Vec<u8>)>> {
        let Some(closing) = self.open.as_ref().filter(|c| c.window == w && self.follower.window() == w)
        else {
            return Ok(None);
        };
        let Some(finished) = &closing.finished else { return Ok(None) };
        let objects: Vec<(Hotkey, &Sent)> = closing.accepted().collect();
        let bundle = bundle::seal(objects.iter().map(|(_, sent)| sent.bytes.as_slice()));
        let accepted = objects.iter().map(|(hotkey, sent)| Accepted {
            hotkey: *hotkey,
            content: Digest::of(&sent.bytes),
            size: sent.bytes.len() as u64,
        });
        if self.signed.as_ref().is_none_or(|signed| signed.record.window != w) {
            // What it cannot look up now it may have signed.
            if self.own_storage(world, w) == Reach::Unreachable {
                return Ok(None);
            }
            self.signed = self.signed_before(world, w)?;
        }
        if let Some(signed) = &self.signed {
            let same = signed.record.bundle == Digest::of(&bundle);
            return Ok(same.then(|| (signed.clone(), bundle)));
        }
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
        let signed = self.sign(record)?;
        self.signed = Some(signed.clone());
        Ok(Some((signed, bundle)))
    }

    /// A record of window `w` that it signed and knows nothing of: its own bucket has it. Where it remembers none at all,
    /// as after a start in an empty folder, others may have it too. Another one would be a proof against it.
    fn signed_before(&self, world: &World<'_>, w: u64) -> Result<Option<SignedRecord>> {
        let found = match &self.signed {
            Some(_) => own(world, &self.hotkey(), w).into_iter().collect(),
            None => self.follower.records_of(world, w)?.0,
        };
        let ours = |r: &Record| r.leader == self.hotkey() && r.run == world.run.id;
        let signed = |found: &SignedRecord| ours(&found.record) && found.check_signature(&verify).is_ok();
        Ok(found.into_iter().find(signed))
    }

    /// Signs a record.
    pub(crate) fn sign(&self, record: Record) -> Result<SignedRecord> {
        let signature = self.identity.sign(&record.message()?);
        Ok(SignedRecord { record, signature })
    }

    /// Publishes a record and its bundle; the bundle first, so that who sees the record can have it.
    pub(crate) fn publish(&self, world: &World<'_>, signed: &SignedRecord, bundle: &[u8]) -> Result<()> {
        let (w, me) = (signed.record.window, self.hotkey());
        world.put(&me, &world.run.keys.bundle(w), bundle)?;
        world.put(&me, &world.run.keys.record(w), &signed.to_bytes()?)
    }

    /// Says what it thinks of the record `signed`; `None` where it knows nothing of the window, or could not follow the
    /// record: who says something stands behind it.
    pub(crate) fn state_view(&mut self, world: &World<'_>, signed: &SignedRecord) -> Result<Option<Stated>> {
        let w = signed.record.window;
        let Some(closing) = self.open.as_ref().filter(|c| c.window == w && c.finished.is_some()) else {
            return Ok(None);
        };
        if !self.follower.could_follow(world, signed)? {
            return Ok(None);
        }
        let gather = closing.gather.iter().copied().collect();
        let (commitments, checks) = (&closing.commitments, &closing.checks);
        // A copy passes its own check and is left out by the round's verdict: that is no difference.
        let mut checks = checks.clone();
        if let Some(finished) = &closing.finished {
            checks.retain(|key, check| {
                !matches!(check, Check::Passed { .. }) || finished.outcome.accepted.contains(key)
            });
        }
        let (leader, theta) = (signed.record.leader, self.follower.theta());
        let public = Public {
            record: &signed.record,
            gather: &closing.gather,
            step: theta.steps,
            learning_rate: f64::from(world.run.learning_rate(theta.steps)),
        };
        let (selection, why) = match self.audits.leader(world, &self.hotkey(), &public)? {
            Audit::Follows(selection) => (Some(selection), None),
            Audit::Contradicts(why) => (None, Some(why)),
        };
        let seen = Seen { gather: &gather, commitments, checks: &checks, selection: selection.as_ref() };
        let mut view = compare(&signed.record, &seen);
        if why.is_some() && view == View::Agree {
            view = View::Differs { hotkey: leader, reason: Difference::Judgement };
        }
        let said = Said::new(&self.identity, signed, view)?;
        world.put(&self.hotkey(), &world.run.keys.agreement(w, &self.hotkey()), &said.to_bytes()?)?;
        Ok(Some(Stated { view, why }))
    }

    /// Keeps the state of a window once its record is applied.
    pub(crate) fn settle(&mut self) -> Option<State> {
        self.settle_state().then(|| self.state.clone())
    }

    fn settle_state(&mut self) -> bool {
        let window = self.follower.window();
        let finished = self.open.take_if(|closing| closing.window < window).and_then(|c| c.finished);
        let Some(finished) = finished else { return false };
        self.state = finished.state;
        true
    }

    /// What a validator does on chain every so many windows, once the windows `closed` are: weights, anchors. Gives the
    /// weights it set, and what the chain refused: no permit yet, too soon; then the next time.
    pub(crate) fn afterwards(&self, world: &mut World<'_>, closed: Range<u64>) -> Result<Afterwards> {
        let (run, mut after) = (world.run, Afterwards::default());
        let due = |every: u64| closed.clone().filter(move |w| (w + 1).is_multiple_of(every));
        // The newest split is all there is, however many windows were closed.
        if let Some(w) = due(run.manifest.chain.windows_per_weights).next_back() {
            match self.set_weights(world) {
                Ok(weights) => after.weights = weights.map(|weights| (w, weights)),
                Err(error) => after.refused.push((w, format!("weights: {error:#}"))),
            }
        }
        for w in due(run.manifest.window.anchor_every) {
            // What came before the newest anchor that the chain confirmed needs no other.
            let Some(record) = self.follower.followed().get(&w) else { continue };
            if let Err(error) = world.chain.anchor(self.hotkey(), Anchor { window: w, record: *record }) {
                after.refused.push((w, format!("anchor: {error:#}")));
            }
        }
        Ok(after)
    }

    /// Sets weights by the newest split.
    fn set_weights(&self, world: &mut World<'_>) -> Result<Option<Vec<(u16, u16)>>> {
        let Some(incentives) = &self.incentives else { return Ok(None) };
        let graph = world.chain.metagraph()?;
        let uids: BTreeMap<Hotkey, u16> = graph.neurons.iter().map(|n| (n.hotkey, n.uid)).collect();
        let owner = world.run.manifest.chain.ledger.owner;
        let uid = |hotkey: Hotkey| uids.get(&hotkey).copied();
        let (owner, own) = (owner.and_then(uid), uid(self.hotkey()));
        let weights_with = |own| chain_weights(incentives, &uids, owner, own);
        let mut weights = weights_with(None);
        if weights.is_empty() {
            // Weight on itself takes others' away; where nobody has any it would only spend the chain's patience.
            let set = graph.neuron(&self.hotkey()).map_or(&[][..], |me| &me.weights);
            if set.iter().all(|(to, _)| Some(*to) == own) {
                return Ok(None);
            }
            weights = weights_with(own);
        }
        let (uids, values): (Vec<u16>, Vec<u16>) = weights.iter().copied().unzip();
        world.chain.set_weights(self.hotkey(), &uids, &values, 0)?;
        Ok(Some(weights))
    }

    /// Publishes a checkpoint of where it stands.
    pub(crate) fn checkpoint(&self, world: &World<'_>) -> Result<()> {
        let me = self.hotkey();
        let Some(bucket) = world.buckets.of(&me, &me) else { bail!("{me}: has no bucket") };
        checkpoint::publish(world, &self.follower, &bucket)
    }
}
