//! Consensus by stake-weighted median, clipping, trust and incentive (R§6.4.5–7).

use super::normalise;
use nalgebra::DMatrix;

/// Consensus of each column: the smallest weight v among those of validators with stake, such that the stake behind
/// weights ≤ v exceeds 1 − κ. A validator without an entry weighs 0. `weights` V × N, `stake` V, sum 1 or 0.
pub fn median(weights: &DMatrix<f64>, stake: &[f64], kappa: f64) -> Vec<f64> {
    let of_column = |column: nalgebra::DVectorView<'_, f64>| {
        let mut pairs: Vec<(f64, f64)> =
            column.iter().copied().zip(stake.iter().copied()).filter(|(_, s)| *s > 0.0).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut behind = 0.0;
        for (i, (weight, s)) in pairs.iter().enumerate() {
            behind += s;
            let next_differs = pairs.get(i + 1).is_none_or(|(next, _)| next > weight);
            if next_differs && behind > 1.0 - kappa {
                return *weight;
            }
        }
        0.0
    };
    weights.column_iter().map(of_column).collect()
}

/// V_ij = min(W_ij, c_j).
pub fn clip(weights: &DMatrix<f64>, consensus: &[f64]) -> DMatrix<f64> {
    DMatrix::from_fn(weights.nrows(), weights.ncols(), |i, j| weights[(i, j)].min(consensus[j]))
}

/// T_i = Σ_j V_ij: how much of a validator's weights is within the consensus.
pub fn trust(clipped: &DMatrix<f64>) -> Vec<f64> {
    (0..clipped.nrows()).map(|i| (0..clipped.ncols()).map(|j| clipped[(i, j)]).sum()).collect()
}

/// I = R / ΣR with R_j = Σ_i A_i V_ij.
pub fn incentive(clipped: &DMatrix<f64>, stake: &[f64]) -> Vec<f64> {
    let rank = |column: nalgebra::DVectorView<'_, f64>| column.iter().zip(stake).map(|(v, a)| a * v).sum();
    let mut ranks: Vec<f64> = clipped.column_iter().map(rank).collect();
    normalise(&mut ranks);
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_needs_more_than_the_rest_of_the_stake() {
        let weights = DMatrix::from_row_slice(3, 1, &[0.2, 0.5, 0.9]);
        let median = |stake: &[f64]| super::median(&weights, stake, 0.5)[0];
        assert_eq!(median(&[0.2, 0.5, 0.3]), 0.5);
        assert_eq!(median(&[0.6, 0.2, 0.2]), 0.2);
        assert_eq!(median(&[0.0, 0.0, 1.0]), 0.9);
        assert_eq!(median(&[0.5, 0.0, 0.5]), 0.9, "exactly half is not more than half");
        assert_eq!(median(&[0.0, 0.0, 0.0]), 0.0);
    }

    #[test]
    fn what_exceeds_the_consensus_is_clipped() {
        let weights = DMatrix::from_row_slice(2, 2, &[0.9, 0.1, 0.3, 0.7]);
        let clipped = clip(&weights, &[0.3, 0.1]);
        assert_eq!(trust(&clipped), [0.4, 0.4]);
        assert!((incentive(&clipped, &[0.5, 0.5])[0] - 0.75).abs() < 1e-12);
    }
}
