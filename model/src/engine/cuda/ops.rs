//! The backend's operations, each a launch or two; the kernels' sources give formulas and shapes.

use gauntlet_gpu::{Arg, Device, GpuError, Grid, Result};

use super::attention::{Backward, Forward};
use super::matmul::OutputType;
use super::memory::{Buffer, Element, Precision, bytes, bytes_mut, read, size, write};
use super::{Cuda, Ids, lock};
use crate::engine::backend::{AdamW, Backend, Footprint, Heads, Order, Product, View, ViewMut, Write};

/// Blocks of the first stage of a sum of squares, as its kernel says.
pub(super) const SQUARE_BLOCKS: usize = 1024;
/// Rows a block of RMSNorm's backward pass takes one after another: fixed, since it orders the sum over rows.
const NORM_ROWS: usize = 16;
/// Blocks of a kernel whose threads stride over everything.
const STRIDING: usize = 132 * 16;

/// Blocks of `threads` threads with one element each, at most [`STRIDING`].
fn striding(elements: usize, threads: usize) -> u32 {
    u32::try_from(elements.div_ceil(threads).clamp(1, STRIDING)).unwrap_or(1)
}

impl<D: Device, P: Precision> Backend for Cuda<D, P> {
    type Buf = Buffer<D, f32>;
    type Act = Buffer<D, P::Element>;
    type Ids = Ids<D>;

    const FOOTPRINT: Footprint = P::FOOTPRINT;

    fn check_heads(&self, head_dim: usize) -> crate::Result<()> {
        Ok(self.check_attention(head_dim)?)
    }

    fn alloc(&self, len: usize) -> crate::Result<Self::Buf> {
        Ok(Buffer::new(self.gpu(), len)?)
    }

    fn alloc_act(&self, len: usize) -> crate::Result<Self::Act> {
        Ok(Buffer::new(self.gpu(), len)?)
    }

    fn alloc_rounded(&self, len: usize) -> crate::Result<Self::Act> {
        self.alloc_act(if P::FOOTPRINT.activation == 4 { 0 } else { len })
    }

    fn alloc_ids(&self, len: usize) -> crate::Result<Ids<D>> {
        Ok(Ids { device: Buffer::new(self.gpu(), len)?, host: Vec::with_capacity(len) })
    }

    fn upload_ids(&self, from: &[u32], to: &mut Ids<D>) -> crate::Result<()> {
        to.host.clear();
        to.host.extend_from_slice(from);
        let at = to.device.at(self.gpu(), 0, from.len())?;
        // SAFETY: the buffer holds as many ids.
        Ok(unsafe { self.gpu().upload(bytes(from), at) }?)
    }

    fn upload(&self, from: &[f32], to: ViewMut<'_, Self::Buf>) -> crate::Result<()> {
        let at = to.buf.at(self.gpu(), to.start, from.len())?;
        // SAFETY: the buffer holds as many values.
        Ok(unsafe { self.gpu().upload(bytes(from), at) }?)
    }

    fn download(&self, from: View<'_, Self::Buf>, to: &mut [f32]) -> crate::Result<()> {
        self.check()?;
        let at = from.buf.at(self.gpu(), from.start, to.len())?;
        // SAFETY: the buffer holds as many values.
        Ok(unsafe { self.gpu().download(at, bytes_mut(to)) }?)
    }

    fn scope<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    fn rounded<'a>(&self, from: View<'a, Self::Buf>, room: &'a mut Self::Act) -> View<'a, Self::Act> {
        if let Some(same) = P::as_is(from) {
            return same;
        }
        let len = from.len;
        self.queue(|| {
            let to = Arg::Ptr(room.at(self.gpu(), 0, len)?);
            let blocks = size("elements", len.div_ceil(8 * 256).max(1))?;
            let args = [read(self.gpu(), &from, len)?, to, Arg::U64(len as u64)];
            self.launch(self.kernels.cast_f32_bf16, Grid::new(blocks, 256), &args)
        });
        View { buf: room, start: 0, len }
    }

