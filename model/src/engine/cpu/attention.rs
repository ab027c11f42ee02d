//! Causal attention, forward and backward, one block of query rows of one head at a time: scores exist
//! for [`ROWS`] × T elements per thread, never T×T for all heads (the log-sum-exp of each row is
//! kept for the backward pass, as in FlashAttention, Dao et al. 2022).
//!
//! Forward: `S = Q·Kᵀ/√D`, `P = softmax(S)` over positions up to the row's own, `O = P·V`.
//! Backward: `dV = Pᵀ·dO`, `dP = dO·Vᵀ`, `dS = P ⊙ (dP − rowsum(dO ⊙ O))/√D`, `dQ = dS·K`, `dK = dSᵀ·Q`.
//!
//! A task owns one (sequence, key/value head) with all its query heads and goes through them in
//! order, so sums do not depend on the number of threads.
#![allow(unsafe_code)] // tasks write disjoint columns (heads) of shared matrices

use std::cell::RefCell;

use rayon::prelude::*;

use super::matmul::{Shared, Strided, small};
use super::simd::{Isa, LANES, Simd, dot, exp, fold, max, simd};
use crate::engine::backend::{Heads, Write};

/// Query rows of a block.
const ROWS: usize = 64;

thread_local! {
    /// Scores of one block, and their gradient: grown once, reused by every task of the thread.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// What the forward pass left for the backward pass, and the gradient that comes in.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a> {
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) lse: &'a [f32],
    pub(super) dout: &'a [f32],
}

pub(super) fn forward(
    level: Simd,
    h: Heads,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let out = Shared::new(out);
    lse.par_chunks_mut(h.seq).enumerate().for_each(|(task, lse)| {
        let head = Head::new(h, task / h.n_heads, task % h.n_heads);
        with_scratch(h.seq, |scores, _| {
            for block in blocks(h.seq) {
                let (rows, end) = (block.len(), block.end);
                let p = Strided { start: 0, row: end, col: 1 };
                let scores = &mut scores[..rows * end];
                // SAFETY: `scores` belongs to this thread.
                unsafe {
                    let s = Shared::new(scores);
                    small(
                        level,
                        (rows, end, h.head_dim),
                        scale(h),
                        (q, head.q(block.start)),
                        (k, head.k_t()),
                        Write::Set,
                        (s, p),
                    );
                }
                simd!(level, I => softmax::<I>(scores, block.start, end, &mut lse[block.clone()]));
                // SAFETY: these rows of this head's columns belong to this task.
                unsafe {
                    small(
                        level,
                        (rows, h.head_dim, end),
                        1.0,
                        (scores, p),
                        (v, head.k()),
                        Write::Set,
                        (out, head.q(block.start)),
                    );
                }
            }
        });
    });
}

pub(super) fn backward(
    level: Simd,
    h: Heads,
    saved: Saved<'_>,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    (0..h.batch * h.n_kv_heads).into_par_iter().for_each(|task| {
        let group = h.n_heads / h.n_kv_heads;
        let (sequence, kv_head) = (task / h.n_kv_heads, task % h.n_kv_heads);
        with_scratch(h.seq, |p, ds| {
            for i in 0..group {
                let head = Head::new(h, sequence, kv_head * group + i);
                // From the last block to the first: the last reaches every key, so the first products of
                // the first head set dK and dV, and all others add.
                for (j, block) in blocks(h.seq).rev().enumerate() {
                    let write = if i == 0 && j == 0 { Write::Set } else { Write::Add };
                    // SAFETY: query columns of this head and key columns of this group belong to this task.
                    unsafe { backward_block(level, h, head, block, saved, (p, ds), write, (dq, dk, dv)) };
                }
            }
        });
    });
}

