//! `explain` accounts for every payout: each factor comes out of the events, and together they give the share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::network::{Act, Gain, HONEST, History, Network, Script, among_honest, hotkey};
use gauntlet::explain::advice::Advice;
use gauntlet::explain::{CheckResult, Explanation, ProofCause, explain};
use gauntlet::fast_check::{FailReason, UnknownCause};
use gauntlet::peer_score::peer_score;
use gauntlet::sync_score::SyncFact;
use gauntlet::{Event, Profile, Rules, penalty, proof_of_computation, replay};

/// Five honest peers, and one of each kind.
fn network(profile: Profile) -> Network {
    let always = |gain: Gain| -> Script { Box::new(move |_, _| Act::Submit(gain)) };
    let others: Vec<Script> = vec![
        always(Gain { own: 1.0, random: 1.0 }),
        always(Gain { own: -1.5, random: -1.0 }),
        Box::new(|_, _| Act::Fails(FailReason::WrongState)),
        Box::new(|w, _| if w % 7 < 5 { Act::Submit(HONEST) } else { Act::Unknown(UnknownCause::TimeOut) }),
        Box::new(|w, _| if w < 30 { Act::Submit(HONEST) } else { Act::Silent }),
        Box::new(|w, _| if w < 55 { Act::Gone } else { Act::Submit(HONEST) }),
        Box::new(|w, _| if w % 9 == 0 { Act::Nan } else { Act::Submit(HONEST) }),
    ];
    among_honest(Rules::of(profile), 11, 5, others)
}

const PEERS: usize = 12;

/// μ_p from nothing but the explanation's steps and the rules.
fn rebuilt_proof(rules: &Rules, explained: &Explanation) -> f64 {
    explained.proof.iter().fold(0.0, |proof, step| match step.cause {
        ProofCause::Evaluated(indicator) => proof_of_computation::update(&rules.proof, proof, indicator),
        ProofCause::Penalty { factor, .. } => penalty::apply(proof, factor),
    })
}

#[test]
fn every_factor_of_every_payout_is_rebuilt() {
    for profile in [Profile::Paper, Profile::Reference2026] {
        let network = network(profile);
        let history = network.run(60);
        let mut paid = 0;
        for window in 0..60 {
            for peer in 0..PEERS {
                let explained = explain(&network.rules, &history.events, hotkey(peer), window);
                let share = history.shares[usize::try_from(window).unwrap()][peer];
                assert_eq!(explained.share, share);
                let recomputed = explained.split.unwrap().recomputed.unwrap();
                assert!((recomputed - share).abs() < 1e-12, "{recomputed} against {share}");
                if let Some(score) = explained.score {
                    assert_eq!(score.proof, rebuilt_proof(&network.rules, &explained));
                    let rating = explained.last_match.map(|m| m.after.loss_rating());
                    assert_eq!(score.loss_rating, rating.unwrap_or(score.loss_rating));
                    let product = score.proof * score.loss_rating * score.sync * score.work;
                    assert_eq!(score.score, if score.gate.is_none() { product } else { 0.0 });
                }
                paid += u32::from(share > 0.0);
            }
        }
        assert!(paid > 100, "the test saw payouts");
    }
}

#[test]
fn the_newest_window_agrees_with_the_state() {
    let network = network(Profile::Paper);
    let history = network.run(60);
    for peer in 0..PEERS {
        let explained = explain(&network.rules, &history.events, hotkey(peer), 59);
        let state = &history.state.peers[&hotkey(peer)];
        assert_eq!(explained.evaluations, state.evaluations);
        assert_eq!(rebuilt_proof(&network.rules, &explained), state.proof);
        let score = peer_score(&network.rules, state);
        assert_eq!(explained.score.map_or(0.0, |s| s.score), score.score);
        let selected = history.last.selection.gather.contains(&hotkey(peer));
        assert_eq!(explained.selected, selected);
        // A turn that failed also resets the wait; the explanation shows the last one that gave scores.
        assert!(explained.last_evaluated() <= state.last_evaluated);
    }
}

fn advice(history: &History, rules: &Rules, peer: usize, window: u64) -> Vec<Advice> {
    explain(rules, &history.events, hotkey(peer), window).advice
}

