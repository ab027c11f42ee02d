//! Matrix products on processors with AVX2 and FMA but without AVX-512, by tiles of 6 × 16 sums in registers over packed
//! factors (Goto and van de Geijn, "Anatomy of high-performance matrix multiplication", 2008; tile as in BLIS).
//!
//! Of what two 256-bit FMAs a cycle allow on a Zen 3 core, crate `gemm` reaches 0.7 and this more than 0.8 (docs/log.md).
//! Where there is AVX-512, the crate is at the processor's rate.
//!
//! Every element is summed in order of `k` within pieces of [`KC`], and the pieces in order, wherever it lies in a tile:
//! the sum depends on `k` alone, so output may be cut anywhere.
#![allow(unsafe_code)] // vector instructions on packed panels; one entry whose contract bounds every address

use std::arch::x86_64::{
    __m256, _mm_storeh_pd, _mm_storel_pd, _mm_storeu_ps, _mm256_add_ps, _mm256_broadcast_ss,
    _mm256_castpd256_pd128, _mm256_castps_pd, _mm256_castps256_ps128, _mm256_extractf128_pd,
    _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_load_ps, _mm256_loadu_ps, _mm256_mul_ps,
    _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
    _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};
use std::cell::RefCell;

use super::matmul::Strided;
use crate::engine::backend::Write;

/// Rows of a tile: 6 × 2 vectors of sums, two of the right factor and one of the left are 15 of 16 registers.
const MR: usize = 6;
/// Columns of a tile: two vectors of 8.
const NR: usize = 16;
/// Terms between two visits of the output.
const KC: usize = 512;
/// Rows of the left factor packed at a time: `MC · KC` floats stay in the second-level cache.
const MC: usize = 96;
/// Columns of the right factor packed at a time.
const NC: usize = 1024;

/// One row of a packed panel of the right factor, on a cache line of its own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; NR]);

thread_local! {
    /// Packed panels of the left and of the right factor: grown once, reused by every product of the thread.
    static PANELS: RefCell<[Vec<Line>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// `out[m, n] (=|+=) alpha · a · b`; columns of `out` are contiguous.
///
/// # Safety
/// The processor has AVX2 and FMA; `m × k` elements of `a`, `k × n` of `b` and `m × n` of `out` lie inside their buffers;
/// nothing else touches those of `out` meanwhile.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn product(
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    (a, sa): (*const f32, Strided),
    (b, sb): (*const f32, Strided),
    write: Write,
    (out, so): (*mut f32, Strided),
) {
    PANELS.with_borrow_mut(|[left, right]| {
        grow(left, (MC * KC).min(m.next_multiple_of(MR) * k));
        grow(right, (NC * KC).min(n.next_multiple_of(NR) * k));
        let (left, right) = (left.as_mut_ptr().cast::<f32>(), right.as_mut_ptr().cast::<f32>());
        for (jc, nc) in pieces(n, NC) {
            for (pc, kc) in pieces(k, KC) {
                let set = pc == 0 && matches!(write, Write::Set);
                // SAFETY: the panels were grown to what a piece takes; every index lies inside its matrix.
                unsafe {
                    for (j, width) in pieces(nc, NR) {
                        pack::<NR>(width, kc, b.add(sb.at(pc, jc + j)), (sb.col, sb.row), right.add(j * kc));
                    }
                    for (ic, mc) in pieces(m, MC) {
                        for (i, height) in pieces(mc, MR) {
                            pack::<MR>(
                                height,
                                kc,
                                a.add(sa.at(ic + i, pc)),
                                (sa.row, sa.col),
                                left.add(i * kc),
                            );
                        }
                        let out = (out.add(so.at(ic, jc)), so.row);
                        block((mc, nc, kc), alpha, (left, right), set, out);
                    }
                }
            }
        }
    });
}

fn grow(panel: &mut Vec<Line>, floats: usize) {
    let lines = floats.div_ceil(NR);
    if panel.len() < lines {
        panel.resize(lines, Line([0.0; NR]));
    }
}

/// First element and length of each piece of at most `most`.
fn pieces(length: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..length).step_by(most).map(move |first| (first, most.min(length - first)))
}

/// All tiles of one packed block.
///
/// # Safety
/// As [`product`]; `left` and `right` hold the block's panels.
#[target_feature(enable = "avx2,fma")]
unsafe fn block(
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    (left, right): (*const f32, *const f32),
    set: bool,
    (out, row): (*mut f32, usize),
) {
    for (j, width) in pieces(n, NR) {
        for (i, height) in pieces(m, MR) {
            // SAFETY: tile (i, j) of the block, by contract inside panels and output.
            unsafe {
                let (left, right, out) = (left.add(i * k), right.add(j * k), out.add(i * row + j));
                if (height, width) == (MR, NR) {
                    tile(k, alpha, left, right, set, (out, row));
                    continue;
                }
                let mut whole = [0.0; MR * NR];
                tile(k, alpha, left, right, true, (whole.as_mut_ptr(), NR));
                for (r, sums) in whole.chunks_exact(NR).take(height).enumerate() {
                    for (c, sum) in sums.iter().take(width).enumerate() {
                        let to = out.add(r * row + c);
                        *to = if set { *sum } else { *to + *sum };
                    }
                }
            }
        }
    }
}

