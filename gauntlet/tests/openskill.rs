//! LossRating against OpenSkill 6.2.0: every match and sequence of `openskill.json`, ties included, to 1e-9.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use gauntlet::rating::{FailedAre, Rating, RatingRules, places, rate};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    sequences: Vec<Sequence>,
}

#[derive(Deserialize)]
struct Params {
    mu: f64,
    sigma: f64,
    beta: f64,
    kappa: f64,
    tau: f64,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    params: Params,
    scores: Option<Vec<f64>>,
    ranks: Option<Vec<f64>>,
    limit_sigma: bool,
    inputs: Vec<Player>,
    outputs: Vec<Player>,
}

#[derive(Clone, Copy, Deserialize)]
struct Player {
    mu: f64,
    sigma: f64,
    ordinal: Option<f64>,
}

#[derive(Deserialize)]
struct Sequence {
    name: String,
    params: Params,
    n: usize,
    trace: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    scores: BTreeMap<usize, f64>,
    after: BTreeMap<usize, Player>,
}

impl Params {
    fn rules(&self, limit_sigma: bool) -> RatingRules {
        let Self { mu, sigma, beta, kappa, tau } = *self;
        RatingRules { mu, sigma, beta, kappa, tau, limit_sigma, failed: FailedAre::Opponents }
    }
}

fn assert_close(name: &str, got: Rating, want: Player) {
    assert!((got.mu - want.mu).abs() < 1e-9, "{name}: μ {} against {}", got.mu, want.mu);
    assert!((got.sigma - want.sigma).abs() < 1e-9, "{name}: σ {} against {}", got.sigma, want.sigma);
    let ordinal = want.ordinal.expect("vector without ordinal");
    assert!((got.loss_rating() - ordinal).abs() < 1e-9, "{name}: LossRating");
}

#[test]
fn every_match() {
    let vectors: Vectors = common::vector("openskill.json");
    assert_eq!(vectors.cases.len(), 12);
    for case in vectors.cases {
        let places = match (case.scores, case.ranks) {
            (Some(scores), _) => places(&scores),
            // A rank is better the lower it is.
            (None, Some(ranks)) => places(&ranks.iter().map(|r| -r).collect::<Vec<_>>()),
            (None, None) => panic!("{}: neither scores nor ranks", case.name),
        };
        let players: Vec<Rating> = case.inputs.iter().map(|p| Rating { mu: p.mu, sigma: p.sigma }).collect();
        let rated = rate(&case.params.rules(case.limit_sigma), &players, &places);
        assert_eq!(rated.len(), case.outputs.len());
        for (got, want) in rated.into_iter().zip(case.outputs) {
            assert_close(&case.name, got, want);
        }
    }
}

#[test]
fn every_sequence() {
    let vectors: Vectors = common::vector("openskill.json");
    assert_eq!(vectors.sequences.len(), 2);
    for sequence in vectors.sequences {
        let rules = sequence.params.rules(false);
        let mut ratings = vec![Rating::new(&rules); sequence.n];
        for step in sequence.trace {
            let (who, scores): (Vec<usize>, Vec<f64>) = step.scores.into_iter().unzip();
            let players: Vec<Rating> = who.iter().map(|i| ratings[*i]).collect();
            for (i, rating) in who.iter().zip(rate(&rules, &players, &places(&scores))) {
                ratings[*i] = rating;
            }
            assert_eq!(step.after.len(), sequence.n);
            for (i, want) in step.after {
                assert_close(&sequence.name, ratings[i], want);
            }
        }
    }
}
