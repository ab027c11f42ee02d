//! Inputs drawn afresh: shapes that do not fit, gradients and submissions at the ends of what f32 can say.

use gauntlet_demo::synthetic::{mix, normal};
use gauntlet_demo::{Codebook, Format, Layout, Submission, Values, submission::EMPTY};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// A new seed, or the one of `GAUNTLET_TEST_SEED`.
pub(crate) fn seed() -> u64 {
    match std::env::var("GAUNTLET_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(0_u8) >> 20,
    }
}

/// Tensors t00, t01, …
pub(crate) fn odd_format(shapes: &[Vec<usize>], topk: usize, book: Codebook) -> Arc<Format> {
    let named = shapes.iter().enumerate().map(|(i, shape)| (format!("t{i:02}"), shape.clone()));
    Format::new(Layout::from_shapes(named).unwrap(), 64, topk, book).unwrap()
}

/// Shapes, k and codes: full chunks, odd edges and offsets, vectors, single elements; a few entries, all, in between.
pub(crate) fn formats() -> Vec<(Vec<Vec<usize>>, usize, Codebook)> {
    let book = |bits| Codebook::with_bits(bits).unwrap();
    vec![
        (vec![vec![128, 192], vec![64]], 32, book(3)),
        (vec![vec![15, 70], vec![64, 64], vec![26, 12]], 6, book(4)),
        (vec![vec![5], vec![1], vec![67], vec![130]], 32, book(2)),
        (vec![vec![63, 61], vec![2, 3], vec![64, 64]], 64, book(8)),
        (vec![vec![64, 36], vec![36, 64], vec![1, 64], vec![64, 1], vec![1, 1]], 5, book(1)),
        (vec![vec![64, 64], vec![48, 33]], 200, book(3)),
        (vec![vec![64, 64], vec![7, 9]], 4096, book(4)),
        (vec![vec![3], vec![128, 64]], 1, book(1)),
        // Codes far from their values, which subtraction would overshoot.
        (vec![vec![64, 40], vec![48, 33]], 200, book(1)),
        // Chunks of two elements: more of them than are summed at a time, of any strength.
        (vec![vec![662], vec![64]], 2, book(8)),
    ]
}

/// A gradient whose tensors are each of another kind in each window.
pub(crate) fn gradient(layout: &Layout, seed: u64, window: u64) -> Vec<f32> {
    let mut out = vec![0.0; layout.len()];
    for (number, tensor) in (0..).zip(layout.tensors()) {
        let from = mix(seed ^ window << 40 ^ number << 50);
        let kind = (window + number + seed) % 10;
        for (i, x) in (0..).zip(&mut out[tensor.range()]) {
            let z = normal(from.wrapping_add(i));
            *x = match kind {
                0 => 0.0,
                // Up to 2¹²⁶ after the transform.
                1 => z * power_of_two(118),
                2 => z * f32::MIN_POSITIVE,
                // Mostly below the normal numbers.
                3 => f32::from_bits((mix(from ^ i) % 2000) as u32 | ((i % 2) as u32) << 31),
                4 => (z * 2.0).round_ties_even(),
                5 => 1.0,
                6 if mix(from ^ i).is_multiple_of(97) => z,
                6 => -0.0,
                // From 2⁻⁶⁰ to 2⁶⁰ in one tensor.
                7 => z * power_of_two((mix(from ^ i) % 121) as i32 - 60),
                8 => z * power_of_two((mix(from ^ i) % 12) as i32),
                _ => z * z * z,
            };
        }
    }
    out
}

/// 2^n of a normal f32.
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((127 + n).cast_unsigned() << 23)
}

/// What a peer might send: chunks of any strength, some empty, some with entries that are not sent.
pub(crate) fn submission(format: &Arc<Format>, seed: u64, peer: u64) -> Submission {
    let book = format.codebook();
    let (mut exponents, mut indices, mut levels) = (Vec::new(), Vec::new(), Vec::new());
    for tensor in 0..format.layout().tensors().len() {
        let grid = format.grid(tensor).unwrap();
        let (n, k) = (grid.chunk_len() as u64, format.topk().min(grid.chunk_len()));
        // In some tensors chunks lie far apart, in some all are near, in some at the ends of i8.
        let span = [1, 4, 20, 40][(mix(seed ^ tensor as u64) % 4) as usize];
        for chunk in 0..grid.chunks() as u64 {
            let mut counter = mix(mix(seed) ^ (tensor as u64) << 32 ^ chunk << 16);
            let mut draw = |limit: u64| {
                counter = counter.wrapping_add(1);
                mix(counter) % limit
            };
            if draw(6) == 0 {
                exponents.push(EMPTY);
                indices.extend(vec![0; k]);
                levels.extend(vec![0; k]);
                continue;
            }
            let strong = if draw(4) == 0 { 6 } else { 0 };
            exponents.push(
                (draw(span) as i16 + strong - if peer.is_multiple_of(2) { 128 } else { 3 }).clamp(-128, 127),
            );
            let mut left = k as u64;
            for i in 0..n {
                if draw(n - i) < left {
                    indices.push(i as u16);
                    left -= 1;
                }
            }
            for i in 0..k {
                let level = book.levels()[draw(book.levels().len() as u64) as usize];
                let level = if book.bits() > 1 && i > 0 && draw(5) == 0 { 0 } else { level };
                levels.push(if draw(2) == 1 { -level } else { level });
            }
        }
    }
    Submission::new(Arc::clone(format), exponents, indices, Values::Levels(levels)).unwrap()
}

/// The same with all signs turned.
pub(crate) fn negated(sent: &Submission) -> Submission {
    let Values::Levels(levels) = sent.values() else { panic!("levels") };
    let (exponents, indices) = (sent.exponents().to_vec(), sent.indices().to_vec());
    let levels = levels.iter().map(|level| -level).collect();
    Submission::new(Arc::clone(sent.format()), exponents, indices, Values::Levels(levels)).unwrap()
}