    fn matmul(
        &self,
        p: Product,
        a: View<'_, Self::Act>,
        b: View<'_, Self::Act>,
        out: ViewMut<'_, Self::Act>,
    ) {
        self.queue(|| {
            let d = self.gpu();
            let (a, b) = (a.buf.at(d, a.start, p.m * p.k)?, b.buf.at(d, b.start, p.k * p.n)?);
            self.launch_product(p, a, b, out.buf.at(d, out.start, p.m * p.n)?, OutputType::Activation)
        });
    }

    fn matmul_f32(
        &self,
        p: Product,
        a: View<'_, Self::Act>,
        b: View<'_, Self::Act>,
        out: ViewMut<'_, Self::Buf>,
    ) {
        self.queue(|| {
            let d = self.gpu();
            let (a, b) = (a.buf.at(d, a.start, p.m * p.k)?, b.buf.at(d, b.start, p.k * p.n)?);
            self.launch_product(p, a, b, out.buf.at(d, out.start, p.m * p.n)?, OutputType::F32)
        });
    }

    fn copy(&self, from: View<'_, Self::Act>, to: ViewMut<'_, Self::Act>) {
        self.queue(|| {
            let (d, len) = (self.gpu(), from.len);
            let (from, to) = (from.buf.at(d, from.start, len)?, to.buf.at(d, to.start, len)?);
            // SAFETY: both buffers hold as many elements, and they are two buffers: one is borrowed mutably.
            unsafe { d.copy(from, to, len * P::Element::BYTES) }
        });
    }

    fn zero(&self, buf: ViewMut<'_, Self::Buf>) {
        self.queue(|| self.clear(&buf));
    }

    fn zero_act(&self, buf: ViewMut<'_, Self::Act>) {
        self.queue(|| self.clear(&buf));
    }

    fn embedding_forward(
        &self,
        tokens: View<'_, Ids<D>>,
        table: View<'_, Self::Buf>,
        out: ViewMut<'_, Self::Act>,
    ) {
        self.queue(|| {
            let width = out.len / tokens.len.max(1);
            let ids = tokens.buf.device.at(self.gpu(), tokens.start, tokens.len)?;
            let (table, out) = (read(self.gpu(), &table, 0)?, write(self.gpu(), &out, tokens.len * width)?);
            let args = [Arg::Ptr(ids), table, out, Arg::U32(size("width", width)?)];
            let threads = if width >= 2048 { 256 } else { 128 };
            self.launch(self.kernels.embedding_forward, Grid::new(size("rows", tokens.len)?, threads), &args)
        });
    }

    fn embedding_backward(
        &self,
        tokens: View<'_, Ids<D>>,
        dout: View<'_, Self::Act>,
        dtable: ViewMut<'_, Self::Buf>,
        width: usize,
    ) {
        self.queue(|| {
            let host = tokens.buf.host.get(tokens.start..tokens.start + tokens.len);
            let held = tokens.buf.host.len();
            let host = host.ok_or(GpuError::Outside { start: tokens.start, len: tokens.len, held })?;
            let (order, distinct) = self.sort_positions(host)?;
            let d = self.gpu();
            let ids = tokens.buf.device.at(d, tokens.start, tokens.len)?;
            let starts = order + 4 * tokens.len as u64;
            let args = [
                Arg::Ptr(ids),
                Arg::Ptr(order),
                Arg::Ptr(starts),
                read(d, &dout, tokens.len * width)?,
                write(d, &dtable, 0)?,
                Arg::U32(size("width", width)?),
            ];
            let blocks = [distinct, size("width", width.div_ceil(128))?, 1];
            self.launch(self.kernels.embedding_backward, Grid { blocks, threads: 128, shared: 0 }, &args)
        });
    }

