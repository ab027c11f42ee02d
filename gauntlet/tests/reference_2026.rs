//! The profile `reference-2026` (R§3.5): what differs from the paper's rules, each on its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::network::{Act, Gain, HONEST, Network, Script, among_honest, hotkey};
use gauntlet::fast_check::FailReason;
use gauntlet::peer_score::{Gate, peer_score};
use gauntlet::sync_score::SyncFact;
use gauntlet::{EventKind, FailReason as Reason, Profile, Rules, State, replay};

const SUBJECT: usize = 6;

fn network(rules: Rules, script: Script) -> Network {
    among_honest(rules, 4, 6, vec![script])
}

fn from(window: u64, act: Act) -> Script {
    Box::new(move |w, _| if w < window { Act::Submit(HONEST) } else { act })
}

fn rules() -> Rules {
    Rules::of(Profile::Reference2026)
}

fn proof(state: &State) -> f64 {
    state.peers[&hotkey(SUBJECT)].proof
}

#[test]
fn missing_escalates_and_then_bans() {
    let network = network(rules(), from(30, Act::Fails(FailReason::Absent)));
    let before = network.run(30).state;
    let start = proof(&before);
    assert!(start > 0.4);
    let after = |windows| network.run_from(before.clone(), 30, windows).state;
    assert_eq!(proof(&after(1)), 0.75 * start);
    assert_eq!(proof(&after(2)), 0.5 * (0.75 * start));
    assert_eq!(proof(&after(3)), 0.0);
    // At least four misses among the last eight gather windows: banned for twenty.
    let run = network.run_from(before, 30, 12);
    let often = run.state.peers[&hotkey(SUBJECT)].banned > 0;
    assert!(often, "and not drawn or selected while the ban lasts");
    let selection = &run.last.selection;
    assert!(!selection.gather.contains(&hotkey(SUBJECT)) && !selection.reserve.contains(&hotkey(SUBJECT)));
    assert_eq!(run.last.scores[&hotkey(SUBJECT)].gate, Some(Gate::Banned));
}

#[test]
fn a_ban_ends_and_the_peer_is_selected_again() {
    let script: Script =
        Box::new(
            |w, _| {
                if (30..36).contains(&w) { Act::Fails(FailReason::Absent) } else { Act::Submit(HONEST) }
            },
        );
    let network = network(rules(), script);
    let before = network.run(30).state;
    let mut state = before;
    let (mut banned, mut selected) = (Vec::new(), Vec::new());
    let history = network.run_from(state.clone(), 30, 45);
    for facts in &history.facts {
        let finished = replay(&network.rules, state, facts).unwrap();
        state = finished.state;
        banned.push(state.peers[&hotkey(SUBJECT)].banned > 0);
        let selection = finished.outcome.selection;
        selected.push(selection.gather.contains(&hotkey(SUBJECT)));
    }
    let first = banned.iter().position(|banned| *banned).unwrap();
    // The window that bans is the first of twenty.
    assert_eq!(banned.iter().filter(|banned| **banned).count(), 19, "{banned:?}");
    assert!(banned[first + 19..].iter().all(|banned| !banned), "one ban, not another: {banned:?}");
    assert!(selected[first..first + 19].iter().filter(|s| **s).count() <= 1, "one may stand for two windows");
    assert!(selected.last().unwrap(), "selected again: {selected:?}");
    assert!(proof(&state) > 0.0, "and it earns its proof again");
}

#[test]
fn a_window_in_which_most_fail_costs_everything_at_once() {
    let rules = rules();
    let network = network(rules.clone(), from(30, Act::Fails(FailReason::Absent)));
    let before = network.run(30).state;
    let mut facts = network.run_from(before.clone(), 30, 1).facts.remove(0);
    facts.losses.clear();
    facts.window.gather = (0..7).map(hotkey).collect();
    let failed = gauntlet::Check::Failed(FailReason::Absent);
    facts.checks.checks.values_mut().take(5).for_each(|check| *check = failed);
    let after = replay(&rules, before.clone(), &facts).unwrap().state;
    let hit = facts.checks.checks.iter().filter(|(_, check)| **check == failed).map(|(key, _)| key);
    for key in hit.filter(|key| before.peers[*key].proof > 0.0) {
        assert_eq!(after.peers[key].proof, 0.0);
    }
}

#[test]
fn an_invalid_object_is_a_red_card_until_the_next_evaluation() {
    let script: Script =
        Box::new(|w, _| if w == 30 { Act::Fails(FailReason::Undecodable) } else { Act::Submit(HONEST) });
    let rules = rules();
    let network = network(rules.clone(), script);
    let before = network.run(30).state;
    let carded = network.run_from(before.clone(), 30, 1).state;
    let peer = &carded.peers[&hotkey(SUBJECT)];
    assert_eq!(peer.proof, proof(&before), "μ_p is left alone");
    assert_eq!(peer_score(&rules, peer).gate, Some(Gate::RedCard));
    assert!(
        !network.run_from(carded, 31, 1).state.peers[&hotkey(SUBJECT)].red_card,
        "all are evaluated every window here"
    );
}

