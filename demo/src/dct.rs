//! The orthonormal DCT-II of one chunk: its basis and the forward transform.
//!
//! F\[j,k\] = s_k · sqrt(2/N) · cos(π(2j+1)k / 2N), s_0 = 1/√2, else 1. Forward of an h × w chunk: Y = F_hᵀ X F_w.
//! The basis is consensus: computed in f64 by `libm`, rounded once to f32 (PROTOCOL 3.5, 6.2). The angle is reduced
//! in integers to the first quadrant, so every entry is the f32 nearest to the exact value and cos(π/2) is 0.
//!
//! F\[N−1−j,k\] = (−1)^k F\[j,k\]: sums of mirrored samples feed the even frequencies, differences the odd ones,
//! which halves the work. The forward transform is not consensus, but still the same on every path.

#![allow(clippy::needless_range_loop, reason = "rows and lanes are counted, in step over several arrays")]

use crate::chunk::MAX_EDGE;
use crate::lanes::{LANES, Lanes};
use std::f64::consts::PI;

/// Half an edge: the lanes of a basis row.
pub(crate) const HALF: usize = MAX_EDGE / 2;

/// F\[j,k\] of size `n` in f64.
pub fn coefficient(n: usize, j: usize, k: usize) -> f64 {
    if k == 0 {
        return (1.0 / n as f64).sqrt();
    }
    // cos has period 4n in units of π/2n, and is even around 0 and odd around n.
    let turn = ((2 * j + 1) * k) % (4 * n);
    let turn = turn.min(4 * n - turn);
    let (turn, sign) = if turn > n { (2 * n - turn, -1.0) } else { (turn, 1.0) };
    let cos = if turn == n { 0.0 } else { libm::cos(PI * turn as f64 / (2 * n) as f64) };
    sign * cos * (2.0 / n as f64).sqrt()
}

/// The basis in f32, row-major `[j, k]`: the consensus values.
pub fn basis(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| coefficient(n, i / n, i % n) as f32).collect()
}

/// BLAKE3 of the basis's little-endian bytes; [`crate::golden::BASES`] holds the expected values.
pub fn basis_hash(n: usize) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for value in basis(n) {
        hasher.update(&value.to_le_bytes());
    }
    hasher.finalize()
}

/// The basis of one edge, arranged for the kernels; unused lanes are 0.
#[repr(C, align(64))]
pub(crate) struct Basis {
    /// F\[j, k\] as `[k][j]`, j < ⌈n/2⌉.
    pub(crate) rows: [[f32; HALF]; MAX_EDGE],
    /// F\[j, 2b\] as `[j][b]`.
    pub(crate) even: [[f32; HALF]; HALF],
    /// F\[j, 2b+1\] as `[j][b]`.
    pub(crate) odd: [[f32; HALF]; HALF],
    /// The edge.
    pub(crate) n: usize,
}

impl Basis {
    pub(crate) fn new(n: usize) -> Box<Self> {
        let mut out = Box::new(Self {
            rows: [[0.0; HALF]; MAX_EDGE],
            even: [[0.0; HALF]; HALF],
            odd: [[0.0; HALF]; HALF],
            n,
        });
        for k in 0..n {
            for j in 0..n.div_ceil(2) {
                let f = coefficient(n, j, k) as f32;
                out.rows[k][j] = f;
                if k % 2 == 0 {
                    out.even[j][k / 2] = f;
                } else {
                    out.odd[j][k / 2] = f;
                }
            }
        }
        out
    }
}

/// Working memory of one chunk's forward transform, and its result.
#[repr(C, align(64))]
pub(crate) struct ForwardTile {
    /// Mirrored rows folded: sums in the first half, differences in the second. Then the result, compact h × w.
    pub(crate) z: [f32; MAX_EDGE * MAX_EDGE],
    /// After the row transform, mirrored columns folded: `[a][sums | differences]`.
    folded: [[f32; MAX_EDGE]; MAX_EDGE],
}

impl ForwardTile {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { z: [0.0; MAX_EDGE * MAX_EDGE], folded: [[0.0; MAX_EDGE]; MAX_EDGE] })
    }
}

