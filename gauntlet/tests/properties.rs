//! Properties of a round that hold whatever the peers do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::network::{Act, Dice, Gain, HONEST, History, Network, Script, among_honest, hotkey};
use gauntlet::facts::{PeerFacts, Role};
use gauntlet::fast_check::{Check, FailReason, UnknownCause};
use gauntlet::incentive::chain_weights;
use gauntlet::overlap::Overlap;
use gauntlet::peer_score::peer_score;
use gauntlet::penalty;
use gauntlet::rating::Rating;
use gauntlet::state::{FORGOTTEN_AFTER, PeerState};
use gauntlet::submission::Commitment;
use gauntlet::{Digest, EventKind, Finished, Hotkey, Profile, RoundFacts, Rules, State, replay};
use proptest::prelude::*;
use std::collections::BTreeMap;

const PEERS: usize = 9;

/// A network in which everybody does anything, under a profile as it stands.
fn wild(profile: Profile, seed: u64) -> Network {
    wild_of(PEERS, profile, seed)
}

fn wild_of(peers: usize, profile: Profile, seed: u64) -> Network {
    let act = |dice: &mut Dice| match (dice.uniform() * 20.0) as u32 {
        0 => Act::Nan,
        1 => Act::Fails(FailReason::Undecodable),
        2 => Act::Fails(FailReason::Absent),
        3 => Act::Silent,
        4 => Act::Unknown(UnknownCause::TimeOut),
        5 => Act::Gone,
        6 => Act::Submit(Gain { own: 1.5, random: -1.0 }),
        7 | 8 => Act::Submit(Gain { own: -1.0, random: 0.5 }),
        _ => Act::Submit(HONEST),
    };
    let script = |i: usize| -> Script {
        // Some do anything, some only now and then.
        Box::new(
            move |_, dice| {
                if dice.uniform() < i as f64 / peers as f64 { act(dice) } else { Act::Submit(HONEST) }
            },
        )
    };
    let overlaps = move |window: u64| {
        let mut dice = Dice::new(seed, window, 999);
        let copied = dice.uniform() < 0.2;
        let pairs = [(1, 2, 0, 1.0), (5, 3, 1, 0.97)].into_iter().filter(|(a, b, ..)| *a.max(b) < peers);
        if copied { pairs.collect() } else { Vec::new() }
    };
    let scripts = (0..peers).map(script).collect();
    Network { overlaps: Box::new(overlaps), scripts, ..among_honest(Rules::of(profile), seed, 0, Vec::new()) }
}

fn profile() -> impl Strategy<Value = Profile> {
    prop_oneof![Just(Profile::Paper), Just(Profile::Reference2026)]
}

/// A state after `windows` of a wild network, and the facts of the window that follows.
fn after(network: &Network, windows: u64) -> (State, RoundFacts) {
    let state = network.run(windows).state;
    let facts = network.run_from(state.clone(), windows, 1).facts.remove(0);
    (state, facts)
}

/// The facts with peer `p` doing something else: its losses are gone.
fn with(facts: &RoundFacts, p: usize, commitment: Commitment, check: Option<Check>) -> RoundFacts {
    let mut facts = facts.clone();
    let peer = PeerFacts { uid: 0, stake: 0, role: Role::Miner, commitment };
    facts.window.peers.insert(hotkey(p), peer);
    facts.losses.remove(&hotkey(p));
    facts.checks.checks.remove(&hotkey(p));
    facts.checks.checks.extend(check.map(|check| (hotkey(p), check)));
    facts
}

fn score(rules: &Rules, state: &State, key: &Hotkey) -> f64 {
    state.peers.get(key).map_or(0.0, |peer| peer_score(rules, peer).score)
}

/// Everything that makes a score.
fn merits(state: &State, key: &Hotkey) -> Option<(f64, Rating, u32, u32, f64, u32)> {
    state.peers.get(key).map(|p| (p.proof, p.rating, p.evaluations, p.positive, p.sync, p.count))
}

