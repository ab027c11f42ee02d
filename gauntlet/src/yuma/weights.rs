//! Which weights a validator may set, checked in the chain's order (R§6.3).

use crate::ChainFault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Constants of setting weights (R§6.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightRules {
    /// Least stake of a caller.
    pub stake_minimum: u64,
    /// Least version key.
    pub version: u64,
    /// Blocks between two settings.
    pub rate_limit: u64,
    /// Least number of weights, unless only the own uid is weighed.
    pub minimum: u16,
    /// Largest share of one weight in the sum (u16 fraction; all by default), unless only the own uid is weighed.
    pub max_weight: u16,
    /// How weights are set.
    pub setting: WeightSetting,
}

/// How weights are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightSetting {
    /// At once.
    Direct,
    /// Committed, and revealed an epoch later, so that copying others' weights pays nothing (R§6.6).
    CommitReveal,
}

impl Default for WeightRules {
    fn default() -> Self {
        Self {
            stake_minimum: 0,
            version: 0,
            rate_limit: 100,
            minimum: 1,
            max_weight: u16::MAX,
            setting: WeightSetting::CommitReveal,
        }
    }
}

/// Who sets weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its uid.
    pub uid: u16,
    /// Its stake.
    pub stake: u64,
    /// Whether it holds a permit.
    pub permit: bool,
    /// Block in which it last set or committed weights.
    pub last_set: Option<u64>,
}

/// A call that sets weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Targets.
    pub uids: &'a [u16],
    /// Their weights; only ratios matter.
    pub values: &'a [u16],
    /// Version of the software that made them.
    pub version: u64,
}

/// Checks a call and gives the weights to store: scaled so that the largest is 65,535. `neurons` is the number of slots,
/// `caller` is `None` for a hotkey that is not registered, `now` the block of a direct setting: with `None` the rate limit
/// is not looked at, as a commitment was under it. Errors: the first rule that fails, in the order of R§6.3.
pub fn check(
    rules: &WeightRules,
    neurons: usize,
    caller: Option<&Caller>,
    call: &Call<'_>,
    now: Option<u64>,
) -> Result<Vec<(u16, u16)>, ChainFault> {
    if call.uids.len() != call.values.len() {
        return Err(ChainFault::Lengths { uids: call.uids.len(), values: call.values.len() });
    }
    if call.uids.len() > neurons {
        return Err(ChainFault::TooMany(call.uids.len()));
    }
    let caller = caller.ok_or(ChainFault::NotRegistered)?;
    if caller.stake < rules.stake_minimum {
        return Err(ChainFault::Stake { stake: caller.stake, minimum: rules.stake_minimum });
    }
    if call.version < rules.version {
        return Err(ChainFault::Version { key: call.version, minimum: rules.version });
    }
    if let Some(now) = now {
        check_rate(rules, caller.last_set, now)?;
    }
    let only_itself = call.uids == [caller.uid];
    if !caller.permit && !only_itself {
        return Err(ChainFault::NoPermit);
    }
    let mut seen = BTreeSet::new();
    if let Some(uid) = call.uids.iter().find(|uid| !seen.insert(**uid)) {
        return Err(ChainFault::DuplicateUid(*uid));
    }
    if let Some(uid) = call.uids.iter().find(|uid| usize::from(**uid) >= neurons) {
        return Err(ChainFault::NoSuchUid(*uid));
    }
    if !only_itself && call.uids.len() < usize::from(rules.minimum) {
        return Err(ChainFault::TooFew { got: call.uids.len(), minimum: rules.minimum.into() });
    }
    let values = upscaled(call.values);
    let sum: u64 = values.iter().map(|v| u64::from(*v)).sum();
    let largest = u64::from(values.iter().copied().max().unwrap_or(0));
    if !only_itself && largest * 65_535 > u64::from(rules.max_weight) * sum {
        return Err(ChainFault::MaxWeight { limit: rules.max_weight });
    }
    Ok(call.uids.iter().copied().zip(values).collect())
}

/// Refuses a setting too soon after the last. Errors: [`ChainFault::RateLimit`] with the block from which it may be tried.
pub fn check_rate(rules: &WeightRules, last_update: Option<u64>, now: u64) -> Result<(), ChainFault> {
    match last_update.map(|last| last.saturating_add(rules.rate_limit)) {
        Some(next) if now < next => Err(ChainFault::RateLimit(next)),
        _ => Ok(()),
    }
}

