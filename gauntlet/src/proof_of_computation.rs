//! Proof of computation μ_p: did the peer train on the data it was given?
//!
//! μ_p ← γ·μ_p + (1 − γ)·s,  s = sgn(LossScore(D_p) − LossScore(D_rand)),  γ = 0.95, from 0
//! (paper, verified sign accumulation; R§3.1, R§3.2 H.9; PROTOCOL section 7.4).
//! Where we differ: a tie gives 0, not −1 as in the reference: a peer that sends nothing proves nothing either way,
//! and an exact tie of an honest peer is the sample's fault.

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
    }
}

/// s: 1 where the assigned data gained more than the random data, −1 where less, 0 where equal.
pub fn indicator(own_score: f64, random_score: f64) -> f64 {
    let gain = own_score - random_score;
    if gain > 0.0 {
        1.0
    } else if gain < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// μ_p after one evaluation.
pub fn update(rules: &ProofRules, proof: f64, indicator: f64) -> f64 {
    rules.decay * proof + (1.0 - rules.decay) * indicator
}
