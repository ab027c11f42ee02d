//! PeerScore_p = μ_p · LossRating_p (paper; R§3.1; PROTOCOL section 7.6).
//!
//! It is 0 where either factor is ≤ 0: a product of two negatives paid in the reference (R§8.2 row 3). It is 0 where
//! μ_p is below the floor after `floor_after` evaluations, and with fewer than `min_evaluations`: early noise is not
//! paid. Where we differ from the paper: the last two rules, an optional factor for the work done, and
//! SyncScore does not multiply (see `sync_score`).

use crate::Rules;
use crate::proof_of_computation::threshold;
use crate::settings::settings;
use crate::state::PeerState;
use serde::{Deserialize, Serialize};

settings! {
    /// Constants of the PeerScore.
    ScoreRules, ScorePatch {
        /// Evaluations before anything is paid.
        min_evaluations: u32 = 5, 0;
        /// Sequences of full work: the PeerScore is multiplied by min(1, count / this); 0 is off (paper). With it the
        /// exponent of the incentive acts on work and not on ranks alone, so splitting work over identities loses.
        full_sequences: u32 = 0, 0;
        /// PeerScores below this are 0 (R§3.5.7, R§8.2 row 11).
        min_score: f64 = 0.0, 1e-4;
    }
}

/// Why a PeerScore is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Banned (profile `reference-2026`).
    Banned,
    /// Invalid object, and no successful evaluation since (profile `reference-2026`).
    RedCard,
    /// Fewer evaluations than needed.
    TooFewEvaluations,
    /// μ_p ≤ 0.
    ProofNotPositive,
    /// μ_p below the floor.
    ProofBelowFloor,
    /// LossRating ≤ 0.
    RatingNotPositive,
    /// SyncScore gives nothing (profile `reference-2026`).
    OutOfSync,
    /// The product is below the least score that counts.
    BelowMinimum,
}

/// A PeerScore with its factors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerScore {
    /// μ_p.
    pub proof: f64,
    /// μ − 3σ of the rating.
    pub loss_rating: f64,
    /// Factor of SyncScore; 1 where it pays nothing.
    pub sync: f64,
    /// Share of full work; 1 where the rules do not weigh work.
    pub work: f64,
    /// Why the score is 0, if it is.
    pub gate: Option<Gate>,
    /// The score, ≥ 0.
    pub score: f64,
}

/// PeerScore of a peer as its state stands.
pub fn peer_score(rules: &Rules, peer: &PeerState) -> PeerScore {
    let (proof, loss_rating, sync) = (peer.proof, peer.rating.loss_rating(), peer.sync);
    let work = work(&rules.score, peer.count);
    let product = proof * loss_rating * sync * work;
    let gate = closed_gate(rules, peer, loss_rating, product);
    PeerScore { proof, loss_rating, sync, work, gate, score: if gate.is_none() { product } else { 0.0 } }
}

/// The first gate that is closed, if any.
fn closed_gate(rules: &Rules, peer: &PeerState, loss_rating: f64, product: f64) -> Option<Gate> {
    if peer.banned > 0 {
        Some(Gate::Banned)
    } else if peer.red_card {
        Some(Gate::RedCard)
    } else if peer.evaluations < rules.score.min_evaluations.max(1) {
        Some(Gate::TooFewEvaluations)
    } else if peer.proof <= 0.0 {
        Some(Gate::ProofNotPositive)
    } else if loss_rating <= 0.0 {
        Some(Gate::RatingNotPositive)
    } else if peer.proof < threshold(&rules.proof, peer.evaluations) {
        Some(Gate::ProofBelowFloor)
    } else if peer.sync <= 0.0 {
        Some(Gate::OutOfSync)
    } else if product < rules.score.min_score {
        Some(Gate::BelowMinimum)
    } else {
        None
    }
}

fn work(rules: &ScoreRules, count: u32) -> f64 {
    if rules.full_sequences == 0 {
        1.0
    } else {
        (f64::from(count) / f64::from(rules.full_sequences)).min(1.0)
    }
}

/// The product as the paper's min-shift needs it: with its sign, negative where any factor is (R§3.2, last paragraph).
/// `None` for a peer that takes no part: banned, carded, out of sync, with too few evaluations, or with a proof or a
/// product that counts as absent. A gate that only says that the product is not positive keeps nobody out.
pub fn signed_product(score: &PeerScore) -> Option<f64> {
    let size = (score.proof * score.loss_rating * score.sync * score.work).abs();
    match score.gate {
        None | Some(Gate::ProofNotPositive | Gate::RatingNotPositive) => {
            Some(if score.proof < 0.0 || score.loss_rating < 0.0 { -size } else { size })
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rating::Rating;
    use crate::rules::Profile;

    #[test]
    fn the_shifted_form_leaves_out_who_takes_no_part() {
        let rules = Rules::of(Profile::Reference2026);
        let rating = Rating { mu: 40.0, sigma: 5.0 };
        let good = PeerState { proof: 0.5, evaluations: 20, rating, ..PeerState::new(&rules.rating, 0) };
        let product = |peer: PeerState| signed_product(&peer_score(&rules, &peer));
        assert_eq!(product(good.clone()), Some(12.5));
        assert_eq!(product(PeerState { proof: -0.5, ..good.clone() }), Some(-12.5));
        assert_eq!(
            product(PeerState { rating: Rating { mu: 10.0, sigma: 5.0 }, ..good.clone() }),
            Some(-2.5)
        );
        let out = [
            PeerState { banned: 3, ..good.clone() },
            PeerState { red_card: true, ..good.clone() },
            PeerState { evaluations: 0, ..good.clone() },
            PeerState { sync: 0.0, ..good.clone() },
            PeerState { proof: 0.05, ..good },
        ];
        for peer in out {
            assert_eq!(product(peer.clone()), None, "{peer:?}");
        }
    }
}
