//! Early noise is not paid: a peer whose signs are coin flips and whose ranks are as good as anybody's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod common;

use common::network::{Act, Gain, NOISE, Script, among_honest};
use gauntlet::{Profile, Rules};

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
    let mut without = Rules::default();
    without.proof.chance = 0.0;
    println!(
        "| honest peers | evaluated a window | share of the honest mean | without the bar |\n|---|---|---|---|"
    );
    for (honest, evaluated) in [(8, 5), (15, 5), (30, 5), (60, 5), (60, 20), (100, 5), (100, 20)] {
        let of = |mut rules: Rules| {
            rules.sample.peers = evaluated;
            share(&rules, honest)
        };
        let with = of(Rules::default());
        print!("| {honest} | {evaluated} | {with:.3} |");
        assert!(with < 0.05, "{with} among {honest}, {evaluated} evaluated");
        if honest <= 30 {
            let without = of(without.clone());
            println!(" {without:.3} |");
            assert!(without > with, "the bar does what it is for: {with} against {without}");
        } else {
            println!(" |");
        }
    }
}

#[test]
fn a_bar_that_is_not_raised_early_pays_noise_where_evaluations_are_few() {
    let mut flat = Rules::default();
    flat.proof.chance_early = 0.0;
    let share = share(&flat, 60);
    println!("60 honest peers, 5 evaluated, bar not raised early: {share:.3}");
    assert!(share > 0.05, "{share}");
}

#[test]
fn reference_2026_pays_early_noise() {
    // It has neither the bar nor the five evaluations: the bound is one of the profile `paper` alone.
    let share = share(&Rules::of(Profile::Reference2026), 15);
    println!("reference-2026, 15 honest peers: {share:.3}");
    assert!(share > 0.05, "{share}");
}

#[test]
fn equals_are_paid_alike_on_average_and_unequally_in_each_run() {
    const PEERS: usize = 13;
    const SEEDS: u64 = 100;
    let (mut totals, mut squares, mut best) = ([0.0; PEERS], 0.0, 0.0);
    for seed in 0..SEEDS {
        let history = among_honest(Rules::default(), seed, PEERS, Vec::new()).run(100);
        let mean = history.mean(0..PEERS, 0..100);
        let relative: Vec<f64> = (0..PEERS).map(|peer| history.income(peer, 0..100) / mean).collect();
        totals.iter_mut().zip(&relative).for_each(|(total, x)| *total += x / SEEDS as f64);
        squares += relative.iter().map(|x| (x - 1.0) * (x - 1.0)).sum::<f64>();
        best += relative.iter().copied().fold(0.0, f64::max) / SEEDS as f64;
    }
    let deviation = (squares / (SEEDS as f64 * PEERS as f64)).sqrt();
    println!(
        "equals: standard deviation {deviation:.2} of the mean, the best of {PEERS} earns {best:.1} means"
    );
    // Standard error of a mean over the seeds is a tenth of the deviation: no hotkey is favoured by its bytes.
    assert!(totals.iter().all(|x| (x - 1.0).abs() < 3.5 * deviation / 10.0), "{totals:?}");
}

/// Peers paid a window in the second half of 100 windows, among twelve honest ones with such an advantage of own data.
fn paid(rules: &Rules, advantage: f64) -> f64 {
    let peer = || -> Script { Box::new(move |_, _| Act::Submit(Gain { own: 1.0 + advantage, random: 1.0 })) };
    let count = |seed| {
        let history = among_honest(rules.clone(), seed, 0, (0..12).map(|_| peer()).collect()).run(100);
        history.shares[50..].iter().flatten().filter(|share| **share > 0.0).count() as f64 / 50.0
    };
    (0..20).map(count).sum::<f64>() / 20.0
}

#[test]
fn the_bar_of_chance_has_a_price_where_own_data_hardly_win() {
    let mut without = Rules::default();
    without.proof.chance = 0.0;
    println!(
        "| advantage of own data | own data win | peers paid of 12 | without the bar of chance |\n|---|---|---|---|"
    );
    let mut all = Vec::new();
    for advantage in [0.1, 0.2, 0.3, 0.5] {
        // Φ(advantage / (noise·√2)).
        let win = 0.5 * libm::erfc(-advantage / (2.0 * NOISE));
        let (with, without) = (paid(&Rules::default(), advantage), paid(&without, advantage));
        println!("| {advantage} | {win:.2} | {with:.1} | {without:.1} |");
        all.push((with, without));
    }
    let (with, without) = all[3];
    assert!(with > 0.85 * without, "where own data win clearly the bar costs little");
    assert!(
        all[0].0 < 0.5 * all[0].1,
        "and where they hardly win it costs most of the pay: said in the docs"
    );
}
