//! A peer's momentum with error feedback (PROTOCOL 4): gradients in, submissions out.
//!
//! m ← β·m + α·g; Q ← top-k per chunk of DCT(m), quantised; after momentum warm-up m ← m − ŝ·IDCT(Q), with
//! ŝ = Σ v·q / Σ q² of the tensor, q what a code stands for and v the coefficient it was made from.
//!
//! The DCT is orthonormal, so all of it is linear and this keeps m as its DCT, chunk after chunk: a step transforms
//! only the gradient, and the subtraction touches only the k coefficients that were sent. No subtraction increases a
//! |coefficient|: where ŝ·q overshoots 2·v, the result stays at −v. What is not sent, and the rounding, remain in m.

use crate::chunk::cut;
use crate::codebook::Codebook;
use crate::dct::{self, Basis, ForwardTile};
use crate::error::{Error, Result};
use crate::format::{Format, Plan};
use crate::inverse::InverseTile;
use crate::kernel;
use crate::lanes::Lanes;
use crate::submission::{EMPTY, Submission, Values, ValuesMut, exponent_of};
use crate::topk::{self, TopK};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Exponents below a tensor's largest by more than this are lost: their integer value is 0.
pub(crate) const EXPONENT_RANGE: i16 = 14;

/// When what was sent leaves the momentum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subtract {
    /// At once.
    Always,
    /// When [`Momentum::settle`] says that the window's record lists this peer.
    WhenRecorded,
}

/// The local optimiser of one peer.
#[derive(Debug)]
pub struct Momentum {
    format: Arc<Format>,
    decay: f32,
    warmup: u64,
    subtract: Subtract,
    /// DCT of m: tensors in manifest order, in each its chunks, each h × w.
    m: Vec<f32>,
    /// Σ v·q and Σ q² of each chunk of the last submission.
    products: Vec<[f64; 2]>,
    submissions: u64,
    pending: Option<Pending>,
}

/// A submission that leaves the momentum only once its window's record lists it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// What was sent.
    pub sent: Submission,
    /// ŝ of each tensor.
    pub scales: Vec<f64>,
}

