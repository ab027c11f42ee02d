//! SwiGLU (Shazeer 2020): `y = silu(g) · u`, `silu(g) = g · σ(g)`, `σ(g) = 1/(1 + e^−g)`.
//!
//! Backward: `dg = dy · u · σ(g) · (1 + g·(1 − σ(g)))`, `du = dy · silu(g)`.

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{Isa, Simd, exp, simd};

pub(super) fn forward(level: Simd, width: usize, gate_up: &[f32], out: &mut [f32]) {
    let rows = rows_per_task(2 * width);
    (gate_up.par_chunks(rows * 2 * width), out.par_chunks_mut(rows * width)).into_par_iter().for_each(
        |(gate_up, out)| {
            simd!(level, I => {
                for (gate_up, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                    let (gate, up) = gate_up.split_at(width);
                    for ((y, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                        *y = g * sigmoid::<I>(g) * u;
                    }
                }
            });
        },
    );
}

/// Replaces `gate_up` by its gradient and `dout` by the forward output.
pub(super) fn backward(level: Simd, width: usize, gate_up: &mut [f32], dout: &mut [f32]) {
    let rows = rows_per_task(2 * width);
    (gate_up.par_chunks_mut(rows * 2 * width), dout.par_chunks_mut(rows * width)).into_par_iter().for_each(
        |(gate_up, dout)| {
            simd!(level, I => {
                for (gate_up, dout) in gate_up.chunks_exact_mut(2 * width).zip(dout.chunks_exact_mut(width)) {
                    let (gate, up) = gate_up.split_at_mut(width);
                    backward_row::<I>(gate, up, dout);
                }
            });
        },
    );
}

#[inline(always)]
fn backward_row<I: Isa>(gate: &mut [f32], up: &mut [f32], dout: &mut [f32]) {
    for ((g, u), d) in gate.iter_mut().zip(up).zip(dout) {
        let (gate, up, dy) = (*g, *u, *d);
        let sigma = sigmoid::<I>(gate);
        let silu = gate * sigma;
        // σ·(1 + g·(1 − σ)) = σ + silu·(1 − σ)
        *g = dy * up * I::fma(silu, 1.0 - sigma, sigma);
        *u = dy * silu;
        *d = silu * up;
    }
}

#[inline(always)]
fn sigmoid<I: Isa>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<I>(-x))
}
