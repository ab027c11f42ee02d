//! Proof of computation μ_p: did the peer train on the data it was given?
//!
//! μ_p ← γ·μ_p + (1 − γ)·s,  s = sgn(LossScore(D_p) − LossScore(D_rand)),  γ = 0.95, from 0
//! (paper, verified sign accumulation; R§3.1, R§3.2 H.9; PROTOCOL section 7.4).
//! Where we differ: what coin flips reach is not paid (`chance`), since μ_p of a peer with random signs is above 0 half
//! of the time and above 0.1 in a quarter of it; a tie gives 0, not −1 as in the reference, since a peer that sends
//! nothing proves nothing either way and an exact tie of an honest peer is the sample's fault. `margin` is off by default.

use crate::settings::settings;

settings! {
    /// Constants of the proof of computation.
    ProofRules, ProofPatch {
        /// γ: how much of the past stays (R§1.2: step 0.05).
        decay: f64 = 0.95, 0.95;
        /// Below this the proof counts as absent once `floor_after` evaluations are in (R§3.5.3).
        floor: f64 = 0.1, 0.1;
        /// Evaluations before `floor` applies. The reference counts windows of the process, which a restart resets.
        floor_after: u32 = 10, 10;
        /// Part of the window's median gain (own over random data) that a peer must reach for s = 1; 0 is the paper's
        /// plain sign. Above 0 a peer trained on a part of what it claims fails more often than its share.
        margin: f64 = 0.0, 0.0;
        /// μ_p also counts as absent below so many standard deviations of a peer that flips coins; 0 is off.
        chance: f64 = 2.0, 0.0;
        /// The bar is higher by this over the number of evaluations: with few of them, the lucky are many against the
        /// honest that have got as far.
        chance_early: f64 = 1.5, 0.0;
    }
}

/// What μ_p must reach after `evaluations` to be paid: the larger of the floor and what chance reaches.
///
/// A peer whose signs are coin flips has after n evaluations mean 0 and variance (1 − γ)²·(1 − γ²ⁿ)/(1 − γ²); the bar is
/// `chance`·(1 + `chance_early`/n) of its standard deviations.
pub fn threshold(rules: &ProofRules, evaluations: u32) -> f64 {
    let g = rules.decay;
    let spread = (1.0 - g) * ((1.0 - libm::pow(g, 2.0 * f64::from(evaluations))) / (1.0 - g * g)).sqrt();
    let floor = if evaluations >= rules.floor_after { rules.floor } else { 0.0 };
    let chance = rules.chance * (1.0 + rules.chance_early / f64::from(evaluations.max(1)));
    floor.max(chance * spread)
}

/// What a gain must exceed: `margin` of the median gain of the window's scored peers (own − random LossScore), never
/// negative; 0 with fewer than three of them, since one peer must not set its own bar.
pub fn bar(rules: &ProofRules, gains: &[f64]) -> f64 {
    let mut sorted = gains.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() < 3 {
        0.0
    } else {
        (rules.margin * (sorted[(sorted.len() - 1) / 2] + sorted[middle]) / 2.0).max(0.0)
    }
}

/// s: 1 where the assigned data gained more than the random data by more than `bar`, −1 where by less, 0 where equal.
pub fn indicator(own_score: f64, random_score: f64, bar: f64) -> f64 {
    let gain = own_score - random_score - bar;
    if gain > 0.0 {
        1.0
    } else if gain < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// μ_p after one evaluation, in −1..=1.
pub fn update(rules: &ProofRules, proof: f64, indicator: f64) -> f64 {
    (rules.decay * proof + (1.0 - rules.decay) * indicator).clamp(-1.0, 1.0)
}