impl Momentum {
    /// Momentum 0. The first `warmup` submissions are not subtracted.
    pub fn new(format: Arc<Format>, decay: f32, warmup: u64, subtract: Subtract) -> Result<Self> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(Error::Config { field: "decay", reason: format!("{decay}: 0 to 1") });
        }
        let (m, products) = (vec![0.0; format.layout().len()], vec![[0.0; 2]; format.chunks()]);
        Ok(Self { format, decay, warmup, subtract, m, products, submissions: 0, pending: None })
    }

    /// Takes one window's gradient (mean over its tokens, in θ's order) at rate `lr`; gives what to send.
    ///
    /// A gradient that is not finite is an error and sends nothing; the finite chunks have taken it up by then.
    pub fn step(&mut self, grads: &[f32], lr: f32) -> Result<Submission> {
        self.format.layout().check("the gradient", grads.len())?;
        self.pending = None;
        let mut out = Submission::empty(Arc::clone(&self.format));
        self.accumulate(grads, lr, &mut out)?;
        if !self.format.codebook().is_exact() {
            drop_weak_chunks(&mut out);
        }
        self.submissions += 1;
        if self.submissions > self.warmup {
            match self.subtract {
                Subtract::Always => self.subtract(&out, &self.scales(&out)),
                Subtract::WhenRecorded => {
                    self.pending = Some(Pending { scales: self.scales(&out), sent: out.clone() });
                }
            }
        }
        Ok(out)
    }

    /// With [`Subtract::WhenRecorded`]: whether the window's record lists the last submission. A step that comes
    /// first counts as not listed.
    pub fn settle(&mut self, recorded: Recorded) {
        if let (Some(Pending { sent, scales }), Recorded::Yes) = (self.pending.take(), recorded) {
            self.subtract(&sent, &scales);
        }
    }

    /// Submissions made so far.
    pub fn submissions(&self) -> u64 {
        self.submissions
    }

    /// The DCT of m, chunk after chunk: with [`Self::submissions`] and [`Self::pending`] what a restart needs.
    pub fn coefficients(&self) -> &[f32] {
        &self.m
    }

    /// What waits for [`Self::settle`].
    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// Continues from a saved state, in which nothing waits. Errors: another length, or values that are not finite.
    pub fn restore(&mut self, coefficients: &[f32], submissions: u64) -> Result<()> {
        self.format.layout().check_saved(coefficients)?;
        self.m.copy_from_slice(coefficients);
        self.submissions = submissions;
        self.pending = None;
        Ok(())
    }

    /// After [`Self::restore`]: what waits for [`Self::settle`]. Errors: another format, or scales that are not its own.
    pub fn restore_pending(&mut self, pending: Pending) -> Result<()> {
        pending.check(&self.format)?;
        self.pending = Some(pending);
        Ok(())
    }

    /// m itself, in θ's order.
    pub fn decode(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.m.len()];
        let mut tile = InverseTile::new();
        for (_, plan) in self.format.plans() {
            let grid = &plan.grid;
            let Some((bh, bw)) = self.format.bases(grid) else { continue };
            for (chunk, m) in self.m[plan.offset..].chunks(grid.chunk_len()).take(grid.chunks()).enumerate() {
                tile.len = 0;
                for (i, &m) in (0..).zip(m) {
                    tile.push(i, m);
                }
                kernel::inverse(self.format.simd(), bh, bw, &mut tile);
                let origin =
                    plan.offset + chunk / grid.per_band * grid.band_len() + chunk % grid.per_band * grid.w;
                for (i, row) in tile.delta[..m.len()].chunks(grid.w).enumerate() {
                    out[origin + i * grid.stride()..][..grid.w].copy_from_slice(row);
                }
            }
        }
        out
    }

    fn accumulate(&mut self, grads: &[f32], lr: f32, out: &mut Submission) -> Result<()> {
        let format = &*self.format;
        let pieces: Vec<_> = format
            .plans()
            .flat_map(|(tensor, plan)| plan.grid.pieces().map(move |p| (tensor, plan, p)))
            .collect();
        let chunks = || pieces.iter().map(|(_, plan, bands)| bands.len() * plan.grid.per_band);
        let entries: Vec<usize> = chunks().zip(&pieces).map(|(n, (_, plan, _))| n * plan.k).collect();
        let elements = pieces.iter().map(|(_, plan, bands)| bands.len() * plan.grid.band_len());
        let work = (
            cut(&mut self.m, elements),
            cut(&mut self.products, chunks()),
            cut(&mut out.exponents, chunks()),
            cut(&mut out.indices, entries.iter().copied()),
            out.values.cut(entries.iter().copied()),
        );
        let decay = self.decay;
        let results: Vec<Result<()>> = work
            .into_par_iter()
            .zip(&pieces)
            .map_init(
                || (ForwardTile::new(), TopK::new()),
                |(tile, top), ((m, products, exponents, indices, values), (tensor, plan, bands))| {
                    let grads = &grads[plan.offset + bands.start * plan.grid.band_len()..][..m.len()];
                    let mut sent = Sent { products, exponents, indices, values };
                    encode_piece(format, plan, [decay, lr], grads, m, &mut sent, tile, top)
                        .ok_or_else(|| Error::NonFinite { tensor: tensor.name.clone() })
                },
            )
            .collect();
        results.into_iter().collect()
    }

    /// ŝ of each tensor.
    fn scales(&self, sent: &Submission) -> Vec<f64> {
        self.format.plans().map(|(_, plan)| self.scale(plan, sent)).collect()
    }

    /// m ← m − ŝ·q for every entry that was sent.
    fn subtract(&mut self, sent: &Submission, scales: &[f64]) {
        let format = &*self.format;
        let pieces: Vec<_> = format
            .plans()
            .zip(scales)
            .flat_map(|((_, plan), &scale)| plan.grid.pieces().map(move |bands| (plan, scale, bands)))
            .collect();
        let elements = pieces.iter().map(|(plan, _, bands)| bands.len() * plan.grid.band_len());
        cut(&mut self.m, elements).into_par_iter().zip(&pieces).for_each(|(m, (plan, scale, bands))| {
            let first = bands.start * plan.grid.per_band;
            for (chunk, m) in (first..).zip(m.chunks_mut(plan.grid.chunk_len())) {
                let (exponent, entries) =
                    (sent.exponents[plan.first_chunk + chunk], plan.chunk_entries(chunk));
                if exponent == EMPTY {
                    continue;
                }
                let indices = &sent.indices[entries.clone()];
                match &sent.values {
                    Values::Levels(levels) => {
                        let unit = scale * power_of_two(exponent - 6);
                        for (&i, &level) in indices.iter().zip(&levels[entries]) {
                            let m = &mut m[usize::from(i)];
                            *m = reduced(*m, unit * f64::from(level));
                        }
                    }
                    Values::Exact(values) => {
                        for (&i, &value) in indices.iter().zip(&values[entries]) {
                            let m = &mut m[usize::from(i)];
                            *m = reduced(*m, f64::from(value));
                        }
                    }
                }
            }
        });
    }

    /// ŝ of a tensor: the least-squares scale of what is sent of it.
    pub(crate) fn scale(&self, plan: &Plan, sent: &Submission) -> f64 {
        let exponents = &sent.exponents[plan.chunks()];
        let [vq, qq] = self.products[plan.chunks()]
            .iter()
            .zip(exponents)
            .filter(|(_, e)| **e != EMPTY)
            .fold([0.0; 2], |[vq, qq], ([a, b], _)| [vq + a, qq + b]);
        if qq > 0.0 { vq / qq } else { 0.0 }
    }
}

impl Pending {
    /// Refuses what was not made in this format.
    pub(crate) fn check(&self, format: &Format) -> Result<()> {
        format.check(&self.sent.format)?;
        let (found, expected) = (self.scales.len(), format.layout().tensors().len());
        if found != expected {
            return Err(Error::Length { what: "the list of scales", expected, found });
        }
        match format.plans().zip(&self.scales).find(|(_, scale)| !scale.is_finite()) {
            Some(((tensor, _), _)) => Err(Error::SavedNonFinite { tensor: tensor.name.clone() }),
            None => Ok(()),
        }
    }
}

