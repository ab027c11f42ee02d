//! Incentive: how the payout of a window is split (paper; R§3.1; PROTOCOL section 7.7).
//!
//! Power form: x_p = s_p² / Σ s_q² over PeerScores s; shares below 1e-4 become 0 and the rest is scaled to 1.
//! Where we differ from the paper: its formula shifts all scores by the lowest one, so that everybody but the worst is
//! paid something, whatever they did; the reference's code dropped what is not positive instead (R§3.1), and so do we.
//! The shifted form is kept for study ([`IncentiveForm::MinShift`]).
//! `reference-2026`: shares by place — gather places linear 2 → 1 with 75 %, reserve places geometric ½ⁱ with 25 %,
//! half of all burned (R§3.5.13).

use crate::Hotkey;
use crate::settings::settings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How scores become shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IncentiveForm {
    /// Power of the score.
    Power,
    /// Power of the score above the lowest one (paper's formula).
    MinShift,
    /// By place: gather and reserve (reference).
    Places,
}

settings! {
    /// Constants of the incentive.
    IncentiveRules, IncentivePatch {
        /// How scores become shares.
        form: IncentiveForm = IncentiveForm::Power, IncentiveForm::Places;
        /// Exponent of the power form; above 1 it makes splitting a score over identities lose (R§3.1).
        exponent: f64 = 2.0, 2.0;
        /// Shares below this become 0 (R§8.2 row 11).
        min_share: f64 = 1e-4, 0.0;
        /// Share that is burned (R§6.5).
        burn: f64 = 0.0, 0.5;
        /// Paid gather places of the place form.
        gather_places: u32 = 20, 20;
        /// Paid reserve places of the place form.
        reserve_places: u32 = 10, 10;
        /// Part of the payout that the gather places get.
        gather_share: f64 = 0.75, 0.75;
        /// Weight of the first gather place against the last.
        gather_top: f64 = 2.0, 2.0;
        /// Each reserve place against the one before.
        reserve_decay: f64 = 0.5, 0.5;
        /// Largest reserve share against the smallest gather share, once it exceeds it.
        reserve_cap: f64 = 0.5, 0.5;
    }
}

/// The split of one window's payout. Shares and burn sum to 1, or to 0 where nobody is paid and nothing burned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Incentives {
    /// Share of each paid peer, > 0.
    pub shares: BTreeMap<Hotkey, f64>,
    /// Burned share.
    pub burn: f64,
    /// Σ of the raw shares, before anything was dropped.
    pub pool: f64,
    /// Part of the pool that is kept after small shares were dropped, in 0..=1.
    pub kept: f64,
}

impl Incentives {
    /// The share of a peer; 0 where it is not paid.
    pub fn share(&self, hotkey: &Hotkey) -> f64 {
        self.shares.get(hotkey).copied().unwrap_or(0.0)
    }
}

/// Splits the payout over `scores`. Scores that are not positive are not paid, save in the min-shift form.
pub fn incentives(rules: &IncentiveRules, scores: &BTreeMap<Hotkey, f64>) -> Incentives {
    let raw = match rules.form {
        IncentiveForm::Power => power(rules, scores, 0.0),
        IncentiveForm::MinShift => {
            power(rules, scores, scores.values().copied().fold(f64::INFINITY, f64::min))
        }
        IncentiveForm::Places => by_place(rules, scores),
    };
    let pool: f64 = raw.values().sum();
    if pool.is_nan() || pool <= 0.0 || pool.is_infinite() {
        return Incentives { burn: if rules.burn > 0.0 { 1.0 } else { 0.0 }, ..Incentives::default() };
    }
    let mut shares: BTreeMap<Hotkey, f64> = raw.into_iter().map(|(key, x)| (key, x / pool)).collect();
    shares.retain(|_, share| *share >= rules.min_share && *share > 0.0);
    let kept: f64 = shares.values().sum();
    let paid = 1.0 - rules.burn;
    if paid <= 0.0 {
        shares.clear();
    }
    shares.values_mut().for_each(|share| *share = *share / kept * paid);
    let burn = if shares.is_empty() && rules.burn > 0.0 {
        1.0
    } else if shares.is_empty() {
        0.0
    } else {
        rules.burn
    };
    Incentives { shares, burn, pool, kept }
}

