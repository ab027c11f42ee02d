//! LossScore: how much a peer's contribution lowers the loss on a sample (paper; R§3.1; PROTOCOL section 7.3).
//!
//! LossScore(D) = L(θ; D) − L(θ − c·α·sign(Δ_p); D), c = 0.2, the same sample before and after.
//! The reference divides by L(θ; D) (R§3.2 H.8); within one window the order is the same up to the difference of the
//! samples, so the paper's difference is the default and the quotient belongs to the profile `reference-2026`.
//! A loss that is not finite makes the evaluation of that peer fail, and of no other.

use crate::settings::settings;
use serde::{Deserialize, Serialize};

/// What a LossScore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossForm {
    /// before − after (paper).
    Difference,
    /// (before − after) / before (reference).
    Relative,
}

/// Which LossScore the match ranks by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankBy {
    /// Alone: Δ_p applied to θ (paper).
    Alone,
    /// Marginal: Δ_p applied to θ already moved by the others (PROTOCOL section 7, open questions).
    Marginal,
}

settings! {
    /// How losses become scores, and how much is measured.
    LossRules, LossPatch {
        /// Difference or quotient.
        form: LossForm = LossForm::Difference, LossForm::Relative;
        /// What the match ranks by.
        rank_by: RankBy = RankBy::Alone, RankBy::Alone;
        /// c: length of the trial step in units of α (R§1.2).
        trial_step: f64 = 0.2, 0.2;
        /// Sequences of D_p measured a peer.
        eval_own_sequences: u32 = 16, 8;
        /// Sequences of D_rand measured; at least 8.
        eval_random_sequences: u32 = 16, 8;
    }
}

/// Losses of one peer's evaluation: token means, in nats, before and after the trial step.
/// Text forms write a loss that is not finite as `null`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Losses {
    /// L(θ; D_p).
    #[serde(with = "finite_or_null")]
    pub own_before: f64,
    /// L(θ − c·α·sign(Δ_p); D_p).
    #[serde(with = "finite_or_null")]
    pub own_after: f64,
    /// L(θ; D_rand): one value for all peers of the window.
    #[serde(with = "finite_or_null")]
    pub random_before: f64,
    /// L(θ − c·α·sign(Δ_p); D_rand).
    #[serde(with = "finite_or_null")]
    pub random_after: f64,
    /// D_rand on θ moved by the others, before and after; needed where the rules rank by it.
    #[serde(default)]
    pub marginal: Option<Marginal>,
}

/// Losses on D_rand around the trial step, taken from θ already moved by the others' mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marginal {
    /// Loss at θ moved by the others.
    #[serde(with = "finite_or_null")]
    pub before: f64,
    /// Loss there after the peer's trial step.
    #[serde(with = "finite_or_null")]
    pub after: f64,
}

/// The scores of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScores {
    /// LossScore(D_p).
    pub own: f64,
    /// LossScore(D_rand).
    pub random: f64,
    /// What the match ranks by.
    pub rank: f64,
}

/// Scores of `losses`, or `None` where any of them is not finite.
pub fn scores(rules: &LossRules, losses: &Losses) -> Option<LossScores> {
    let own = score(rules.form, losses.own_before, losses.own_after);
    let random = score(rules.form, losses.random_before, losses.random_after);
    let rank = match (rules.rank_by, losses.marginal) {
        (RankBy::Alone, _) => random,
        (RankBy::Marginal, Some(moved)) => score(rules.form, moved.before, moved.after),
        (RankBy::Marginal, None) => f64::NAN,
    };
    [own, random, rank].iter().all(|x| x.is_finite()).then_some(LossScores { own, random, rank })
}

fn score(form: LossForm, before: f64, after: f64) -> f64 {
    match form {
        LossForm::Difference => before - after,
        LossForm::Relative => (before - after) / before,
    }
}

/// Text formats have no NaN: a value that is not finite travels as `null`, and comes back as NaN.
mod finite_or_null {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        value.is_finite().then_some(*value).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Profile;

    fn losses() -> Losses {
        Losses { own_before: 4.0, own_after: 3.5, random_before: 2.0, random_after: 1.75, marginal: None }
    }

    #[test]
    fn difference_and_quotient() {
        let paper = scores(&LossRules::of(Profile::Paper), &losses()).unwrap();
        assert_eq!(paper, LossScores { own: 0.5, random: 0.25, rank: 0.25 });
        let reference = scores(&LossRules::of(Profile::Reference2026), &losses()).unwrap();
        assert_eq!(reference, LossScores { own: 0.125, random: 0.125, rank: 0.125 });
    }

    #[test]
    fn not_finite_is_no_score() {
        let rules = LossRules::of(Profile::Paper);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(scores(&rules, &Losses { own_after: bad, ..losses() }), None);
            assert_eq!(scores(&rules, &Losses { random_before: bad, ..losses() }), None);
        }
        let marginal = LossRules { rank_by: RankBy::Marginal, ..rules };
        assert_eq!(scores(&marginal, &losses()), None, "the marginal losses are missing");
    }

    #[test]
    fn text_form_keeps_that_a_loss_was_not_finite() {
        let text = serde_json::to_string(&Losses { own_after: f64::INFINITY, ..losses() }).unwrap();
        let back: Losses = serde_json::from_str(&text).unwrap();
        assert!(back.own_after.is_nan() && back.own_before == 4.0, "{text}");
    }
}