/// Whether a window's record lists a peer's submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// v − d, but never larger than v in magnitude.
fn reduced(v: f32, d: f64) -> f32 {
    let (v, limit) = (f64::from(v), f64::from(v).abs());
    (v - d).clamp(-limit, limit) as f32
}

/// 2^n for −1022 ≤ n ≤ 1023.
fn power_of_two(n: i16) -> f64 {
    f64::from_bits(u64::from((1023 + n).cast_unsigned()) << 52)
}

/// Marks chunks empty whose integer values would all be 0: receivers could not see them.
fn drop_weak_chunks(out: &mut Submission) {
    let format = Arc::clone(&out.format);
    for (_, plan) in format.plans() {
        let Some(e_max) = out.max_exponent(plan) else { continue };
        for chunk in 0..plan.grid.chunks() {
            let (exponent, entries) =
                (&mut out.exponents[plan.first_chunk + chunk], plan.chunk_entries(chunk));
            if *exponent != EMPTY && e_max - *exponent > EXPONENT_RANGE {
                *exponent = EMPTY;
                out.indices[entries.clone()].fill(0);
                if let Values::Levels(levels) = &mut out.values {
                    levels[entries].fill(0);
                }
            }
        }
    }
}

/// Where one piece of a submission goes.
struct Sent<'a> {
    products: &'a mut [[f64; 2]],
    exponents: &'a mut [i16],
    indices: &'a mut [u16],
    values: ValuesMut<'a>,
}

/// What a chunk's kernel needs to know.
pub(crate) struct ChunkStep<'a> {
    bh: &'a Basis,
    bw: &'a Basis,
    stride: usize,
    k: usize,
    decay: f32,
    lr: f32,
}

/// m ← β·m + α·DCT(g) for one chunk, its k best chosen into `top`; the largest magnitude, or `None`, m untouched, if
/// it is not finite.
#[inline(always)]
pub(crate) fn accumulate<L: Lanes>(
    step: &ChunkStep<'_>,
    grads: &[f32],
    m: &mut [f32],
    tile: &mut ForwardTile,
    top: &mut TopK,
) -> Option<f32> {
    dct::forward::<L>(step.bh, step.bw, grads, step.stride, tile);
    let z = &mut tile.z[..m.len()];
    for (z, m) in z.iter_mut().zip(&*m) {
        *z = step.decay.mul_add(*m, step.lr * *z);
    }
    let largest = topk::select::<L>(z, step.k, top)?;
    m.copy_from_slice(z);
    Some(largest)
}

/// Encodes the chunks of some bands. `None` if a chunk was not finite.
fn encode_piece(
    format: &Format,
    plan: &Plan,
    [decay, lr]: [f32; 2],
    grads: &[f32],
    m: &mut [f32],
    sent: &mut Sent<'_>,
    tile: &mut ForwardTile,
    top: &mut TopK,
) -> Option<()> {
    let (grid, k) = (&plan.grid, plan.k);
    let (bh, bw) = format.bases(grid)?;
    let step = ChunkStep { bh, bw, stride: grid.stride(), k, decay, lr };
    let mut finite = Some(());
    for (chunk, m) in m.chunks_mut(grid.chunk_len()).enumerate() {
        let origin = chunk / grid.per_band * grid.band_len() + chunk % grid.per_band * grid.w;
        let Some(largest) = kernel::accumulate(format.simd(), &step, &grads[origin..], m, tile, top) else {
            finite = None;
            continue;
        };
        if largest == 0.0 {
            continue;
        }
        let entries = chunk * k..(chunk + 1) * k;
        let (chosen, exponent) = (&top.indices[..k], exponent_of(largest));
        let products = match &mut sent.values {
            ValuesMut::Levels(levels) => {
                let levels = &mut levels[entries.clone()];
                let Some(products) = quantise(format.codebook(), exponent, m, chosen, levels) else {
                    continue;
                };
                products
            }
            ValuesMut::Exact(values) => {
                for (value, &i) in values[entries.clone()].iter_mut().zip(chosen) {
                    *value = m[usize::from(i)];
                }
                [0.0; 2]
            }
        };
        sent.exponents[chunk] = exponent;
        sent.indices[entries].copy_from_slice(chosen);
        sent.products[chunk] = products;
    }
    finite
}

/// Levels of a chunk's chosen coefficients; Σ v·q and Σ q², or `None` if all levels are 0.
fn quantise(
    book: &Codebook,
    exponent: i16,
    m: &[f32],
    chosen: &[u16],
    levels: &mut [i8],
) -> Option<[f64; 2]> {
    let (scale, unit) = (power_of_two(6 - exponent), power_of_two(exponent - 6));
    let [mut vq, mut qq] = [0.0; 2];
    for (level, &i) in levels.iter_mut().zip(chosen) {
        let v = m[usize::from(i)];
        *level = book.quantise(v, scale);
        let q = f64::from(*level) * unit;
        vq += f64::from(v) * q;
        qq += q * q;
    }
    (qq > 0.0).then_some([vq, qq])
}
