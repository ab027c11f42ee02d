//! Token embedding: a gather forward, a scatter-add backward in a fixed order.

use rayon::prelude::*;

use super::rows_per_task;

/// `out[N, C] = table[tokens[N], C]`.
pub(super) fn forward(tokens: &[u32], table: &[f32], out: &mut [f32]) {
    let width = out.len() / tokens.len().max(1);
    let rows = rows_per_task(width);
    out.par_chunks_mut(rows * width).zip(tokens.par_chunks(rows)).for_each(|(out, tokens)| {
        for (row, &token) in out.chunks_exact_mut(width).zip(tokens) {
            let from = token as usize * width;
            row.copy_from_slice(&table[from..from + width]);
        }
    });
}

/// `dtable[tokens[N], C] += dout[N, C]`.
///
/// Each task owns a block of the vocabulary and adds its tokens' rows in order of position, so the
/// result does not depend on which thread is faster.
pub(super) fn backward(tokens: &[u32], dout: &[f32], dtable: &mut [f32], width: usize) {
    let rows = rows_per_task(width);
    dtable.par_chunks_mut(rows * width).enumerate().for_each(|(block, dtable)| {
        let first = block * rows;
        let ids = first..first + dtable.len() / width;
        for (&token, dout) in tokens.iter().zip(dout.chunks_exact(width)) {
            if ids.contains(&(token as usize)) {
                let at = (token as usize - first) * width;
                for (to, from) in dtable[at..at + width].iter_mut().zip(dout) {
                    *to += from;
                }
            }
        }
    });
}