    fn rms_norm_forward(
        &self,
        x: View<'_, Self::Act>,
        gain: View<'_, Self::Buf>,
        eps: f32,
        rstd: ViewMut<'_, Self::Buf>,
        out: ViewMut<'_, Self::Act>,
    ) {
        self.queue(|| {
            let (d, width, rows) = (self.gpu(), gain.len, x.len / gain.len.max(1));
            let args = [
                read(d, &x, rows * width)?,
                read(d, &gain, width)?,
                Arg::F32(eps),
                write(d, &rstd, rows)?,
                write(d, &out, rows * width)?,
                Arg::U32(size("rows", rows)?),
                Arg::U32(size("width", width)?),
            ];
            let blocks = size("rows", rows.div_ceil(8))?;
            self.launch(self.kernels.rms_norm_forward, Grid::new(blocks, 256), &args)
        });
    }

    fn rms_norm_again(
        &self,
        x: View<'_, Self::Act>,
        gain: View<'_, Self::Buf>,
        rstd: View<'_, Self::Buf>,
        out: ViewMut<'_, Self::Act>,
    ) {
        self.queue(|| {
            let (d, width, rows) = (self.gpu(), gain.len, x.len / gain.len.max(1));
            let args = [
                read(d, &x, rows * width)?,
                read(d, &gain, width)?,
                read(d, &rstd, rows)?,
                write(d, &out, rows * width)?,
                Arg::U32(size("rows", rows)?),
                Arg::U32(size("width", width)?),
            ];
            let blocks = size("rows", rows.div_ceil(8))?;
            self.launch(self.kernels.rms_norm_again, Grid::new(blocks, 256), &args)
        });
    }

    fn rms_norm_backward(
        &self,
        x: View<'_, Self::Act>,
        gain: View<'_, Self::Buf>,
        rstd: View<'_, Self::Buf>,
        dout: View<'_, Self::Act>,
        dx: ViewMut<'_, Self::Act>,
        dgain: ViewMut<'_, Self::Buf>,
        how: Write,
    ) {
        self.queue(|| {
            let (d, width, rows) = (self.gpu(), gain.len, x.len / gain.len.max(1));
            let blocks = rows.div_ceil(NORM_ROWS);
            let partial = self.floats(blocks * width)?;
            let (blocks, columns) = (size("rows", blocks)?, size("width", width)?);
            let args = [
                read(d, &x, rows * width)?,
                read(d, &gain, width)?,
                read(d, &rstd, rows)?,
                read(d, &dout, rows * width)?,
                write(d, &dx, rows * width)?,
                partial,
                Arg::U32(size("rows", rows)?),
                Arg::U32(columns),
                Arg::U32(size("rows", NORM_ROWS)?),
            ];
            let grid = Grid { shared: size("width", 4 * width)?, ..Grid::new(blocks, 256) };
            self.launch(self.kernels.rms_norm_backward, grid, &args)?;
            let add = u32::from(how == Write::Add);
            let args =
                [partial, write(d, &dgain, width)?, Arg::U32(blocks), Arg::U32(columns), Arg::U32(add)];
            self.launch(self.kernels.rms_norm_gain, Grid::new(columns.div_ceil(32), 1024), &args)
        });
    }

    fn rope(
        &self,
        x: ViewMut<'_, Self::Act>,
        table: View<'_, Self::Buf>,
        seq: usize,
        (width, head_dim): (usize, usize),
        order: Order,
    ) {
        self.queue(|| {
            let (d, rows) = (self.gpu(), x.len / width.max(1));
            let args = [
                write(d, &x, rows * width)?,
                read(d, &table, seq * head_dim)?,
                Arg::U32(size("rows", rows)?),
                Arg::U32(size("sequence", seq)?),
                Arg::U32(size("width", width)?),
                Arg::U32(size("head", head_dim)?),
                Arg::U32(u32::from(order == Order::Transposed)),
            ];
            self.launch(self.kernels.rope, Grid::new(striding(rows * width / 16, 256), 256), &args)
        });
    }

    fn attention_forward(
        &self,
        heads: Heads,
        q: View<'_, Self::Act>,
        k: View<'_, Self::Act>,
        v: View<'_, Self::Act>,
        out: ViewMut<'_, Self::Act>,
        lse: ViewMut<'_, Self::Buf>,
    ) {
        self.queue(|| {
            let (d, (nq, nk, rows)) = (self.gpu(), lengths(heads));
            let forward = Forward {
                q: read(d, &q, nq)?,
                k: read(d, &k, nk)?,
                v: read(d, &v, nk)?,
                out: write(d, &out, nq)?,
                lse: write(d, &lse, rows)?,
            };
            self.launch_attention(heads, &forward)
        });
    }

