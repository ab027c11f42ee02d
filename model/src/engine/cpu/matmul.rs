//! Matrix products, one call a thread over a part of the output's rows or columns, so that the order of each sum does not
//! depend on the number of threads: where the code path is AVX2 by [`gemm_avx2`], but for a few rows or columns; elsewhere
//! by crate `gemm`.
#![allow(unsafe_code)] // kernels take raw pointers; every call here checks the lengths first

use gemm::Parallelism;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::gemm_avx2;
use super::simd::Simd;
use crate::engine::backend::{Order, Product, Write};

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL: usize = 1 << 18;

/// Rows or columns below which a part is not cut off.
const SMALLEST_PART: usize = 48;

/// Rows or columns below which packing both factors costs more than the product: crate gemm has kernels for vectors.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 6;

/// Up to this size both ways, crate gemm sums in pieces of another length.
const TINY: usize = 64;

/// Up to as many elements of the output, crate gemm sums along `k` in vectors, if both factors' `k` is contiguous.
const LITTLE: usize = 256;

/// A matrix somewhere in a slice: first element, distance between rows and between columns.
#[derive(Clone, Copy)]
pub(super) struct Strided {
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl Strided {
    /// Where element (`row`, `col`) lies.
    pub(super) fn at(self, row: usize, col: usize) -> usize {
        self.start + row * self.row + col * self.col
    }

    fn skip_rows(self, row: usize) -> Self {
        Self { start: self.start + row * self.row, ..self }
    }

    fn skip_cols(self, col: usize) -> Self {
        Self { start: self.start + col * self.col, ..self }
    }

    /// Whether an `rows × cols` matrix of these strides lies inside `len` elements.
    fn fits(self, rows: usize, cols: usize, len: usize) -> bool {
        let Some(rows) = rows.checked_sub(1) else { return self.start <= len };
        let Some(cols) = cols.checked_sub(1) else { return self.start <= len };
        let last = rows
            .checked_mul(self.row)
            .zip(cols.checked_mul(self.col))
            .and_then(|(down, across)| self.start.checked_add(down)?.checked_add(across));
        last.is_some_and(|last| last < len)
    }
}

/// `out[m, n] (=|+=) a · b` over whole, contiguous matrices, cut into one part a thread.
///
/// gemm's own threads meet at a barrier for each block of packing; cutting the output is 5 % faster.
/// The length of gemm's partial sums depends on `k` and the processor alone, so the cut changes no bit
/// as long as no part is tiny both ways or has few elements where the whole has not.
pub(super) fn matmul(level: Simd, p: Product, a: &[f32], b: &[f32], out: &mut [f32]) {
    let (m, n, k) = (p.m, p.n, p.k);
    let at = |order, rows: usize, cols: usize| match order {
        Order::Normal => Strided { start: 0, row: cols, col: 1 },
        Order::Transposed => Strided { start: 0, row: 1, col: rows },
    };
    let (sa, sb, so) = (at(p.a, m, k), at(p.b, k, n), at(Order::Normal, m, n));
    let threads = if m * n * k < PARALLEL { 1 } else { rayon::current_num_threads() };
    let parts_of = |length: usize, other: usize| {
        let smallest = if other > TINY { SMALLEST_PART } else { (TINY + 1).max(LITTLE / other.max(1) + 1) };
        threads.min(length / smallest).max(1)
    };
    let (by_rows, by_cols) = (parts_of(m, n), parts_of(n, m));
    // Columns are the better cut of products by a matrix in its own order; few columns are not enough for all threads.
    let cut_rows = m > n && (p.a == Order::Transposed || by_rows > by_cols);
    let (length, parts) = if cut_rows { (m, by_rows) } else { (n, by_cols) };
    let out = Shared::new(out);
    let multiply = |part: usize| {
        let (first, last) = (length * part / parts, length * (part + 1) / parts);
        let (size, sa, sb, so) = if cut_rows {
            ((last - first, n, k), sa.skip_rows(first), sb, so.skip_rows(first))
        } else {
            ((m, last - first, k), sa, sb.skip_cols(first), so.skip_cols(first))
        };
        // SAFETY: `out` was borrowed mutably for the whole call, and the parts do not overlap.
        unsafe { small(level, size, 1.0, (a, sa), (b, sb), p.write, (out, so)) }
    };
    if parts == 1 {
        multiply(0);
    } else {
        (0..parts).into_par_iter().with_max_len(1).for_each(multiply);
    }
}

/// `out[m, n] (=|+=) alpha · a · b` over strided matrices, on the calling thread.
///
/// # Safety
/// No other thread may touch the elements of `out` that `so` reaches while this runs.
pub(super) unsafe fn small(
    level: Simd,
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    (a, sa): (&[f32], Strided),
    (b, sb): (&[f32], Strided),
    write: Write,
    (out, so): (Shared<'_>, Strided),
) {
    assert!(sa.fits(m, k, a.len()), "left factor outside its buffer");
    assert!(sb.fits(k, n, b.len()), "right factor outside its buffer");
    assert!(so.fits(m, n, out.len), "product outside its buffer");
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if matches!(level, Simd::V3(_)) && so.col == 1 && m.min(n) >= FEW && k > 0 {
        // SAFETY: the three asserts bound every address; this level has AVX2 and FMA; nothing else touches `out` by contract.
        unsafe {
            let (a, b) = ((a.as_ptr(), sa), (b.as_ptr(), sb));
            gemm_avx2::product((m, n, k), alpha, a, b, write, (out.start, so));
        }
        return;
    }
    let _ = level;
    let (read, keep) = match write {
        Write::Set => (false, 0.0),
        Write::Add => (true, 1.0),
    };
    // SAFETY: the three asserts bound every address gemm forms from these strides (strides inside one
    // buffer never exceed isize::MAX); nothing else touches `out` by contract.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.start.add(so.start),
            so.col.cast_signed(),
            so.row.cast_signed(),
            read,
            a.as_ptr().add(sa.start),
            sa.col.cast_signed(),
            sa.row.cast_signed(),
            b.as_ptr().add(sb.start),
            sb.col.cast_signed(),
            sb.row.cast_signed(),
            keep,
            alpha,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A buffer several tasks write at once, each to elements of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    life: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: a pointer with a length; every write through it is an unsafe call whose contract says that
// the elements belong to one task.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(super) fn new(buf: &'a mut [f32]) -> Self {
        Self { start: buf.as_mut_ptr(), len: buf.len(), life: std::marker::PhantomData }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::Path;
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        #[allow(clippy::cast_precision_loss)] // small numbers
        (0..n).map(|i| ((i + 1) * (seed + 7919) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    /// Strides of a matrix inside a larger one, in either order.
    fn lying(order: Order, rows: usize, cols: usize) -> (Strided, usize) {
        let (row, col, room) = match order {
            Order::Normal => (cols + 3, 1, (rows + 1) * (cols + 3)),
            Order::Transposed => (1, rows + 5, (rows + 5) * (cols + 1)),
        };
        (Strided { start: 2, row, col }, room)
    }

    /// What a product may miss by, of what its terms could sum to.
    const ROUNDING: f64 = 1e-5;

    #[test]
    fn products_are_those_of_f64_wherever_the_matrices_lie() {
        let sizes =
            [(1, 40, 9), (6, 16, 8), (7, 17, 1), (13, 5, 30), (64, 200, 64), (100, 33, 700), (97, 1030, 515)];
        let orders = [Order::Normal, Order::Transposed];
        let cases = sizes
            .into_iter()
            .flat_map(|size| orders.map(|a| (size, a)))
            .flat_map(|(s, a)| orders.map(|b| (s, a, b)));
        for ((m, n, k), order_a, order_b) in cases {
            let ((sa, room_a), (sb, room_b)) = (lying(order_a, m, k), lying(order_b, k, n));
            let (so, room) = lying(Order::Normal, m, n);
            let (a, b, before) = (values(room_a, 1), values(room_b, 2), values(room, 3));
            for (path, write, alpha) in
                [Path::Best, Path::Avx2, Path::Portable].into_iter().flat_map(|path| {
                    [(path, Write::Set, 0.125), (path, Write::Add, 1.0), (path, Write::Set, 1.0)]
                })
            {
                let mut out = before.clone();
                let mut untouched = out.clone();
                // SAFETY: `out` belongs to this thread.
                unsafe {
                    small(
                        Simd::new(path),
                        (m, n, k),
                        alpha,
                        (&a, sa),
                        (&b, sb),
                        write,
                        (Shared::new(&mut out), so),
                    )
                };
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let terms = (0..k).map(|p| {
                        let (a, b) =
                            (a[sa.start + i * sa.row + p * sa.col], b[sb.start + p * sb.row + j * sb.col]);
                        f64::from(a) * f64::from(b) * f64::from(alpha)
                    });
                    let at = so.start + i * so.row + j;
                    let old = if matches!(write, Write::Add) { f64::from(before[at]) } else { 0.0 };
                    let (sum, size) = terms.fold((old, old.abs()), |(s, z), t| (s + t, z + t.abs()));
                    let found = f64::from(out[at]);
                    assert!(
                        (found - sum).abs() <= ROUNDING * size,
                        "{m}x{n}x{k} ({i}, {j}): {found}, not {sum}"
                    );
                    untouched[at] = out[at];
                }
                assert_eq!(out, untouched, "{m}x{n}x{k}: written beside the product");
            }
        }
    }

    #[test]
    fn a_cut_changes_no_bit() {
        let pools = [1, 2, 3, 4, 5, 7]
            .map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
        let sizes = [
            (150, 300, 1100),
            (60, 1000, 100),
            (1, 512, 1024),
            (2, 520, 1024),
            (3, 512, 700),
            (512, 3, 1024),
        ];
        let orders = [Order::Normal, Order::Transposed];
        for ((m, n, k), a_order) in sizes.into_iter().flat_map(|size| orders.map(|order| (size, order))) {
            let (a, b) = (values(m * k, 1), values(k * n, 2));
            for (level, b_order) in [Path::Best, Path::Avx2, Path::Portable]
                .into_iter()
                .flat_map(|path| orders.map(|order| (Simd::new(path), order)))
            {
                let p = Product { m, n, k, a: a_order, b: b_order, write: Write::Set };
                let mut outs = pools.iter().map(|pool| {
                    let mut out = vec![0.0; m * n];
                    pool.install(|| matmul(level, p, &a, &b, &mut out));
                    out
                });
                let one = outs.next();
                for out in outs {
                    assert!(
                        Some(&out) == one.as_ref(),
                        "{}: {m}x{n}x{k}, {a_order:?} {b_order:?}",
                        level.name()
                    );
                }
            }
        }
    }
}