const IN_TIME: Commitment = Commitment::InTime(Digest([1; 32]));

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unknown_changes_no_score(profile in profile(), seed in 0..1_000_000_u64, p in 0..PEERS, cause in 0..4_usize, at_commitment: bool) {
        use UnknownCause::*;
        let cause = [TimeOut, Connection, RateLimited, ServerError][cause];
        let network = wild(profile, seed);
        let (state, facts) = after(&network, 30);
        let debt = state.peers.get(&hotkey(p)).map_or(0, |peer| peer.unknown_debt);
        let banned = state.peers.get(&hotkey(p)).map_or(0, |peer| peer.banned);
        prop_assume!(debt + 1 < network.rules.fast.unknown_limit && banned == 0 && state.peers.contains_key(&hotkey(p)));
        let facts = match at_commitment {
            true => with(&facts, p, Commitment::Unknown(cause), None),
            false => with(&facts, p, IN_TIME, Some(Check::Unknown(cause))),
        };
        let drawn_again = RoundFacts { losses: BTreeMap::new(), ..facts };
        let finished = replay(&network.rules, state.clone(), &drawn_again).unwrap();
        prop_assert_eq!(merits(&finished.state, &hotkey(p)), merits(&state, &hotkey(p)));
        prop_assert_eq!(score(&network.rules, &finished.state, &hotkey(p)), score(&network.rules, &state, &hotkey(p)));
    }

    #[test]
    fn unknown_windows_of_the_validator_never_cost(profile in profile(), seed in 0..1_000_000_u64) {
        // Nothing can be read for ten windows: not the commitments, not the objects.
        let network = wild(profile, seed);
        let (state, facts) = after(&network, 30);
        let mut now = state.clone();
        for window in 30..40 {
            let mut facts = facts.clone();
            facts.window.window = window;
            facts.checks = Default::default();
            facts.losses.clear();
            for peer in facts.window.peers.values_mut() {
                peer.commitment = Commitment::Unknown(UnknownCause::Connection);
            }
            now = replay(&network.rules, now, &facts).unwrap().state;
        }
        for key in facts.window.peers.keys().filter(|key| state.peers.get(key).is_some_and(|p| p.banned == 0)) {
            prop_assert_eq!(merits(&now, key), merits(&state, key));
        }
    }

    #[test]
    fn no_penalty_raises_a_score(
        profile in profile(), proof in -1.0..1.0_f64, mu in 0.0..60.0_f64, sigma in 0.5..9.0_f64,
        factor in 0.0..=1.0_f64, evaluations in 0..60_u32, red_card: bool, banned in 0..3_u32
    ) {
        let rules = Rules::of(profile);
        let peer = PeerState { proof, rating: Rating { mu, sigma }, evaluations, ..PeerState::new(&rules.rating, 0) };
        let hit = PeerState { proof: penalty::apply(proof, factor), red_card, banned, ..peer.clone() };
        prop_assert!(peer_score(&rules, &hit).score <= peer_score(&rules, &peer).score);
        prop_assert!(hit.proof <= peer.proof);
    }

    #[test]
    fn no_failure_and_no_missing_evaluation_raises_a_score(profile in profile(), seed in 0..1_000_000_u64) {
        let network = wild(profile, seed);
        let mut state = State::default();
        let history = network.run(40);
        let mut failures = 0;
        for facts in &history.facts {
            let finished = replay(&network.rules, state.clone(), facts).unwrap();
            let evaluated = |key: &Hotkey| finished.events.iter().any(|e| matches!(&e.kind, EventKind::Evaluated { hotkey, .. } if hotkey == key));
            for key in facts.window.peers.keys().filter(|key| !evaluated(key)) {
                let (before, now) = (score(&network.rules, &state, key), score(&network.rules, &finished.state, key));
                prop_assert!(now <= before, "window {}: {key} rose from {before} to {now}", facts.window.window);
                let rating = |state: &State| state.peers.get(key).map(|p| p.rating.loss_rating());
                prop_assert!(rating(&state).is_none_or(|was| rating(&finished.state) <= Some(was)), "nor does its rating");
            }
            failures += finished.events.iter().filter(|e| matches!(e.kind, EventKind::EvaluationFailed { .. })).count();
            state = finished.state;
        }
        prop_assert!(failures > 0, "the network is wild enough to test something");
    }

    #[test]
    fn a_restart_changes_nothing(profile in profile(), seed in 0..1_000_000_u64, at in 1..29_u64) {
        let network = wild(profile, seed);
        let straight = network.run(30);
        let mut state = State::default();
        for (window, facts) in straight.facts.iter().enumerate() {
            if window as u64 == at {
                state = State::from_bytes(&state.to_bytes().unwrap()).unwrap();
            }
            state = replay(&network.rules, state, facts).unwrap().state;
        }
        prop_assert_eq!(state, straight.state);
    }

    #[test]
    fn a_duplicate_identity_changes_nobody_elses_score(profile in profile(), seed in 0..1_000_000_u64, p in 0..4_usize) {
        // Four peers: both profiles draw everybody, so that the draw is the same with one more.
        let network = wild_of(4, profile, seed);
        let (state, facts) = after(&network, 25);
        prop_assume!(matches!(facts.checks.checks.get(&hotkey(p)), Some(Check::Passed { .. })));
        let twin = hotkey(77);
        let mut doubled = with(&facts, 77, IN_TIME, Some(Check::Passed { count: 8 }));
        // The same object overlaps with all that the first one does.
        let own = facts.checks.overlaps.iter().filter(|o| o.hotkey == hotkey(p));
        doubled.checks.overlaps.extend(own.map(|o| Overlap { hotkey: twin, ..*o }));
        doubled.checks.overlaps.push(Overlap { hotkey: twin, other: hotkey(p), window: 25, fraction: 1.0 });
        if let Some(losses) = facts.losses.get(&hotkey(p)).copied() {
            doubled.losses.insert(twin, losses);
        }
        let rules = network.rules.clone();
        let (alone, both) = (replay(&rules, state.clone(), &facts).unwrap(), replay(&rules, state.clone(), &doubled).unwrap());
        let blamed = |e: &gauntlet::Event| matches!(&e.kind, EventKind::CheckFailed { hotkey, .. } if *hotkey == twin);
        if both.events.iter().any(blamed) {
            for key in facts.window.peers.keys() {
                prop_assert_eq!(merits(&alone.state, key), merits(&both.state, key));
            }
            let worth = |finished: &Finished, key| score(&rules, &finished.state, key);
            prop_assert!(worth(&both, &hotkey(p)) + worth(&both, &twin) <= worth(&alone, &hotkey(p)));
        } else {
            // The newcomer counts only where the peer it doubles has shown less than nothing. It is then worth what any
            // newcomer is: the first name adds nothing to the second.
            prop_assert!(state.peers[&hotkey(p)].proof < 0.0);
            doubled.window.peers.remove(&hotkey(p));
            doubled.checks.overlaps.retain(|o| o.other != hotkey(p) || o.window < 25);
            doubled.losses.remove(&hotkey(p));
            let instead = replay(&rules, state, &doubled).unwrap();
            prop_assert_eq!(merits(&both.state, &twin), merits(&instead.state, &twin));
        }
    }

    #[test]
    fn incentives_sum_to_one_or_nothing(profile in profile(), seed in 0..1_000_000_u64, burn in prop::option::of(0..3_u32)) {
        let mut network = wild(profile, seed);
        if let Some(burn) = burn {
            network.rules.incentive.burn = f64::from(burn) / 2.0;
        }
        for facts in replayed(&network, &network.run(40)) {
            let split = &facts.outcome.incentives;
            let sum = split.shares.values().sum::<f64>() + split.burn;
            prop_assert!((sum - 1.0).abs() < 1e-12 || sum == 0.0, "{sum}");
            prop_assert!(split.shares.values().all(|x| *x >= 0.0 && x.is_finite()));
        }
    }

    #[test]
    fn uids_only_name_the_weights(profile in profile(), seed in 0..1_000_000_u64, turn in 1..PEERS as u16) {
        let network = wild(profile, seed);
        let (state, facts) = after(&network, 30);
        let mut turned = facts.clone();
        let uid = |uid: u16| (uid + turn) % PEERS as u16;
        turned.window.peers.values_mut().for_each(|peer| peer.uid = uid(peer.uid));
        let (a, b) = (replay(&network.rules, state.clone(), &facts).unwrap(), replay(&network.rules, state, &turned).unwrap());
        prop_assert_eq!(&a, &b);
        let mut expected: Vec<(u16, u16)> = chain_weights(&a.outcome.incentives, &facts.window.uids(), None, None)
            .into_iter().map(|(u, weight)| (uid(u), weight)).collect();
        expected.sort();
        prop_assert_eq!(chain_weights(&b.outcome.incentives, &turned.window.uids(), None, None), expected);
    }

    #[test]
    fn losses_that_are_not_finite_fail_that_peer_alone(
        seed in 0..1_000_000_u64, which in 0..3_usize, value in 0..3_usize
    ) {
        let network = wild(Profile::Paper, seed);
        let (state, facts) = after(&network, 30);
        let finite = |l: &gauntlet::loss_score::Losses| l.own_after.is_finite();
        prop_assume!(facts.losses.values().filter(|l| finite(l)).count() >= 2);
        let key = *facts.losses.iter().find(|(_, l)| finite(l)).unwrap().0;
        let mut bad = facts.clone();
        let losses = bad.losses.get_mut(&key).unwrap();
        // L(θ; D_rand) is one value for all; where it is not finite the round is void.
        let fields = [&mut losses.own_before, &mut losses.own_after, &mut losses.random_after];
        *fields.into_iter().nth(which).unwrap() = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY][value];
        let mut without = facts.clone();
        without.losses.remove(&key);
        let rules = &network.rules;
        let (bad, without) = (replay(rules, state.clone(), &bad).unwrap(), replay(rules, state.clone(), &without).unwrap());
        let failed = |e: &gauntlet::Event| e.kind == EventKind::EvaluationFailed { hotkey: key, reason: FailReason::NotFinite };
        prop_assert!(bad.events.iter().any(failed) && !bad.outcome.void);
        prop_assert!(score(rules, &bad.state, &key) <= score(rules, &state, &key));
        for other in facts.window.peers.keys().filter(|other| **other != key) {
            prop_assert_eq!(bad.state.peers.get(other), without.state.peers.get(other));
        }
    }

    #[test]
    fn a_round_without_a_finite_loss_is_void(profile in profile(), seed in 0..1_000_000_u64) {
        let network = wild(profile, seed);
        let (state, mut facts) = after(&network, 30);
        prop_assume!(!facts.losses.is_empty());
        facts.losses.values_mut().for_each(|l| l.random_before = f64::NAN);
        let finished = replay(&network.rules, state.clone(), &facts).unwrap();
        prop_assert!(finished.outcome.void);
        for (key, peer) in &finished.state.peers {
            prop_assert_eq!(state.peers.get(key).map_or(peer.rating, |p| p.rating), peer.rating, "no rating moves");
            prop_assert_eq!(state.peers.get(key).map_or(0, |p| p.evaluations), peer.evaluations);
        }
    }
}

