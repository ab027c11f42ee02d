//! DeMo written out in f64, slowly and obviously: the yardstick for the fast paths, never used in a run.
//!
//! Follows the original (bloc97/DeMo) and templar v0.2.82; `docs/reference.md` §2 restates both. The last part
//! repeats the consensus chains of PROTOCOL 6 in f32 without any of the kernels' arrangements.

use crate::chunk::Grid;
use crate::dct::{basis, coefficient};

/// One tensor's transmitted coefficients: for each chunk, ascending indices and their values.
#[derive(Debug, Clone, PartialEq)]
pub struct Sparse {
    /// Indices inside each chunk.
    pub indices: Vec<Vec<usize>>,
    /// Values at those indices.
    pub values: Vec<Vec<f64>>,
}

/// How the peers' values are scaled before the mean over senders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Not at all: the original.
    Plain,
    /// Each peer's tensor to unit norm, `v / (‖v‖ + 1e-8)`: the paper.
    UnitNorm,
}

/// Y = F_hᵀ X F_w of one compact chunk.
pub fn forward(x: &[f64], h: usize, w: usize) -> Vec<f64> {
    transform(x, h, w, coefficient)
}

/// X = F_h Y F_wᵀ of one compact chunk.
pub fn inverse(y: &[f64], h: usize, w: usize) -> Vec<f64> {
    transform(y, h, w, |n, from, to| coefficient(n, to, from))
}

fn transform(x: &[f64], h: usize, w: usize, f: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    let table = |n: usize| -> Vec<f64> { (0..n * n).map(|i| f(n, i / n, i % n)).collect() };
    let (fh, fw) = (table(h), table(w));
    let mut half = vec![0.0; h * w];
    for i in 0..h {
        for a in 0..h {
            for j in 0..w {
                half[a * w + j] += fh[i * h + a] * x[i * w + j];
            }
        }
    }
    let mut out = vec![0.0; h * w];
    for a in 0..h {
        for j in 0..w {
            for b in 0..w {
                out[a * w + b] += half[a * w + j] * fw[j * w + b];
            }
        }
    }
    out
}

/// The `k` largest by magnitude, ties to the lower index, ascending.
pub fn topk(values: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].abs().total_cmp(&values[a].abs()).then(a.cmp(&b)));
    order.truncate(k.clamp(1, values.len()));
    order.sort_unstable();
    order
}

/// The elements of chunk `chunk`, as positions in the tensor.
pub fn positions(grid: &Grid, chunk: usize) -> Vec<usize> {
    let origin = chunk / grid.per_band * grid.band_len() + chunk % grid.per_band * grid.w;
    (0..grid.chunk_len()).map(|i| origin + i / grid.w * grid.stride() + i % grid.w).collect()
}

/// The DCT of every chunk.
pub fn encode(tensor: &[f64], grid: &Grid) -> Vec<Vec<f64>> {
    (0..grid.chunks())
        .map(|chunk| {
            let x: Vec<f64> = positions(grid, chunk).into_iter().map(|p| tensor[p]).collect();
            forward(&x, grid.h, grid.w)
        })
        .collect()
}

/// The inverse of [`encode`].
pub fn decode(chunks: &[Vec<f64>], grid: &Grid) -> Vec<f64> {
    let mut tensor = vec![0.0; grid.chunks() * grid.chunk_len()];
    for (chunk, y) in chunks.iter().enumerate() {
        for (p, x) in positions(grid, chunk).into_iter().zip(inverse(y, grid.h, grid.w)) {
            tensor[p] = x;
        }
    }
    tensor
}

/// Top-k of the DCT of every chunk.
pub fn compress(tensor: &[f64], grid: &Grid, k: usize) -> Sparse {
    let chunks = encode(tensor, grid);
    let indices: Vec<_> = chunks.iter().map(|y| topk(y, k)).collect();
    let values = chunks.iter().zip(&indices).map(|(y, i)| i.iter().map(|&i| y[i]).collect()).collect();
    Sparse { indices, values }
}

