//! Penalties: μ_p ← φ·μ_p, only where that lowers (paper, φ = 0.75; R§3.6; PROTOCOL section 7.1).
//!
//! Only μ_p is touched: a PeerScore is computed anew from μ_p and the rating, so a penalty on the score would be gone at
//! the next evaluation while one on μ_p must be earned back at 5 % an evaluation (R§3.2 I).
//! A μ_p that is zero or negative stays: a factor below one would raise it (R§8.2 row 2).
//! Who commits to nothing is missing in every window, drawn or not: the factor of its place in the row of misses each
//! time, and from `inactive_reset` + 1 such windows on μ_p is 0. In `paper` that is 0.75 a window, below a thousandth of
//! its μ_p after 25, then nothing. In `reference-2026` it is 0.75, 0.5 and then 0; the reference multiplied by 0.75 a
//! window there and zeroed after three (R§3.5.10), and escalated for gather peers alone (R§3.5.6): ours is one rule.
//! `reference-2026` adds escalation, bans and zeroing (R§3.5.5–10) from the same pieces. Where we differ there:
//! unknown windows are neither hits nor misses; a penalty that resets sets μ_p to 0 only if it was positive.

use crate::FailReason;
use crate::settings::settings;
use crate::state::PeerState;
use serde::{Deserialize, Serialize};

/// What a copy costs from some overlap on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyLevel {
    /// Least overlap of this level.
    pub from: f64,
    /// Factor on μ_p.
    pub factor: f64,
    /// Windows of ban.
    pub ban: u32,
}

/// What an undecodable or wrong object costs besides the factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidRule {
    /// Nothing more.
    Factor,
    /// No PeerScore until the next evaluation that succeeds ("red card", R§3.2 H.5); μ_p is left alone.
    RedCard,
}

settings! {
    /// Constants of the penalties.
    PenaltyRules, PenaltyPatch {
        /// φ: factor of a failed check.
        factor: f64 = 0.75, 0.75;
        /// Factors of the first, second, … missing window in a row; the last one repeats (R§3.5.6).
        missing_factors: Vec<f64> = vec![0.75], vec![0.75, 0.5, 0.0];
        /// Below this share of gather peers that passed, a missing one costs everything; 0 is off (R§3.5.6).
        success_floor: f64 = 0.0, 0.4;
        /// Gather outcomes remembered for the ban rule; 0 is off (R§3.5.6).
        miss_history: u32 = 0, 8;
        /// Misses among them that bring a ban.
        miss_limit: u32 = 4, 4;
        /// Windows of that ban.
        ban_windows: u32 = 20, 20;
        /// What an invalid object costs.
        invalid: InvalidRule = InvalidRule::Factor, InvalidRule::RedCard;
        /// What copies cost, ascending by overlap (R§3.5.9).
        copy_levels: Vec<CopyLevel> = vec![CopyLevel { from: 0.0, factor: 0.75, ban: 0 }], vec![
            CopyLevel { from: 0.0, factor: 0.5, ban: 0 },
            CopyLevel { from: 0.5, factor: 0.0, ban: 0 },
            CopyLevel { from: 0.6, factor: 0.0, ban: 20 },
        ];
        /// Windows without a commitment after which μ_p falls to 0 (R§1.2, R§3.5.10).
        inactive_reset: u64 = 25, 3;
        /// Negative evaluations: outcomes remembered; 0 turns the rule off (R§3.5.8).
        negative_history: u32 = 0, 20;
        /// Outcomes that must be in before the rule applies, and the span in which more than half must be negative.
        negative_span: u32 = 8, 8;
        /// Factor on μ_p then.
        negative_factor: f64 = 0.25, 0.25;
        /// Negative evaluations in a row that exclude from the gather set until one is positive.
        negative_exclude: u32 = 3, 3;
        /// Place in the match whose score must not be negative, else the model is to blame, not the peers.
        negative_place: u32 = 5, 5;
    }
}

/// Why a penalty was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PenaltyCause {
    /// A failed check.
    Check(FailReason),
    /// Too many missing gather windows.
    OftenMissing,
    /// Banned: it costs every window of the ban.
    Banned,
    /// No commitment for too long.
    Inactive,
    /// Mostly negative evaluations.
    NegativeEvaluations,
}

/// What one cause costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sentence {
    /// Factor on μ_p, in 0..=1.
    pub factor: f64,
    /// Windows of ban.
    pub ban: u32,
    /// PeerScore stays 0 until an evaluation succeeds.
    pub red_card: bool,
}

/// μ_p after a factor: lower or equal, never higher.
pub fn apply(proof: f64, factor: f64) -> f64 {
    if proof > 0.0 && factor < 1.0 { proof * factor.max(0.0) } else { proof }
}

/// What a failed check costs. `peer` already counts this window's miss; `success` is the share of gather peers that
/// passed; `overlap` is the overlap behind a copy verdict.
pub fn sentence(
    rules: &PenaltyRules,
    reason: FailReason,
    peer: &PeerState,
    success: f64,
    overlap: f64,
) -> Sentence {
    let plain = Sentence { factor: rules.factor, ban: 0, red_card: false };
    match reason {
        FailReason::Copy { .. } | FailReason::Replay { .. } => {
            let level = rules.copy_levels.iter().rev().find(|level| overlap >= level.from);
            level.map_or(plain, |level| Sentence { factor: level.factor, ban: level.ban, red_card: false })
        }
        reason if reason.is_missing() => {
            let step =
                (peer.miss_streak.max(1) as usize - 1).min(rules.missing_factors.len().saturating_sub(1));
            let factor = rules.missing_factors.get(step).copied().unwrap_or(rules.factor);
            Sentence { factor: if success < rules.success_floor { 0.0 } else { factor }, ..plain }
        }
        FailReason::Behind => plain,
        _ if rules.invalid == InvalidRule::RedCard => Sentence { factor: 1.0, ban: 0, red_card: true },
        _ => plain,
    }
}

/// Whether a peer's evaluations are negative too often (R§3.5.8).
pub fn too_negative(rules: &PenaltyRules, peer: &PeerState) -> bool {
    let span = rules.negative_span;
    rules.negative_history > 0 && peer.negatives.len() >= span && 2 * peer.negatives.count(span) > span
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_factor_ever_raises(proof in -1.0..1.0_f64, factor in 0.0..=1.0_f64) {
            prop_assert!(apply(proof, factor) <= proof);
        }
    }
}
