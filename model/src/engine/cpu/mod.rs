//! The CPU backend: f32, matrix products by crate `gemm` or for AVX2 our own, element-wise kernels of our own, rayon.
//!
//! Results are the same bits for any number of threads: every output element is computed by one task
//! in one order, and sums over rows go over blocks whose number does not depend on the threads.

mod adamw;
mod attention;
mod awake;
mod cross_entropy;
mod embedding;
#[cfg(target_arch = "x86_64")]
mod gemm_avx2;
#[cfg(test)]
mod gradient_checks;
mod matmul;
mod rms_norm;
mod rope;
pub(crate) mod simd;
mod swiglu;

use aligned_vec::{AVec, ConstAlign};
use rayon::prelude::*;

use super::backend::{AdamW, Backend, Footprint, Heads, Order, Product, View, ViewMut, Write};
use crate::error::{ModelError, Result};
pub use simd::Path;
use simd::Simd;

/// Memory aligned to a cache line, so that no vector load straddles two.
pub type Buf = AVec<f32, ConstAlign<64>>;

/// Token ids.
pub type Ids = Vec<u32>;

/// Work below this many elements a task is not worth handing to another thread (~50 µs).
const TASK: usize = 1 << 16;

/// More threads than any machine has cores.
pub const MOST_THREADS: usize = 1024;

/// A pool of `threads` threads (0: one a core).
///
/// # Errors
/// When more than [`MOST_THREADS`] are asked for, or the system cannot start them.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    let refused = |reason: String| ModelError::Threads { threads, reason };
    if threads > MOST_THREADS {
        return Err(refused(format!("at most {MOST_THREADS}; 0 takes one a core")));
    }
    let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
    builder.thread_name(|i| format!("engine-{i}")).build().map_err(|e| refused(e.to_string()))
}

/// The CPU and how to use it.
pub struct Cpu {
    pool: rayon::ThreadPool,
    simd: Simd,
}

impl Cpu {
    /// A backend with its own `threads` threads (0: one a core) and the given code path.
    ///
    /// `Path` concerns our own kernels; crate `gemm`, which multiplies on all paths but AVX2, chooses its own.
    ///
    /// # Errors
    /// When more than [`MOST_THREADS`] are asked for, or the system cannot start them.
    pub fn new(threads: usize, path: Path) -> Result<Self> {
        Ok(Self { pool: pool(threads)?, simd: Simd::new(path) })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Name of the instruction set the element-wise kernels use: `avx512`, `avx2` or `portable`.
    pub fn simd_name(&self) -> &'static str {
        self.simd.name()
    }
}

impl<'a> View<'a, Buf> {
    fn slice(self) -> &'a [f32] {
        &self.buf[self.start..self.start + self.len]
    }
}

impl<'a> ViewMut<'a, Buf> {
    fn slice(self) -> &'a mut [f32] {
        &mut self.buf[self.start..self.start + self.len]
    }
}

impl<'a> View<'a, Ids> {
    fn ids(self) -> &'a [u32] {
        &self.buf[self.start..self.start + self.len]
    }
}

impl Backend for Cpu {
    type Buf = Buf;
    type Act = Buf;
    type Ids = Ids;

    const FOOTPRINT: Footprint = Footprint::CPU;

    fn alloc(&self, len: usize) -> Result<Buf> {
        let mut buf = AVec::with_capacity(64, len);
        buf.resize(len, 0.0);
        Ok(buf)
    }

    fn alloc_act(&self, len: usize) -> Result<Buf> {
        self.alloc(len)
    }

    fn alloc_rounded(&self, _: usize) -> Result<Buf> {
        self.alloc(0)
    }

    fn alloc_ids(&self, len: usize) -> Result<Ids> {
        Ok(vec![0; len])
    }

    fn upload_ids(&self, from: &[u32], to: &mut Ids) -> Result<()> {
        to[..from.len()].copy_from_slice(from);
        Ok(())
    }

    fn rounded<'a>(&self, from: View<'a, Buf>, _: &'a mut Buf) -> View<'a, Buf> {
        from
    }

    fn upload(&self, from: &[f32], to: ViewMut<'_, Buf>) -> Result<()> {
        to.slice().copy_from_slice(from);
        Ok(())
    }