/// Every round of a history, judged again.
fn replayed(network: &Network, history: &History) -> Vec<Finished> {
    let mut state = State::default();
    let again = history.facts.iter().map(|facts| {
        let finished = replay(&network.rules, std::mem::take(&mut state), facts).unwrap();
        state = finished.state.clone();
        finished
    });
    again.collect()
}

#[test]
fn the_loss_on_random_data_before_the_step_is_one_value_for_all() {
    let network = among_honest(Rules::default(), 1, 6, Vec::new());
    let (state, mut facts) = after(&network, 10);
    let (key, losses) = facts.losses.iter_mut().next_back().unwrap();
    losses.random_before += 1e-9;
    let refused = gauntlet::Error::RandomLoss { hotkey: *key };
    assert_eq!(replay(&network.rules, state, &facts), Err(refused));
}

#[test]
fn published_values_of_the_unregistered_change_nothing() {
    let network = among_honest(Rules::of(Profile::Reference2026), 1, 6, Vec::new());
    let (state, mut facts) = after(&network, 30);
    let gone = hotkey(5);
    facts.window.peers.remove(&gone);
    facts.losses.clear();
    let without = replay(&network.rules, state.clone(), &facts).unwrap();
    facts.checks.sync.insert(gone, gauntlet::sync_score::SyncFact::Missing);
    assert_eq!(replay(&network.rules, state, &facts).unwrap(), without);
}