    fn attention_backward(
        &self,
        heads: Heads,
        q: View<'_, Self::Act>,
        k: View<'_, Self::Act>,
        v: View<'_, Self::Act>,
        out: View<'_, Self::Act>,
        lse: View<'_, Self::Buf>,
        dout: View<'_, Self::Act>,
        dq: ViewMut<'_, Self::Act>,
        dk: ViewMut<'_, Self::Act>,
        dv: ViewMut<'_, Self::Act>,
    ) {
        self.queue(|| {
            let (d, (nq, nk, rows)) = (self.gpu(), lengths(heads));
            let saved = Forward {
                q: read(d, &q, nq)?,
                k: read(d, &k, nk)?,
                v: read(d, &v, nk)?,
                out: read(d, &out, nq)?,
                lse: read(d, &lse, rows)?,
            };
            let backward = Backward {
                saved,
                dout: read(d, &dout, nq)?,
                dq: write(d, &dq, nq)?,
                dk: write(d, &dk, nk)?,
                dv: write(d, &dv, nk)?,
                delta: self.floats(rows)?,
            };
            self.launch_attention_backward(heads, &backward)
        });
    }

    fn swiglu_forward(&self, width: usize, gate_up: View<'_, Self::Act>, out: ViewMut<'_, Self::Act>) {
        self.queue(|| {
            let (d, rows) = (self.gpu(), out.len / width.max(1));
            let args = [
                read(d, &gate_up, 2 * rows * width)?,
                write(d, &out, rows * width)?,
                Arg::U32(size("rows", rows)?),
                Arg::U32(size("width", width)?),
            ];
            self.launch(self.kernels.swiglu_forward, Grid::new(striding(rows * width / 8, 256), 256), &args)
        });
    }

    fn swiglu_backward(&self, width: usize, gate_up: ViewMut<'_, Self::Act>, dout: ViewMut<'_, Self::Act>) {
        self.queue(|| {
            let (d, rows) = (self.gpu(), dout.len / width.max(1));
            let args = [
                write(d, &gate_up, 2 * rows * width)?,
                write(d, &dout, rows * width)?,
                Arg::U32(size("rows", rows)?),
                Arg::U32(size("width", width)?),
            ];
            self.launch(self.kernels.swiglu_backward, Grid::new(striding(rows * width / 8, 256), 256), &args)
        });
    }

    fn cross_entropy_forward(
        &self,
        vocab: usize,
        targets: View<'_, Ids<D>>,
        logits: View<'_, Self::Buf>,
        losses: ViewMut<'_, Self::Buf>,
    ) {
        self.queue(|| {
            let (d, rows) = (self.gpu(), targets.len);
            let args = [
                read(d, &logits, rows * vocab)?,
                Arg::Ptr(targets.buf.device.at(d, targets.start, rows)?),
                write(d, &losses, rows)?,
                Arg::U32(size("vocabulary", vocab)?),
            ];
            self.launch(self.kernels.cross_entropy_forward, Grid::new(size("rows", rows)?, 512), &args)
        });
    }

    fn cross_entropy_backward(
        &self,
        vocab: usize,
        targets: View<'_, Ids<D>>,
        scale: f32,
        logits: ViewMut<'_, Self::Buf>,
        losses: ViewMut<'_, Self::Buf>,
    ) {
        self.queue(|| {
            let (d, rows) = (self.gpu(), targets.len);
            let args = [
                write(d, &logits, rows * vocab)?,
                Arg::Ptr(targets.buf.device.at(d, targets.start, rows)?),
                write(d, &losses, rows)?,
                Arg::U32(size("vocabulary", vocab)?),
                Arg::F32(scale),
            ];
            self.launch(self.kernels.cross_entropy_backward, Grid::new(size("rows", rows)?, 512), &args)
        });
    }

