//! Initial weights, the same bits on every machine (protocol, section 3.1).
//!
//! Element `i` of tensor `t` is `0.02·z` with `z = sqrt(−2·ln u₁)·cos(2π·u₂)` (Box–Muller), where
//! `u₁, u₂ = (n + ½)·2⁻⁵³` from the upper 53 bits of the u64 pair `(2i, 2i+1)` of ChaCha12: key =
//! the seed as little-endian u64 followed by zeros, stream = `t`, the tensor's index in ascending
//! UTF-8 name order. All in f64 by the pure-Rust crate `libm`, rounded once to f32. Norm gains are 1.
//! The generator is counter-based: any element can be computed alone, in any order, on any thread.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

use crate::layout::Layout;

/// Standard deviation of the initial weights.
pub const STD: f64 = 0.02;

/// Elements a task computes; any value gives the same bits.
const BLOCK: usize = 1 << 14;

/// Fills θ (`layout.total()` values) with the initial weights for `seed`.
pub fn init(layout: &Layout, seed: u64, theta: &mut [f32]) {
    for (index, param) in layout.params().iter().enumerate() {
        let Some(tensor) = theta.get_mut(param.range()) else { return };
        if param.shape.len() == 1 {
            tensor.fill(1.0);
            continue;
        }
        tensor.par_chunks_mut(BLOCK).enumerate().for_each(|(block, out)| {
            normal(seed, index as u64, (block * BLOCK) as u64, out);
        });
    }
}

/// Elements `start..start + out.len()` of tensor `index`.
fn normal(seed: u64, index: u64, start: u64, out: &mut [f32]) {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha12Rng::from_seed(key);
    rng.set_stream(index);
    rng.set_word_pos(u128::from(start) * 4); // two u64 = four 32-bit words an element
    for value in out {
        let (a, b) = (unit(rng.next_u64()), unit(rng.next_u64()));
        let z = libm::sqrt(-2.0 * libm::log(a)) * libm::cos(2.0 * std::f64::consts::PI * b);
        #[allow(clippy::cast_possible_truncation)] // the one rounding the protocol asks for
        let rounded = (STD * z) as f32;
        *value = rounded;
    }
}

/// `(n + ½)·2⁻⁵³` for the upper 53 bits: never 0, never 1.
fn unit(bits: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // 53 bits fit
    let n = (bits >> 11) as f64;
    (n + 0.5) * (1.0 / 9_007_199_254_740_992.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::theta_hash;
    use crate::presets::preset;

    /// Golden θ hashes; `tests/peers/init_hash.py` computes the same from the text of the protocol.
    #[test]
    fn golden_hashes() {
        let mut tiny = preset("byte-1m").unwrap();
        tiny.n_layers = 1;
        tiny.hidden_size = 32;
        tiny.head_dim = 8;
        tiny.intermediate_size = 64;
        let mut tied = tiny.clone();
        tied.tie_word_embeddings = true;
        tied.n_kv_heads = 2;
        let golden = [
            (tiny, 0, "7aed4bc05120c2356ed86702ee565cb03cc29e2cb24ef87e058001b9e589d22b"),
            (tied, 7, "b3e2cbc65cb68350d930e116d7d41d49eaaa5cb286e543865a6ac99b2a4d6adc"),
            (
                preset("byte-1m").unwrap(),
                42,
                "ec6fa6d518a8c7a63577fab7bc7e65dd61c1fc13d8a8fc62bfa7c3218ea8413f",
            ),
        ];
        for (config, seed, expected) in golden {
            let layout = Layout::new(&config);
            let mut theta = vec![0.0; layout.total()];
            init(&layout, seed, &mut theta);
            assert_eq!(theta_hash(&layout, &theta).to_hex().as_str(), expected, "seed {seed}");
        }
    }

    #[test]
    fn any_split_gives_the_same_bits_and_the_moments_are_right() {
        let mut whole = vec![0.0; 50_000];
        normal(3, 5, 0, &mut whole);
        let mut part = vec![0.0; 777];
        normal(3, 5, 12_345, &mut part);
        assert_eq!(part[..], whole[12_345..12_345 + 777]);

        let n = whole.len() as f64;
        let mean = whole.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let var = whole.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 * STD / n.sqrt(), "mean {mean}");
        assert!((var.sqrt() / STD - 1.0).abs() < 0.02, "std {}", var.sqrt());
        let mut other = vec![0.0; 16];
        normal(3, 6, 0, &mut other);
        assert_ne!(other[..], whole[..16], "streams differ");
    }
}