/// Transforms the chunk at the start of `x` (rows `stride` apart) into `tile.z`.
#[inline(always)]
pub(crate) fn forward<L: Lanes>(bh: &Basis, bw: &Basis, x: &[f32], stride: usize, tile: &mut ForwardTile) {
    let (h, w) = (bh.n, bw.n);
    fold_rows::<L>(x, stride, h, w, &mut tile.z);
    let mut a = 0;
    while a < h {
        // Rows of one parity at a time: they read the same folds.
        if L::ROWS == 8 && a + 16 <= h {
            rows::<L, 8>(bh, a, w, tile);
            rows::<L, 8>(bh, a + 1, w, tile);
            a += 16;
        } else if L::ROWS >= 2 && a + 4 <= h {
            rows::<L, 2>(bh, a, w, tile);
            rows::<L, 2>(bh, a + 1, w, tile);
            a += 4;
        } else {
            rows::<L, 1>(bh, a, w, tile);
            a += 1;
        }
    }
    let mut a = 0;
    while a < h {
        if L::ROWS == 8 && a + 8 <= h {
            columns::<L, 8>(bw, a, tile);
            a += 8;
        } else if L::ROWS >= 2 && a + 2 <= h {
            columns::<L, 2>(bw, a, tile);
            a += 2;
        } else {
            columns::<L, 1>(bw, a, tile);
            a += 1;
        }
    }
}

/// z\[i\] = x\[i\] + x\[h−1−i\], z\[32+i\] = x\[i\] − x\[h−1−i\]; an odd height's middle row counts once.
#[inline(always)]
fn fold_rows<L: Lanes>(x: &[f32], stride: usize, h: usize, w: usize, z: &mut [f32; MAX_EDGE * MAX_EDGE]) {
    let (sums, differences) = z.split_at_mut(HALF * MAX_EDGE);
    for i in 0..h.div_ceil(2) {
        let sums = &mut sums[i * MAX_EDGE..][..MAX_EDGE];
        let differences = &mut differences[i * MAX_EDGE..][..MAX_EDGE];
        let top = &x[i * stride..][..w];
        let low = &x[(h - 1 - i) * stride..][..w];
        if 2 * i + 1 == h {
            sums[..w].copy_from_slice(top);
            differences[..w].fill(0.0);
        } else if w == MAX_EDGE {
            let (sums, differences) = (blocks_mut(sums), blocks_mut(differences));
            for q in 0..MAX_EDGE / LANES {
                let (top, low) = (L::load(&blocks(top)[q]), L::load(&blocks(low)[q]));
                top.add(low).store(&mut sums[q]);
                top.sub(low).store(&mut differences[q]);
            }
        } else {
            for j in 0..w {
                sums[j] = top[j] + low[j];
                differences[j] = top[j] - low[j];
            }
        }
        sums[w..].fill(0.0);
        differences[w..].fill(0.0);
    }
}

/// Rows a, a+2, …, a+2(R−1) of F_hᵀ X, folded over columns into `tile.folded`.
#[inline(always)]
fn rows<L: Lanes, const R: usize>(bh: &Basis, a: usize, w: usize, tile: &mut ForwardTile) {
    let half = if a.is_multiple_of(2) { bh.n.div_ceil(2) } else { bh.n / 2 };
    let (folds, _) = tile.z[a % 2 * HALF * MAX_EDGE..].as_chunks::<MAX_EDGE>();
    // Two half-width sweeps keep R × 32 sums in registers.
    let mut y = [[L::splat(0.0); MAX_EDGE / LANES]; R];
    for side in 0..2 {
        let mut acc = [[L::splat(0.0); 2]; R];
        for (i, fold) in folds[..half].iter().enumerate() {
            let x = [L::load(&blocks(fold)[2 * side]), L::load(&blocks(fold)[2 * side + 1])];
            for r in 0..R {
                let f = L::splat(bh.rows[a + 2 * r][i]);
                acc[r] = [x[0].fma(f, acc[r][0]), x[1].fma(f, acc[r][1])];
            }
        }
        for r in 0..R {
            y[r][2 * side] = acc[r][0];
            y[r][2 * side + 1] = acc[r][1];
        }
    }
    for r in 0..R {
        let out = blocks_mut(&mut tile.folded[a + 2 * r]);
        if w == MAX_EDGE {
            for q in 0..2 {
                let (left, right) = (y[r][q], y[r][3 - q].reverse());
                left.add(right).store(&mut out[q]);
                left.sub(right).store(&mut out[2 + q]);
            }
        } else {
            let mut row = [0.0; MAX_EDGE];
            for q in 0..MAX_EDGE / LANES {
                y[r][q].store(&mut blocks_mut(&mut row)[q]);
            }
            fold_columns(&row[..w], &mut tile.folded[a + 2 * r]);
        }
    }
}