    fn sum_of_squares(&self, x: View<'_, Self::Buf>) -> crate::Result<f64> {
        let mut sum = [0.0f64];
        let total = lock(&self.scratch).squares.at(self.gpu(), SQUARE_BLOCKS, 1)?;
        self.queue(|| {
            let partial = lock(&self.scratch).squares.at(self.gpu(), 0, SQUARE_BLOCKS).map(Arg::Ptr)?;
            let args = [read(self.gpu(), &x, 0)?, partial, Arg::U64(x.len as u64)];
            self.launch(self.kernels.squares, Grid::new(size("blocks", SQUARE_BLOCKS)?, 256), &args)?;
            self.launch(self.kernels.squares_total, Grid::new(1, 256), &[partial, Arg::Ptr(total)])
        });
        self.check()?;
        // SAFETY: the scratch holds the sum.
        unsafe { self.gpu().download(total, bytes_mut(&mut sum)) }?;
        Ok(sum[0])
    }

    fn adamw(
        &self,
        step: AdamW,
        grads: View<'_, Self::Buf>,
        theta: ViewMut<'_, Self::Buf>,
        m: ViewMut<'_, Self::Buf>,
        v: ViewMut<'_, Self::Buf>,
    ) {
        self.queue(|| {
            let (d, len, factors) = (self.gpu(), grads.len, step.factors());
            let args = [
                read(d, &grads, len)?,
                write(d, &theta, len)?,
                write(d, &m, len)?,
                write(d, &v, len)?,
                Arg::U64(len as u64),
                Arg::F32(step.grad_scale),
                Arg::F32(step.beta1),
                Arg::F32(step.beta2),
                Arg::F32(step.eps),
                Arg::F32(factors.decay),
                Arg::F32(factors.rate),
                Arg::F32(factors.root),
            ];
            self.launch(self.kernels.adamw, Grid::new(striding(len, 256), 256), &args)
        });
    }
}

/// Elements of queries, of keys, and rows of scores.
fn lengths(h: Heads) -> (usize, usize, usize) {
    let rows = h.batch * h.seq;
    (rows * h.n_heads * h.head_dim, rows * h.n_kv_heads * h.head_dim, rows * h.n_heads)
}

impl<D: Device, P: Precision> Cuda<D, P> {
    fn clear<T: Element>(&self, view: &ViewMut<'_, Buffer<D, T>>) -> Result<()> {
        let at = view.buf.at(self.gpu(), view.start, view.len)?;
        // SAFETY: the buffer holds as many elements.
        unsafe { self.gpu().zero(at, view.len * T::BYTES) }
    }

    /// Uploads the positions of `tokens` sorted by token, then by position, followed by where each distinct
    /// token's begin and the end; gives the address and the number of distinct tokens.
    fn sort_positions(&self, tokens: &[u32]) -> Result<(u64, u32)> {
        let mut keys: Vec<u64> = (0u64..).zip(tokens).map(|(i, &token)| u64::from(token) << 32 | i).collect();
        keys.sort_unstable();
        #[allow(clippy::cast_possible_truncation)] // the lower half is the position
        let mut list: Vec<u32> = keys.iter().map(|key| *key as u32).collect();
        let first = |i: &usize| *i == 0 || keys[*i] >> 32 != keys[*i - 1] >> 32;
        let starts = (0..keys.len()).filter(first).chain([keys.len()]).map(|i| size("rows", i));
        list.extend(starts.collect::<Result<Vec<u32>>>()?);
        let mut scratch = lock(&self.scratch);
        if scratch.ids.len() < list.len() {
            self.gpu().wait()?; // what is queued may still use the memory that is given back here
            scratch.ids = Buffer::new(self.gpu(), 2 * tokens.len() + 1)?;
        }
        let at = scratch.ids.at(self.gpu(), 0, list.len())?;
        // SAFETY: the scratch holds as many ids.
        unsafe { self.gpu().upload(bytes(&list), at) }?;
        Ok((at, size("distinct tokens", list.len() - tokens.len() - 1)?))
    }
}
