//! Cross-entropy of a softmax over each row of logits: `loss = log Σ e^z − z_target`, and its gradient
//! `softmax(z) − onehot(target)` in place.

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{Isa, LANES, Simd, exp, fold, max, simd};
use crate::engine::backend::IGNORE;

pub(super) fn forward(level: Simd, vocab: usize, targets: &[u32], logits: &[f32], losses: &mut [f32]) {
    let rows = rows_per_task(vocab);
    (targets.par_chunks(rows), logits.par_chunks(rows * vocab), losses.par_chunks_mut(rows))
        .into_par_iter()
        .for_each(|(targets, logits, losses)| {
            simd!(level, I => {
                for ((&target, z), loss) in targets.iter().zip(logits.chunks_exact(vocab)).zip(losses) {
                    *loss = loss_of_row::<I>(target, z);
                }
            });
        });
}

#[inline(always)]
fn loss_of_row<I: Isa>(target: u32, z: &[f32]) -> f32 {
    if target == IGNORE {
        return 0.0;
    }
    let top = max(z);
    let mut lanes = [0.0; LANES];
    let chunks = z.chunks_exact(LANES);
    let rest = chunks.remainder();
    for c in chunks {
        for i in 0..LANES {
            lanes[i] += exp::<I>(c[i] - top);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += exp::<I>(v - top);
    }
    fold(lanes).ln() + top - z[target as usize]
}

/// As [`forward`]; `logits` become their gradient times `scale`.
pub(super) fn backward(
    level: Simd,
    vocab: usize,
    targets: &[u32],
    scale: f32,
    logits: &mut [f32],
    losses: &mut [f32],
) {
    let rows = rows_per_task(vocab);
    (targets.par_chunks(rows), logits.par_chunks_mut(rows * vocab), losses.par_chunks_mut(rows))
        .into_par_iter()
        .for_each(|(targets, logits, losses)| {
            simd!(level, I => {
                for ((&target, z), loss) in targets.iter().zip(logits.chunks_exact_mut(vocab)).zip(losses) {
                    *loss = gradient_of_row::<I>(target, scale, z);
                }
            });
        });
}

#[inline(always)]
fn gradient_of_row<I: Isa>(target: u32, scale: f32, z: &mut [f32]) -> f32 {
    if target == IGNORE {
        z.fill(0.0);
        return 0.0;
    }
    let top = max(z);
    let at_target = z[target as usize];
    let mut lanes = [0.0; LANES];
    let mut chunks = z.chunks_exact_mut(LANES);
    for c in &mut chunks {
        for i in 0..LANES {
            c[i] = exp::<I>(c[i] - top);
            lanes[i] += c[i];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(chunks.into_remainder()) {
        *v = exp::<I>(*v - top);
        *lane += *v;
    }
    let sum = fold(lanes);
    let factor = scale / sum;
    for v in z.iter_mut() {
        *v *= factor;
    }
    z[target as usize] -= scale;
    sum.ln() + top - at_target
}
