//! The rules of a run: a profile, and what the manifest changes in it.
//!
//! Two profiles are made of the same parts: `paper` (the paper, as PROTOCOL.md section 7 reads it) and
//! `reference-2026` (the last functional release of the reference, R§3.5). The values stand beside each rule.

use crate::Error;
use crate::evaluation_sample::{SamplePatch, SampleRules};
use crate::fast_check::{FastPatch, FastRules};
use crate::incentive::{IncentivePatch, IncentiveRules};
use crate::loss_score::{LossPatch, LossRules};
use crate::overlap::{OverlapPatch, OverlapRules};
use crate::peer_score::{ScorePatch, ScoreRules};
use crate::penalty::{PenaltyPatch, PenaltyRules};
use crate::proof_of_computation::{ProofPatch, ProofRules};
use crate::rating::{RatingPatch, RatingRules};
use crate::selection::{SelectionPatch, SelectionRules};
use crate::sync_score::{SyncPatch, SyncRules};
use serde::{Deserialize, Deserializer, Serialize};

/// A named set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The Gauntlet paper with PROTOCOL.md's additions.
    #[default]
    Paper,
    /// The reference's last functional release (v2.1.28, January 2026).
    #[serde(rename = "reference-2026")]
    Reference2026,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $field:ident: $rules:ty, $patch:ty;)*) => {
        /// All rules of a run, resolved. Reading applies the manifest's changes to the profile it names; unknown keys
        /// are errors. Writing gives every value.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        pub struct Rules {
            /// The profile the values started from.
            pub profile: Profile,
            $($(#[$doc])* pub $field: $rules,)*
        }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Patch {
            profile: Profile,
            $($field: $patch,)*
        }

        impl Rules {
            /// The rules of a profile, unchanged.
            pub fn of(profile: Profile) -> Self {
                Self { profile, $($field: <$rules>::of(profile),)* }
            }
        }

        impl From<Patch> for Rules {
            fn from(patch: Patch) -> Self {
                let rules = Self::of(patch.profile);
                Self { profile: patch.profile, $($field: rules.$field.patched(patch.$field),)* }
            }
        }
    };
}

rules! {
    /// Fast evaluation.
    fast: FastRules, FastPatch;
    /// SyncScore.
    sync: SyncRules, SyncPatch;
    /// LossScore.
    loss: LossRules, LossPatch;
    /// Proof of computation.
    proof: ProofRules, ProofPatch;
    /// LossRating.
    rating: RatingRules, RatingPatch;
    /// PeerScore.
    score: ScoreRules, ScorePatch;
    /// Incentive.
    incentive: IncentiveRules, IncentivePatch;
    /// Gather set.
    selection: SelectionRules, SelectionPatch;
    /// Copies.
    overlap: OverlapRules, OverlapPatch;
    /// Penalties.
    penalty: PenaltyRules, PenaltyPatch;
    /// Draw of the evaluated.
    sample: SampleRules, SamplePatch;
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(Profile::Paper)
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Patch::deserialize(deserializer).map(Self::from)
    }
}

