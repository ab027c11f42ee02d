//! Bonds: a validator's stake in the servers it backed early, and the dividends they pay (R§6.4.8–10).

use super::{YumaRules, normalise, normalise_columns};
use nalgebra::DMatrix;

/// Bonds after an epoch (V × N), columns of sum 1 or 0: U = (1 − p)·W + p·V; purchase ΔB_ij = U_ij·A_i, columns
/// normalised; E = a·ΔB + (1 − a)·B, columns normalised.
pub fn update(
    rules: &YumaRules,
    weights: &DMatrix<f64>,
    clipped: &DMatrix<f64>,
    stake: &[f64],
    old: &DMatrix<f64>,
) -> DMatrix<f64> {
    let p = f64::from(rules.bonds_penalty) / 65_535.0;
    let a = 1.0 - f64::from(rules.bonds_moving_average.min(1_000_000)) / 1_000_000.0;
    let bought = |i: usize, j: usize| ((1.0 - p) * weights[(i, j)] + p * clipped[(i, j)]) * stake[i];
    let mut purchase = DMatrix::from_fn(weights.nrows(), weights.ncols(), bought);
    normalise_columns(&mut purchase);
    let mut bonds = DMatrix::from_fn(weights.nrows(), weights.ncols(), |i, j| {
        a * purchase[(i, j)] + (1.0 - a) * old[(i, j)]
    });
    normalise_columns(&mut bonds);
    bonds
}

/// Dividends of each row: D_i = Σ_j E_ij I_j, normalised.
pub fn dividends(bonds: &DMatrix<f64>, incentive: &[f64]) -> Vec<f64> {
    let mut dividends: Vec<f64> =
        (0..bonds.nrows()).map(|i| (0..bonds.ncols()).map(|j| bonds[(i, j)] * incentive[j]).sum()).collect();
    normalise(&mut dividends);
    dividends
}

/// The stored form by uid: each column scaled so that its largest is 65,535, rounded down; rows only for holders of a
/// permit in the next epoch.
pub fn stored(bonds: &DMatrix<f64>, rows: &[usize], permits: &[bool]) -> Vec<Vec<(u16, u16)>> {
    let mut stored = vec![Vec::new(); permits.len()];
    let largest: Vec<f64> = bonds.column_iter().map(|c| c.iter().copied().fold(0.0, f64::max)).collect();
    for (row, uid) in rows.iter().enumerate().filter(|(_, uid)| permits[**uid]) {
        for (column, top) in largest.iter().enumerate() {
            let value =
                if *top > 0.0 { libm::floor(bonds[(row, column)] / top * 65_535.0) as u16 } else { 0 };
            if let (1.., Ok(target)) = (value, u16::try_from(column)) {
                stored[*uid].push((target, value));
            }
        }
    }
    stored
}
