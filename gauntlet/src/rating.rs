//! LossRating: Plackett–Luce ratings that make ranks of different windows comparable (paper, "OpenSkill"; R§7.2).
//!
//! For players i with (μ_i, σ_i) and places r_i (0 is best, equal scores share a place):
//! v_i = σ_i² + τ²,  c = √Σ(v_i + β²),  Z_q = Σ_{s: r_s ≥ r_q} exp(μ_s/c),  A_q = players at q's place,
//! p_iq = exp(μ_i/c)/Z_q,  ω_i = Σ_{q: r_q ≤ r_i} ([q = i] − p_iq)/A_q,  δ_i = Σ_{q: r_q ≤ r_i} p_iq(1 − p_iq)/A_q,
//! μ_i ← μ_i + (v_i/c)·ω_i,  σ_i ← √v_i · √max(1 − (v_i/c²)(√v_i/c)·δ_i, κ).
//! This is OpenSkill 6.2.0, ties included; releases 6.0 and 6.1 treat ties otherwise (R§7.3).
//! Where we differ in form: p_iq = 1 / Σ_{s: r_s ≥ r_q} exp((μ_s − μ_i)/c), the same quotient without an overflow or a
//! 0/0, however far apart the players are.

use crate::settings::settings;
use serde::{Deserialize, Serialize};

/// What failed submissions are in the match of those that were scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailedAre {
    /// Each loses to all that were scored, and nobody gains by it: an identity that fails on purpose lifts nobody, and
    /// how many others fail makes no difference.
    Last,
    /// Opponents like all others, last (reference, score −99; R§3.5.5). Copies are never opponents.
    Opponents,
}

settings! {
    /// Constants of the rating (R§7.1).
    RatingRules, RatingPatch {
        /// Mean of a new peer.
        mu: f64 = 25.0, 25.0;
        /// Standard deviation of a new peer.
        sigma: f64 = 25.0 / 3.0, 25.0 / 3.0;
        /// Spread of one performance: larger is slower and smoother. Paper era 20, later 7 (R§1.5).
        beta: f64 = 20.0, 7.0;
        /// Floor of the factor that shrinks the variance.
        kappa: f64 = 1e-4, 1e-4;
        /// Variance added before each match: ratings never freeze.
        tau: f64 = 0.1, 0.1;
        /// Keeps σ from growing in a match.
        limit_sigma: bool = false, false;
        /// What failed submissions are.
        failed: FailedAre = FailedAre::Last, FailedAre::Opponents;
    }
}

/// No rating comes near: one match moves μ by less than σ²/c per opponent.
const MU_LIMIT: f64 = 1e9;
/// Nor here: it starts at 10⁶ at most and grows by τ a match.
const SIGMA_LIMIT: f64 = 1e12;

/// A peer's rating.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    /// Estimated strength.
    pub mu: f64,
    /// Uncertainty of the estimate.
    pub sigma: f64,
}

impl Rating {
    /// The rating of a peer that was never in a match.
    pub fn new(rules: &RatingRules) -> Self {
        Self { mu: rules.mu, sigma: rules.sigma }
    }

    /// Whether matches can have left it so.
    pub(crate) fn is_sound(&self) -> bool {
        (-MU_LIMIT..=MU_LIMIT).contains(&self.mu) && (f64::MIN_POSITIVE..=SIGMA_LIMIT).contains(&self.sigma)
    }

    /// LossRating = μ − 3σ: what the peer is worth with near certainty (R§3.2 I; "ordinal" in OpenSkill).
    pub fn loss_rating(&self) -> f64 {
        self.mu - 3.0 * self.sigma
    }
}

/// Places from scores, higher is better: 0 is best, equal scores share a place, the next place skips.
pub fn places(scores: &[f64]) -> Vec<usize> {
    scores.iter().map(|x| scores.iter().filter(|y| *y > x).count()).collect()
}

