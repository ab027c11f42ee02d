//! A worked example: one round, four new peers, β = 20, all signs positive.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::network::hotkey;
use gauntlet::facts::{CheckFacts, PeerFacts, Reach, Role, RoundFacts, WindowFacts};
use gauntlet::fast_check::Check;
use gauntlet::incentive::IncentiveForm;
use gauntlet::loss_score::Losses;
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Finished, Hotkey, Rules, State, replay};

const SCORES: [f64; 4] = [0.00052, -0.0001, 0.0009, 0.0003];

fn round(rules: &Rules) -> Finished {
    let peer =
        |uid| PeerFacts { uid, stake: 0, role: Role::Miner, commitment: Commitment::InTime(Digest([1; 32])) };
    let window = WindowFacts {
        run: Digest([0; 32]),
        window: 0,
        step: 0,
        learning_rate: 4e-4,
        validator: Hotkey([255; 32]),
        reveal_block: Digest([3; 32]),
        own_storage: Reach::Reached,
        gather: Vec::new(),
        peers: (0..4).map(|i| (hotkey(i.into()), peer(i))).collect(),
    };
    // Losses near zero keep the decimal scores of the example exact enough for ten digits.
    let losses = |score: f64| Losses {
        own_before: 1.0,
        own_after: 0.0,
        random_before: 0.0,
        random_after: -score,
        marginal: None,
    };
    let checks = (0..4).map(|i| (hotkey(i), Check::Passed { count: 8 })).collect();
    let facts = RoundFacts {
        window,
        checks: CheckFacts { checks, ..CheckFacts::default() },
        losses: SCORES.iter().enumerate().map(|(i, score)| (hotkey(i), losses(*score))).collect(),
    };
    replay(rules, State::default(), &facts).unwrap()
}

/// The paper's rules without this project's bars on early noise, which the example does not have.
fn rules() -> Rules {
    let mut rules = Rules::default();
    rules.score.min_evaluations = 0;
    rules.proof.chance = 0.0;
    rules
}

fn assert_close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-9, "{got} against {want}");
}

#[test]
fn scores_and_shares_of_the_example() {
    let finished = round(&rules());
    let products = [0.0351242108, -0.0839704742, 0.0608480964, -0.0038315841];
    let ordinals = [0.7024842164, -1.6794094833, 1.2169619284, -0.0766316825];
    let shares = [0.2499311069, 0.0, 0.7500688931, 0.0];
    for i in 0..4 {
        let peer = &finished.state.peers[&hotkey(i)];
        assert_close(peer.proof, 0.05);
        assert_close(peer.rating.loss_rating(), ordinals[i]);
        assert_close(peer.proof * peer.rating.loss_rating(), products[i]);
        assert_close(finished.outcome.scores[&hotkey(i)].score, products[i].max(0.0));
        assert_close(finished.outcome.incentives.share(&hotkey(i)), shares[i]);
    }
}

#[test]
fn the_papers_shift_would_pay_all_but_the_worst() {
    let mut rules = rules();
    rules.incentive.form = IncentiveForm::MinShift;
    let shares = round(&rules).outcome.incentives;
    // (s + 0.0839704742)² over their sum.
    let above = [0.1190946850, 0.0, 0.1448185706, 0.0801388901];
    let pool: f64 = above.iter().map(|x| x * x).sum();
    for (i, x) in above.iter().enumerate() {
        assert_close(shares.share(&hotkey(i)), x * x / pool);
    }
}

#[test]
fn early_noise_bars_pay_nobody_in_the_first_round() {
    assert!(round(&Rules::default()).outcome.incentives.shares.is_empty());
}
