//! Rotary position embedding (Su et al. 2021) in the half-split form of Hugging Face: in each head,
//! elements `j` and `j + D/2` turn by the angle `t · θ^(−2j/D)` of their position `t`.

use rayon::prelude::*;

use super::rows_per_task;
use super::simd::{Isa, Simd, simd};
use crate::engine::backend::Order;

/// Turns `x[B·T, width]` in place, `width` = heads·D; `table` is cos then sin, `[T, D/2]` each.
pub(super) fn rope(
    level: Simd,
    x: &mut [f32],
    table: &[f32],
    seq: usize,
    (width, head_dim): (usize, usize),
    order: Order,
) {
    let (cos, sin) = table.split_at(table.len() / 2);
    let rows = rows_per_task(width);
    x.par_chunks_mut(rows * width).enumerate().for_each(|(task, x)| {
        simd!(level, I => turn_rows::<I>(x, cos, sin, (task * rows, seq), (width, head_dim), order));
    });
}

#[inline(always)]
fn turn_rows<I: Isa>(
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    (first, seq): (usize, usize),
    (width, head_dim): (usize, usize),
    order: Order,
) {
    let half = head_dim / 2;
    for (i, row) in x.chunks_exact_mut(width).enumerate() {
        let at = (first + i) % seq * half;
        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
        for head in row.chunks_exact_mut(head_dim) {
            let (a, b) = head.split_at_mut(half);
            match order {
                Order::Normal => {
                    for j in 0..half {
                        let (u, v) = (a[j], b[j]);
                        a[j] = I::fma(u, cos[j], -(v * sin[j]));
                        b[j] = I::fma(v, cos[j], u * sin[j]);
                    }
                }
                Order::Transposed => {
                    for j in 0..half {
                        let (u, v) = (a[j], b[j]);
                        a[j] = I::fma(u, cos[j], v * sin[j]);
                        b[j] = I::fma(v, cos[j], -(u * sin[j]));
                    }
                }
            }
        }
    }
}