    fn download(&self, from: View<'_, Buf>, to: &mut [f32]) -> Result<()> {
        to.copy_from_slice(from.slice());
        Ok(())
    }

    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(|| awake::during(work))
    }

    fn matmul(&self, p: Product, a: View<'_, Buf>, b: View<'_, Buf>, out: ViewMut<'_, Buf>) {
        matmul::matmul(self.simd, p, a.slice(), b.slice(), out.slice());
    }

    fn matmul_f32(&self, p: Product, a: View<'_, Buf>, b: View<'_, Buf>, out: ViewMut<'_, Buf>) {
        self.matmul(p, a, b, out);
    }

    fn copy(&self, from: View<'_, Buf>, to: ViewMut<'_, Buf>) {
        let pieces = (to.slice().par_chunks_mut(TASK), from.slice().par_chunks(TASK));
        pieces.into_par_iter().for_each(|(to, from)| to.copy_from_slice(from));
    }

    fn zero(&self, buf: ViewMut<'_, Buf>) {
        buf.slice().par_chunks_mut(TASK).for_each(|piece| piece.fill(0.0));
    }

    fn zero_act(&self, buf: ViewMut<'_, Buf>) {
        self.zero(buf);
    }

    fn embedding_forward(&self, tokens: View<'_, Ids>, table: View<'_, Buf>, out: ViewMut<'_, Buf>) {
        embedding::forward(tokens.ids(), table.slice(), out.slice());
    }

    fn embedding_backward(
        &self,
        tokens: View<'_, Ids>,
        dout: View<'_, Buf>,
        dtable: ViewMut<'_, Buf>,
        width: usize,
    ) {
        embedding::backward(tokens.ids(), dout.slice(), dtable.slice(), width);
    }

    fn rms_norm_forward(
        &self,
        x: View<'_, Buf>,
        gain: View<'_, Buf>,
        eps: f32,
        rstd: ViewMut<'_, Buf>,
        out: ViewMut<'_, Buf>,
    ) {
        rms_norm::forward(self.simd, x.slice(), gain.slice(), eps, rstd.slice(), out.slice());
    }

    fn rms_norm_again(
        &self,
        x: View<'_, Buf>,
        gain: View<'_, Buf>,
        rstd: View<'_, Buf>,
        out: ViewMut<'_, Buf>,
    ) {
        rms_norm::again(self.simd, x.slice(), gain.slice(), rstd.slice(), out.slice());
    }

    fn rms_norm_backward(
        &self,
        x: View<'_, Buf>,
        gain: View<'_, Buf>,
        rstd: View<'_, Buf>,
        dout: View<'_, Buf>,
        dx: ViewMut<'_, Buf>,
        dgain: ViewMut<'_, Buf>,
        write: Write,
    ) {
        let (x, gain, rstd, dout) = (x.slice(), gain.slice(), rstd.slice(), dout.slice());
        rms_norm::backward(self.simd, x, gain, rstd, dout, dx.slice(), dgain.slice(), write);
    }

    fn rope(
        &self,
        x: ViewMut<'_, Buf>,
        table: View<'_, Buf>,
        seq: usize,
        dims: (usize, usize),
        order: Order,
    ) {
        rope::rope(self.simd, x.slice(), table.slice(), seq, dims, order);
    }

    fn attention_forward(
        &self,
        heads: Heads,
        q: View<'_, Buf>,
        k: View<'_, Buf>,
        v: View<'_, Buf>,
        out: ViewMut<'_, Buf>,
        lse: ViewMut<'_, Buf>,
    ) {
        attention::forward(self.simd, heads, q.slice(), k.slice(), v.slice(), out.slice(), lse.slice());
    }

    fn attention_backward(
        &self,
        heads: Heads,
        q: View<'_, Buf>,
        k: View<'_, Buf>,
        v: View<'_, Buf>,
        out: View<'_, Buf>,
        lse: View<'_, Buf>,
        dout: View<'_, Buf>,
        dq: ViewMut<'_, Buf>,
        dk: ViewMut<'_, Buf>,
        dv: ViewMut<'_, Buf>,
    ) {
        let saved = attention::Saved {
            q: q.slice(),
            k: k.slice(),
            v: v.slice(),
            out: out.slice(),
            lse: lse.slice(),
            dout: dout.slice(),
        };
        attention::backward(self.simd, heads, saved, dq.slice(), dk.slice(), dv.slice());
    }

    fn swiglu_forward(&self, width: usize, gate_up: View<'_, Buf>, out: ViewMut<'_, Buf>) {
        swiglu::forward(self.simd, width, gate_up.slice(), out.slice());
    }

    fn swiglu_backward(&self, width: usize, gate_up: ViewMut<'_, Buf>, dout: ViewMut<'_, Buf>) {
        swiglu::backward(self.simd, width, gate_up.slice(), dout.slice());
    }

    fn cross_entropy_forward(
        &self,
        vocab: usize,
        targets: View<'_, Ids>,
        logits: View<'_, Buf>,
        losses: ViewMut<'_, Buf>,
    ) {
        cross_entropy::forward(self.simd, vocab, targets.ids(), logits.slice(), losses.slice());
    }

    fn cross_entropy_backward(
        &self,
        vocab: usize,
        targets: View<'_, Ids>,
        scale: f32,
        logits: ViewMut<'_, Buf>,
        losses: ViewMut<'_, Buf>,
    ) {
        cross_entropy::backward(self.simd, vocab, targets.ids(), scale, logits.slice(), losses.slice());
    }

    fn sum_of_squares(&self, x: View<'_, Buf>) -> Result<f64> {
        Ok(adamw::sum_of_squares(self.simd, x.slice()))
    }

    fn adamw(
        &self,
        step: AdamW,
        grads: View<'_, Buf>,
        theta: ViewMut<'_, Buf>,
        m: ViewMut<'_, Buf>,
        v: ViewMut<'_, Buf>,
    ) {
        adamw::step(self.simd, step, grads.slice(), theta.slice(), m.slice(), v.slice());
    }
}

/// Rows a task takes so that it has about [`TASK`] elements.
fn rows_per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}
