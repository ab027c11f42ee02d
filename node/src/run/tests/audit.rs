use std::collections::BTreeSet;

use gauntlet::facts::{PeerFacts, Reach, Role, WindowFacts};
use gauntlet::record::{PROTOCOL_VERSION, Record};
use gauntlet::submission::Commitment;
use gauntlet::{Hotkey, RoundFacts};

use super::super::audit::{Audit, Audits, Public};
use super::super::judgement::{Judgement, limit};
use super::*;

/// Validator 3's judgement of window 0, with the record that follows from it.
pub(super) struct Judged {
    pub(super) small: Small,
    pub(super) judgement: Judgement,
    record: Record,
    gather: Vec<Hotkey>,
}

pub(super) fn judged() -> Judged {
    let mut small = Small::new(1);
    let (_, signed, _) = small.led();
    let judgement = small.published(0).unwrap();
    let gather = judgement.facts.window.gather.clone();
    Judged { small, judgement, record: signed.record, gather }
}

impl Judged {
    /// What miner 1 makes of validator 3's window 0, as it is published.
    fn audit(&mut self) -> Audit {
        let (record, gather, facts) = (&self.record, &self.gather, &self.judgement.facts.window);
        let (step, learning_rate) = (facts.step, facts.learning_rate);
        let public = Public { record, gather, step, learning_rate };
        Audits::default().leader(&self.small.world(), &identity(1).hotkey(), &public).unwrap()
    }

    /// What is seen to be wrong with `judgement`.
    fn wrong(&mut self, judgement: &Judgement) -> &'static str {
        self.small.publish(judgement);
        let Audit::Contradicts(why) = self.audit() else { panic!("{judgement:?}") };
        why
    }
}

impl Small {
    fn published(&mut self, w: u64) -> Option<Judgement> {
        let (me, world) = (identity(3).hotkey(), self.world());
        let bytes = world.buckets.of(&me, &me)?.get(&world.run.keys.judgement(w, &me), limit(&world)).ok()?;
        Judgement::from_bytes(&bytes)
    }

    /// Publishes a judgement under validator 3's key of its window.
    fn publish(&mut self, judgement: &Judgement) {
        self.publish_bytes(judgement.facts.window.window, &judgement.to_bytes().unwrap());
    }

    fn publish_bytes(&mut self, w: u64, bytes: &[u8]) {
        let (me, world) = (identity(3).hotkey(), self.world());
        world.put(&me, &world.run.keys.judgement(w, &me), bytes).unwrap();
    }

    fn unpublish(&mut self, w: u64) {
        let (me, world) = (identity(3).hotkey(), self.world());
        world.buckets.of(&me, &me).unwrap().delete(&[world.run.keys.judgement(w, &me)]).unwrap();
    }
}

/// Signed by validator `n`.
fn sealed(n: u8, before: &State, facts: RoundFacts) -> Judgement {
    Judgement::new(&identity(n), before, facts).unwrap()
}

#[test]
fn an_honest_judgement_gives_the_records_selection() {
    let mut judged = judged();
    assert_eq!(judged.record.accepted.len(), 2);
    assert_eq!(judged.audit(), Audit::Follows(judged.record.selection.clone()));
}

