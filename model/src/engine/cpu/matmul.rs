//! Matrix products through crate `gemm`, which parallelises over rows and columns only, so that the
//! order of each sum does not depend on the number of threads.
#![allow(unsafe_code)] // gemm takes raw pointers; every call here checks the lengths first

use gemm::Parallelism;

use crate::engine::backend::{Order, Product, Write};

/// Products below this many multiply-adds run on the calling thread.
const PARALLEL: usize = 1 << 18;

/// A matrix somewhere in a slice: first element, distance between rows and between columns.
#[derive(Clone, Copy)]
pub(super) struct Strided {
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) col: usize,
}

impl Strided {
    /// Whether an `rows × cols` matrix of these strides lies inside `len` elements.
    fn fits(self, rows: usize, cols: usize, len: usize) -> bool {
        rows == 0 || cols == 0 || self.start + (rows - 1) * self.row + (cols - 1) * self.col < len
    }
}

/// `out[m, n] (=|+=) a · b` over whole, contiguous matrices.
pub(super) fn matmul(p: Product, a: &[f32], b: &[f32], out: &mut [f32]) {
    let (m, n, k) = (p.m, p.n, p.k);
    let at = |order, rows: usize, cols: usize| match order {
        Order::Normal => Strided { start: 0, row: cols, col: 1 },
        Order::Transposed => Strided { start: 0, row: 1, col: rows },
    };
    let (sa, sb) = (at(p.a, m, k), at(p.b, k, n));
    let parallel = if m * n * k < PARALLEL { Parallelism::None } else { Parallelism::Rayon(0) };
    let out = (Shared::new(out), at(Order::Normal, m, n));
    // SAFETY: `out` was borrowed mutably for the whole call.
    unsafe { strided(m, n, k, 1.0, (a, sa), (b, sb), p.write, out, parallel) }
}

/// `out[m, n] (=|+=) alpha · a · b` over strided matrices, on the calling thread.
///
/// # Safety
/// No other thread may touch the elements of `out` that `so` reaches while this runs.
pub(super) unsafe fn small(
    (m, n, k): (usize, usize, usize),
    alpha: f32,
    a: (&[f32], Strided),
    b: (&[f32], Strided),
    write: Write,
    (out, so): (Shared<'_>, Strided),
) {
    // SAFETY: passed on to the caller.
    unsafe { strided(m, n, k, alpha, a, b, write, (out, so), Parallelism::None) }
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

/// # Safety
/// No other thread may touch the elements of `out` that `so` reaches while this runs.
unsafe fn strided(
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    (a, sa): (&[f32], Strided),
    (b, sb): (&[f32], Strided),
    write: Write,
    (out, so): (Shared<'_>, Strided),
    parallel: Parallelism,
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
            parallel,
        );
    }
}
