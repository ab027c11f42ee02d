//! The inputs of the golden values.

use gauntlet_demo::synthetic::{self, mix};
use gauntlet_demo::{Codebook, Format, Layout, Schedule, Submission, Values, simd::Simd};
use std::sync::Arc;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

// ---- the gather of tests/peers/demo_golden.py

/// Peers of a small gather.
pub(crate) const PEERS: u64 = 5;

/// Seven levels.
pub(crate) fn book() -> Codebook {
    Codebook::new(4, vec![15, 23, 32, 45, 61, 81, 108]).unwrap()
}

/// Odd edges, in two dimensions and one; a vector of 65 chunks, one more than a group; one that nobody sends; one in
/// which peers cancel each other.
pub(crate) fn small_format(book: Codebook, simd: Simd) -> Arc<Format> {
    let shapes = [
        ("a", vec![15, 70]),
        ("b", vec![48]),
        ("c", vec![26, 12]),
        ("d", vec![5]),
        ("e", vec![4160]),
        ("f", vec![9]),
        ("g", vec![128]),
    ];
    Format::with_simd(Layout::from_shapes(shapes).unwrap(), 64, 6, book, simd).unwrap()
}

/// One chunk of the largest edge, with as many entries as a run sends.
pub(crate) fn full_format(simd: Simd) -> Arc<Format> {
    Format::with_simd(Layout::from_shapes([("h", vec![64, 64])]).unwrap(), 64, 32, book(), simd).unwrap()
}

/// What a peer sends, drawn by counters.
pub(crate) fn small_submission(format: &Arc<Format>, window: u64, peer: u64) -> Submission {
    let levels_of_book = format.codebook().levels().to_vec();
    let (mut exponents, mut indices, mut levels) = (Vec::new(), Vec::new(), Vec::new());
    for (tensor, spec) in format.layout().tensors().iter().enumerate() {
        let (grid, name) = (format.grid(tensor).unwrap(), spec.name.as_str());
        let (n, k) = (grid.chunk_len() as u64, format.topk().min(grid.chunk_len()));
        for chunk in 0..grid.chunks() as u64 {
            let mut counter = mix(window << 48 | peer << 40 | (tensor as u64) << 32 | chunk << 16);
            let mut draw = |limit: u64| {
                counter = counter.wrapping_add(1);
                mix(counter) % limit
            };
            if name == "g" && peer / 2 < 2 {
                let (exponent, chosen, values) =
                    opposed_chunk(&levels_of_book, window, peer, chunk, k as u64);
                exponents.push(exponent);
                indices.extend(chosen);
                levels.extend(values);
                continue;
            }
            if ["f", "g"].contains(&name) || draw(5) == 0 {
                exponents.push(gauntlet_demo::submission::EMPTY);
                indices.extend(vec![0; k]);
                levels.extend(vec![0; k]);
                continue;
            }
            let strong = if peer == 4 && chunk == 0 { 20 } else { 0 };
            exponents.push(draw(18) as i16 - 9 + strong);
            let mut left = k as u64;
            for i in 0..n {
                if draw(n - i) < left {
                    indices.push(i as u16);
                    left -= 1;
                }
            }
            for i in 0..k {
                let level = match format.codebook().bits() {
                    1 => levels_of_book[0],
                    _ if draw(7) == 0 && i > 0 => 0,
                    _ => levels_of_book[draw(7) as usize],
                };
                levels.push(if draw(2) == 1 { -level } else { level });
            }
        }
    }
    Submission::new(Arc::clone(format), exponents, indices, Values::Levels(levels)).unwrap()
}