/// Weights for the chain: (uid, u16), the largest 65,535, rounded with ties to even, zero entries left out, ascending by uid (R§6.3). The burned
/// share goes to `burn_uid`. Hotkeys without a uid are left out. Where nobody is left, all goes to `own_uid`, the validator that
/// sets them: Yuma leaves that out (an owner's burns), and so an earlier split does not go on paying.
pub fn chain_weights(
    incentives: &Incentives,
    uids: &BTreeMap<Hotkey, u16>,
    burn_uid: Option<u16>,
    own_uid: Option<u16>,
) -> Vec<(u16, u16)> {
    let mut shares: BTreeMap<u16, f64> = BTreeMap::new();
    for (hotkey, share) in &incentives.shares {
        if let Some(uid) = uids.get(hotkey) {
            *shares.entry(*uid).or_default() += share;
        }
    }
    if let Some(uid) = burn_uid {
        *shares.entry(uid).or_default() += incentives.burn;
    }
    let top = shares.values().copied().fold(0.0, f64::max);
    let scaled = |share: f64| libm::rint(share / top * 65_535.0) as u16;
    let weights =
        shares.into_iter().map(|(uid, share)| (uid, scaled(share))).filter(|(_, weight)| *weight > 0);
    let weights: Vec<(u16, u16)> = weights.collect();
    if weights.is_empty() { own_uid.map(|uid| (uid, u16::MAX)).into_iter().collect() } else { weights }
}

fn power(rules: &IncentiveRules, scores: &BTreeMap<Hotkey, f64>, shift: f64) -> BTreeMap<Hotkey, f64> {
    let above = scores.iter().map(|(key, score)| (*key, score - shift)).filter(|(_, above)| *above > 0.0);
    above.map(|(key, above)| (key, libm::pow(above, rules.exponent))).collect()
}

/// Raw shares by place. Equal scores are ordered by hotkey.
fn by_place(rules: &IncentiveRules, scores: &BTreeMap<Hotkey, f64>) -> BTreeMap<Hotkey, f64> {
    let mut ranked: Vec<(Hotkey, f64)> =
        scores.iter().map(|(k, s)| (*k, *s)).filter(|(_, s)| *s > 0.0).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let split = ranked.len().min(rules.gather_places as usize);
    let reserve = (ranked.len() - split).min(rules.reserve_places as usize);
    let slope = |i: usize| (rules.gather_top - 1.0) * i as f64 / (split.max(2) - 1) as f64;
    let gather = normalised((0..split).map(|i| rules.gather_top - slope(i)).collect(), rules.gather_share);
    let decay = |i: usize| libm::pow(rules.reserve_decay, i as f64);
    let mut tail = normalised((0..reserve).map(decay).collect(), 1.0 - rules.gather_share);
    if let (Some(largest), Some(smallest)) = (tail.first().copied(), gather.last().copied())
        && largest > smallest
    {
        tail.iter_mut().for_each(|x| *x *= smallest / largest * rules.reserve_cap);
    }
    ranked.into_iter().map(|(key, _)| key).zip(gather.into_iter().chain(tail)).collect()
}

