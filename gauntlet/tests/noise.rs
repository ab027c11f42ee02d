//! Early noise is not paid: a peer whose signs are coin flips and whose ranks are as good as anybody's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::network::{Act, Gain, Script, among_honest};
use gauntlet::Rules;

/// Random signs: own data far above or far below random data. Random ranks: the gain of an honest peer, with its noise.
fn noise() -> Script {
    Box::new(|_, dice| {
        let sign = if dice.uniform() < 0.5 { 9.0 } else { -9.0 };
        Act::Submit(Gain { own: 1.0 + sign, random: 1.0 })
    })
}

/// Income of the noise peer over the honest mean: 100 windows, mean of 100 seeds.
fn share(rules: &Rules, honest: usize) -> f64 {
    let (mut noisy, mut mean) = (0.0, 0.0);
    for seed in 0..100 {
        let history = among_honest(rules.clone(), seed, honest, vec![noise()]).run(100);
        noisy += history.income(honest, 0..100);
        mean += history.mean(0..honest, 0..100);
    }
    noisy / mean
}

#[test]
fn random_signs_and_ranks_earn_less_than_a_twentieth() {
    let rules = Rules::default();
    let mut without = Rules::default();
    without.proof.chance = 0.0;
    println!("| honest peers | share of the honest mean | without the bar of chance |\n|---|---|---|");
    for honest in [8, 15, 30] {
        let (with, without) = (share(&rules, honest), share(&without, honest));
        println!("| {honest} | {with:.4} | {without:.4} |");
        assert!(with < 0.05, "{with} among {honest}");
        assert!(without > with, "the bar does what it is for");
    }
}