/// Sums and differences of mirrored columns, for edges below 64.
fn fold_columns(row: &[f32], out: &mut [f32; MAX_EDGE]) {
    let w = row.len();
    for j in 0..w / 2 {
        out[j] = row[j] + row[w - 1 - j];
        out[HALF + j] = row[j] - row[w - 1 - j];
    }
    if w % 2 == 1 {
        out[w / 2] = row[w / 2];
    }
}

/// Rows a…a+R−1 of (F_hᵀ X) F_w into `tile.z`, compact.
#[inline(always)]
fn columns<L: Lanes, const R: usize>(bw: &Basis, a: usize, tile: &mut ForwardTile) {
    let w = bw.n;
    let even = product::<L, R>(&bw.even[..w.div_ceil(2)], &tile.folded, a, 0);
    let odd = product::<L, R>(&bw.odd[..w / 2], &tile.folded, a, HALF);
    for r in 0..R {
        let out = &mut tile.z[(a + r) * w..][..w];
        let [a, b] = even[r][0].interleave(odd[r][0]);
        let [c, d] = even[r][1].interleave(odd[r][1]);
        if w == MAX_EDGE {
            for (q, x) in [a, b, c, d].into_iter().enumerate() {
                x.store(&mut blocks_mut(out)[q]);
            }
        } else {
            let mut row = [0.0; MAX_EDGE];
            for (q, x) in [a, b, c, d].into_iter().enumerate() {
                x.store(&mut blocks_mut(&mut row)[q]);
            }
            out.copy_from_slice(&row[..w]);
        }
    }
}

/// Rows a…a+R−1 of one half of `folded`, times the basis of that half.
#[inline(always)]
fn product<L: Lanes, const R: usize>(
    basis: &[[f32; HALF]],
    folded: &[[f32; MAX_EDGE]; MAX_EDGE],
    a: usize,
    first: usize,
) -> [[L; 2]; R] {
    let mut acc = [[L::splat(0.0); 2]; R];
    let rows = &folded[a..][..R];
    for (j, f) in basis.iter().enumerate() {
        let f = [L::load(&blocks(f)[0]), L::load(&blocks(f)[1])];
        for r in 0..R {
            let x = L::splat(rows[r][first + j]);
            acc[r] = [f[0].fma(x, acc[r][0]), f[1].fma(x, acc[r][1])];
        }
    }
    acc
}

/// A row in register-sized blocks.
#[inline(always)]
pub(crate) fn blocks(row: &[f32]) -> &[[f32; LANES]] {
    row.as_chunks().0
}

/// A row in register-sized blocks, to write.
#[inline(always)]
pub(crate) fn blocks_mut(row: &mut [f32]) -> &mut [[f32; LANES]] {
    row.as_chunks_mut().0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;
    use crate::reference;
    use crate::simd::Simd;

    #[test]
    fn mirrored_rows_are_equal_up_to_sign() {
        for n in 1..=MAX_EDGE {
            let f = basis(n);
            for j in 0..n {
                for k in 0..n {
                    let mirror = f[(n - 1 - j) * n + k];
                    let expected = if k % 2 == 0 { f[j * n + k] } else { -f[j * n + k] };
                    assert_eq!(mirror, expected, "n {n} j {j} k {k}");
                }
            }
        }
    }

    #[test]
    fn forward_equals_the_reference_on_every_path_and_edge() {
        let mut tiles: Vec<_> =
            Simd::available().into_iter().map(|simd| (simd, ForwardTile::new())).collect();
        for (h, w) in
            (1..=MAX_EDGE).map(|n| (n, MAX_EDGE + 1 - n)).chain([(64, 64), (1, 64), (63, 63), (64, 1)])
        {
            let x: Vec<f32> = (0..h * (w + 3)).map(|i| ((i * 7919 % 1009) as f32 - 500.0) / 313.0).collect();
            let compact: Vec<f64> = (0..h * w).map(|i| f64::from(x[i / w * (w + 3) + i % w])).collect();
            let expected = reference::forward(&compact, h, w);
            let (bh, bw) = (Basis::new(h), Basis::new(w));
            let mut first: Option<Vec<f32>> = None;
            for (simd, tile) in &mut tiles {
                kernel::forward(*simd, &bh, &bw, &x, w + 3, tile);
                for (z, y) in tile.z.iter().zip(&expected) {
                    assert!((f64::from(*z) - y).abs() < 2e-5, "{h}x{w} {simd:?}: {z} {y}");
                }
                let z = tile.z[..h * w].to_vec();
                assert_eq!(*first.get_or_insert_with(|| z.clone()), z, "{h}x{w} {simd:?}");
            }
        }
    }
}