#[test]
fn advice_names_what_is_wrong() {
    let network = network(Profile::Paper);
    let history = network.run(60);
    let has = |peer, window, wanted: fn(&Advice) -> bool| {
        let advice = advice(&history, &network.rules, peer, window);
        assert!(advice.iter().any(wanted), "peer {peer}, window {window}: {advice:?}");
    };
    has(5, 59, |a| matches!(a, Advice::TrainOnAssignedData { .. } | Advice::RankHigher { .. }));
    has(6, 59, |a| matches!(a, Advice::TrainOnAssignedData { proof, .. } if *proof < 0.0));
    has(7, 59, |a| matches!(a, Advice::FixCheck { reason: FailReason::WrongState, .. }));
    has(9, 59, |a| matches!(a, Advice::FixCheck { reason: FailReason::NoCommitment, window: 59, .. }));
    has(10, 40, |a| matches!(a, Advice::Register));
    has(10, 56, |a| matches!(a, Advice::WaitForEvaluations { need: 5, .. }));
    has(0, 99, |a| matches!(a, Advice::WindowNotJudged));
    let best = (0..5).max_by(|a, b| history.shares[59][*a].total_cmp(&history.shares[59][*b])).unwrap();
    has(best, 59, |a| matches!(a, Advice::KeepGoing));
}

#[test]
fn sync_copies_counts_and_bans_are_explained() {
    let always: fn() -> Script = || Box::new(|_, _| Act::Submit(HONEST));
    let rules = Rules::of(Profile::Reference2026);
    let mut network = among_honest(rules.clone(), 11, 5, vec![always()]);
    let key = hotkey(5);
    let (before, after) = (network.run(30), 30);
    network.overlaps = Box::new(|_| vec![(5, 0, 0, 0.7)]);
    let mut state = before.state.clone();
    state.peers.get_mut(&hotkey(0)).unwrap().proof = 1.0;
    let mut facts = network.run_from(state.clone(), after, 1).facts.remove(0);
    let steps = SyncFact::Values { ours: vec![0.0; 8], theirs: vec![4e-4; 8], movement: vec![] };
    facts.checks.sync.insert(key, steps);
    let copied = replay(&rules, state, &facts).unwrap();
    let explained = explain(&rules, &copied.events, key, after);
    let line = explained.last_check.unwrap();
    assert_eq!(
        (line.result, line.overlap),
        (CheckResult::Failed(FailReason::Copy { of: hotkey(0) }), Some(0.7))
    );
    assert_eq!(explained.banned_until, Some(50), "twenty windows, this one included");
    let sync = explained.last_sync.unwrap();
    assert!((sync.steps.unwrap() - 1.0).abs() < 1e-6 && sync.factor < 1.0);
    // These are the events of one window; the count of evaluations is still that of the run.
    assert_eq!(explained.evaluations, before.state.peers[&key].evaluations);
    assert!(explained.evaluations > 10);
    assert!(explained.advice.contains(&Advice::WaitOutBan { until: Some(50) }), "{:?}", explained.advice);
    let text = explained.to_string();
    for part in ["overlap 0.700", "1.00 steps behind", "banned          before window 50", "before window 50"]
    {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let passed = explain(&rules, &before.events, key, 29);
    assert_eq!(passed.last_check.unwrap().result, CheckResult::Passed { count: 8 });
    assert!(passed.to_string().contains("passed, 8 sequences"));
}

#[test]
fn text_and_json_say_the_same() {
    let network = network(Profile::Paper);
    let history = network.run(60);
    let best = (0..5).max_by(|a, b| history.shares[59][*a].total_cmp(&history.shares[59][*b])).unwrap();
    let explained = explain(&network.rules, &history.events, hotkey(best), 59);
    let json = serde_json::to_string(&explained).unwrap();
    assert_eq!(serde_json::from_str::<Explanation>(&json).unwrap(), explained);
    let text = explained.to_string();
    for part in ["PeerScore", "last evaluated  window", "LossRating", "own data", "what would raise it"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    println!("{text}");
    for peer in 0..PEERS {
        assert!(explain(&network.rules, &history.events, hotkey(peer), 20).to_string().lines().count() > 6);
    }
}

#[test]
fn events_travel_as_json_lines() {
    let history = network(Profile::Reference2026).run(30);
    for event in &history.events {
        let line = serde_json::to_string(event).unwrap();
        let back: Event = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), line);
    }
}
