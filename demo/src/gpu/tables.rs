//! What the kernels know of a [`Format`], on the device: tensors, bases, the codebook.

use crate::codebook::Codebook;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::gpu::memory::Buffer;
use gauntlet_gpu::Device;
use std::sync::Arc;

/// Where every index is sent: NO_RICE in chunks.cuh.
const NO_RICE: u32 = u32::MAX;
/// A code without a level: UNKNOWN in payload.cu.
const UNKNOWN: i8 = i8::MIN;
/// Bytes of the codebook's tables: the level of each half unit, the code of each level, the level of each code.
pub(super) const CODEBOOK_BYTES: usize = 256 + 255 + 256;

/// Tables of one format on one device, shared by everything that works with them.
pub struct Tables<D: Device> {
    pub(super) device: Arc<D>,
    pub(super) format: Arc<Format>,
    /// `Tensor` of demo/kernels/chunks.cuh.
    pub(super) tensors: Buffer<D, u8>,
    pub(super) n_tensors: u32,
    pub(super) n_chunks: u32,
    pub(super) n_groups: u32,
    /// `Basis` of demo/kernels/chunks.cuh, one for each edge that occurs.
    pub(super) bases: Buffer<D, f32>,
    /// The level of each magnitude in half units.
    pub(super) level_of: Buffer<D, i8>,
    /// The code of each level, at level + 127.
    pub(super) codes: Buffer<D, u8>,
    /// The level of each code.
    pub(super) level_of_code: Buffer<D, i8>,
}

impl<D: Device> Tables<D> {
    /// Writes the tables of `format` to the device.
    ///
    /// Refuses the codebook of f32 values, which only the CPU has, and formats of 2³¹ chunks.
    pub fn new(device: Arc<D>, format: Arc<Format>) -> Result<Arc<Self>> {
        let refuse = |field, reason: &str| Err(Error::Config { field, reason: reason.into() });
        if format.codebook().is_exact() {
            return refuse("bits", "f32 values are for measurements on the CPU; choose 1 to 8 on a GPU");
        }
        // As i32, so that a block's step to its next chunk stays inside u32.
        let (Ok(n_tensors), Ok(n_chunks)) =
            (i32::try_from(format.layout().tensors().len()), i32::try_from(format.chunks()))
        else {
            return refuse("chunk", "a GPU numbers chunks in 31 bits; choose larger chunks");
        };
        let (n_tensors, n_chunks) = (n_tensors.cast_unsigned(), n_chunks.cast_unsigned());
        let (tensors, bases, n_groups) = describe(&format);
        let book = format.codebook();
        Ok(Arc::new(Self {
            tensors: Buffer::from_slice(&device, &tensors)?,
            n_tensors,
            n_chunks,
            n_groups,
            bases: Buffer::from_slice(&device, &bases)?,
            level_of: Buffer::from_slice(&device, &levels_of(book))?,
            codes: Buffer::from_slice(&device, &book.codes())?,
            level_of_code: Buffer::from_slice(&device, &levels_of_codes(book))?,
            device,
            format,
        }))
    }

    /// The format.
    pub fn format(&self) -> &Arc<Format> {
        &self.format
    }

    /// The device.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// Bytes of all buffers.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let Self { tensors, bases, level_of, codes, level_of_code, .. } = self;
        tensors.bytes() + bases.bytes() + level_of.bytes() + codes.bytes() + level_of_code.bytes()
    }
}

/// The tensors' bytes, the bases they name, and the number of groups.
pub(super) fn describe(format: &Format) -> (Vec<u8>, Vec<f32>, u32) {
    let (mut tensors, mut bases, mut edges) = (Vec::new(), Vec::new(), Vec::<usize>::new());
    let mut groups = 0;
    for (_, plan) in format.plans() {
        let Some((bh, bw)) = format.bases(&plan.grid) else { continue };
        let numbers = [bh, bw].map(|basis| {
            edges.iter().position(|&n| n == basis.n).unwrap_or_else(|| {
                edges.push(basis.n);
                for part in [basis.rows.as_flattened(), basis.even.as_flattened(), basis.odd.as_flattened()] {
                    bases.extend_from_slice(part);
                }
                edges.len() - 1
            })
        });
        for long in [plan.offset, plan.first_entry] {
            tensors.extend((long as u64).to_le_bytes());
        }
        let grid = &plan.grid;
        let [basis_h, basis_w] = numbers;
        for word in [plan.first_chunk, grid.chunks(), grid.h, grid.w, grid.per_band, plan.k, basis_h, basis_w]
        {
            tensors.extend((word as u32).to_le_bytes());
        }
        for word in [groups, plan.rice.unwrap_or(NO_RICE), reciprocal(grid.w as u32), 0] {
            tensors.extend(word.to_le_bytes());
        }
        groups += plan.groups().count() as u32;
    }
    (tensors, bases, groups)
}

/// ⌈2¹⁸/w⌉, by which kernels divide an index.
fn reciprocal(w: u32) -> u32 {
    (1_u32 << 18).div_ceil(w)
}

/// The level nearest to 0…255 half units; 0 is not sent.
fn levels_of(book: &Codebook) -> Vec<i8> {
    // With scale 1 a value counts units.
    (0..=255_u8).map(|half_units| book.quantise(f32::from(half_units) / 2.0, 1.0)).collect()
}

/// The level of each code, for 256 codes whatever the bits.
fn levels_of_codes(book: &Codebook) -> Vec<i8> {
    (0..256).map(|code| book.level(code).unwrap_or(UNKNOWN)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{MAX_CHUNK, MAX_EDGE};

    #[test]
    fn reciprocals_divide_every_index() {
        for w in 1..=MAX_EDGE as u32 {
            let index = 0..MAX_CHUNK as u32;
            assert!(index.into_iter().all(|i| (i * reciprocal(w)) >> 18 == i / w), "{w}");
        }
    }
}
