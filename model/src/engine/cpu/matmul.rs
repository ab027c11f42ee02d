//! Matrix products through crate `gemm`, one call a thread over a part of the output's rows or columns,
//! so that the order of each sum does not depend on the number of threads.
#![allow(unsafe_code)] // gemm takes raw pointers; every call here checks the lengths first

use gemm::Parallelism;
use rayon::prelude::*;

use crate::engine::backend::{Order, Product, Write};

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL: usize = 1 << 18;

/// Rows or columns below which a part is not cut off.
const SMALLEST_PART: usize = 48;

/// Up to this size both ways, crate gemm sums in pieces of another length.
const TINY: usize = 64;

/// A matrix somewhere in a slice: first element, distance between rows and between columns.
#[derive(Clone, Copy)]
pub(super) struct Strided {
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl Strided {
    fn skip_rows(self, row: usize) -> Self {
        Self { start: self.start + row * self.row, ..self }
    }

    fn skip_cols(self, col: usize) -> Self {
        Self { start: self.start + col * self.col, ..self }
    }

    /// Whether an `rows × cols` matrix of these strides lies inside `len` elements.
    fn fits(self, rows: usize, cols: usize, len: usize) -> bool {
        rows == 0 || cols == 0 || self.start + (rows - 1) * self.row + (cols - 1) * self.col < len
    }
}

/// `out[m, n] (=|+=) a · b` over whole, contiguous matrices, cut into one part a thread.
///
/// gemm's own threads meet at a barrier for each block of packing; cutting the output is 5 % faster.
/// The length of gemm's partial sums depends on `k` and the processor alone, so the cut changes no bit
/// as long as no part is tiny both ways.
pub(super) fn matmul(p: Product, a: &[f32], b: &[f32], out: &mut [f32]) {
    let (m, n, k) = (p.m, p.n, p.k);
    let at = |order, rows: usize, cols: usize| match order {
        Order::Normal => Strided { start: 0, row: cols, col: 1 },
        Order::Transposed => Strided { start: 0, row: 1, col: rows },
    };
    let (sa, sb, so) = (at(p.a, m, k), at(p.b, k, n), at(Order::Normal, m, n));
    let threads = if m * n * k < PARALLEL { 1 } else { rayon::current_num_threads() };
    let parts_of = |length: usize, other: usize| {
        let smallest = if other > TINY { SMALLEST_PART } else { TINY + 1 };
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
        unsafe { small(size, 1.0, (a, sa), (b, sb), p.write, (out, so)) }
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