/// Ratings after one match. `places[i]` belongs to `players[i]`; a missing place counts as last.
pub fn rate(rules: &RatingRules, players: &[Rating], places: &[usize]) -> Vec<Rating> {
    let place = |i: usize| places.get(i).copied().unwrap_or(usize::MAX);
    let variance: Vec<f64> = players.iter().map(|p| p.sigma * p.sigma + rules.tau * rules.tau).collect();
    let c = variance.iter().map(|v| v + rules.beta * rules.beta).sum::<f64>().sqrt();
    let n = players.len();
    let tied: Vec<f64> = (0..n).map(|q| (0..n).filter(|&s| place(s) == place(q)).count() as f64).collect();
    let update = |i: usize| {
        let (mut omega, mut delta) = (0.0, 0.0);
        // May be infinite against somebody beyond all comparison; 1/∞ is 0.
        let others: Vec<f64> = players.iter().map(|s| libm::exp((s.mu - players[i].mu) / c)).collect();
        for q in (0..n).filter(|&q| place(q) <= place(i)) {
            let rest = (0..n).filter(|&s| place(s) >= place(q)).map(|s| others[s]);
            let p = 1.0 / rest.sum::<f64>();
            let won = if q == i { 1.0 } else { 0.0 };
            omega += (won - p) / tied[q];
            delta += p * (1.0 - p) / tied[q];
        }
        let v = variance[i];
        let gamma = v.sqrt() / c;
        let shrink = (1.0 - v / (c * c) * gamma * delta).max(rules.kappa);
        let sigma = v.sqrt() * shrink.sqrt();
        let sigma = if rules.limit_sigma { sigma.min(players[i].sigma) } else { sigma };
        // Nothing honest comes near the limits; a state that was stored at them must stay one that can be read.
        let mu = (players[i].mu + v / c * omega).clamp(-MU_LIMIT, MU_LIMIT);
        Rating { mu, sigma: sigma.clamp(f64::MIN_POSITIVE, SIGMA_LIMIT) }
    };
    (0..n).map(update).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Profile;
    use proptest::prelude::*;

    fn rules() -> RatingRules {
        RatingRules::of(Profile::Paper)
    }

    #[test]
    fn equal_scores_share_a_place() {
        assert_eq!(places(&[0.3, 0.1, 0.3, 0.0]), [0, 2, 0, 3]);
    }

    #[test]
    fn huge_ratings_stay_finite() {
        let players = [Rating { mu: 1e6, sigma: 1.0 }, Rating { mu: -1e6, sigma: 1.0 }];
        for places in [[1, 0], [0, 1], [0, 0]] {
            let rated = rate(&rules(), &players, &places);
            assert!(rated.iter().all(|r| r.mu.is_finite() && r.sigma > 0.0), "{places:?}: {rated:?}");
        }
    }

    #[test]
    fn what_was_sound_stays_sound() {
        for (mu, sigma) in [(MU_LIMIT, SIGMA_LIMIT), (-MU_LIMIT, 1e11), (0.0, f64::MIN_POSITIVE)] {
            let players = [Rating { mu, sigma }, Rating::new(&rules()), Rating { mu: -mu, sigma }];
            for places in [[0, 1, 2], [2, 1, 0], [0, 0, 0]] {
                for rules in [rules(), RatingRules { tau: 0.0, beta: 0.0, ..rules() }] {
                    let rated = rate(&rules, &players, &places);
                    assert!(rated.iter().all(Rating::is_sound), "{mu} {sigma} {places:?}: {rated:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn order_of_players_does_not_matter(
            players in prop::collection::vec((0.0..50.0_f64, 1.0..9.0_f64, 0.0..1.0_f64), 2..8)
        ) {
            let ratings: Vec<Rating> = players.iter().map(|p| Rating { mu: p.0, sigma: p.1 }).collect();
            let scores: Vec<f64> = players.iter().map(|p| p.2).collect();
            let ahead = rate(&rules(), &ratings, &places(&scores));
            let (mut ratings, mut scores) = (ratings, scores);
            ratings.reverse();
            scores.reverse();
            let mut back = rate(&rules(), &ratings, &places(&scores));
            back.reverse();
            for (a, b) in ahead.iter().zip(&back) {
                prop_assert!((a.mu - b.mu).abs() < 1e-9 && (a.sigma - b.sigma).abs() < 1e-9);
            }
        }
    }
}
