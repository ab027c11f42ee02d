//! The orthonormal DCT-II of one chunk: its basis and the forward transform.
//!
//! F\[j,k\] = s_k · sqrt(2/N) · cos(π(2j+1)k / 2N), s_0 = 1/√2, else 1. Forward of an h × w chunk: Y = F_hᵀ X F_w.
//! The basis is consensus: computed in f64 by `libm`, rounded once to f32 (PROTOCOL 3.6, 6.2). The angle is reduced
//! in integers to the first quadrant, so every entry is the f32 nearest to the exact value and cos(π/2) is 0.
//!
//! F\[N−1−j,k\] = (−1)^k F\[j,k\]: sums of mirrored samples feed the even frequencies, differences the odd ones,
//! which halves the work. The forward transform is not consensus, but still the same on every path.

use crate::chunk::MAX_EDGE;
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
    even: [[f32; HALF]; HALF],
    /// F\[j, 2b+1\] as `[j][b]`.
    odd: [[f32; HALF]; HALF],
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
///
/// `R` rows share the registers; it changes speed, never the result.
#[inline(always)]
pub(crate) fn forward<const R: usize>(
    bh: &Basis,
    bw: &Basis,
    x: &[f32],
    stride: usize,
    tile: &mut ForwardTile,
) {
    let (h, w) = (bh.n, bw.n);
    fold_rows(x, stride, h, w, &mut tile.z);
    let mut a = 0;
    while a + 2 * R <= h {
        rows::<R>(bh, a, w, tile);
        rows::<R>(bh, a + 1, w, tile);
        a += 2 * R;
    }
    while a < h {
        rows::<1>(bh, a, w, tile);
        a += 1;
    }
    let mut a = 0;
    while a + R <= h {
        columns::<R>(bw, a, tile);
        a += R;
    }
    while a < h {
        columns::<1>(bw, a, tile);
        a += 1;
    }
}

/// z\[i\] = x\[i\] + x\[h−1−i\], z\[32+i\] = x\[i\] − x\[h−1−i\]; an odd height's middle row counts once.
#[inline(always)]
fn fold_rows(x: &[f32], stride: usize, h: usize, w: usize, z: &mut [f32; MAX_EDGE * MAX_EDGE]) {
    let (sums, differences) = z.split_at_mut(HALF * MAX_EDGE);
    for i in 0..h.div_ceil(2) {
        let sums = &mut sums[i * MAX_EDGE..][..MAX_EDGE];
        let differences = &mut differences[i * MAX_EDGE..][..MAX_EDGE];
        let top = &x[i * stride..][..w];
        let low = &x[(h - 1 - i) * stride..][..w];
        if 2 * i + 1 == h {
            sums[..w].copy_from_slice(top);
            differences[..w].fill(0.0);
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
fn rows<const R: usize>(bh: &Basis, a: usize, w: usize, tile: &mut ForwardTile) {
    let half = if a % 2 == 0 { bh.n.div_ceil(2) } else { bh.n / 2 };
    let (folds, _) = tile.z[a % 2 * HALF * MAX_EDGE..].as_chunks::<MAX_EDGE>();
    // Two half-width sweeps keep R × 32 sums in registers.
    let mut y = [[0.0_f32; MAX_EDGE]; R];
    for side in 0..2 {
        let mut acc = [[0.0_f32; HALF]; R];
        for (i, fold) in folds.iter().enumerate().take(half) {
            let (x, _) = fold[side * HALF..].as_chunks::<HALF>();
            for r in 0..R {
                let f = bh.rows[a + 2 * r][i];
                for l in 0..HALF {
                    acc[r][l] = x[0][l].mul_add(f, acc[r][l]);
                }
            }
        }
        for r in 0..R {
            y[r][side * HALF..][..HALF].copy_from_slice(&acc[r]);
        }
    }
    for r in 0..R {
        let out = &mut tile.folded[a + 2 * r];
        let (sums, differences) = out.split_at_mut(HALF);
        if w == MAX_EDGE {
            for j in 0..HALF {
                sums[j] = y[r][j] + y[r][MAX_EDGE - 1 - j];
                differences[j] = y[r][j] - y[r][MAX_EDGE - 1 - j];
            }
        } else {
            for j in 0..w / 2 {
                sums[j] = y[r][j] + y[r][w - 1 - j];
                differences[j] = y[r][j] - y[r][w - 1 - j];
            }
            if w % 2 == 1 {
                sums[w / 2] = y[r][w / 2];
            }
        }
    }
}

/// Rows a…a+R−1 of (F_hᵀ X) F_w into `tile.z`, compact.
#[inline(always)]
fn columns<const R: usize>(bw: &Basis, a: usize, tile: &mut ForwardTile) {
    let w = bw.n;
    let mut even = [[0.0_f32; HALF]; R];
    for j in 0..w.div_ceil(2) {
        for r in 0..R {
            let s = tile.folded[a + r][j];
            for l in 0..HALF {
                even[r][l] = bw.even[j][l].mul_add(s, even[r][l]);
            }
        }
    }
    let mut odd = [[0.0_f32; HALF]; R];
    for j in 0..w / 2 {
        for r in 0..R {
            let d = tile.folded[a + r][HALF + j];
            for l in 0..HALF {
                odd[r][l] = bw.odd[j][l].mul_add(d, odd[r][l]);
            }
        }
    }
    for r in 0..R {
        let out = &mut tile.z[(a + r) * w..][..w];
        let (pairs, last) = out.as_chunks_mut::<2>();
        for (b, pair) in pairs.iter_mut().enumerate() {
            *pair = [even[r][b], odd[r][b]];
        }
        if let [last] = last {
            *last = even[r][w / 2];
        }
    }
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
