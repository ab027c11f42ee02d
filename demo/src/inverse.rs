//! The inverse DCT of one chunk's aggregate: consensus, operation for operation (PROTOCOL 6.2).
//!
//! X = F_h C F_wᵀ: first T\[i,b\] over the row frequency a, then Δ\[i,j\] over b. Each 1-D inverse of length N, for
//! j < ⌈N/2⌉: E_j over even k ascending, O_j over odd k ascending, each `acc = fma(F[j,k], c_k, acc)` from +0.0;
//! X_j = E_j + O_j, X_{N−1−j} = E_j − O_j; for odd N the middle is E_j.
//!
//! Zeros are skipped: `fma(F, 0, acc)` is acc up to the sign of a zero, and no sign of a zero reaches θ. Each
//! output keeps its own chain; the kernels only run many outputs side by side.

use crate::chunk::{MAX_CHUNK, MAX_EDGE};
use crate::dct::{Basis, HALF, blocks, blocks_mut};
use crate::lanes::{LANES, Lanes};

/// Working memory of one chunk's inverse transform, and its result.
#[repr(C, align(64))]
pub(crate) struct InverseTile {
    /// Indices of the coefficients that are not 0, ascending.
    pub(crate) indices: [u16; MAX_CHUNK],
    /// Their values.
    pub(crate) values: [f32; MAX_CHUNK],
    /// How many there are.
    pub(crate) len: usize,
    /// E and O of the first step: `[b][parity of a][i]`.
    chains: [[[f32; HALF]; 2]; MAX_EDGE],
    /// T as `[b][i]`.
    t: [[f32; MAX_EDGE]; MAX_EDGE],
    /// Δ, compact h × w.
    pub(crate) delta: [f32; MAX_CHUNK],
}

impl InverseTile {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            indices: [0; MAX_CHUNK],
            values: [0.0; MAX_CHUNK],
            len: 0,
            chains: [[[0.0; HALF]; 2]; MAX_EDGE],
            t: [[0.0; MAX_EDGE]; MAX_EDGE],
            delta: [0.0; MAX_CHUNK],
        })
    }

    /// Adds a coefficient; indices must ascend.
    #[inline(always)]
    pub(crate) fn push(&mut self, index: u16, value: f32) {
        self.indices[self.len] = index;
        self.values[self.len] = value;
        self.len += 1;
    }
}

/// Columns b of T that hold anything, split by parity, ascending.
struct Columns {
    even: [u8; HALF],
    odd: [u8; HALF],
    n_even: usize,
    n_odd: usize,
}

/// Decodes `tile.indices`/`values` into `tile.delta`.
#[inline(always)]
pub(crate) fn inverse<L: Lanes>(bh: &Basis, bw: &Basis, tile: &mut InverseTile) {
    let columns = row_step::<L>(bh, bw.n, tile);
    let mut i = 0;
    while i < bh.n {
        if L::ROWS == 8 && i + 8 <= bh.n {
            column_step::<L, 8>(bw, i, &columns, tile);
            i += 8;
        } else if L::ROWS >= 2 && i + 2 <= bh.n {
            column_step::<L, 2>(bw, i, &columns, tile);
            i += 2;
        } else {
            column_step::<L, 1>(bw, i, &columns, tile);
            i += 1;
        }
    }
}

/// T\[·,b\] for every column b that has a coefficient.
#[inline(always)]
fn row_step<L: Lanes>(bh: &Basis, w: usize, tile: &mut InverseTile) -> Columns {
    let mut used = 0_u64;
    for (&index, &c) in tile.indices[..tile.len].iter().zip(&tile.values[..tile.len]) {
        // Row-major order: inside a column, a ascends.
        let (a, b) = (usize::from(index) / w, usize::from(index) % w);
        if used >> b & 1 == 0 {
            tile.chains[b] = [[0.0; HALF]; 2];
            used |= 1 << b;
        }
        let (f, acc) = (blocks(&bh.rows[a]), blocks_mut(&mut tile.chains[b][a % 2]));
        for q in 0..HALF / LANES {
            L::load(&f[q]).fma(L::splat(c), L::load(&acc[q])).store(&mut acc[q]);
        }
    }
    let mut columns = Columns { even: [0; HALF], odd: [0; HALF], n_even: 0, n_odd: 0 };
    while used != 0 {
        let b = used.trailing_zeros() as usize;
        used &= used - 1;
        if b.is_multiple_of(2) {
            columns.even[columns.n_even] = b as u8;
            columns.n_even += 1;
        } else {
            columns.odd[columns.n_odd] = b as u8;
            columns.n_odd += 1;
        }
        let [even, odd] = &tile.chains[b];
        let pair = |x| [L::load(&blocks(x)[0]), L::load(&blocks(x)[1])];
        unfold(pair(even), pair(odd), &mut tile.t[b][..bh.n]);
    }
    columns
}