#[test]
fn judging_again_from_the_facts_gives_the_same_bits() {
    for profile in [Profile::Paper, Profile::Reference2026] {
        let network = wild(profile, 5);
        let history = network.run(60);
        let again = replayed(&network, &history);
        assert_eq!(again.last().unwrap().state.to_bytes().unwrap(), history.state.to_bytes().unwrap());
        let events: Vec<_> = again.into_iter().flat_map(|finished| finished.events).collect();
        let text = |events: &[gauntlet::Event]| serde_json::to_string(events).unwrap();
        assert_eq!(text(&events), text(&history.events));
    }
}

#[test]
fn who_leaves_and_comes_back_keeps_its_state_and_the_next_owner_of_the_uid_gets_nothing() {
    for profile in [Profile::Paper, Profile::Reference2026] {
        leaves_and_comes_back(profile);
    }
}

fn leaves_and_comes_back(profile: Profile) {
    let leaver: Script = Box::new(|w, _| if (40..60).contains(&w) { Act::Gone } else { Act::Submit(HONEST) });
    let network = among_honest(Rules::of(profile), 3, 6, vec![leaver]);
    let gone = network.run(40);
    let key = hotkey(6);
    let before = gone.state.peers[&key].clone();
    assert!(before.evaluations > 10 && before.proof > 0.2);
    let away = network.run_from(gone.state, 40, 20);
    assert_eq!(away.state.peers[&key], before, "nothing changes while it is away");
    assert!(away.shares.iter().all(|shares| shares[6] == 0.0), "and nothing is paid");
    // It comes back under another uid, and somebody else holds its old one.
    let mut facts = network.run_from(away.state.clone(), 60, 1).facts.remove(0);
    facts.window.peers.get_mut(&key).unwrap().uid = 200;
    let heir = hotkey(88);
    let old_uid = PeerFacts { uid: 6, stake: 0, role: Role::Miner, commitment: IN_TIME };
    facts.window.peers.insert(heir, old_uid);
    facts.losses.clear();
    let finished = replay(&network.rules, away.state, &facts).unwrap();
    assert_eq!(
        merits(&finished.state, &key),
        Some((before.proof, before.rating, before.evaluations, before.positive, before.sync, 8))
    );
    let fresh = PeerState::new(&network.rules.rating, 60);
    let got = &finished.state.peers[&heir];
    assert_eq!((got.proof, got.rating, got.evaluations, got.first_seen), (fresh.proof, fresh.rating, 0, 60));
    assert_eq!(finished.outcome.incentives.share(&heir), 0.0);
}