#[test]
fn every_contradiction_is_seen() {
    let mut judged = judged();
    let good = judged.judgement.facts.clone();
    type Spoil = fn(&mut RoundFacts);
    let spoils: [Spoil; 9] = [
        |f| f.window.run = Digest([7; 32]),
        |f| f.window.reveal_block = Digest([7; 32]),
        |f| f.window.gather.clear(),
        |f| f.window.step = 5,
        |f| f.window.learning_rate *= 2.0,
        |f| f.window.peers.values_mut().for_each(|p| p.stake += 1),
        |f| {
            let miners = f.window.peers.values_mut().filter(|p| p.role == Role::Miner);
            miners.for_each(|p| p.commitment = Commitment::Absent);
        },
        |f| f.checks.checks.clear(),
        |f| f.checks.checks = f.checks.checks.split_off(&identity(1).hotkey().max(identity(2).hotkey())),
    ];
    let mut seen = BTreeSet::new();
    for spoil in spoils {
        let mut facts = good.clone();
        spoil(&mut facts);
        seen.insert(judged.wrong(&sealed(3, &State::default(), facts)));
    }
    // Another window's, and another validator's, under the leader's key.
    let mut other = good.clone();
    other.window.window = 1;
    let bytes = sealed(3, &State::default(), other).to_bytes().unwrap();
    judged.small.publish_bytes(0, &bytes);
    assert_eq!(judged.audit(), Audit::Contradicts("it is of another window"));
    let mut other = good.clone();
    other.window.validator = identity(2).hotkey();
    seen.insert(judged.wrong(&sealed(2, &State::default(), other)));
    // At the beginning nobody remembers anything.
    let made_up = State { selection: Some(judged.record.selection.clone()), ..State::default() };
    seen.insert(judged.wrong(&sealed(3, &made_up, good.clone())));
    let judged_already = State { next_window: 1, ..State::default() };
    seen.insert(judged.wrong(&sealed(3, &judged_already, good.clone())));
    let mut damaged = sealed(3, &State::default(), good.clone());
    damaged.before[0] ^= 1;
    seen.insert(judged.wrong(&damaged));
    judged.small.publish(&sealed(3, &State::default(), good));
    assert!(matches!(judged.audit(), Audit::Follows(_)), "and the good one is good");
    judged.small.unpublish(0);
    assert_eq!(judged.audit(), Audit::Contradicts("its judgement cannot be read"));
    let all = [
        "it accepts others than the record",
        "it is another validator's",
        "it is no signed judgement",
        "it is of another window",
        "it starts from another state than it ended in",
        "its commitments are not the record's",
        "its facts are no round",
        "its gather set is another",
        "its peers are not those registered",
        "its seed is another block",
        "its step is another",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

/// Validator 3 judges windows one by one; nobody committed to anything.
struct Alone {
    small: Small,
    state: State,
}

impl Alone {
    fn new() -> Self {
        Self { small: Small::new(1), state: State::default() }
    }

    /// What it publishes of window `w` when it starts from `before`, and the state it ends in.
    fn judged(&mut self, w: u64, before: &State) -> (Judgement, State) {
        let window = self.small.run.manifest.window.clone();
        self.small.height.fetch_max(window.record_opens(w), Ordering::AcqRel);
        let world = self.small.world();
        let peers = world.roster(w).unwrap().members.into_iter().map(|m| {
            let role = if m.is_validator() { Role::Validator } else { Role::Miner };
            let commitment = Commitment::Absent;
            (m.hotkey, PeerFacts { uid: m.uid, stake: m.stake, role, commitment })
        });
        let facts = WindowFacts {
            run: world.run.id,
            window: w,
            step: 0,
            learning_rate: 0.1,
            validator: identity(3).hotkey(),
            reveal_block: world.block(window.record_opens(w)).unwrap(),
            own_storage: Reach::Reached,
            gather: Vec::new(),
            peers: peers.collect(),
        };
        let (checks, losses) = Default::default();
        let facts = RoundFacts { window: facts, checks, losses };
        let after = gauntlet::replay(&world.run.manifest.gauntlet, before.clone(), &facts).unwrap().state;
        (sealed(3, before, facts), after)
    }

    /// Judges window `w` and says so.
    fn judge(&mut self, w: u64) {
        let (judgement, after) = self.judged(w, &self.state.clone());
        self.small.publish(&judgement);
        self.state = after;
    }

    /// What miner 1 makes of it as the leader of window `w`.
    fn leads(&mut self, audits: &Audits, w: u64) -> Option<&'static str> {
        let judgement = self.small.published(w)?;
        let facts = &judgement.facts.window;
        let record = Record {
            protocol: PROTOCOL_VERSION,
            run: facts.run,
            window: w,
            previous: Digest([0; 32]),
            state_before: Digest([0; 32]),
            accepted: Vec::new(),
            bundle: Digest([0; 32]),
            commitments: Vec::new(),
            selection: Default::default(),
            published: 0,
            leader: facts.validator,
        };
        let (step, learning_rate) = (facts.step, facts.learning_rate);
        let public = Public { record: &record, gather: &[], step, learning_rate };
        match audits.leader(&self.small.world(), &identity(1).hotkey(), &public).unwrap() {
            Audit::Follows(_) => None,
            Audit::Contradicts(why) => Some(why),
        }
    }

    /// Miner 1 audits window `w - 1`, as it does in every window.
    fn follow(&mut self, audits: &mut Audits, w: u64) {
        audits.follow(&self.small.world(), &identity(1).hotkey(), w, w).unwrap();
    }
}

const ELSEWHERE: Option<&str> = Some("it starts from another state than it ended in");

#[test]
fn who_never_led_cannot_make_up_a_past() {
    let (mut alone, mut audits) = (Alone::new(), Audits::default());
    for w in 0..3 {
        alone.judge(w);
        assert_eq!(alone.leads(&audits, w), None, "window {w}");
        alone.follow(&mut audits, w + 1);
    }
    let honest = alone.state.clone();
    alone.state.peers.values_mut().next().unwrap().proof = 1.0;
    alone.judge(3);
    assert_eq!(alone.leads(&audits, 3), ELSEWHERE);
    // And what follows from it is no better, however long it goes on.
    for w in 4..7 {
        alone.follow(&mut audits, w);
        alone.judge(w);
        assert_eq!(alone.leads(&audits, w), ELSEWHERE, "window {w}");
    }
    // It forgot everything.
    alone.state = State::default();
    alone.judge(7);
    assert_eq!(alone.leads(&audits, 7), ELSEWHERE);
    // It goes on from where it was honest.
    alone.state = honest;
    alone.judge(8);
    assert_eq!(alone.leads(&audits, 8), None);
}

#[test]
fn what_is_not_shown_in_its_time_must_be_shown_later() {
    let (mut alone, mut audits) = (Alone::new(), Audits::default());
    let mut hidden = Vec::new();
    for w in 0..6 {
        alone.judge(w);
        if (2..5).contains(&w) {
            hidden.push(alone.small.published(w).unwrap());
            alone.small.unpublish(w);
        }
        alone.follow(&mut audits, w + 1);
    }
    alone.judge(6);
    assert_eq!(alone.leads(&audits, 6), Some("it starts from a judgement that it does not show"));
    for judgement in &hidden[1..] {
        alone.small.publish(judgement);
    }
    assert_eq!(alone.leads(&audits, 6), Some("it starts from a judgement that it does not show"));
    alone.small.publish(&hidden[0]);
    assert_eq!(alone.leads(&audits, 6), None);
    // One that leads elsewhere does not help.
    let (other, _) = alone.judged(2, &State { next_window: 2, ..State::default() });
    alone.small.publish(&other);
    assert_eq!(alone.leads(&audits, 6), ELSEWHERE);
}

#[test]
fn windows_that_a_validator_missed_are_no_contradiction() {
    let (mut alone, mut audits) = (Alone::new(), Audits::default());
    for w in [0, 1, 5, 6] {
        alone.follow(&mut audits, w);
        alone.judge(w);
        assert_eq!(alone.leads(&audits, w), None, "window {w}");
    }
    // Nor are those that the auditor missed.
    for w in 7..20 {
        alone.judge(w);
    }
    assert_eq!(alone.leads(&audits, 19), None);
    // After a long absence it takes what others remember as given, and follows it from there.
    let mut late = Audits::default();
    alone.judge(99);
    late.follow(&alone.small.world(), &identity(1).hotkey(), 100, 0).unwrap();
    alone.judge(100);
    assert_eq!(alone.leads(&late, 100), None);
    alone.state.peers.values_mut().next().unwrap().proof = 1.0;
    alone.judge(101);
    assert_eq!(alone.leads(&late, 101), ELSEWHERE);
}