fn normalised(values: Vec<f64>, total: f64) -> Vec<f64> {
    let sum: f64 = values.iter().sum();
    values.into_iter().map(|x| x / sum * total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Profile;

    fn scores(values: &[f64]) -> BTreeMap<Hotkey, f64> {
        values.iter().enumerate().map(|(i, s)| (Hotkey([u8::try_from(i).unwrap(); 32]), *s)).collect()
    }

    fn shares(incentives: &Incentives) -> Vec<f64> {
        incentives.shares.values().copied().collect()
    }

    #[test]
    fn squares_and_floor() {
        let rules = IncentiveRules::of(Profile::Paper);
        let result = incentives(&rules, &scores(&[3.0, 1.0, -2.0, 0.0]));
        assert_eq!(shares(&result), [0.9, 0.1]);
        // 0.005² / 1 is below 1e-4: dropped, and the rest is scaled to 1.
        let result = incentives(&rules, &scores(&[1.0, 0.005]));
        assert_eq!(shares(&result), [1.0]);
    }

    #[test]
    fn nobody_positive_pays_nobody_or_burns_all() {
        let nothing = incentives(&IncentiveRules::of(Profile::Paper), &scores(&[-1.0, 0.0]));
        assert_eq!((nothing.shares.len(), nothing.burn), (0, 0.0));
        let burned = incentives(&IncentiveRules::of(Profile::Reference2026), &scores(&[-1.0]));
        assert_eq!((burned.shares.len(), burned.burn), (0, 1.0));
    }

    #[test]
    fn a_burn_of_all_pays_nobody() {
        let rules = IncentiveRules { burn: 1.0, ..IncentiveRules::of(Profile::Paper) };
        let split = incentives(&rules, &scores(&[3.0, 1.0]));
        assert_eq!((split.shares.len(), split.burn), (0, 1.0), "not shares of 0");
    }

    #[test]
    fn places_follow_the_reference() {
        let rules = IncentiveRules::of(Profile::Reference2026);
        let values: Vec<f64> = (0..35).map(|i| 40.0 - f64::from(i)).collect();
        let result = incentives(&rules, &scores(&values));
        let got = shares(&result);
        assert_eq!(got.len(), 30, "20 gather and 10 reserve places");
        assert!((got.iter().sum::<f64>() + result.burn - 1.0).abs() < 1e-12);
        assert!((got[0] / got[19] - 2.0).abs() < 1e-12, "linear from 2 to 1");
        assert!((got[20] / got[19] - 0.5).abs() < 1e-12, "reserve is capped at half the last gather place");
        assert!((got[21] / got[20] - 0.5).abs() < 1e-12, "and halves from place to place");
    }

    #[test]
    fn chain_weights_keep_the_ratio() {
        let result = incentives(&IncentiveRules::of(Profile::Paper), &scores(&[2.0, 1.0]));
        let uids = BTreeMap::from([(Hotkey([0; 32]), 9), (Hotkey([1; 32]), 4)]);
        assert_eq!(chain_weights(&result, &uids, None, None), [(4, 16_384), (9, 65_535)]);
        // 0.5 and 2.5 of 65,535: ties go to the even number, and 0 is left out.
        let tied = |share| Incentives {
            shares: BTreeMap::from([(Hotkey([0; 32]), 65_535.0), (Hotkey([1; 32]), share)]),
            ..Incentives::default()
        };
        assert_eq!(chain_weights(&tied(0.5), &uids, None, None), [(9, 65_535)]);
        assert_eq!(chain_weights(&tied(2.5), &uids, None, None), [(4, 2), (9, 65_535)]);
    }

    #[test]
    fn where_nobody_is_paid_all_weight_is_the_validators_own() {
        let (nobody, own) = (Incentives::default(), Some(7));
        let uids = BTreeMap::from([(Hotkey([0; 32]), 9)]);
        assert_eq!(chain_weights(&nobody, &uids, None, own), [(7, 65_535)]);
        assert_eq!(chain_weights(&nobody, &uids, Some(3), own), [(7, 65_535)], "nothing is to be burned");
        assert_eq!(chain_weights(&nobody, &uids, None, None), []);
        let burned = Incentives { burn: 1.0, ..nobody };
        assert_eq!(chain_weights(&burned, &uids, Some(3), own), [(3, 65_535)]);
        // Who is paid has lost its slot.
        let gone = Incentives { shares: BTreeMap::from([(Hotkey([1; 32]), 1.0)]), ..Incentives::default() };
        assert_eq!(chain_weights(&gone, &uids, None, own), [(7, 65_535)]);
    }
}
