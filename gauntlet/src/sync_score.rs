//! SyncScore: how many outer steps a peer's published values lie from ours (paper; R§3.1, R§3.3).
//!
//! SyncScore = (1/(α·d)) · Σ|θ_val − θ_peer| over d common positions, in steps of the learning rate α.
//! In the profile `paper` it is a diagnostic and pays nothing: the state tag already says equal or not, exactly
//! (PROTOCOL section 7.2). In `reference-2026` each difference is divided by how much that value moves a window, the
//! mean is taken between the quartiles, and (1 − min(x, 3)/3)^2.5 multiplies the PeerScore; x > 2 is a failure (R§3.5).

use crate::settings::settings;
use serde::{Deserialize, Serialize};

/// What SyncScore does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncUse {
    /// Shown only.
    Diagnostic,
    /// Multiplies the PeerScore, and a value above the limit is a failure.
    Pays,
}

settings! {
    /// Constants of SyncScore.
    SyncRules, SyncPatch {
        /// Shown, or paid by.
        role: SyncUse = SyncUse::Diagnostic, SyncUse::Pays;
        /// Steps above which a peer counts as behind, where it pays (3 in the paper era, 2 later).
        limit: f64 = 3.0, 2.0;
        /// Steps at which the score reaches 0, where it pays.
        zero_at: f64 = 3.0, 3.0;
        /// Exponent of the score, where it pays.
        exponent: f64 = 2.5, 2.5;
    }
}

/// What is known of a peer's published values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncFact {
    /// It published none, or none that can be read as values.
    Missing,
    /// Values at the common positions.
    Values {
        /// θ of this validator.
        ours: Vec<f32>,
        /// θ of the peer.
        theirs: Vec<f32>,
        /// How much each value moves a window (absolute, smoothed), or empty: α is used then.
        movement: Vec<f32>,
    },
}

/// Steps behind, or `None` where nothing compares. `learning_rate` is α of the window.
pub fn steps_behind(rules: &SyncRules, learning_rate: f64, fact: &SyncFact) -> Option<f64> {
    let SyncFact::Values { ours, theirs, movement } = fact else { return None };
    if ours.is_empty() || ours.len() != theirs.len() {
        return None;
    }
    let scale = |i: usize| match rules.role {
        SyncUse::Diagnostic => learning_rate,
        SyncUse::Pays => movement.get(i).map_or(learning_rate, |m| f64::from(*m)).max(1e-9),
    };
    let ratios: Vec<f64> = (ours.iter().zip(theirs).enumerate())
        .map(|(i, (a, b))| (f64::from(*a) - f64::from(*b)).abs() / scale(i))
        .collect();
    let steps = match rules.role {
        SyncUse::Diagnostic => ratios.iter().sum::<f64>() / ratios.len() as f64,
        SyncUse::Pays => interquartile_mean(ratios),
    };
    steps.is_finite().then_some(steps)
}

/// The factor that `steps` gives, in 0..=1; 1 where SyncScore pays nothing, 0 where steps are unknown and it pays.
pub fn factor(rules: &SyncRules, steps: Option<f64>) -> f64 {
    match (rules.role, steps) {
        (SyncUse::Diagnostic, _) => 1.0,
        (SyncUse::Pays, None) => 0.0,
        (SyncUse::Pays, Some(x)) => {
            libm::pow(1.0 - x.clamp(0.0, rules.zero_at) / rules.zero_at, rules.exponent)
        }
    }
}

/// Mean of the values between the 25 % and the 75 % quantile, both included (linear interpolation; R§3.3).
fn interquartile_mean(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (quantile(&values, 0.25), quantile(&values, 0.75));
    let kept: Vec<f64> = values.into_iter().filter(|x| (low..=high).contains(x)).collect();
    kept.iter().sum::<f64>() / kept.len() as f64
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len().saturating_sub(1)) as f64;
    let below = libm::floor(at);
    let value = |i: f64| sorted.get(i as usize).copied().unwrap_or(f64::NAN);
    value(below) + (value(libm::ceil(at)) - value(below)) * (at - below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Profile;

    fn values(theirs: Vec<f32>, movement: Vec<f32>) -> SyncFact {
        SyncFact::Values { ours: vec![0.0; theirs.len()], theirs, movement }
    }

    #[test]
    fn equal_state_is_zero_and_two_steps_are_two() {
        let rules = SyncRules::of(Profile::Paper);
        assert_eq!(steps_behind(&rules, 0.5, &values(vec![0.0; 4], vec![])), Some(0.0));
        assert_eq!(steps_behind(&rules, 0.5, &values(vec![1.0, -1.0], vec![])), Some(2.0));
        assert_eq!(steps_behind(&rules, 0.5, &values(vec![], vec![])), None);
        assert_eq!(steps_behind(&rules, 0.5, &values(vec![f32::NAN], vec![])), None);
        assert_eq!(factor(&rules, None), 1.0, "a diagnostic pays nothing and costs nothing");
    }

    #[test]
    fn reference_form_ignores_outliers_and_pays() {
        let rules = SyncRules::of(Profile::Reference2026);
        // Ratios 1, 1, 1, 1, 900: the quartiles cut the outlier off.
        let fact = values(vec![0.1, 0.1, 0.2, 0.2, 90.0], vec![0.1, 0.1, 0.2, 0.2, 0.1]);
        let steps = steps_behind(&rules, 1.0, &fact).unwrap();
        assert!((steps - 1.0).abs() < 1e-6, "{steps}");
        let expected = libm::pow(1.0 - steps / 3.0, 2.5);
        assert_eq!(factor(&rules, Some(steps)), expected);
        assert_eq!(factor(&rules, Some(99.0)), 0.0);
        assert_eq!(factor(&rules, None), 0.0);
    }
}
