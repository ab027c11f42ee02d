//! Whose stake, weights and bonds count in an epoch (R§6.4.1–4).

use super::{Neuron, YumaRules, normalise};
use nalgebra::DMatrix;

/// Normalised stake S: below the threshold counts as nothing, owners exempt (step 2).
pub fn stake(rules: &YumaRules, neurons: &[Neuron]) -> Vec<f64> {
    let counts = |n: &Neuron| n.is_owner || n.stake >= rules.stake_threshold;
    let mut stake: Vec<f64> = neurons.iter().map(|n| if counts(n) { n.stake as f64 } else { 0.0 }).collect();
    normalise(&mut stake);
    stake
}

/// Active stake A: S without neurons that are inactive or hold no permit, normalised (steps 1 and 3).
pub fn active_stake(rules: &YumaRules, neurons: &[Neuron], stake: &[f64], now: u64) -> Vec<f64> {
    let inactive = |n: &Neuron| n.last_update.saturating_add(rules.activity_cutoff) < now;
    let counts = |n: &Neuron| n.permit && !inactive(n);
    let mut active: Vec<f64> =
        neurons.iter().zip(stake).map(|(n, s)| if counts(n) { *s } else { 0.0 }).collect();
    normalise(&mut active);
    active
}

/// Weights W (V × N), rows normalised: without a validator's weight on itself (owners keep theirs), and without weights
/// set or committed before the target registered: they are about the uid's previous tenant (step 4).
pub fn weights(neurons: &[Neuron], rows: &[usize]) -> DMatrix<f64> {
    let mut matrix = DMatrix::zeros(rows.len(), neurons.len());
    for (row, uid) in rows.iter().enumerate() {
        let from = &neurons[*uid];
        let set = from.waiting_commit.map_or(from.last_update, |block| block.min(from.last_update));
        let mut values = vec![0.0; neurons.len()];
        for (target, weight) in &from.weights {
            let target = usize::from(*target);
            let Some(to) = neurons.get(target) else { continue };
            let on_itself = target == *uid && !from.is_owner;
            if !on_itself && set > to.registered_at {
                values[target] = f64::from(*weight);
            }
        }
        normalise(&mut values);
        values.into_iter().enumerate().for_each(|(column, x)| matrix[(row, column)] = x);
    }
    matrix
}

/// Stored bonds B (V × N), columns normalised: without those on neurons registered since the last epoch, its block
/// included (step 8).
pub fn bonds(neurons: &[Neuron], rows: &[usize], previous: u64) -> DMatrix<f64> {
    let mut matrix = DMatrix::zeros(rows.len(), neurons.len());
    for (row, uid) in rows.iter().enumerate() {
        for (target, bond) in &neurons[*uid].bonds {
            let target = usize::from(*target);
            if neurons.get(target).is_some_and(|to| to.registered_at < previous) {
                matrix[(row, target)] = f64::from(*bond) / 65_535.0;
            }
        }
    }
    super::normalise_columns(&mut matrix);
    matrix
}

/// Permits of the next epoch: the top `max_validators` by stake above zero, ties to the lower uid; owners always.
pub fn next_permits(rules: &YumaRules, neurons: &[Neuron], stake: &[f64]) -> Vec<bool> {
    let mut ranked: Vec<usize> = (0..neurons.len()).filter(|i| stake[*i] > 0.0).collect();
    ranked.sort_by(|a, b| stake[*b].total_cmp(&stake[*a]).then(a.cmp(b)));
    ranked.truncate(usize::from(rules.max_validators));
    (0..neurons.len()).map(|i| neurons[i].is_owner || ranked.contains(&i)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neuron(stake: u64) -> Neuron {
        Neuron { stake, last_update: 10, registered_at: 1, permit: true, ..Neuron::default() }
    }

    #[test]
    fn inactive_and_permitless_stake_does_not_count() {
        let rules = YumaRules { activity_cutoff: 5, stake_threshold: 2, ..YumaRules::default() };
        let mut neurons = vec![neuron(1), neuron(4), neuron(4), neuron(8)];
        neurons[2].permit = false;
        neurons[3].last_update = 3;
        let stake = stake(&rules, &neurons);
        assert_eq!(stake, [0.0, 0.25, 0.25, 0.5]);
        assert_eq!(active_stake(&rules, &neurons, &stake, 9), [0.0, 1.0, 0.0, 0.0]);
        neurons[0].is_owner = true;
        assert!(super::stake(&rules, &neurons)[0] > 0.0, "the owner's stake counts below the threshold");
    }

    #[test]
    fn self_weights_and_weights_on_previous_tenants_are_void() {
        let mut neurons = vec![neuron(1), neuron(0), neuron(0)];
        neurons[0].weights = vec![(0, 5), (1, 5), (2, 5), (9, 5)];
        assert_eq!(weights(&neurons, &[0]).row(0).iter().copied().collect::<Vec<_>>(), [0.0, 0.5, 0.5]);
        neurons[2].registered_at = 10;
        assert_eq!(weights(&neurons, &[0]).row(0).iter().copied().collect::<Vec<_>>(), [0.0, 1.0, 0.0]);
        neurons[2].registered_at = 7;
        neurons[0].waiting_commit = Some(6);
        assert_eq!(weights(&neurons, &[0])[(0, 2)], 0.0, "committed before the target registered");
        neurons[0].is_owner = true;
        assert_eq!(weights(&neurons, &[0])[(0, 0)], 0.5, "the owner keeps its own");
    }

    #[test]
    fn bonds_on_newcomers_are_void_and_permits_go_by_stake() {
        let mut neurons = vec![neuron(3), neuron(5), neuron(5), neuron(0)];
        neurons[0].bonds = vec![(2, 100), (3, 100)];
        for registered_at in [20, 21] {
            neurons[3].registered_at = registered_at;
            let bonds = bonds(&neurons, &[0], 20);
            assert_eq!((bonds[(0, 2)], bonds[(0, 3)]), (1.0, 0.0), "registered at {registered_at}");
        }
        neurons[3].registered_at = 19;
        assert_eq!(bonds(&neurons, &[0], 20)[(0, 3)], 1.0, "known to the last epoch");
        let rules = YumaRules { max_validators: 2, ..YumaRules::default() };
        let stake = stake(&rules, &neurons);
        assert_eq!(next_permits(&rules, &neurons, &stake), [false, true, true, false]);
        neurons[3].is_owner = true;
        assert!(next_permits(&rules, &neurons, &stake)[3]);
    }
}
