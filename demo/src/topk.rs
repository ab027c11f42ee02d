//! The k largest coefficients of a chunk by magnitude, in ascending index order.
//!
//! Total order: magnitude bits, then the lower index. Exact, in three steps: the maxima of a few hundred strided
//! groups give a threshold that at least k elements reach; the elements that reach it (about 1.2 k) are collected;
//! the k best of those are kept. Not consensus, but the same on every path.

use crate::chunk::MAX_CHUNK;
use crate::dct::blocks_mut;
use crate::lanes::{LANES, Lanes};

/// Groups a chunk is cut into at most; more entries than a quarter of it go the plain way.
const MAX_GROUPS: usize = 1024;
/// Bits of the exponent of infinity: any magnitude from here on is not finite.
const INFINITE: u32 = 0x7f80_0000;

/// Working memory of one selection, and its result.
#[repr(C, align(64))]
pub(crate) struct TopK {
    maxima: [f32; MAX_GROUPS],
    /// Magnitude bits above the complement of the index: a larger key is a better element.
    keys: [u64; MAX_CHUNK],
    order: [u64; MAX_CHUNK],
    /// The chosen indices, ascending, in the first k places.
    pub(crate) indices: [u16; MAX_CHUNK],
}

impl TopK {
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            maxima: [0.0; MAX_GROUPS],
            keys: [0; MAX_CHUNK],
            order: [0; MAX_CHUNK],
            indices: [0; MAX_CHUNK],
        })
    }

    fn keep(&mut self, candidates: usize, k: usize) {
        let mut least = 0;
        if candidates > k {
            let order = &mut self.order[..candidates];
            order.copy_from_slice(&self.keys[..candidates]);
            least = *order.select_nth_unstable(candidates - k).1;
        }
        let chosen = self.keys[..candidates].iter().filter(|&&key| key >= least);
        for (index, &key) in self.indices.iter_mut().zip(chosen) {
            *index = index_of(key);
        }
    }
}

#[inline(always)]
fn magnitude(x: f32) -> u32 {
    x.to_bits() & 0x7fff_ffff
}

#[inline(always)]
fn key_of(x: f32, index: usize) -> u64 {
    u64::from(magnitude(x)) << 16 | u64::from(u16::MAX - index as u16)
}

#[inline(always)]
fn index_of(key: u64) -> u16 {
    u16::MAX - key as u16
}

/// Chooses the `k` best of `x` into `out.indices[..k]`; gives the largest magnitude, or `None` if that is not finite.
///
/// `k` ≤ `x.len()` ≤ 4096.
#[inline(always)]
pub(crate) fn select<L: Lanes>(x: &[f32], k: usize, out: &mut TopK) -> Option<f32> {
    let groups = (4 * k).next_power_of_two().max(64);
    if groups > MAX_GROUPS || 2 * groups > x.len() {
        return select_plain(x, k, out);
    }
    let maxima = &mut blocks_mut(&mut out.maxima)[..groups / LANES];
    maxima.fill([0.0; LANES]);
    let (parts, _) = x.as_chunks::<LANES>();
    for part in parts.chunks(groups / LANES) {
        for (max, x) in maxima.iter_mut().zip(part) {
            L::load(max).larger_magnitude(L::load(x)).store(max);
        }
    }
    let tail = &x[parts.len() * LANES..];
    for (max, &x) in maxima.as_flattened_mut().iter_mut().zip(tail) {
        *max = f32::from_bits(magnitude(*max).max(magnitude(x)));
    }
    let largest = maxima.as_flattened().iter().fold(0, |max, &x| magnitude(x).max(max));
    if largest >= INFINITE {
        return None;
    }
    let threshold = threshold::<L>(maxima, largest, k);

    let mut n = 0;
    for (b, part) in parts.iter().enumerate() {
        let mut hits = L::load(part).reaching(threshold);
        while hits != 0 {
            let l = hits.trailing_zeros() as usize;
            hits &= hits - 1;
            out.keys[n] = key_of(part[l], b * LANES + l);
            n += 1;
        }
    }
    for (l, &x) in tail.iter().enumerate() {
        if magnitude(x) >= threshold {
            out.keys[n] = key_of(x, parts.len() * LANES + l);
            n += 1;
        }
    }
    out.keep(n, k);
    Some(f32::from_bits(largest))
}

/// A magnitude that at least `k` of the maxima reach, and hardly more: bisection on the bits.
#[inline(always)]
fn threshold<L: Lanes>(maxima: &[[f32; LANES]], largest: u32, k: usize) -> u32 {
    let (mut low, mut high) = (0, largest + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let count: u32 = maxima.iter().map(|max| L::load(max).reaching(middle).count_ones()).sum();
        if (count as usize) < k {
            high = middle;
        } else {
            low = middle;
            if count as usize <= k + k / 16 {
                break;
            }
        }
    }
    low
}

fn select_plain(x: &[f32], k: usize, out: &mut TopK) -> Option<f32> {
    let mut largest = 0;
    for (i, &x) in x.iter().enumerate() {
        out.keys[i] = key_of(x, i);
        largest = largest.max(magnitude(x));
    }
    if largest >= INFINITE {
        return None;
    }
    out.keep(x.len(), k);
    Some(f32::from_bits(largest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel;
    use crate::reference;
    use crate::simd::Simd;
    use proptest::prelude::*;

    fn check(x: &[f32], k: usize) {
        let values: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let expected: Vec<u16> = reference::topk(&values, k).into_iter().map(|i| i as u16).collect();
        for simd in Simd::available() {
            let mut out = TopK::new();
            let largest = kernel::select(simd, x, k, &mut out).unwrap();
            assert_eq!(&out.indices[..k], expected, "{simd:?}");
            assert_eq!(largest, x.iter().fold(0.0, |m, x| x.abs().max(m)));
        }
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        check(&[1.0; 4096], 32);
        check(&[-0.0; 4096], 32);
        check(&[1.0, -2.0, 2.0, -1.0, 1.0], 3);
        let mut x = [0.5_f32; 4096];
        for i in (0..4096).step_by(64) {
            x[i] = -0.75;
        }
        check(&x, 32);
        check(&x, 64);
        check(&x, 65);
    }

    #[test]
    fn infinities_are_noticed() {
        for bad in [f32::INFINITY, f32::NAN, f32::NEG_INFINITY] {
            for len in [1, 64, 4096] {
                let mut x = vec![1.0; len];
                x[len - 1] = bad;
                assert_eq!(kernel::select(Simd::detect(), &x, 1, &mut TopK::new()), None);
            }
        }
    }

    proptest! {
        #[test]
        fn equals_a_full_sort(seed in any::<u64>(), len in 1..=4096_usize, share in 0.0..=1.0_f64, coarse in any::<bool>()) {
            let mut state = seed;
            let x: Vec<f32> = (0..len).map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let z = (state >> 40) as f32 / 16777216.0 - 0.5;
                if coarse { (z * 20.0).round_ties_even() } else { z * z * z }
            }).collect();
            let k = ((len as f64 * share * share) as usize).clamp(1, len);
            check(&x, k);
        }
    }
}
