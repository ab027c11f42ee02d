//! The rules of a run: a profile, and what the manifest changes in it.
//!
//! Two profiles are made of the same parts: `paper` (the paper, as section 7 of docs/protocol.md reads it) and
//! `reference-2026` (the last functional release of the reference, R§3.5). The values stand beside each rule.

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

mod bounds;

/// A named set of rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// The Gauntlet paper with the additions of docs/protocol.md.
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

    #[test]
    fn every_number_has_a_bound_on_both_sides() {
        for profile in [Profile::Paper, Profile::Reference2026] {
            let resolved = toml::Table::try_from(Rules::of(profile)).unwrap();
            let sections = resolved.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
            for (section, field) in sections.flat_map(|(s, table)| table.keys().map(move |f| (s, f))) {
                let read = |value: &toml::Value| {
                    let mut spoiled = resolved.clone();
                    spoiled[section][field] = value.clone();
                    toml::from_str::<Rules>(&toml::to_string(&spoiled).unwrap())
                };
                let outside = match &resolved[section][field] {
                    // A u32 or a u64.
                    toml::Value::Integer(_) if read(&i64::MAX.into()).is_ok() => {
                        [i64::MAX.into(), i64::MAX.into()]
                    }
                    toml::Value::Integer(_) => [i64::from(u32::MAX).into(), i64::from(u32::MAX).into()],
                    toml::Value::Float(_) => [1e300.into(), f64::NAN.into()],
                    toml::Value::Array(values) => [
                        toml::Value::Array(vec![values[0].clone(); 1000]),
                        toml::Value::Array(vec![values[0].clone(); 99]),
                    ],
                    _ => continue,
                };
                for value in outside {
                    let error = read(&value).unwrap().check().unwrap_err().to_string();
                    assert!(error.contains(&format!("{section}.{field} ")), "{section}.{field}: {error}");
                }
            }
        }
    }
}