impl Rules {
    /// Refuses values under which the rules mean nothing. Errors: [`Error::Rule`] names the field.
    pub fn check(&self) -> Result<(), Error> {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let factors = self.penalty.missing_factors.iter().copied();
        let levels = &self.penalty.copy_levels;
        let checks = [
            ("fast.unknown_limit", self.fast.unknown_limit >= 1, "at least 1"),
            ("sync.limit", positive(self.sync.limit), "above 0"),
            ("sync.zero_at", positive(self.sync.zero_at), "above 0"),
            ("sync.exponent", positive(self.sync.exponent), "above 0"),
            ("loss.trial_step", positive(self.loss.trial_step), "above 0"),
            ("loss.eval_own_sequences", self.loss.eval_own_sequences >= 1, "at least 1"),
            ("loss.eval_random_sequences", self.loss.eval_random_sequences >= 8, "at least 8"),
            ("proof.decay", share(self.proof.decay) && self.proof.decay < 1.0, "in 0..1"),
            ("proof.floor", share(self.proof.floor), "in 0..=1"),
            ("proof.margin", share(self.proof.margin), "in 0..=1"),
            ("proof.chance", self.proof.chance.is_finite() && self.proof.chance >= 0.0, "at least 0"),
            (
                "proof.chance_early",
                self.proof.chance_early.is_finite() && self.proof.chance_early >= 0.0,
                "at least 0",
            ),
            ("rating.mu", self.rating.mu.abs() <= 1e6, "in -1e6..=1e6"),
            ("rating.sigma", positive(self.rating.sigma), "above 0"),
            ("rating.beta", positive(self.rating.beta), "above 0"),
            ("rating.kappa", share(self.rating.kappa) && self.rating.kappa > 0.0, "in 0..=1, above 0"),
            ("rating.tau", self.rating.tau.is_finite() && self.rating.tau >= 0.0, "at least 0"),
            (
                "score.min_score",
                self.score.min_score.is_finite() && self.score.min_score >= 0.0,
                "at least 0",
            ),
            ("incentive.exponent", positive(self.incentive.exponent), "above 0"),
            ("incentive.min_share", share(self.incentive.min_share), "in 0..=1"),
            ("incentive.burn", share(self.incentive.burn), "in 0..=1"),
            ("incentive.gather_share", share(self.incentive.gather_share), "in 0..=1"),
            ("incentive.gather_top", positive(self.incentive.gather_top), "above 0"),
            ("incentive.reserve_decay", share(self.incentive.reserve_decay), "in 0..=1"),
            ("incentive.reserve_cap", share(self.incentive.reserve_cap), "in 0..=1"),
            ("selection.places", self.selection.places >= 1, "at least 1"),
            ("selection.every", self.selection.every >= 1, "at least 1"),
            ("overlap.threshold", share(self.overlap.threshold), "in 0..=1"),
            ("overlap.median_factor", self.overlap.median_factor >= 0.0, "at least 0"),
            ("overlap.certain", self.overlap.certain >= self.overlap.threshold, "at least overlap.threshold"),
            ("overlap.own_replay", positive(self.overlap.own_replay), "above 0"),
            ("penalty.factor", share(self.penalty.factor), "in 0..=1"),
            (
                "penalty.missing_factors",
                factors.len() > 0 && factors.clone().all(share),
                "one or more in 0..=1",
            ),
            ("penalty.copy_levels", levels.iter().all(|l| share(l.factor)), "factors in 0..=1"),
            ("penalty.copy_levels", levels.is_sorted_by(|a, b| a.from < b.from), "ascending by `from`"),
            ("penalty.success_floor", share(self.penalty.success_floor), "in 0..=1"),
            ("penalty.miss_history", self.penalty.miss_history <= 32, "at most 32"),
            ("penalty.negative_history", self.penalty.negative_history <= 32, "at most 32"),
            ("penalty.negative_factor", share(self.penalty.negative_factor), "in 0..=1"),
            ("sample.peers", self.sample.peers >= 2, "at least 2: a match needs two"),
            ("sample.bins", self.sample.bins >= 1, "at least 1"),
        ];
        match checks.iter().find(|(_, holds, _)| !holds) {
            Some((field, _, want)) => Err(Error::Rule { field, want }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_changes_only_what_it_names() {
        let rules: Rules = toml::from_str("profile = \"reference-2026\"\n[proof]\nfloor = 0.2").unwrap();
        let mut expected = Rules::of(Profile::Reference2026);
        expected.proof.floor = 0.2;
        assert_eq!(rules, expected);
        assert_eq!(toml::from_str::<Rules>("").unwrap(), Rules::of(Profile::Paper));
    }

    #[test]
    fn written_rules_read_back() {
        for profile in [Profile::Paper, Profile::Reference2026] {
            let rules = Rules::of(profile);
            rules.check().unwrap();
            assert_eq!(toml::from_str::<Rules>(&toml::to_string(&rules).unwrap()).unwrap(), rules);
        }
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        let error = toml::from_str::<Rules>("[proof]\nfloot = 0.2").unwrap_err().to_string();
        assert!(error.contains("floot"), "{error}");
        let bad: Rules = toml::from_str("[incentive]\nburn = 1.5").unwrap();
        assert!(bad.check().unwrap_err().to_string().contains("incentive.burn"));
    }
}
