//! AdamW in one pass over memory (Loshchilov & Hutter 2019), and the norm it is clipped by.
//!
//! `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`,
//! `θ ← θ·(1 − lr·λ) − lr/(1−β₁ᵗ) · m / (sqrt(v/(1−β₂ᵗ)) + ε)`.

use rayon::prelude::*;

use super::TASK;
use super::simd::{Isa, LANES, Simd, simd};
use crate::engine::backend::{AdamW, AdamWFactors};

pub(super) fn step(level: Simd, step: AdamW, grads: &[f32], theta: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let f = (step, step.factors());
    let tasks =
        (grads.par_chunks(TASK), theta.par_chunks_mut(TASK), m.par_chunks_mut(TASK), v.par_chunks_mut(TASK));
    tasks.into_par_iter().for_each(|(g, t, m, v)| simd!(level, I => update::<I>(f, g, t, m, v)));
}

#[inline(always)]
fn update<I: Isa>(
    (step, f): (AdamW, AdamWFactors),
    grads: &[f32],
    theta: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let AdamW { beta1, beta2, eps, grad_scale, .. } = step;
    let (rest1, rest2) = (1.0 - beta1, 1.0 - beta2);
    for (((&g, t), m), v) in grads.iter().zip(theta).zip(m).zip(v) {
        let g = g * grad_scale;
        let m1 = I::fma(beta1, *m, rest1 * g);
        let v1 = I::fma(beta2, *v, rest2 * g * g);
        *m = m1;
        *v = v1;
        let denominator = I::fma(v1.sqrt(), f.root, eps);
        *t = I::fma(*t, f.decay, -(f.rate * m1 / denominator));
    }
}

/// `Σ x²` in f64 over blocks of fixed size, added in order.
pub(super) fn sum_of_squares(level: Simd, x: &[f32]) -> f64 {
    let blocks: Vec<f64> = x.par_chunks(TASK).map(|block| simd!(level, I => squares::<I>(block))).collect();
    blocks.into_iter().sum()
}

/// f32 sums over short runs, f64 above them: as fast as f32, as exact as needed at any size.
#[inline(always)]
fn squares<I: Isa>(x: &[f32]) -> f64 {
    let mut total = 0.0;
    for run in x.chunks(LANES * 64) {
        let mut lanes = [0.0f32; LANES];
        let chunks = run.chunks_exact(LANES);
        let rest = chunks.remainder();
        for c in chunks {
            for i in 0..LANES {
                lanes[i] = I::fma(c[i], c[i], lanes[i]);
            }
        }
        for (lane, &v) in lanes.iter_mut().zip(rest) {
            *lane = I::fma(v, v, *lane);
        }
        total += lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>();
    }
    total
}
