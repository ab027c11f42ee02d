//! What the manifest implies about every payload of a run: how tensors are cut, how many entries each chunk has,
//! which codes they use. Sizes follow from it before a byte is read.

use crate::chunk::{Grid, MAX_EDGE};
use crate::codebook::Codebook;
use crate::dct::Basis;
use crate::error::{Error, Result};
use crate::layout::{Layout, TensorSpec};
use crate::rice;
use crate::simd::Simd;
use std::ops::Range;
use std::sync::Arc;

/// Chunks of a tensor that share one independently decodable group.
pub const GROUP: usize = 64;

/// Layout, chunk edge, entries per chunk and codebook, with the tables that follow from them.
pub struct Format {
    layout: Layout,
    target: usize,
    topk: usize,
    codebook: Codebook,
    plans: Vec<Plan>,
    bases: Vec<Option<Box<Basis>>>,
    simd: Simd,
}

/// One tensor's place in a payload.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) grid: Grid,
    /// Entries of a chunk: min(topk, elements of a chunk).
    pub(crate) k: usize,
    /// Rice parameter; `None` where every index is sent.
    pub(crate) rice: Option<u32>,
    /// First element in θ.
    pub(crate) offset: usize,
    /// First chunk among those of all tensors.
    pub(crate) first_chunk: usize,
    /// First entry among those of all tensors.
    pub(crate) first_entry: usize,
}

impl Plan {
    pub(crate) fn chunks(&self) -> Range<usize> {
        self.first_chunk..self.first_chunk + self.grid.chunks()
    }

    pub(crate) fn entries(&self) -> Range<usize> {
        self.first_entry..self.first_entry + self.grid.chunks() * self.k
    }

    /// Entries of chunk `chunk` of this tensor.
    pub(crate) fn chunk_entries(&self, chunk: usize) -> Range<usize> {
        let first = self.first_entry + chunk * self.k;
        first..first + self.k
    }

    /// Chunks of this tensor in groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let chunks = self.grid.chunks();
        (0..chunks).step_by(GROUP).map(move |first| first..(first + GROUP).min(chunks))
    }

    /// Most bits a chunk can take: all present, all of the gaps' length in zeros.
    fn chunk_bits(&self, bits: u32) -> usize {
        let indices =
            self.rice.map_or(0, |r| self.k * (1 + r as usize) + ((self.grid.chunk_len() - self.k) >> r));
        1 + 8 + self.k * bits as usize + indices
    }
}

impl Format {
    /// `target` is the longest chunk edge (64), `topk` the entries kept per chunk.
    pub fn new(layout: Layout, target: usize, topk: usize, codebook: Codebook) -> Result<Arc<Self>> {
        Self::with_simd(layout, target, topk, codebook, Simd::detect())
    }

    /// The same on a chosen instruction path.
    pub fn with_simd(
        layout: Layout,
        target: usize,
        topk: usize,
        codebook: Codebook,
        simd: Simd,
    ) -> Result<Arc<Self>> {
        if !(1..=MAX_EDGE).contains(&target) {
            return Err(Error::Config { field: "chunk", reason: format!("{target}: 1 to {MAX_EDGE}") });
        }
        if topk == 0 {
            return Err(Error::Config { field: "topk", reason: "0: at least 1".into() });
        }
        let (mut first_chunk, mut first_entry) = (0, 0);
        let mut plans = Vec::with_capacity(layout.tensors().len());
        let mut bases: Vec<Option<Box<Basis>>> = (0..=MAX_EDGE).map(|_| None).collect();
        for tensor in layout.tensors() {
            let grid = Grid::new(&tensor.shape, target);
            let k = topk.min(grid.chunk_len());
            let rice = rice::parameter(k, grid.chunk_len());
            plans.push(Plan { grid, k, rice, offset: tensor.offset, first_chunk, first_entry });
            first_chunk += grid.chunks();
            first_entry += grid.chunks() * k;
            for n in [grid.h, grid.w] {
                bases[n].get_or_insert_with(|| Basis::new(n));
            }
        }
        Ok(Arc::new(Self { layout, target, topk, codebook, plans, bases, simd }))
    }

    /// The tensors of θ.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Entries kept per chunk of at least that many elements.
    pub fn topk(&self) -> usize {
        self.topk
    }

    /// The codes.
    pub fn codebook(&self) -> &Codebook {
        &self.codebook
    }

    /// The instruction path.
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// How a tensor is cut, by its number in the layout.
    pub fn grid(&self, tensor: usize) -> Option<Grid> {
        self.plans.get(tensor).map(|plan| plan.grid)
    }

    /// Chunks of all tensors.
    pub fn chunks(&self) -> usize {
        self.plans.last().map_or(0, |plan| plan.chunks().end)
    }

    /// Entries of all chunks.
    pub fn entries(&self) -> usize {
        self.plans.last().map_or(0, |plan| plan.entries().end)
    }

    /// Bytes no payload of this format exceeds.
    pub fn max_payload(&self) -> usize {
        self.plans
            .iter()
            .map(|plan| 1 + plan.groups().map(|group| 4 + self.max_group(plan, group.len())).sum::<usize>())
            .sum()
    }

    /// Bytes of a submission in memory, decoded.
    pub fn submission_bytes(&self) -> usize {
        let value = if self.codebook.is_exact() { 4 } else { 1 };
        self.entries() * (2 + value) + 2 * self.chunks()
    }

    /// Bytes no group of `chunks` chunks exceeds.
    pub(crate) fn max_group(&self, plan: &Plan, chunks: usize) -> usize {
        (chunks * plan.chunk_bits(self.codebook.bits())).div_ceil(8)
    }

    /// Tensors with their place.
    pub(crate) fn plans(&self) -> impl Iterator<Item = (&TensorSpec, &Plan)> {
        self.layout.tensors().iter().zip(&self.plans)
    }

    /// Bases of a tensor's chunks.
    pub(crate) fn bases(&self, grid: &Grid) -> Option<(&Basis, &Basis)> {
        Some((self.bases[grid.h].as_deref()?, self.bases[grid.w].as_deref()?))
    }

    /// Refuses a submission of another format.
    pub(crate) fn check(&self, other: &Self) -> Result<()> {
        let same = std::ptr::eq(self, other)
            || (self.layout == other.layout
                && self.target == other.target
                && self.topk == other.topk
                && self.codebook == other.codebook);
        if same { Ok(()) } else { Err(Error::Format) }
    }
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Format")
            .field("tensors", &self.plans.len())
            .field("chunk", &self.target)
            .field("topk", &self.topk)
            .field("bits", &self.codebook.bits())
            .finish_non_exhaustive()
    }
}
