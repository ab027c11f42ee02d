//! RMSNorm: `y = x · r · g` with `r = 1/sqrt(mean(x²) + ε)` for each row (Zhang & Sennrich 2019).
//!
//! Backward, with `d = dy · g` and `s = r²/C · Σ(d · x · r)/r = r² · mean(d·x)`:
//! `dx = r · (d − x · r² · mean(d·x))`, `dg = Σ_rows dy · x · r`.

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{Isa, LANES, Simd, dot, fold, simd};
use crate::engine::backend::Write;

/// Blocks of rows whose gain gradients are summed separately, then in order: fixed, so that the
/// sum does not depend on the number of threads.
const BLOCKS: usize = 16;

pub(super) fn forward(level: Simd, x: &[f32], gain: &[f32], eps: f32, rstd: &mut [f32], out: &mut [f32]) {
    let width = gain.len();
    let rows = rows_per_task(width);
    (x.par_chunks(rows * width), out.par_chunks_mut(rows * width), rstd.par_chunks_mut(rows))
        .into_par_iter()
        .for_each(|(x, out, rstd)| simd!(level, I => forward_rows::<I>(x, gain, eps, rstd, out)));
}

#[inline(always)]
fn forward_rows<I: Isa>(x: &[f32], gain: &[f32], eps: f32, rstd: &mut [f32], out: &mut [f32]) {
    #[allow(clippy::cast_precision_loss)] // a width, far below 2²⁴
    let width = gain.len() as f32;
    let rows = x.chunks_exact(gain.len()).zip(out.chunks_exact_mut(gain.len()));
    for ((x, out), rstd) in rows.zip(rstd) {
        let r = 1.0 / (dot::<I>(x, x) / width + eps).sqrt();
        *rstd = r;
        scale_row(x, gain, r, out);
    }
}

pub(super) fn again(level: Simd, x: &[f32], gain: &[f32], rstd: &[f32], out: &mut [f32]) {
    let width = gain.len();
    let rows = rows_per_task(width);
    (x.par_chunks(rows * width), out.par_chunks_mut(rows * width), rstd.par_chunks(rows))
        .into_par_iter()
        .for_each(|(x, out, rstd)| {
            simd!(level, I => {
                let _: Option<I> = None;
                for ((x, out), &r) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(rstd) {
                    scale_row(x, gain, r, out);
                }
            });
        });
}

#[inline(always)]
fn scale_row(x: &[f32], gain: &[f32], r: f32, out: &mut [f32]) {
    for ((y, x), g) in out.iter_mut().zip(x).zip(gain) {
        *y = x * r * g;
    }
}

/// Adds to `dx`; sets or adds to `dgain`.
pub(super) fn backward(
    level: Simd,
    x: &[f32],
    gain: &[f32],
    rstd: &[f32],
    dout: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
    write: Write,
) {
    let width = gain.len();
    let rows = rstd.len().div_ceil(BLOCKS).max(1);
    let blocks = (
        x.par_chunks(rows * width),
        dout.par_chunks(rows * width),
        rstd.par_chunks(rows),
        dx.par_chunks_mut(rows * width),
    );
    let partial: Vec<Vec<f32>> = blocks
        .into_par_iter()
        .map(|(x, dout, rstd, dx)| {
            let mut dgain = vec![0.0; width];
            simd!(level, I => backward_rows::<I>(x, gain, rstd, dout, dx, &mut dgain));
            dgain
        })
        .collect();
    if write == Write::Set {
        dgain.fill(0.0);
    }
    for block in partial {
        for (to, from) in dgain.iter_mut().zip(block) {
            *to += from;
        }
    }
}

#[inline(always)]
fn backward_rows<I: Isa>(
    x: &[f32],
    gain: &[f32],
    rstd: &[f32],
    dout: &[f32],
    dx: &mut [f32],
    dgain: &mut [f32],
) {
    let width = gain.len();
    #[allow(clippy::cast_precision_loss)] // a width, far below 2²⁴
    let inverse = 1.0 / width as f32;
    let rows = x.chunks_exact(width).zip(dout.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
    for (((x, dout), dx), &r) in rows.zip(rstd) {
        let c = r * r * r * inverse * dot3::<I>(dout, gain, x);
        for i in 0..width {
            let term = dout[i] * gain[i] * r;
            dx[i] += I::fma(-c, x[i], term);
            dgain[i] = I::fma(dout[i], x[i] * r, dgain[i]);
        }
    }
}

/// `Σ a·b·c`.
#[inline(always)]
fn dot3<I: Isa>(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let chunks = a.chunks_exact(LANES).zip(b.chunks_exact(LANES)).zip(c.chunks_exact(LANES));
    for ((a, b), c) in chunks {
        for i in 0..LANES {
            lanes[i] = I::fma(a[i] * b[i], c[i], lanes[i]);
        }
    }
    let done = a.len() / LANES * LANES;
    for i in done..a.len() {
        lanes[i - done] = I::fma(a[i] * b[i], c[i], lanes[i - done]);
    }
    fold(lanes)
}