#[test]
fn negative_evaluations_lower_and_exclude() {
    let harmful = Act::Submit(Gain { own: 2.0, random: -1.0 });
    let network = network(rules(), from(20, harmful));
    let history = network.run(40);
    let peer = &history.state.peers[&hotkey(SUBJECT)];
    assert!(peer.negative_streak >= 3 && peer.negatives.count(8) > 4);
    let lowered = |e: &gauntlet::Event| {
        let key = hotkey(SUBJECT);
        let cause = gauntlet::penalty::PenaltyCause::NegativeEvaluations;
        matches!(&e.kind, EventKind::Penalised { hotkey, cause: c, factor, .. } if *hotkey == key && *c == cause && *factor == 0.25)
    };
    assert!(history.events.iter().any(lowered));
    assert!(!history.last.selection.gather.contains(&hotkey(SUBJECT)));
}

#[test]
fn negative_evaluations_of_everybody_are_the_models_fault() {
    let all_bad: Vec<Script> =
        (0..6).map(|_| from(20, Act::Submit(Gain { own: 1.0, random: -5.0 }))).collect();
    let history = among_honest(rules(), 4, 0, all_bad).run(40);
    assert!(history.state.peers.values().all(|peer| peer.negative_streak == 0));
}

#[test]
fn copies_cost_by_level() {
    // (overlap, factor on μ_p, banned)
    for (overlap, factor, banned) in [(0.45, 0.5, false), (0.55, 0.0, false), (0.7, 0.0, true)] {
        let mut network = network(rules(), from(0, Act::Submit(HONEST)));
        let before = network.run(30).state;
        network.overlaps = Box::new(move |_| vec![(SUBJECT, 0, 0, overlap)]);
        let mut senior = before.clone();
        senior.peers.get_mut(&hotkey(0)).unwrap().proof = 1.0;
        let after = network.run_from(senior, 30, 1);
        let check = |e: &gauntlet::Event| {
            e.kind
                == EventKind::CheckFailed {
                    hotkey: hotkey(SUBJECT),
                    reason: Reason::Copy { of: hotkey(0) },
                    overlap: Some(overlap),
                }
        };
        assert!(after.events.iter().any(check));
        assert_eq!(proof(&after.state), factor * proof(&before));
        assert_eq!(after.state.peers[&hotkey(SUBJECT)].banned > 0, banned);
    }
}

#[test]
fn sync_pays_and_too_far_behind_is_a_failure() {
    let rules = rules();
    let network = network(rules.clone(), from(0, Act::Submit(HONEST)));
    let before = network.run(30).state;
    let mut facts = network.run_from(before.clone(), 30, 1).facts.remove(0);
    facts.losses.clear();
    let values =
        |steps: f32| SyncFact::Values { ours: vec![0.0; 8], theirs: vec![4e-4 * steps; 8], movement: vec![] };
    let after = |fact| {
        let mut facts = facts.clone();
        facts.checks.sync.insert(hotkey(SUBJECT), fact);
        replay(&rules, before.clone(), &facts).unwrap().state.peers[&hotkey(SUBJECT)].clone()
    };
    let near = after(values(1.5));
    assert!((near.sync - libm::pow(0.5, 2.5)).abs() < 1e-6 && near.proof == proof(&before));
    assert_eq!(after(values(2.5)).proof, 0.75 * proof(&before));
    let missing = after(SyncFact::Missing);
    assert_eq!((missing.sync, missing.proof), (0.0, 0.75 * proof(&before)));
}

#[test]
fn half_is_burned_and_places_are_paid() {
    let history = among_honest(rules(), 4, 9, Vec::new()).run(60);
    let split = &history.last.incentives;
    assert_eq!(split.burn, 0.5);
    let shares: Vec<f64> = split.shares.values().copied().collect();
    let (low, high) =
        (shares.iter().copied().fold(1.0, f64::min), shares.iter().copied().fold(0.0, f64::max));
    assert!(shares.len() > 2 && (high / low - 2.0).abs() < 1e-9, "linear from 2 to 1: {shares:?}");
}

#[test]
fn a_selection_does_not_outlive_its_period() {
    // Windows 40 to 42 are left out: the window that should have selected is one of them, so 43 selects for itself.
    let network = among_honest(rules(), 4, 30, Vec::new());
    let mut state = network.run(40).state;
    let stale = vec![hotkey(0)];
    state.selection.as_mut().unwrap().gather = stale.clone();
    let left_out = network.run_from(state.clone(), 43, 1).last.selection;
    assert_eq!(left_out.window, 45);
    assert_ne!(left_out.gather, stale);
    // Within its period it stands.
    let mut state = network.run(41).state;
    state.selection.as_mut().unwrap().gather = stale.clone();
    assert_eq!(network.run_from(state, 41, 1).last.selection.gather, stale);
}

#[test]
fn selection_stands_for_two_windows() {
    let history = among_honest(rules(), 4, 30, Vec::new()).run(40);
    let sets: Vec<_> = history
        .events
        .iter()
        .filter_map(|e| match &e.kind {
            EventKind::Selected { selection } => Some((e.window, selection.clone())),
            _ => None,
        })
        .collect();
    for (window, selection) in &sets {
        assert_eq!(selection.window, window + 2);
        assert!(selection.gather.len() <= 20 && selection.reserve.len() <= 10);
        if window % 2 == 1 {
            assert_eq!(selection.gather, sets[usize::try_from(*window).unwrap() - 1].1.gather);
        }
    }
}