/// Rows i…i+R−1 of Δ.
#[inline(always)]
fn column_step<L: Lanes, const R: usize>(bw: &Basis, i: usize, columns: &Columns, tile: &mut InverseTile) {
    let even = chains::<L, R>(bw, i, &columns.even[..columns.n_even], &tile.t);
    let odd = chains::<L, R>(bw, i, &columns.odd[..columns.n_odd], &tile.t);
    for r in 0..R {
        unfold(even[r], odd[r], &mut tile.delta[(i + r) * bw.n..][..bw.n]);
    }
}

/// E or O of rows i…i+R−1, over the listed columns in their order.
#[inline(always)]
fn chains<L: Lanes, const R: usize>(
    bw: &Basis,
    i: usize,
    columns: &[u8],
    t: &[[f32; MAX_EDGE]; MAX_EDGE],
) -> [[L; 2]; R] {
    let mut acc = [[L::splat(0.0); 2]; R];
    for &b in columns {
        let b = usize::from(b) % MAX_EDGE;
        let f = [L::load(&blocks(&bw.rows[b])[0]), L::load(&blocks(&bw.rows[b])[1])];
        let t = &t[b][i..][..R];
        for r in 0..R {
            let t = L::splat(t[r]);
            acc[r] = [f[0].fma(t, acc[r][0]), f[1].fma(t, acc[r][1])];
        }
    }
    acc
}

/// X_j = E_j + O_j, X_{N−1−j} = E_j − O_j, the middle of an odd N is E_j.
#[inline(always)]
fn unfold<L: Lanes>(even: [L; 2], odd: [L; 2], x: &mut [f32]) {
    let n = x.len();
    if n == MAX_EDGE {
        let x = blocks_mut(x);
        for q in 0..2 {
            even[q].add(odd[q]).store(&mut x[q]);
            even[q].sub(odd[q]).reverse().store(&mut x[3 - q]);
        }
        return;
    }
    let (mut left, mut right, mut middle) = ([0.0; HALF], [0.0; HALF], [0.0; HALF]);
    for q in 0..2 {
        even[q].add(odd[q]).store(&mut blocks_mut(&mut left)[q]);
        even[q].sub(odd[q]).store(&mut blocks_mut(&mut right)[q]);
        even[q].store(&mut blocks_mut(&mut middle)[q]);
    }
    for j in 0..n / 2 {
        x[j] = left[j];
        x[n - 1 - j] = right[j];
    }
    if n % 2 == 1 {
        x[n / 2] = middle[n / 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;
    use crate::reference;
    use crate::simd::Simd;

    /// Sparse and dense coefficients, with zeros that must not matter.
    fn coefficients(h: usize, w: usize, step: usize) -> Vec<f32> {
        (0..h * w).map(|i| if i % step == 0 { ((i * 31 % 101) as f32 - 50.0) / 7.0 } else { 0.0 }).collect()
    }

    #[test]
    fn every_path_follows_the_written_chain() {
        for (h, w) in (1..=MAX_EDGE).map(|n| (n, MAX_EDGE + 1 - n)).chain([(64, 64), (63, 63), (1, 64)]) {
            let (bh, bw) = (Basis::new(h), Basis::new(w));
            for step in [1, 3, 17] {
                let c = coefficients(h, w, step);
                let expected: Vec<u32> =
                    reference::exact_inverse(&c, h, w).into_iter().map(|x| (x + 0.0).to_bits()).collect();
                for simd in Simd::available() {
                    let mut tile = InverseTile::new();
                    for (i, &c) in c.iter().enumerate().filter(|(_, c)| **c != 0.0) {
                        tile.push(i as u16, c);
                    }
                    kernel::inverse(simd, &bh, &bw, &mut tile);
                    let found: Vec<u32> = tile.delta[..h * w].iter().map(|x| (x + 0.0).to_bits()).collect();
                    assert_eq!(found, expected, "{h}x{w} {simd:?}");
                }
            }
        }
    }
}
