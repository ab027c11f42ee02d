//! Yuma against the reference's eight epochs (`yuma.json`, within 2 units of u16), and a subnet run through its calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use gauntlet::yuma::emission::EmissionRules;
use gauntlet::yuma::registry::RegistryRules;
use gauntlet::yuma::reveal::commitment;
use gauntlet::yuma::subnet::{Registered, Subnet, SubnetRules};
use gauntlet::yuma::weights::{Call, WeightRules, WeightSetting};
use gauntlet::yuma::{Neuron, YumaRules, epoch};
use gauntlet::{ChainFault, Error, Hotkey};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    stake: Vec<u64>,
    kappa_u16: u16,
    bonds_moving_average: u32,
    bonds_penalty_u16: u16,
    emission_per_epoch: u64,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    desc: String,
    weights_u16: Vec<Vec<u16>>,
    consensus: Vec<f64>,
    validator_trust: Vec<f64>,
    incentive: Vec<f64>,
    dividends: Vec<f64>,
    bonds_u16: Vec<Vec<u16>>,
    emission: Vec<u64>,
}

fn sparse(row: &[u16]) -> Vec<(u16, u16)> {
    (0..).zip(row.iter().copied()).filter(|(_, w)| *w > 0).collect()
}

fn dense(row: &[(u16, u16)], n: usize) -> Vec<u16> {
    let mut all = vec![0; n];
    row.iter().for_each(|(uid, value)| all[usize::from(*uid)] = *value);
    all
}

#[test]
fn eight_epochs_of_the_reference() {
    let vectors: Vectors = common::vector("yuma.json");
    assert_eq!(vectors.steps.len(), 8);
    let rules = YumaRules {
        kappa: vectors.kappa_u16,
        bonds_moving_average: vectors.bonds_moving_average,
        bonds_penalty: vectors.bonds_penalty_u16,
        ..YumaRules::default()
    };
    let n = vectors.stake.len();
    let neuron =
        |stake: &u64| Neuron { stake: *stake, last_update: 1, permit: *stake > 0, ..Neuron::default() };
    let mut neurons: Vec<Neuron> = vectors.stake.iter().map(neuron).collect();
    for (i, step) in vectors.steps.iter().enumerate() {
        for (neuron, row) in neurons.iter_mut().zip(&step.weights_u16) {
            neuron.weights = sparse(row);
        }
        let result = epoch(&rules, &neurons, 10 * (i as u64 + 1), 10 * i as u64);
        // Two units of the stored u16.
        let close = |got: &[f64], want: &[f64]| {
            assert_eq!(got.len(), want.len());
            got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 2.0 / 65_535.0)
        };
        assert!(close(&result.consensus, &step.consensus), "{}: consensus {:?}", step.desc, result.consensus);
        assert!(close(&result.validator_trust, &step.validator_trust), "{}: trust", step.desc);
        assert!(close(&result.incentive, &step.incentive), "{}: incentive {:?}", step.desc, result.incentive);
        assert!(close(&result.dividends, &step.dividends), "{}: dividends {:?}", step.desc, result.dividends);
        for (row, want) in result.bonds.iter().zip(&step.bonds_u16) {
            let got = dense(row, n);
            assert!(
                got.iter().zip(want).all(|(a, b)| a.abs_diff(*b) <= 2),
                "{}: bonds {got:?} {want:?}",
                step.desc
            );
        }
        let share = |uid: usize| result.server_share[uid] + result.validator_share[uid];
        for uid in 0..n {
            let paid = vectors.emission_per_epoch as f64 * share(uid);
            let unit = vectors.emission_per_epoch as f64 / 65_535.0;
            assert!(
                (paid - step.emission[uid] as f64).abs() <= 2.0 * unit,
                "{}: emission of {uid}",
                step.desc
            );
        }
        for (neuron, row) in neurons.iter_mut().zip(result.bonds) {
            neuron.bonds = row;
        }
    }
}

