//! The kernels of `demo/kernels` as functions: each checks the lengths of what it hands over.
#![allow(
    unsafe_code,
    reason = "launches: every buffer has the length its kernel reaches, and indices were checked when a submission was \
              made"
)]

use crate::error::{Error, Result};
use crate::gpu::memory::{View, ViewMut, Word};
use crate::gpu::tables::Tables;
use gauntlet_gpu::{Arg, Device, Grid, Kernel};

/// Threads of a block that works on one chunk at a time: THREADS in chunks.cuh.
const CHUNK_THREADS: u32 = 128;
/// Chunks such a block does, one after the other: enough to share a basis, few enough that all blocks end together.
const CHUNKS_PER_BLOCK: u32 = 8;
/// Threads of the other kernels: among them SETTLE and SCALE in submission.cu and gather.cu.
pub(super) const THREADS: u32 = 256;
/// Bytes of `Scale` in gather.cuh.
pub(super) const SCALE_BYTES: usize = 16;

/// The kernels of a momentum.
#[derive(Debug)]
pub(super) struct EncodeKernels {
    encode: Kernel,
    quantise: Kernel,
    settle: Kernel,
    subtract: Kernel,
}

/// The kernels of a gather.
#[derive(Debug)]
pub(super) struct GatherKernels {
    scale: Kernel,
    apply: Kernel,
    decode: Kernel,
}

/// The least traffic, for benchmarks.
#[derive(Debug)]
pub(super) struct StreamKernels {
    momentum: Kernel,
    theta: Kernel,
}

/// Rates of `encode_chunks`.
#[derive(Debug, Clone, Copy)]
pub(super) struct EncodeRates {
    pub(super) decay: f32,
    pub(super) lr: f32,
}

/// What a step chooses of each chunk: its largest magnitude, and k indices and coefficients.
#[derive(Debug)]
pub(super) struct ChosenMut<'a> {
    pub(super) largest: ViewMut<'a, u32>,
    pub(super) indices: ViewMut<'a, u16>,
    pub(super) values: ViewMut<'a, f32>,
    /// The lowest number of a tensor that is not finite, if smaller than what is there.
    pub(super) first_bad: ViewMut<'a, u32>,
}

/// A submission on the device, to read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    pub(super) exponents: View<'a, i16>,
    pub(super) indices: View<'a, u16>,
    pub(super) levels: View<'a, i8>,
}

/// A submission on the device, to write.
#[derive(Debug)]
pub(super) struct SentMut<'a> {
    pub(super) exponents: ViewMut<'a, i16>,
    pub(super) indices: ViewMut<'a, u16>,
    pub(super) levels: ViewMut<'a, i8>,
}

/// Decoded submissions side by side: `peers` of them from number `first` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathered<'a> {
    pub(super) sent: Sent<'a>,
    /// `Scale` of gather.cuh, for each peer and tensor.
    pub(super) scales: View<'a, u64>,
    pub(super) first: u32,
    pub(super) peers: u32,
    /// Whether strengths are limited.
    pub(super) capped: bool,
}

impl EncodeKernels {
    pub(super) fn find<D: Device>(device: &D) -> Result<Self> {
        Ok(Self {
            encode: device.kernel("encode_chunks")?,
            quantise: device.kernel("quantise_chunks")?,
            settle: device.kernel("settle_tensors")?,
            subtract: device.kernel("subtract_chunks")?,
        })
    }

    /// m ← β·m + α·DCT(g), and the k best coefficients of each chunk.
    pub(super) fn encode<D: Device>(
        &self,
        t: &Tables<D>,
        grads: View<'_, f32>,
        m: ViewMut<'_, f32>,
        rates: EncodeRates,
        out: ChosenMut<'_>,
    ) -> Result<()> {
        let (len, entries) = (t.format.layout().len(), t.format.entries());
        check("the gradient", len, grads.len)?;
        check("the momentum", len, m.len)?;
        check("largest magnitudes", t.n_chunks as usize, out.largest.len)?;
        check("indices", entries, out.indices.len)?;
        check("values", entries, out.values.len)?;
        check("the status", 1, out.first_bad.len)?;
        let args = [
            read(t.tensors.view()),
            Arg::U32(t.n_tensors),
            Arg::U32(t.n_chunks),
            read(t.bases.view()),
            read(grads),
            write(&m),
            Arg::F32(rates.decay),
            Arg::F32(rates.lr),
            write(&out.largest),
            write(&out.indices),
            write(&out.values),
            write(&out.first_bad),
        ];
        // SAFETY: lengths were checked; the tables describe exactly these buffers.
        unsafe { launch(t, self.encode, chunk_grid(t), &args) }
    }