#[test]
fn who_lost_its_slot_is_forgotten_after_a_while_and_at_once_where_it_never_committed() {
    let leaver: Script = Box::new(|w, _| if w < 40 { Act::Submit(HONEST) } else { Act::Gone });
    let idler: Script = Box::new(|w, _| if w < 40 { Act::Silent } else { Act::Gone });
    let network = among_honest(Rules::default(), 3, 6, vec![leaver, idler]);
    let state = network.run(40).state;
    assert!([6, 7].iter().all(|p| state.peers.contains_key(&hotkey(*p))), "who has a slot is known");
    // It committed last in window 39.
    let last = 39 + FORGOTTEN_AFTER;
    let state = network.run_from(state, 40, 1).state;
    assert_eq!([6, 7].map(|p| state.peers.contains_key(&hotkey(p))), [true, false]);
    let state = network.run_from(state, 41, last - 41).state;
    assert!(state.peers.contains_key(&hotkey(6)));
    let state = network.run_from(state, last, 1).state;
    assert_eq!(state.peers.len(), 6, "those who have a slot");
}

#[test]
fn three_unknown_windows_count_as_missing_only_if_the_rest_could_be_read() {
    let dark: Script =
        Box::new(|w, _| if w < 40 { Act::Submit(HONEST) } else { Act::Unknown(UnknownCause::TimeOut) });
    let network = among_honest(Rules::default(), 1, 6, vec![dark]);
    let key = hotkey(6);
    let start = network.run(40).state;
    let proof = |state: &State| state.peers[&key].proof;
    assert!(proof(&start) > 0.2);
    let two = network.run_from(start.clone(), 40, 2).state;
    assert_eq!(proof(&two), proof(&start));
    let three = network.run_from(start.clone(), 40, 3).state;
    assert_eq!(proof(&three), 0.75 * proof(&start));
    // The validator's own bucket did not answer either: nobody is to blame.
    let mut state = start.clone();
    for facts in network.run_from(start.clone(), 40, 6).facts {
        let mut facts = facts;
        facts.window.own_storage = gauntlet::facts::Reach::Unreachable;
        facts.losses.clear();
        state = replay(&network.rules, state, &facts).unwrap().state;
    }
    assert_eq!(proof(&state), proof(&start));
}

