//! What DeMo takes of a device's memory, before anything is allocated.

use crate::format::Format;
use crate::gpu::launch::SCALE_BYTES;
use crate::gpu::payload::BEHIND;
use crate::gpu::tables::{CODEBOOK_BYTES, describe};

/// Bytes of a [`crate::gpu::Tables`].
pub fn tables_bytes(format: &Format) -> usize {
    let (tensors, bases, _) = describe(format);
    tensors.len() + size_of_val(bases.as_slice()) + CODEBOOK_BYTES
}

/// Bytes of a [`crate::gpu::Momentum`].
pub fn momentum_bytes(format: &Format) -> usize {
    let (parameters, tensors) = (format.layout().len(), format.layout().tensors().len());
    // m; indices, values and levels; largest magnitude, products and exponent; ŝ and e_max; the status.
    let state = 4 * parameters + 7 * format.entries() + 22 * format.chunks() + 12 * tensors + 4;
    let (_, _, groups) = describe(format);
    state + 12 * groups as usize + 8 + format.max_payload()
}

/// Bytes of a [`crate::gpu::Gather`] of `capacity` submissions.
pub fn gather_bytes(format: &Format, capacity: usize) -> usize {
    let tensors = format.layout().tensors().len();
    let (_, _, groups) = describe(format);
    let peer = 3 * format.entries() + 2 * format.chunks() + SCALE_BYTES * tensors;
    capacity * peer + format.max_payload() + BEHIND + 12 * groups as usize + 4 * tensors + 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::{Gather, Momentum, Tables, test_device};
    use crate::{Codebook, Layout, Subtract};
    use std::sync::Arc;

    #[test]
    fn sizes_are_those_of_what_is_allocated() {
        let layout = Layout::from_shapes([("a", vec![96, 40]), ("b", vec![7]), ("c", vec![9000])]).unwrap();
        let format = Format::new(layout, 64, 5, Codebook::with_bits(3).unwrap()).unwrap();
        let tables = Tables::new(test_device(), Arc::clone(&format)).unwrap();
        assert_eq!(tables.held(), tables_bytes(&format));
        let momentum = Momentum::new(Arc::clone(&tables), 0.9, 1, Subtract::Always).unwrap();
        assert_eq!(momentum.held(), momentum_bytes(&format));
        for capacity in [1, 3] {
            let gather = Gather::new(Arc::clone(&tables), capacity).unwrap();
            assert_eq!(gather.held(), gather_bytes(&format, capacity));
        }
    }
}