    /// Levels and exponents of what was chosen; Σ v·q and Σ q² of each chunk into `products`.
    pub(super) fn quantise<D: Device>(
        &self,
        t: &Tables<D>,
        largest: View<'_, u32>,
        values: View<'_, f32>,
        out: &SentMut<'_>,
        products: &ViewMut<'_, f64>,
    ) -> Result<()> {
        check("largest magnitudes", t.n_chunks as usize, largest.len)?;
        check("values", t.format.entries(), values.len)?;
        check_sent(t, 1, [out.exponents.len, out.indices.len, out.levels.len])?;
        check("products", 2 * t.n_chunks as usize, products.len)?;
        let args = [
            read(t.tensors.view()),
            Arg::U32(t.n_tensors),
            Arg::U32(t.n_chunks),
            read(largest),
            read(t.level_of.view()),
            read(values),
            write(&out.indices),
            write(&out.levels),
            write(&out.exponents),
            write(products),
        ];
        // SAFETY: lengths were checked; the table of levels has 256.
        unsafe { launch(t, self.quantise, Grid::new(t.n_chunks.div_ceil(THREADS), THREADS), &args) }
    }

    /// Empties chunks that receivers cannot see; e_max of each tensor into `tops`, ŝ into `scales`.
    pub(super) fn settle<D: Device>(
        &self,
        t: &Tables<D>,
        sent: &SentMut<'_>,
        products: View<'_, f64>,
        tops: &ViewMut<'_, i32>,
        scales: &ViewMut<'_, f64>,
    ) -> Result<()> {
        check_sent(t, 1, [sent.exponents.len, sent.indices.len, sent.levels.len])?;
        check("products", 2 * t.n_chunks as usize, products.len)?;
        check("largest exponents", t.n_tensors as usize, tops.len)?;
        check("scales", t.n_tensors as usize, scales.len)?;
        let args = [
            read(t.tensors.view()),
            write(&sent.exponents),
            write(&sent.indices),
            write(&sent.levels),
            read(products),
            write(tops),
            write(scales),
        ];
        // SAFETY: lengths were checked.
        unsafe { launch(t, self.settle, Grid::new(t.n_tensors, THREADS), &args) }
    }

    /// m ← m − ŝ·q for everything sent.
    pub(super) fn subtract<D: Device>(
        &self,
        t: &Tables<D>,
        sent: Sent<'_>,
        scales: View<'_, f64>,
        m: ViewMut<'_, f32>,
    ) -> Result<()> {
        check_sent(t, 1, [sent.exponents.len, sent.indices.len, sent.levels.len])?;
        check("scales", t.n_tensors as usize, scales.len)?;
        check("the momentum", t.format.layout().len(), m.len)?;
        let args = [
            read(t.tensors.view()),
            Arg::U32(t.n_tensors),
            Arg::U32(t.n_chunks),
            read(sent.exponents),
            read(sent.indices),
            read(sent.levels),
            read(scales),
            write(&m),
        ];
        // SAFETY: lengths were checked; indices were chosen by `encode`.
        unsafe { launch(t, self.subtract, Grid::new(t.n_chunks.div_ceil(THREADS / 32), THREADS), &args) }
    }
}

impl GatherKernels {
    pub(super) fn find<D: Device>(device: &D) -> Result<Self> {
        Ok(Self {
            scale: device.kernel("scale_tensors")?,
            apply: device.kernel("apply_gather")?,
            decode: device.kernel("decode_gather")?,
        })
    }

