use std::collections::BTreeSet;

use gauntlet::facts::Role;
use gauntlet::record::Record;
use gauntlet::submission::Commitment;

use super::super::judgement::{Audit, Judgement, Public, audit, limit};
use super::super::validator::Validator;
use super::*;
use crate::chain::Roster;

/// A validator's judgement of window 0, with the record that follows from it.
struct Judged {
    small: Small,
    judgement: Judgement,
    record: Record,
    roster: Roster,
    reveal: Digest,
    gather: Vec<Hotkey>,
}

fn judged() -> Judged {
    let mut small = Small::new(1);
    let follower = small.follower(3);
    let mut validator = Validator::new(identity(3), follower);
    let (mut peers, window) = ([small.peer(1), small.peer(2)], small.run.manifest.window.clone());
    small.height.store(window.opens(1), Ordering::Release);
    let mut world = small.world();
    let mut objects = Vec::new();
    for peer in &mut peers {
        let ids = peer.assigned(&world, 0, 1).unwrap();
        let (sent, _) = peer.train(&mut world, &ids).unwrap();
        let theta = Arc::clone(peer.follower.theta());
        let object = peer.seal(&world, 0, &theta, &sent, 1).unwrap();
        peer.commit(&world, 0, &object).unwrap();
        objects.push(object);
    }
    small.height.store(window.commit_deadline(0), Ordering::Release);
    let world = small.world();
    validator.read_commitments(&world, 0).unwrap();
    peers.iter().zip(&objects).for_each(|(peer, object)| peer.reveal(&world, 0, object).unwrap());
    small.height.store(window.record_opens(0), Ordering::Release);
    let mut world = small.world();
    validator.judge(&mut world, 0).unwrap().unwrap();
    validator.announce(&world).unwrap();
    let (signed, _) = validator.record(&world, 0).unwrap().unwrap();
    let key = world.run.keys.judgement(0, &validator.hotkey());
    let bytes =
        world.buckets.of(&validator.hotkey(), &validator.hotkey()).unwrap().get(&key, limit(&world)).unwrap();
    let judgement = Judgement::from_bytes(&bytes).unwrap();
    let (roster, reveal) = (world.roster(0).unwrap(), world.block(window.record_opens(0)).unwrap());
    let gather = judgement.facts.window.gather.clone();
    Judged { small, judgement, record: signed.record, roster, reveal, gather }
}

impl Judged {
    /// Publishes `judgement` as signed by `n`, and audits it.
    fn audit(&mut self, n: u8, judgement: &Judgement, state: Option<Digest>) -> Audit {
        let before = State::from_bytes(&judgement.before).unwrap_or_default();
        let mut sealed = Judgement::new(&identity(n), &before, judgement.facts.clone()).unwrap();
        if judgement.before != before.to_bytes().unwrap() {
            sealed.before = judgement.before.clone();
        }
        let bytes = sealed.to_bytes().unwrap();
        self.audit_bytes(&bytes, state)
    }

    fn audit_bytes(&mut self, bytes: &[u8], state: Option<Digest>) -> Audit {
        let (record, roster, reveal, gather) =
            (self.record.clone(), self.roster.clone(), self.reveal, self.gather.clone());
        let facts = &self.judgement.facts.window;
        let (step, learning_rate) = (facts.step, facts.learning_rate);
        let world = self.small.world();
        let key = world.run.keys.judgement(0, &record.leader);
        world.buckets.of(&record.leader, &record.leader).unwrap().put(&key, bytes).unwrap();
        let public = Public {
            record: &record,
            roster: &roster,
            reveal_block: reveal,
            gather: &gather,
            step,
            learning_rate,
            state,
        };
        audit(&world, &identity(1).hotkey(), &public)
    }
}

#[test]
fn an_honest_judgement_gives_the_records_selection() {
    let mut judged = judged();
    assert_eq!(judged.record.accepted.len(), 2);
    let judgement = judged.judgement.clone();
    let before = Digest::of(&State::default().to_bytes().unwrap());
    let Audit::Follows(selection, after) = judged.audit(3, &judgement, Some(before)) else { panic!() };
    assert_eq!(selection, judged.record.selection);
    assert_ne!(after, before);
}

#[test]
fn every_contradiction_is_seen() {
    let mut judged = judged();
    let good = judged.judgement.clone();
    let me = identity(3).hotkey();
    let mut seen = BTreeSet::new();
    let mut contradicts = |audit: Audit| {
        let Audit::Contradicts(why) = audit else { panic!("{audit:?}") };
        seen.insert(why);
    };
    type Spoil = fn(&mut Judgement);
    let spoils: [Spoil; 9] = [
        |j| j.facts.window.window = 1,
        |j| j.facts.window.run = Digest([7; 32]),
        |j| j.facts.window.reveal_block = Digest([7; 32]),
        |j| j.facts.window.gather.clear(),
        |j| j.facts.window.step = 5,
        |j| j.facts.window.learning_rate *= 2.0,
        |j| j.facts.window.peers.values_mut().for_each(|p| p.stake += 1),
        |j| {
            let miners = j.facts.window.peers.values_mut().filter(|p| p.role == Role::Miner);
            miners.for_each(|p| p.commitment = Commitment::Absent);
        },
        |j| j.facts.checks.checks.clear(),
    ];
    for spoil in spoils {
        let mut bad = good.clone();
        spoil(&mut bad);
        contradicts(judged.audit(3, &bad, None));
    }
    // Facts of another validator, under the leader's key.
    let mut other = good.clone();
    other.facts.window.validator = identity(2).hotkey();
    contradicts(judged.audit(2, &other, None));
    contradicts(judged.audit(3, &good, Some(Digest([7; 32]))));
    contradicts(judged.audit_bytes(b"no judgement", None));
    let world = judged.small.world();
    let key = world.run.keys.judgement(0, &me);
    world.buckets.of(&me, &me).unwrap().delete(&[key]).unwrap();
    assert_eq!(seen.len(), 10, "{seen:?}");
}

#[test]
fn a_judgement_is_its_validators() {
    let mut judged = judged();
    let bytes = judged.judgement.to_bytes().unwrap();
    assert!(bytes.len() as u64 <= limit(&judged.small.world()));
    for at in (0..bytes.len()).step_by(11) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert_eq!(Judgement::from_bytes(&bad), None, "byte {at}");
        assert_eq!(Judgement::from_bytes(&bytes[..at]), None);
    }
    assert_eq!(Judgement::from_bytes(&[&bytes[..], &[0]].concat()), None);
}