/// One tile: `k` terms of each sum stay in registers.
///
/// # Safety
/// As [`block`], with a whole tile of `out`; `right` lies on a cache line.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn tile(
    k: usize,
    alpha: f32,
    mut left: *const f32,
    mut right: *const f32,
    set: bool,
    (out, row): (*mut f32, usize),
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; MR];
    // SAFETY: `k` rows of both panels; MR rows of NR elements of `out`.
    unsafe {
        for _ in 0..k {
            let b = [_mm256_load_ps(right), _mm256_load_ps(right.add(8))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*left.add(i));
                sums[0] = _mm256_fmadd_ps(a, b[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(a, b[1], sums[1]);
            }
            left = left.add(MR);
            right = right.add(NR);
        }
        let alpha = _mm256_set1_ps(alpha);
        for (i, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let to = out.add(i * row + half * 8);
                let sum = _mm256_mul_ps(sum, alpha);
                _mm256_storeu_ps(to, if set { sum } else { _mm256_add_ps(_mm256_loadu_ps(to), sum) });
            }
        }
    }
}

/// Packs `lines` (at most `W`) lines of `k` elements as `k` rows of `W`, missing lines as zeros. Lines are `line` apart,
/// their elements `step`.
///
/// # Safety
/// All elements lie inside the factor; `to` has room for `k · W`.
#[target_feature(enable = "avx2,fma")]
unsafe fn pack<const W: usize>(
    lines: usize,
    k: usize,
    from: *const f32,
    (line, step): (usize, usize),
    to: *mut f32,
) {
    // SAFETY: each branch reads elements below (lines, k) and writes below k · W.
    unsafe {
        let mut done = 0;
        if lines < W {
            to.write_bytes(0, k * W);
        } else if line == 1 {
            for p in 0..k {
                from.add(p * step).copy_to_nonoverlapping(to.add(p * W), W);
            }
            return;
        } else if step == 1 {
            while done + 8 <= k {
                let (from, to) = (from.add(done), to.add(done * W));
                if W == NR {
                    turn_8(from, line, to);
                    turn_8(from.add(8 * line), line, to.add(8));
                } else {
                    turn_6(from, line, to);
                }
                done += 8;
            }
        }
        for p in done..k {
            for i in 0..lines {
                *to.add(p * W + i) = *from.add(i * line + p * step);
            }
        }
    }
}

/// Turns 8 lines of 8 elements into the left or right half of 8 rows of [`NR`].
///
/// # Safety
/// As [`pack`].
#[target_feature(enable = "avx2,fma")]
unsafe fn turn_8(from: *const f32, line: usize, to: *mut f32) {
    // SAFETY: 8 lines of 8 elements, 8 half rows, by contract.
    unsafe {
        let low = quarters(from, line);
        let high = quarters(from.add(4 * line), line);
        for i in 0..4 {
            _mm256_storeu_ps(to.add(i * NR), _mm256_permute2f128_ps::<0x20>(low[i], high[i]));
            _mm256_storeu_ps(to.add((i + 4) * NR), _mm256_permute2f128_ps::<0x31>(low[i], high[i]));
        }
    }
}

/// Turns 6 lines of 8 elements into 8 rows of [`MR`].
///
/// # Safety
/// As [`pack`].
#[target_feature(enable = "avx2,fma")]
unsafe fn turn_6(from: *const f32, line: usize, to: *mut f32) {
    // SAFETY: 6 lines of 8 elements, 8 rows of 6, by contract.
    unsafe {
        let low = quarters(from, line);
        let (e, f) = (_mm256_loadu_ps(from.add(4 * line)), _mm256_loadu_ps(from.add(5 * line)));
        let pairs = [_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f)].map(|pair| _mm256_castps_pd(pair));
        for i in 0..4 {
            let (near, far) = (to.add(i * MR), to.add((i + 4) * MR));
            let pair = pairs[i / 2];
            let ends = (_mm256_castpd256_pd128(pair), _mm256_extractf128_pd::<1>(pair));
            _mm_storeu_ps(near, _mm256_castps256_ps128(low[i]));
            _mm_storeu_ps(far, _mm256_extractf128_ps::<1>(low[i]));
            if i % 2 == 0 {
                _mm_storel_pd(near.add(4).cast(), ends.0);
                _mm_storel_pd(far.add(4).cast(), ends.1);
            } else {
                _mm_storeh_pd(near.add(4).cast(), ends.0);
                _mm_storeh_pd(far.add(4).cast(), ends.1);
            }
        }
    }
}

/// Columns of 4 lines of 8 elements: vector `i` holds column `i` in its lower and column `i + 4` in its upper half.
///
/// # Safety
/// As [`pack`].
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn quarters(from: *const f32, line: usize) -> [__m256; 4] {
    // SAFETY: 4 lines of 8 elements, by contract.
    let [a, b, c, d] = unsafe {
        [
            _mm256_loadu_ps(from),
            _mm256_loadu_ps(from.add(line)),
            _mm256_loadu_ps(from.add(2 * line)),
            _mm256_loadu_ps(from.add(3 * line)),
        ]
    };
    let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
    let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
    [
        _mm256_shuffle_ps::<0x44>(ab, cd),
        _mm256_shuffle_ps::<0xee>(ab, cd),
        _mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        _mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ]
}