    /// e_max and s_p of each peer's tensors.
    pub(super) fn scale<D: Device>(
        &self,
        t: &Tables<D>,
        sent: Sent<'_>,
        peers: u32,
        scales: &ViewMut<'_, u64>,
    ) -> Result<()> {
        check_sent(t, peers, [sent.exponents.len, sent.indices.len, sent.levels.len])?;
        check_scales(t, peers, scales.len)?;
        let args = [
            read(t.tensors.view()),
            read(sent.exponents),
            read(sent.levels),
            Arg::U64(u64::from(t.n_chunks)),
            Arg::U64(t.format.entries() as u64),
            write(scales),
        ];
        let grid = Grid { blocks: [t.n_tensors, peers, 1], threads: THREADS, shared: 0 };
        // SAFETY: lengths were checked.
        unsafe { launch(t, self.scale, grid, &args) }
    }

    /// `out` = fma(−lr, sign(Δ), θ·decay).
    pub(super) fn apply<D: Device>(
        &self,
        t: &Tables<D>,
        gathered: Gathered<'_>,
        [lr, decay]: [f32; 2],
        theta: View<'_, f32>,
        out: ViewMut<'_, f32>,
    ) -> Result<()> {
        check("θ", t.format.layout().len(), theta.len)?;
        check("the output", t.format.layout().len(), out.len)?;
        let rates = [Arg::F32(lr), Arg::F32(decay), read(theta), write(&out)];
        self.decode_with(t, self.apply, gathered, &rates)
    }

    /// `out` = θ one step on, in place.
    pub(super) fn apply_in_place<D: Device>(
        &self,
        t: &Tables<D>,
        gathered: Gathered<'_>,
        [lr, decay]: [f32; 2],
        theta: ViewMut<'_, f32>,
    ) -> Result<()> {
        check("θ", t.format.layout().len(), theta.len)?;
        let rates = [Arg::F32(lr), Arg::F32(decay), write(&theta), write(&theta)];
        self.decode_with(t, self.apply, gathered, &rates)
    }

    /// Δ before its sign is taken.
    pub(super) fn decode<D: Device>(
        &self,
        t: &Tables<D>,
        gathered: Gathered<'_>,
        delta: ViewMut<'_, f32>,
    ) -> Result<()> {
        check("the output", t.format.layout().len(), delta.len)?;
        self.decode_with(t, self.decode, gathered, &[write(&delta)])
    }

    /// `last` are the arguments after those that both kernels have; their lengths were checked.
    fn decode_with<D: Device>(
        &self,
        t: &Tables<D>,
        kernel: Kernel,
        g: Gathered<'_>,
        last: &[Arg],
    ) -> Result<()> {
        check_sent(t, g.first + g.peers, [g.sent.exponents.len, g.sent.indices.len, g.sent.levels.len])?;
        check_scales(t, g.first + g.peers, g.scales.len)?;
        let (first, chunks, entries) = (u64::from(g.first), u64::from(t.n_chunks), t.format.entries() as u64);
        let scales = first * u64::from(t.n_tensors) * SCALE_BYTES as u64;
        let mut args = vec![
            read(t.tensors.view()),
            read(t.bases.view()),
            Arg::Ptr(g.sent.exponents.address + 2 * first * chunks),
            Arg::Ptr(g.sent.indices.address + 2 * first * entries),
            Arg::Ptr(g.sent.levels.address + first * entries),
            Arg::Ptr(g.scales.address + scales),
            Arg::U64(chunks),
            Arg::U64(entries),
            Arg::U32(t.n_tensors),
            Arg::U32(g.peers),
            Arg::U32(u32::from(g.capped)),
        ];
        args.extend_from_slice(last);
        // SAFETY: lengths were checked; each element of θ belongs to one thread, which reads it before it writes it.
        unsafe { launch(t, kernel, chunk_grid(t), &args) }
    }
}

impl StreamKernels {
    pub(super) fn find<D: Device>(device: &D) -> Result<Self> {
        Ok(Self { momentum: device.kernel("stream_momentum")?, theta: device.kernel("stream_theta")? })
    }