/// # Safety
/// The head's columns of `dq`, `dk` and `dv` belong to the calling task.
unsafe fn backward_block(
    level: Simd,
    h: Heads,
    head: Head,
    block: std::ops::Range<usize>,
    saved: Saved<'_>,
    (p, ds): (&mut [f32], &mut [f32]),
    write: Write,
    (dq, dk, dv): (Shared<'_>, Shared<'_>, Shared<'_>),
) {
    let (rows, end, d) = (block.len(), block.end, h.head_dim);
    let (p, ds) = (&mut p[..rows * end], &mut ds[..rows * end]);
    let at = Strided { start: 0, row: end, col: 1 };
    let turned = Strided { start: 0, row: 1, col: end };
    let rows_at = head.q(block.start);
    let lse = &saved.lse[head.lse + block.start..][..rows];
    // SAFETY: scratch belongs to this thread, the gradients' columns to this task.
    unsafe {
        small(
            level,
            (rows, end, d),
            scale(h),
            (saved.q, rows_at),
            (saved.k, head.k_t()),
            Write::Set,
            (Shared::new(p), at),
        );
        small(
            level,
            (rows, end, d),
            1.0,
            (saved.dout, rows_at),
            (saved.v, head.k_t()),
            Write::Set,
            (Shared::new(ds), at),
        );
        simd!(level, I => {
            for (r, (p, ds)) in p.chunks_exact_mut(end).zip(ds.chunks_exact_mut(end)).enumerate() {
                let from = rows_at.start + r * rows_at.row;
                let delta = dot::<I>(&saved.dout[from..from + d], &saved.out[from..from + d]);
                score_gradient::<I>(p, ds, block.start + r + 1, lse[r], delta, scale(h));
            }
        });
        small(level, (end, d, rows), 1.0, (p, turned), (saved.dout, rows_at), write, (dv, head.k()));
        small(level, (rows, d, end), 1.0, (ds, at), (saved.k, head.k()), Write::Set, (dq, rows_at));
        small(level, (end, d, rows), 1.0, (ds, turned), (saved.q, rows_at), write, (dk, head.k()));
    }
}

/// `1/√D`.
fn scale(h: Heads) -> f32 {
    #[allow(clippy::cast_precision_loss)] // a head's width
    let d = h.head_dim as f32;
    1.0 / d.sqrt()
}

fn blocks(seq: usize) -> impl DoubleEndedIterator<Item = std::ops::Range<usize>> {
    (0..seq.div_ceil(ROWS)).map(move |i| i * ROWS..((i + 1) * ROWS).min(seq))
}

fn with_scratch(seq: usize, work: impl FnOnce(&mut [f32], &mut [f32])) {
    SCRATCH.with_borrow_mut(|[a, b]| {
        let need = ROWS.min(seq) * seq;
        a.resize(a.len().max(need), 0.0);
        b.resize(b.len().max(need), 0.0);
        work(a, b);
    });
}

/// Where one head's matrices lie.
#[derive(Clone, Copy)]
struct Head {
    q: usize,
    k: usize,
    q_row: usize,
    k_row: usize,
    lse: usize,
}

impl Head {
    fn new(h: Heads, sequence: usize, head: usize) -> Self {
        let (q_row, k_row) = (h.n_heads * h.head_dim, h.n_kv_heads * h.head_dim);
        let kv_head = head / (h.n_heads / h.n_kv_heads);
        Self {
            q: sequence * h.seq * q_row + head * h.head_dim,
            k: sequence * h.seq * k_row + kv_head * h.head_dim,
            q_row,
            k_row,
            lse: (sequence * h.n_heads + head) * h.seq,
        }
    }

    /// Query (or output) rows from `first`.
    fn q(self, first: usize) -> Strided {
        Strided { start: self.q + first * self.q_row, row: self.q_row, col: 1 }
    }

    /// Key (or value) rows, `[T, D]`.
    fn k(self) -> Strided {
        Strided { start: self.k, row: self.k_row, col: 1 }
    }

    /// The same transposed, `[D, T]`.
    fn k_t(self) -> Strided {
        Strided { start: self.k, row: 1, col: self.k_row }
    }
}

/// Softmax of the first `start + r + 1` scores of each row `r`; the rest become 0.
#[inline(always)]
fn softmax<I: Isa>(scores: &mut [f32], start: usize, end: usize, lse: &mut [f32]) {
    for (r, (row, lse)) in scores.chunks_exact_mut(end).zip(lse).enumerate() {
        let (seen, unseen) = row.split_at_mut(start + r + 1);
        unseen.fill(0.0);
        let top = max(seen);
        let mut lanes = [0.0; LANES];
        let mut chunks = seen.chunks_exact_mut(LANES);
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
        *lse = top + sum.ln();
        let inverse = 1.0 / sum;
        for v in seen {
            *v *= inverse;
        }
    }
}

/// One row: scores become probabilities, `ds` (dP) becomes dS.
#[inline(always)]
fn score_gradient<I: Isa>(p: &mut [f32], ds: &mut [f32], seen: usize, lse: f32, delta: f32, scale: f32) {
    for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
        *p = exp::<I>(*p - lse);
        *ds = *p * (*ds - delta) * scale;
    }
    p[seen..].fill(0.0);
    ds[seen..].fill(0.0);
}
