//! Gradients with the statistics of training, from counters: for benchmarks and tests, the same on every machine.
//!
//! A weight's gradient is a sum of outer products of activations and errors with a falling spectrum. Here: four
//! heavy-tailed directions that all peers share, eight of the peer's own, each weaker than the one before, and noise;
//! some rows (rare tokens) and columns (outlier features) are much stronger. No library functions, so the bits are
//! portable.

use crate::layout::Layout;
use rayon::prelude::*;

/// Outer products common to all peers.
const SHARED: usize = 4;
/// Outer products of one peer.
const OWN: usize = 8;

/// SplitMix64's output function: a counter to 64 well-mixed bits.
pub fn mix(counter: u64) -> u64 {
    let z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// About normal, mean 0, variance 1: the sum of four 16-bit uniforms.
pub fn normal(counter: u64) -> f32 {
    let bits = mix(counter);
    let sum: u32 = (0..4).map(|i| u32::from((bits >> (16 * i)) as u16)).sum();
    (sum as f32 - 131_070.0) / 37_837.0
}

/// Heavy-tailed, about unit scale.
fn heavy(counter: u64) -> f32 {
    let z = normal(counter);
    z * (0.4 + 0.35 * z * z)
}

/// Fills `out` with the gradient of `peer` in `window`.
pub fn gradient(layout: &Layout, window: u64, peer: u64, out: &mut [f32]) {
    for (number, tensor) in (0..).zip(layout.tensors()) {
        let Some(out) = out.get_mut(tensor.range()) else { continue };
        let cols = tensor.shape.last().copied().unwrap_or(1);
        let seed = |who: u64| mix(mix(window) ^ mix(who + 1).rotate_left(17) ^ mix(number).rotate_left(31));
        let own = seed(peer + 1);
        let seeds: Vec<u64> = (0..(SHARED + OWN) as u64)
            .map(|r| mix(r ^ if (r as usize) < SHARED { seed(0) } else { own }))
            .collect();
        let columns: Vec<Vec<f32>> =
            seeds.iter().map(|s| (0..cols as u64).map(|j| heavy(s ^ (j << 1))).collect()).collect();
        out.par_chunks_mut(cols).enumerate().for_each(|(i, row)| {
            let noise = own ^ mix(i as u64);
            let rare = if mix(noise).is_multiple_of(16) { 3.0 } else { 1.0 };
            for (j, x) in (0..).zip(row.iter_mut()) {
                *x = 0.3 * rare * normal(noise.wrapping_add(j));
            }
            for (r, (seed, column)) in seeds.iter().zip(&columns).enumerate() {
                let rank = if r < SHARED { r } else { r - SHARED };
                let u = 1.5 / (1 + rank) as f32 * rare * heavy(seed ^ (2 * i as u64 + 1));
                for (x, v) in row.iter_mut().zip(column) {
                    *x += u * v;
                }
            }
        });
    }
}

/// Tensors of a LLaMA-like model with about `params` parameters and dimensions that are multiples of 64.
pub fn model(params: usize) -> Vec<(String, Vec<usize>)> {
    // Per layer 4·d² + 3·d·4d = 16·d²; d grows with the cube root, as depth does with d.
    let mut d = 64;
    while 16 * d * d * (d / 64).max(1) + 8192 * d < params && d < 2048 {
        d += 64;
    }
    let vocab = if params >= 1 << 24 { 8192 } else { 256 };
    let layers = params.saturating_sub(vocab * d).div_ceil(16 * d * d).max(1);
    let mut shapes = vec![("embed".to_owned(), vec![vocab, d]), ("norm".to_owned(), vec![d])];
    for layer in 0..layers {
        let mut add =
            |name: &str, shape: Vec<usize>| shapes.push((format!("layers.{layer:03}.{name}"), shape));
        for name in ["q", "k", "v", "o"] {
            add(name, vec![d, d]);
        }
        add("gate", vec![4 * d, d]);
        add("up", vec![4 * d, d]);
        add("down", vec![d, 4 * d]);
        add("norm_attention", vec![d]);
        add("norm_mlp", vec![d]);
    }
    shapes
}
