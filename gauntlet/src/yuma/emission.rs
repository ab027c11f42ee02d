//! Emission: what an epoch pays to whom (R§6.4.11, R§6.5).
//!
//! First the owner's cut. Of the rest half goes to servers by incentive and half to validators by dividends. What a
//! hotkey of the subnet owner earns as a server is burned, not paid: weighing such a "burn uid" burns (R§6.5).
//! Where we differ from the chain: everything is one token and one subnet; stake on the root network and nominators
//! belong to the ledger, which splits a validator's part by its take with [`with_take`].

use serde::{Deserialize, Serialize};

/// Constants of the emission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmissionRules {
    /// The subnet owner's cut (u16 fraction; 18 %).
    pub owner_cut: u16,
}

impl Default for EmissionRules {
    /// The chain's default (R§6.2).
    fn default() -> Self {
        Self { owner_cut: 11_796 }
    }
}

/// The payout of an epoch, in the chain's smallest unit. All parts sum to the emission, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payout {
    /// The subnet owner.
    pub owner: u64,
    /// By uid, as servers.
    pub servers: Vec<u64>,
    /// By uid, as validators.
    pub validators: Vec<u64>,
    /// Burned: the owner's incentive, and all that nobody earned.
    pub burned: u64,
}

/// Shares of the whole by uid, as servers and as validators: I/Σ and D/Σ with Σ = ΣI + ΣD. With Σ = 0, when nobody set
/// usable weights, validators get all by active stake, or by stake when none is active, and servers nothing.
pub fn shares(incentive: &[f64], dividends: &[f64], active: &[f64], stake: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let total = incentive.iter().sum::<f64>() + dividends.iter().sum::<f64>();
    if total > 0.0 {
        let part = |values: &[f64]| values.iter().map(|x| x / total).collect();
        return (part(incentive), part(dividends));
    }
    let by = if active.iter().any(|x| *x > 0.0) { active } else { stake };
    (vec![0.0; incentive.len()], by.to_vec())
}

/// Splits `emission` by shares of the whole; `owners` marks the uids of the subnet owner. Parts are rounded down, so what
/// is left over by rounding is burned with the rest.
pub fn payout(
    rules: &EmissionRules,
    emission: u64,
    servers: &[f64],
    validators: &[f64],
    owners: &[bool],
) -> Payout {
    let owner = portion(emission, f64::from(rules.owner_cut) / 65_535.0);
    let rest = emission - owner;
    let burns = |uid: usize| owners.get(uid).copied().unwrap_or(false);
    let earned = |(uid, share): (usize, &f64)| if burns(uid) { 0 } else { portion(rest, *share) };
    let mut left = rest;
    let mut take = |wanted: Vec<u64>| -> Vec<u64> {
        let taken = wanted.into_iter().map(|x| {
            let paid = x.min(left);
            left -= paid;
            paid
        });
        taken.collect()
    };
    let servers = take(servers.iter().enumerate().map(earned).collect());
    let validators = take(validators.iter().map(|share| portion(rest, *share)).collect());
    Payout { owner, servers, validators, burned: left }
}

/// What a validator keeps of its part, and what its nominators get: the take stays (u16 fraction; 18 % by default), the
/// rest is theirs in proportion to stake, its own stake included. Returns its own amount, then theirs in order.
pub fn with_take(amount: u64, take: u16, own_stake: u64, nominators: &[u64]) -> (u64, Vec<u64>) {
    let kept = portion(amount, f64::from(take) / 65_535.0);
    let shared = amount - kept;
    let stake: f64 = own_stake as f64 + nominators.iter().map(|s| *s as f64).sum::<f64>();
    if stake <= 0.0 {
        return (amount, vec![0; nominators.len()]);
    }
    let theirs: Vec<u64> = nominators.iter().map(|s| portion(shared, *s as f64 / stake)).collect();
    (amount - theirs.iter().sum::<u64>().min(amount), theirs)
}

/// `share` of `amount`, rounded down and never above it.
fn portion(amount: u64, share: f64) -> u64 {
    (libm::floor(amount as f64 * share.clamp(0.0, 1.0)) as u64).min(amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nobody_weighs_pays_by_stake() {
        let (servers, validators) = shares(&[0.0; 3], &[0.0; 3], &[0.0, 0.5, 0.5], &[0.2, 0.4, 0.4]);
        assert_eq!((servers, validators), (vec![0.0; 3], vec![0.0, 0.5, 0.5]));
        let (_, validators) = shares(&[0.0; 3], &[0.0; 3], &[0.0; 3], &[0.2, 0.4, 0.4]);
        assert_eq!(validators, [0.2, 0.4, 0.4]);
    }

    #[test]
    fn the_owners_incentive_is_burned() {
        let rules = EmissionRules { owner_cut: 0 };
        let payout = payout(&rules, 1000, &[0.25, 0.25], &[0.0, 0.5], &[true, false]);
        assert_eq!(payout, Payout { owner: 0, servers: vec![0, 250], validators: vec![0, 500], burned: 250 });
    }

    #[test]
    fn a_validator_keeps_its_take_and_shares_the_rest_by_stake() {
        assert_eq!(with_take(1000, 0, 1, &[1, 2]), (250, vec![250, 500]));
        assert_eq!(with_take(1000, u16::MAX, 1, &[1]), (1000, vec![0]));
        assert_eq!(with_take(1000, 0, 0, &[0]), (1000, vec![0]));
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_emission(
            emission in 0..u64::MAX / 4, cut: u16, values in prop::collection::vec(0.0..1.0_f64, 1..9), owner in 0..9_usize
        ) {
            let (servers, validators) = shares(&values, &values, &values, &values);
            let owners: Vec<bool> = (0..values.len()).map(|i| i == owner).collect();
            let p = payout(&EmissionRules { owner_cut: cut }, emission, &servers, &validators, &owners);
            let sum = p.owner + p.servers.iter().sum::<u64>() + p.validators.iter().sum::<u64>() + p.burned;
            prop_assert_eq!(sum, emission);
        }
    }
}