/// Scaled so that the largest is 65,535, rounded to nearest; all zero stays zero.
fn upscaled(values: &[u16]) -> Vec<u16> {
    let top = u64::from(values.iter().copied().max().unwrap_or(0)).max(1);
    values.iter().map(|v| ((u64::from(*v) * 65_535 + top / 2) / top) as u16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDATOR: Caller = Caller { uid: 1, stake: 50, permit: true, last_set: None };

    fn set(
        rules: &WeightRules,
        caller: Caller,
        uids: &[u16],
        values: &[u16],
    ) -> Result<Vec<(u16, u16)>, ChainFault> {
        check(rules, 4, Some(&caller), &Call { uids, values, version: 3 }, None)
    }

    #[test]
    fn the_first_rule_that_fails_gives_the_refusal() {
        let rules = WeightRules { stake_minimum: 10, version: 3, minimum: 3, ..WeightRules::default() };
        // Everything is wrong; each step mends the first fault and the next one shows.
        let bad = Caller { uid: 1, stake: 9, permit: false, last_set: Some(10) };
        let rich = Caller { stake: 10, ..bad };
        let permitted = Caller { permit: true, ..rich };
        let set = |caller: Option<&Caller>, uids: &[u16], values: &[u16], version, now| {
            check(&rules, 4, caller, &Call { uids, values, version }, Some(now)).map(|_| ())
        };
        assert_eq!(set(None, &[9; 5], &[1], 2, 11), Err(ChainFault::Lengths { uids: 5, values: 1 }));
        assert_eq!(set(None, &[9; 5], &[1; 5], 2, 11), Err(ChainFault::TooMany(5)));
        assert_eq!(set(None, &[9; 2], &[1; 2], 2, 11), Err(ChainFault::NotRegistered));
        assert_eq!(
            set(Some(&bad), &[9; 2], &[1; 2], 2, 11),
            Err(ChainFault::Stake { stake: 9, minimum: 10 })
        );
        assert_eq!(
            set(Some(&rich), &[9; 2], &[1; 2], 2, 11),
            Err(ChainFault::Version { key: 2, minimum: 3 })
        );
        assert_eq!(set(Some(&rich), &[9; 2], &[1; 2], 3, 11), Err(ChainFault::RateLimit(110)));
        assert_eq!(set(Some(&rich), &[9; 2], &[1; 2], 3, 110), Err(ChainFault::NoPermit));
        assert_eq!(set(Some(&permitted), &[9; 2], &[1; 2], 3, 110), Err(ChainFault::DuplicateUid(9)));
        assert_eq!(set(Some(&permitted), &[8, 9], &[1; 2], 3, 110), Err(ChainFault::NoSuchUid(8)));
        assert_eq!(
            set(Some(&permitted), &[2, 3], &[1; 2], 3, 110),
            Err(ChainFault::TooFew { got: 2, minimum: 3 })
        );
        assert_eq!(set(Some(&permitted), &[0, 2, 3], &[1; 3], 3, 110), Ok(()));
    }

    #[test]
    fn every_rule_has_its_refusal() {
        let rules = WeightRules {
            stake_minimum: 10,
            version: 3,
            minimum: 2,
            max_weight: 50_000,
            ..WeightRules::default()
        };
        let plain = |uids: &[u16], values: &[u16]| set(&rules, VALIDATOR, uids, values);
        assert_eq!(plain(&[0], &[1, 2]), Err(ChainFault::Lengths { uids: 1, values: 2 }));
        assert_eq!(plain(&[0; 5], &[1; 5]), Err(ChainFault::TooMany(5)));
        let poor = Caller { stake: 9, ..VALIDATOR };
        assert_eq!(set(&rules, poor, &[0, 2], &[1, 1]), Err(ChainFault::Stake { stake: 9, minimum: 10 }));
        let newer = WeightRules { version: 4, ..rules.clone() };
        assert_eq!(set(&newer, VALIDATOR, &[0, 2], &[1, 1]), Err(ChainFault::Version { key: 3, minimum: 4 }));
        let without = Caller { permit: false, ..VALIDATOR };
        assert_eq!(set(&rules, without, &[0, 2], &[1, 1]), Err(ChainFault::NoPermit));
        assert_eq!(plain(&[2, 2], &[1, 1]), Err(ChainFault::DuplicateUid(2)));
        assert_eq!(plain(&[2, 4], &[1, 1]), Err(ChainFault::NoSuchUid(4)));
        assert_eq!(plain(&[2], &[1]), Err(ChainFault::TooFew { got: 1, minimum: 2 }));
        assert_eq!(plain(&[2, 3], &[9, 1]), Err(ChainFault::MaxWeight { limit: 50_000 }));
        assert_eq!(plain(&[2, 3], &[100, 50]), Ok(vec![(2, 65_535), (3, 32_768)]));
        assert_eq!(set(&rules, without, &[1], &[7]), Ok(vec![(1, 65_535)]), "the own uid needs no permit");
        assert_eq!(check_rate(&rules, Some(10), 109), Err(ChainFault::RateLimit(110)));
        assert_eq!((check_rate(&rules, Some(10), 110), check_rate(&rules, None, 0)), (Ok(()), Ok(())));
    }
}