    /// Reads `grads` and `m`, writes `m`.
    pub(super) fn momentum<D: Device>(
        &self,
        t: &Tables<D>,
        grads: View<'_, f32>,
        m: ViewMut<'_, f32>,
    ) -> Result<()> {
        check("the momentum", grads.len, m.len)?;
        let args = [Arg::U64(m.len as u64), read(grads), write(&m)];
        // SAFETY: lengths are equal.
        unsafe { launch(t, self.momentum, stream_grid(m.len), &args) }
    }

    /// Reads and writes `theta`.
    pub(super) fn theta<D: Device>(&self, t: &Tables<D>, theta: ViewMut<'_, f32>) -> Result<()> {
        let args = [Arg::U64(theta.len as u64), write(&theta)];
        // SAFETY: the kernel stays below the length.
        unsafe { launch(t, self.theta, stream_grid(theta.len), &args) }
    }
}

/// Four elements a thread, in at most 2³⁰ threads.
fn stream_grid(len: usize) -> Grid {
    Grid::new((len.div_ceil(4 * THREADS as usize)).min(1 << 22) as u32, THREADS)
}

fn chunk_grid<D: Device>(t: &Tables<D>) -> Grid {
    Grid::new(t.n_chunks.div_ceil(CHUNKS_PER_BLOCK), CHUNK_THREADS)
}

/// Launches, unless there is nothing to do.
///
/// # Safety
/// As [`Device::launch`].
pub(super) unsafe fn launch<D: Device>(
    t: &Tables<D>,
    kernel: Kernel,
    grid: Grid,
    args: &[Arg],
) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    // SAFETY: by this function's contract.
    Ok(unsafe { t.device.launch(kernel, grid, args) }?)
}

pub(super) fn read<T: Word>(view: View<'_, T>) -> Arg {
    Arg::Ptr(view.address)
}

pub(super) fn write<T: Word>(view: &ViewMut<'_, T>) -> Arg {
    Arg::Ptr(view.address)
}

pub(super) fn check(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

pub(super) fn at_least(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected <= found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

pub(super) fn check_sent<D: Device>(
    t: &Tables<D>,
    peers: u32,
    [exponents, indices, levels]: [usize; 3],
) -> Result<()> {
    let peers = peers as usize;
    at_least("exponents", peers * t.n_chunks as usize, exponents)?;
    at_least("indices", peers * t.format.entries(), indices)?;
    at_least("levels", peers * t.format.entries(), levels)
}

fn check_scales<D: Device>(t: &Tables<D>, peers: u32, words: usize) -> Result<()> {
    at_least("scales", peers as usize * t.n_tensors as usize * SCALE_BYTES / 8, words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Buffer, test_device};
    use crate::synthetic::normal;
    use crate::{Codebook, Format, Layout};
    use std::sync::Arc;

    #[test]
    fn what_times_are_measured_against_reads_and_writes_everything_once() {
        let device = test_device();
        let n = 4 * (3 * THREADS as usize + 5);
        let layout = Layout::from_shapes([("a", vec![n])]).unwrap();
        let format = Format::new(layout, 64, 4, Codebook::with_bits(3).unwrap()).unwrap();
        let tables = Tables::new(Arc::clone(&device), format).unwrap();
        let streams = StreamKernels::find(&*device).unwrap();
        let values = |seed: u64| (0..n as u64).map(|i| normal(seed + i)).collect::<Vec<_>>();
        let (grads, m) = (values(1), values(1 << 40));
        let on_device = Buffer::from_slice(&device, &grads).unwrap();
        let mut changed = Buffer::from_slice(&device, &m).unwrap();
        streams.momentum(&tables, on_device.view(), changed.view_mut()).unwrap();
        let sums: Vec<f32> = m.iter().zip(&grads).map(|(m, g)| m + g).collect();
        assert_eq!(changed.to_vec().unwrap(), sums);
        streams.theta(&tables, changed.view_mut()).unwrap();
        assert_eq!(changed.to_vec().unwrap(), sums.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
        let short = Buffer::zeros(&device, n - 1).unwrap();
        assert!(streams.momentum(&tables, short.view(), changed.view_mut()).is_err());
    }
}
