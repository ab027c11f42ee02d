//! Fingerprints of θ: the hash every node must agree on, and the tag by which a peer shows which θ it trained on.

use crate::error::Result;
use crate::layout::Layout;
use rayon::prelude::*;

/// Positions a state tag reads.
const POSITIONS: usize = 1024;
/// Elements converted to bytes at a time.
const BLOCK: usize = 1 << 14;

/// BLAKE3 of the concatenated BLAKE3 of each tensor's little-endian bytes, in manifest order (PROTOCOL 3).
pub fn theta_hash(layout: &Layout, theta: &[f32]) -> Result<[u8; 32]> {
    layout.check("θ", theta.len())?;
    let hashes: Vec<blake3::Hash> = layout
        .tensors()
        .par_iter()
        .map(|tensor| {
            let mut hasher = blake3::Hasher::new();
            let mut bytes = Vec::with_capacity(4 * BLOCK.min(tensor.numel()));
            for block in theta[tensor.range()].chunks(BLOCK) {
                bytes.clear();
                bytes.extend(block.iter().flat_map(|x| x.to_le_bytes()));
                hasher.update(&bytes);
            }
            hasher.finalize()
        })
        .collect();
    let mut hasher = blake3::Hasher::new();
    for hash in &hashes {
        hasher.update(hash.as_bytes());
    }
    Ok(*hasher.finalize().as_bytes())
}

/// BLAKE3(hotkey ‖ window ‖ the bits of θ at 1,024 positions) (PROTOCOL 5): [`tag_of`] the values at [`tag_positions`].
///
/// `block_hash` is that of the finalised block that opened the window, `theta` the state the window was trained on.
pub fn state_tag(theta: &[f32], window: u64, block_hash: &[u8; 32], hotkey: &[u8; 32]) -> [u8; 32] {
    let positions = tag_positions(theta.len(), block_hash, hotkey);
    let values: Vec<f32> = positions.into_iter().filter_map(|at| theta.get(at).copied()).collect();
    tag_of(&values, window, hotkey)
}

/// The positions a state tag reads of `len` elements, in its order; none of none.
///
/// Position i is ⌊u_i·d / 2⁶⁴⌋ of d elements, u the little-endian u64 stream of BLAKE3's extended output over
/// (block hash ‖ hotkey).
pub fn tag_positions(len: usize, block_hash: &[u8; 32], hotkey: &[u8; 32]) -> Vec<usize> {
    let mut stream = blake3::Hasher::new().update(block_hash).update(hotkey).finalize_xof();
    let mut word = [0; 8];
    let mut next = || {
        stream.fill(&mut word);
        ((u128::from(u64::from_le_bytes(word)) * len as u128) >> 64) as usize
    };
    (0..if len == 0 { 0 } else { POSITIONS }).map(|_| next()).collect()
}

/// The state tag of the values at [`tag_positions`], where θ itself lies elsewhere: on a GPU.
pub fn tag_of(values: &[f32], window: u64, hotkey: &[u8; 32]) -> [u8; 32] {
    let mut tag = blake3::Hasher::new();
    tag.update(hotkey).update(&window.to_le_bytes());
    values.iter().for_each(|x| {
        tag.update(&x.to_le_bytes());
    });
    *tag.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_theta_counts() {
        let layout = Layout::from_shapes([("a", vec![40_000]), ("b", vec![3])]).unwrap();
        let mut theta = vec![0.0; layout.len()];
        let zero = theta_hash(&layout, &theta).unwrap();
        theta[layout.len() - 1] = -0.0;
        assert_ne!(theta_hash(&layout, &theta).unwrap(), zero);
        assert!(theta_hash(&layout, &theta[1..]).is_err());
    }

    #[test]
    fn a_tag_belongs_to_one_state_window_block_and_hotkey() {
        let theta: Vec<f32> = (0..5000).map(|i| i as f32).collect();
        let tag = |theta: &[f32], w, block: u8, key: u8| state_tag(theta, w, &[block; 32], &[key; 32]);
        let first = tag(&theta, 7, 1, 2);
        assert_eq!(first, tag(&theta, 7, 1, 2));
        let moved: Vec<f32> = theta.iter().map(|x| x + 1.0).collect();
        for other in [tag(&moved, 7, 1, 2), tag(&theta, 8, 1, 2), tag(&theta, 7, 2, 2), tag(&theta, 7, 1, 3)]
        {
            assert_ne!(first, other);
        }
        assert_ne!(tag(&[], 7, 1, 2), first);
    }
}