/// Two pairs of peers who send the opposite of each other, each pair strong in one chunk. The cap leaves next to nothing of
/// the strong pair: they cancel only if both signs are cut alike.
fn opposed_chunk(book: &[i8], window: u64, peer: u64, chunk: u64, k: u64) -> (i16, Vec<u16>, Vec<i8>) {
    let pair = peer / 2;
    let counter = mix(window << 48 | pair << 40 | 6 << 32 | chunk << 16);
    let strong = pair == chunk;
    let level = |i: u64| {
        let level = book[(usize::from(strong) * 4 + (counter >> i) as usize % 2) % book.len()];
        if (counter >> (32 + i)) % 2 == peer % 2 { level } else { -level }
    };
    let indices = (0..k).map(|i| (counter % 8 + 9 * i + chunk) as u16).collect();
    (if strong { 0 } else { -14 }, indices, (0..k).map(level).collect())
}

/// What every θ must survive: huge, subnormal, zeros of both signs.
const EXTREMES: [f32; 7] =
    [1e38, f32::MIN, f32::from_bits(1), f32::from_bits(0x807f_ffff), f32::MIN_POSITIVE, -0.0, 0.0];

/// θ before its first window.
pub(crate) fn small_theta(format: &Format) -> Vec<f32> {
    let mut theta: Vec<f32> = (0..format.layout().len() as u64)
        .map(|i| ((mix(i) >> 40) as f32 - 8_388_608.0) / 16_777_216.0)
        .collect();
    for tensor in format.layout().tensors().iter().filter(|tensor| ["a", "f"].contains(&tensor.name.as_str()))
    {
        theta[tensor.range()][..EXTREMES.len()].copy_from_slice(&EXTREMES);
    }
    theta
}

/// BLAKE3 of Δ, chunk by chunk, zeros without sign.
pub(crate) fn delta_hash(format: &Format, delta: &[f32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (number, tensor) in format.layout().tensors().iter().enumerate() {
        let grid = format.grid(number).unwrap();
        for chunk in 0..grid.chunks() {
            for at in gauntlet_demo::reference::positions(&grid, chunk) {
                hasher.update(&(delta[tensor.range()][at] + 0.0).to_le_bytes());
            }
        }
    }
    *hasher.finalize().as_bytes()
}

// ---- fifty windows from gradients on

/// Rates of the fifty windows.
pub(crate) const FIFTY_SCHEDULE: Schedule = Schedule { peak: 0.01, warmup: 5, t_max: 40, floor: 0.1 };

/// Six tensors, some of them extreme.
pub(crate) fn fifty_format(simd: Simd) -> Arc<Format> {
    let shapes = [
        ("embed", vec![64, 64]),
        ("extreme", vec![64, 26]),
        ("norm", vec![96]),
        ("odd", vec![45, 27]),
        ("silent", vec![64]),
        ("subnormal", vec![26, 64]),
    ];
    let layout = Layout::from_shapes(shapes).unwrap();
    Format::with_simd(layout, 64, 8, book(), simd).unwrap()
}

/// θ before the first window.
pub(crate) fn fifty_theta(format: &Format) -> Vec<f32> {
    (0..format.layout().len() as u64).map(|i| 0.02 * synthetic::normal(i)).collect()
}

/// A peer's gradient.
pub(crate) fn fifty_gradient(format: &Format, window: u64, peer: u64, grads: &mut [f32]) {
    synthetic::gradient(format.layout(), window, peer, grads);
    for tensor in format.layout().tensors() {
        let scale = match tensor.name.as_str() {
            // 2¹⁰⁰ and 2⁻¹²²: sums far up, momenta around and among the subnormals.
            "extreme" => 1_267_650_600_228_229_401_496_703_205_376.0,
            "subnormal" => 16.0 * f32::MIN_POSITIVE,
            "silent" => 0.0,
            _ => 1.0,
        };
        grads[tensor.range()].iter_mut().for_each(|g| *g *= scale);
    }
}

// ---- tensors that are cut into several pieces for the threads

/// A matrix of three pieces and a vector of two.
pub(crate) fn large_format(simd: Simd) -> Arc<Format> {
    let shapes = [("matrix", vec![192, 1408]), ("vector", vec![70_000])];
    Format::with_simd(Layout::from_shapes(shapes).unwrap(), 64, 32, Codebook::with_bits(3).unwrap(), simd)
        .unwrap()
}