#[test]
fn in_reference_2026_a_failed_evaluation_lifts_those_it_loses_to() {
    // There a failed submission is an opponent that comes last (R§3.5.5): that a loss which is not finite concerns its
    // peer alone, as in `paper`, does not hold.
    let network = among_honest(Rules::of(Profile::Reference2026), 2, 6, Vec::new());
    let (state, without) = after(&network, 30);
    let (mut bad, mut without) = (without.clone(), without);
    bad.losses.get_mut(&hotkey(5)).unwrap().own_after = f64::NAN;
    without.losses.remove(&hotkey(5));
    let [bad, without] =
        [bad, without].map(|facts| replay(&network.rules, state.clone(), &facts).unwrap().state);
    let rating = |state: &State, p| state.peers[&hotkey(p)].rating.loss_rating();
    let others = |state: &State| (0..5).map(|p| rating(state, p)).sum::<f64>();
    assert!(rating(&bad, 5) < rating(&state, 5));
    assert!(others(&bad) > others(&without), "the others gain by its failure");
}

#[test]
fn who_fails_at_the_bottom_is_not_lifted_by_a_tie() {
    // Where failed submissions are opponents they tie for last, and a tie with a stronger peer lifts the weaker one.
    let failing = || -> Script { Box::new(|_, _| Act::Fails(FailReason::Absent)) };
    let network = among_honest(Rules::of(Profile::Reference2026), 2, 5, vec![failing(), failing()]);
    // Four windows: eight misses would be a ban, and no match.
    let mut state = network.run(4).state;
    let weak = Rating { mu: -50.0, sigma: 8.0 };
    state.peers.get_mut(&hotkey(5)).unwrap().rating = weak;
    let facts = network.run_from(state.clone(), 4, 1).facts.remove(0);
    let ratings: Vec<Rating> = state.peers.values().map(|p| p.rating).collect();
    let places: Vec<usize> =
        state.peers.keys().map(|key| if [hotkey(5), hotkey(6)].contains(key) { 5 } else { 0 }).collect();
    let plain = gauntlet::rating::rate(&network.rules.rating, &ratings, &places);
    let lifted =
        ratings.iter().zip(&plain).any(|(was, now)| *was == weak && now.loss_rating() > was.loss_rating());
    assert!(lifted, "the plain update would lift it");
    let finished = replay(&network.rules, state, &facts).unwrap();
    let failed = |e: &gauntlet::Event| matches!(&e.kind, EventKind::EvaluationFailed { hotkey: key, .. } if *key == hotkey(5));
    assert!(
        finished.events.iter().any(failed)
            && finished.events.iter().any(|e| matches!(e.kind, EventKind::Rated { .. }))
    );
    assert_eq!(finished.state.peers[&hotkey(5)].rating, weak);
}