/// The mean over the peers that sent a coefficient, 0 where none did.
pub fn aggregate(peers: &[&Sparse], grid: &Grid, rule: Rule) -> Vec<Vec<f64>> {
    let mut sums = vec![vec![0.0; grid.chunk_len()]; grid.chunks()];
    let mut counts = vec![vec![0_u32; grid.chunk_len()]; grid.chunks()];
    for peer in peers {
        let norm = peer.values.iter().flatten().map(|v| v * v).sum::<f64>().sqrt();
        let scale = match rule {
            Rule::Plain => 1.0,
            Rule::UnitNorm => 1.0 / (norm + 1e-8),
        };
        for (chunk, (indices, values)) in peer.indices.iter().zip(&peer.values).enumerate() {
            for (&i, &v) in indices.iter().zip(values) {
                sums[chunk][i] += v * scale;
                counts[chunk][i] += 1;
            }
        }
    }
    for (sums, counts) in sums.iter_mut().zip(&counts) {
        for (sum, &count) in sums.iter_mut().zip(counts) {
            *sum /= f64::from(count.max(1));
        }
    }
    sums
}

/// m ← β·m + α·g; what is sent; and, if `subtract`, m ← m − IDCT(sent).
pub fn local_step(
    m: &mut [f64],
    g: &[f64],
    grid: &Grid,
    decay: f64,
    lr: f64,
    k: usize,
    subtract: Subtract,
) -> Sparse {
    for (m, g) in m.iter_mut().zip(g) {
        *m = decay * *m + lr * g;
    }
    let sent = compress(m, grid, k);
    if subtract == Subtract::Yes {
        for (m, x) in m.iter_mut().zip(decode(&aggregate(&[&sent], grid, Rule::Plain), grid)) {
            *m -= x;
        }
    }
    sent
}

/// Whether what was sent leaves the momentum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subtract {
    /// It does.
    Yes,
    /// Not yet: momentum warm-up.
    No,
}

/// θ ← θ·(1 − α·λ) − α·sign(Δ).
pub fn outer_step(theta: &mut [f64], delta: &[f64], lr: f64, weight_decay: f64) {
    for (p, d) in theta.iter_mut().zip(delta) {
        let sign = if *d == 0.0 { 0.0 } else { d.signum() };
        *p = *p * (1.0 - lr * weight_decay) - lr * sign;
    }
}

/// PROTOCOL 6.2 for one compact chunk of f32 coefficients, chain by chain, nothing skipped.
pub fn exact_inverse(c: &[f32], h: usize, w: usize) -> Vec<f32> {
    let (fh, fw) = (basis(h), basis(w));
    let mut t = vec![0.0_f32; h * w];
    for b in 0..w {
        let column: Vec<f32> = (0..h).map(|a| c[a * w + b]).collect();
        for (i, x) in exact_inverse_1d(&column, &fh).into_iter().enumerate() {
            t[i * w + b] = x;
        }
    }
    t.chunks(w).flat_map(|row| exact_inverse_1d(row, &fw)).collect()
}

fn exact_inverse_1d(c: &[f32], f: &[f32]) -> Vec<f32> {
    let n = c.len();
    let chain = |j: usize, first: usize| {
        (first..n).step_by(2).fold(0.0_f32, |acc, k| f[j * n + k].mul_add(c[k], acc))
    };
    let mut x = vec![0.0; n];
    for j in 0..n.div_ceil(2) {
        let (even, odd) = (chain(j, 0), chain(j, 1));
        x[j] = even + odd;
        x[n - 1 - j] = even - odd;
        if 2 * j + 1 == n {
            x[j] = even;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inverse_undoes_forward() {
        for (h, w) in [(1, 1), (1, 7), (5, 3), (8, 8), (13, 29)] {
            let x: Vec<f64> = (0..h * w).map(|i| (i * 37 % 23) as f64 - 11.0).collect();
            for (a, b) in inverse(&forward(&x, h, w), h, w).iter().zip(&x) {
                assert!((a - b).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn topk_keeps_the_lower_of_equals() {
        assert_eq!(topk(&[1.0, -3.0, 3.0, 1.0], 3), [0, 1, 2]);
        assert_eq!(topk(&[1.0, 2.0], 9), [0, 1]);
    }
}