fn key(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

/// Owner 1, validators 2 and 3 with stake, miners 10, 11, 12; permits are out after the first epoch.
fn subnet(setting: WeightSetting) -> Subnet {
    let rules = SubnetRules {
        tempo: 10,
        emission: EmissionRules { owner_cut: 0 },
        weights: WeightRules { setting, rate_limit: 5, ..WeightRules::default() },
        registry: RegistryRules { max_uids: 6, immunity: 30, min_non_immune: 0 },
        ..SubnetRules::default()
    };
    let mut subnet = Subnet::new(rules, vec![key(1)], 0);
    for (n, stake) in [(1, 0), (2, 600), (3, 400), (10, 0), (11, 0), (12, 0)] {
        subnet.register(key(n), stake, 0).unwrap();
    }
    assert!(!subnet.is_due(9) && subnet.is_due(10));
    subnet.run_epoch(10, 0);
    subnet
}

fn call<'a>(uids: &'a [u16], values: &'a [u16]) -> Call<'a> {
    Call { uids, values, version: 0 }
}

#[test]
fn weights_become_pay_and_the_burn_uid_burns() {
    let mut subnet = subnet(WeightSetting::Direct);
    assert_eq!(subnet.set_weights(&key(10), &call(&[4], &[1]), 11), Err(ChainFault::NoPermit));
    for validator in [2, 3] {
        subnet.set_weights(&key(validator), &call(&[0, 3, 4], &[2, 1, 1]), 12).unwrap();
    }
    assert_eq!(subnet.set_weights(&key(2), &call(&[3], &[1]), 13), Err(ChainFault::RateLimit(17)));
    let (epoch, paid) = subnet.run_epoch(20, 1_000_000);
    assert_eq!(epoch.permits, [true, true, true, false, false, false]);
    assert_eq!(paid.servers, [0, 0, 0, 125_000, 125_000, 0]);
    assert_eq!(paid.validators[1] + paid.validators[2], 500_000);
    assert!(paid.validators[1] > paid.validators[2] && paid.burned == 250_000, "{paid:?}");
}

#[test]
fn committed_weights_count_from_the_next_epoch() {
    let mut subnet = subnet(WeightSetting::CommitReveal);
    let weights = call(&[3], &[9]);
    assert_eq!(subnet.set_weights(&key(2), &weights, 12), Err(ChainFault::CommitReveal));
    let hash = commitment(&key(2), &[3], &[9], b"salt", 0).unwrap();
    subnet.commit_weights(&key(2), hash, 12).unwrap();
    let early = subnet.reveal_weights(&key(2), &weights, b"salt");
    assert_eq!(early, Err(Error::Chain(ChainFault::RevealEpoch { due: 2, now: 1 })));
    let (epoch, _) = subnet.run_epoch(20, 100);
    assert_eq!(epoch.incentive, [0.0; 6], "nothing is revealed yet");
    assert_eq!(subnet.reveal_weights(&key(2), &weights, b"pepper"), Err(Error::Chain(ChainFault::NoCommit)));
    subnet.reveal_weights(&key(2), &weights, b"salt").unwrap();
    assert_eq!(subnet.run_epoch(30, 100).0.incentive[3], 1.0);
}

#[test]
fn who_is_replaced_takes_weights_bonds_and_pay_along() {
    let mut subnet = subnet(WeightSetting::Direct);
    for validator in [2, 3] {
        subnet.set_weights(&key(validator), &call(&[3, 4, 5], &[4, 3, 1]), 12).unwrap();
    }
    subnet.run_epoch(20, 1_000);
    assert!(subnet.slots[1].neuron.bonds.iter().any(|(uid, _)| *uid == 5));
    // All are out of immunity at block 31; uid 5 earned least. Registered twice: refused.
    assert_eq!(subnet.register(key(12), 0, 31), Err(ChainFault::AlreadyRegistered));
    assert_eq!(subnet.register(key(13), 0, 31), Ok(Registered { uid: 5, replaced: Some(key(12)) }));
    let (epoch, paid) = subnet.run_epoch(40, 1_000);
    assert_eq!((epoch.incentive[5], paid.servers[5]), (0.0, 0), "weights set before it came are void");
    assert!(subnet.slots[1].neuron.bonds.iter().all(|(uid, _)| *uid != 5), "and so are bonds");
    assert_eq!(subnet.uid(&key(12)), None);
}

/// A committed subnet in which validator 2 has revealed weights on uids 3 and 5 and an epoch has paid them; the epoch is 3.
fn revealed() -> Subnet {
    let mut subnet = subnet(WeightSetting::CommitReveal);
    let hash = commitment(&key(2), &[3, 5], &[9, 1], b"a", 0).unwrap();
    subnet.commit_weights(&key(2), hash, 12).unwrap();
    subnet.run_epoch(20, 100);
    subnet.reveal_weights(&key(2), &call(&[3, 5], &[9, 1]), b"a").unwrap();
    assert!(subnet.run_epoch(30, 100).0.incentive[5] > 0.0);
    // The next to go is uid 5.
    (0..5).for_each(|uid| subnet.slots[uid].emission = 1_000);
    subnet
}

#[test]
fn a_later_commitment_does_not_turn_old_weights_to_the_newcomer() {
    let mut subnet = revealed();
    assert_eq!(subnet.register(key(13), 0, 31), Ok(Registered { uid: 5, replaced: Some(key(12)) }));
    // The new commitment makes the validator's time of update later than the registration.
    let hash = commitment(&key(2), &[3], &[1], b"b", 0).unwrap();
    subnet.commit_weights(&key(2), hash, 33).unwrap();
    let (epoch, paid) = subnet.clone().run_epoch(40, 100);
    assert_eq!((epoch.incentive[5], paid.servers[5]), (0.0, 0));
    assert!(epoch.incentive[3] > 0.0, "and the rest stays");
    let left = |n: &Neuron| n.weights.iter().chain(&n.bonds).any(|(uid, _)| *uid == 5);
    assert!(!subnet.slots.iter().any(|slot| left(&slot.neuron)), "nothing is left of the former tenant");
}

#[test]
fn weights_committed_before_a_uid_changed_hands_are_not_revealed_onto_the_newcomer() {
    let mut subnet = revealed();
    let old = commitment(&key(2), &[3, 5], &[1, 1], b"c", 0).unwrap();
    subnet.commit_weights(&key(2), old, 31).unwrap();
    assert_eq!(subnet.register(key(13), 0, 32), Ok(Registered { uid: 5, replaced: Some(key(12)) }));
    let new = commitment(&key(2), &[3], &[1], b"d", 0).unwrap();
    subnet.commit_weights(&key(2), new, 37).unwrap();
    subnet.run_epoch(40, 100);
    // The older one leaves, the newer one waits: what is left to date the weights is later than the registration.
    subnet.reveal_weights(&key(2), &call(&[3, 5], &[1, 1]), b"c").unwrap();
    assert_eq!(subnet.run_epoch(41, 100).0.incentive[5], 0.0);
}
