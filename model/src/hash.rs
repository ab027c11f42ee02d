//! The hash that says two models are the same bits.

use rayon::prelude::*;

use crate::layout::Layout;

/// θ hash: BLAKE3 of the concatenated BLAKE3 of each tensor's little-endian bytes, in layout order
/// (protocol, section 3).
pub fn theta_hash(layout: &Layout, theta: &[f32]) -> blake3::Hash {
    let tensors: Vec<blake3::Hash> = layout
        .params()
        .par_iter()
        .map(|param| tensor_hash(theta.get(param.range()).unwrap_or_default()))
        .collect();
    let mut all = blake3::Hasher::new();
    for hash in tensors {
        all.update(hash.as_bytes());
    }
    all.finalize()
}

fn tensor_hash(values: &[f32]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = [0u8; 4 * 1024];
    for block in values.chunks(1024) {
        for (to, value) in bytes.chunks_exact_mut(4).zip(block) {
            to.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(&bytes[..4 * block.len()]);
    }
    hasher.finalize()
}
