//! Every operation's backward pass against differences of its own forward pass, on every code path.
//!
//! With `L(x) = Σ w ⊙ op(x)` for fixed weights `w`, the gradient `g` that the backward pass gives for
//! `dout = w` must satisfy `g·d = (L(x + h·d) − L(x − h·d)) / 2h` for any direction `d`.

use super::simd::{Path, Simd};
use super::*;
use crate::engine::backend::IGNORE;

const PATHS: [Path; 3] = [Path::Best, Path::Avx2, Path::Portable];

/// Values in (−1, 1) that look random.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let mix = |i: u32| {
        (i ^ seed.wrapping_mul(0x9e37_79b9))
            .wrapping_mul(0x85eb_ca6b)
            .rotate_left(13)
            .wrapping_mul(0xc2b2_ae35)
    };
    (0..n as u32).map(|i| (mix(i.wrapping_mul(2_654_435_761)) >> 8) as f32 / 8_388_608.0 - 1.0).collect()
}

fn weighted(out: &[f32], w: &[f32]) -> f64 {
    out.iter().zip(w).map(|(o, w)| f64::from(*o) * f64::from(*w)).sum()
}

/// Compares `gradient` with slopes of `loss` at `x` along several directions.
fn check(what: &str, x: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    const H: f32 = 1e-2;
    for seed in 100..104 {
        let d = values(x.len(), seed);
        let moved = |h: f32| -> Vec<f32> { x.iter().zip(&d).map(|(x, d)| x + h * d).collect() };
        let slope = (loss(&moved(H)) - loss(&moved(-H))) / (2.0 * f64::from(H));
        let expected = weighted(gradient, &d);
        let size = weighted(gradient, gradient).sqrt() * weighted(&d, &d).sqrt();
        assert!(size > 0.0, "{what}: no gradient");
        assert!(
            (slope - expected).abs() < 2e-3 * size,
            "{what}: slope {slope}, gradient {expected}, of {size}"
        );
    }
}

#[test]
fn rms_norm() {
    let (rows, width) = (21, 37);
    let (x, gain, w) = (values(rows * width, 1), values(width, 2), values(rows * width, 3));
    for level in PATHS.map(Simd::new) {
        let forward = |x: &[f32], gain: &[f32]| {
            let (mut rstd, mut out) = (vec![0.0; rows], vec![0.0; rows * width]);
            rms_norm::forward(level, x, gain, 1e-5, &mut rstd, &mut out);
            (rstd, out)
        };
        let (rstd, out) = forward(&x, &gain);
        let mut again = vec![0.0; rows * width];
        rms_norm::again(level, &x, &gain, &rstd, &mut again);
        assert_eq!(again, out);
        let (mut dx, mut dgain) = (vec![0.0; rows * width], vec![f32::NAN; width]);
        rms_norm::backward(level, &x, &gain, &rstd, &w, &mut dx, &mut dgain, Write::Set);
        check("rms_norm x", &x, &dx, |x| weighted(&forward(x, &gain).1, &w));
        check("rms_norm gain", &gain, &dgain, |gain| weighted(&forward(&x, gain).1, &w));
    }
}

#[test]
fn rope_turns_back() {
    let (batch, seq, heads, d) = (2, 9, 3, 10);
    let n = batch * seq * heads * d;
    let angles: Vec<f32> = values(seq * d / 2, 7);
    let table: Vec<f32> = angles.iter().map(|a| a.cos()).chain(angles.iter().map(|a| a.sin())).collect();
    let (x, w) = (values(n, 8), values(n, 9));
    for level in PATHS.map(Simd::new) {
        let turned = |x: &[f32], order| {
            let mut x = x.to_vec();
            rope::rope(level, &mut x, &table, seq, (heads * d, d), order);
            x
        };
        check("rope", &x, &turned(&w, Order::Transposed), |x| weighted(&turned(x, Order::Normal), &w));
        let back = turned(&turned(&x, Order::Normal), Order::Transposed);
        assert!(back.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}

#[test]
fn attention() {
    // Lengths around the block of 64 rows, grouped heads.
    for (batch, seq, n_heads, n_kv_heads, head_dim) in [(2, 5, 2, 2, 8), (1, 64, 4, 2, 6), (1, 131, 3, 1, 16)]
    {
        let heads = Heads { batch, seq, n_heads, n_kv_heads, head_dim };
        let (nq, nk) = (batch * seq * n_heads * head_dim, batch * seq * n_kv_heads * head_dim);
        let (q, k, v, w) = (values(nq, 1), values(nk, 2), values(nk, 3), values(nq, 4));
        for level in PATHS.map(Simd::new) {
            let forward = |q: &[f32], k: &[f32], v: &[f32]| {
                let (mut out, mut lse) = (vec![0.0; nq], vec![0.0; batch * n_heads * seq]);
                attention::forward(level, heads, q, k, v, &mut out, &mut lse);
                (out, lse)
            };
            let (out, lse) = forward(&q, &k, &v);
            let saved = attention::Saved { q: &q, k: &k, v: &v, out: &out, lse: &lse, dout: &w };
            let (mut dq, mut dk, mut dv) = (vec![f32::NAN; nq], vec![f32::NAN; nk], vec![f32::NAN; nk]);
            attention::backward(level, heads, saved, &mut dq, &mut dk, &mut dv);
            check("attention q", &q, &dq, |q| weighted(&forward(q, &k, &v).0, &w));
            check("attention k", &k, &dk, |k| weighted(&forward(&q, k, &v).0, &w));
            check("attention v", &v, &dv, |v| weighted(&forward(&q, &k, v).0, &w));
        }
    }
}

#[test]
fn swiglu() {
    let (rows, width) = (11, 29);
    let (x, w) = (values(rows * 2 * width, 5), values(rows * width, 6));
    for level in PATHS.map(Simd::new) {
        let forward = |x: &[f32]| {
            let mut out = vec![0.0; rows * width];
            super::swiglu::forward(level, width, x, &mut out);
            out
        };
        let (mut dx, mut act) = (x.clone(), w.clone());
        super::swiglu::backward(level, width, &mut dx, &mut act);
        assert_eq!(act, forward(&x), "the forward output is computed again");
        check("swiglu", &x, &dx, |x| weighted(&forward(x), &w));
    }
}

#[test]
fn cross_entropy() {
    let (rows, vocab) = (13, 83);
    let logits: Vec<f32> = values(rows * vocab, 1).iter().map(|z| 4.0 * z).collect();
    let targets: Vec<u32> = (0..rows as u32).map(|i| if i == 3 { IGNORE } else { i * 7 % 83 }).collect();
    for level in PATHS.map(Simd::new) {
        let loss = |z: &[f32]| {
            let mut losses = vec![0.0; rows];
            super::cross_entropy::forward(level, vocab, &targets, z, &mut losses);
            losses
        };
        let (mut dz, mut losses) = (logits.clone(), vec![0.0; rows]);
        super::cross_entropy::backward(level, vocab, &targets, 0.5, &mut dz, &mut losses);
        assert_eq!(losses, loss(&logits));
        assert_eq!(losses[3], 0.0);
        assert!(dz[3 * vocab..4 * vocab].iter().all(|&g| g == 0.0));
        check("cross_entropy", &logits, &dz, |z| 0.5 * loss(z).iter().map(|&l| f64::from(l)).sum::<f64>());
    }
}

#[test]
fn one_nan_among_the_logits_shows_in_loss_and_gradient() {
    let vocab = 83;
    for (level, at) in PATHS.map(Simd::new).into_iter().flat_map(|level| [0, 7, 82].map(|at| (level, at))) {
        let mut z = values(2 * vocab, 1);
        z[at] = f32::NAN;
        let mut losses = [0.0; 2];
        super::cross_entropy::forward(level, vocab, &[1, 2], &z, &mut losses);
        assert_eq!(losses.map(f32::is_nan), [true, false], "loss, NaN at {at}");
        super::cross_entropy::backward(level, vocab, &[1, 2], 1.0, &mut z, &mut losses);
        assert_eq!(losses.map(f32::is_nan), [true, false], "loss again, NaN at {at}");
        assert!(z.iter().enumerate().all(|(i, g)| g.is_nan() == (i < vocab)), "gradient, NaN at {at}");
    }
}

#[test]
fn embedding() {
    let (ids, width, vocab) = ([3u32, 0, 3, 5], 7, 6);
    let (table, w) = (values(vocab * width, 1), values(ids.len() * width, 2));
    let forward = |table: &[f32]| {
        let mut out = vec![0.0; ids.len() * width];
        super::embedding::forward(&ids, table, &mut out);
        out
    };
    let mut dtable = vec![0.0; vocab * width];
    super::embedding::backward(&ids, &w, &mut dtable, width);
    check("embedding", &table, &dtable, |table| weighted(&forward(table), &w));
}

#[test]
fn linear() {
    use crate::engine::{linear, linear_dw, linear_dx};
    let (rows, width_in, width_out) = (40, 130, 220);
    let (x, weight, w) =
        (values(rows * width_in, 1), values(width_in * width_out, 2), values(rows * width_out, 3));
    for level in PATHS.map(Simd::new) {
        let forward = |x: &[f32], weight: &[f32]| {
            let mut out = vec![0.0; rows * width_out];
            matmul::matmul(level, linear(rows, width_in, width_out, Write::Set), x, weight, &mut out);
            out
        };
        let (mut dx, mut dw) = (vec![0.0; rows * width_in], vec![0.0; width_in * width_out]);
        matmul::matmul(level, linear_dx(rows, width_in, width_out, Write::Set), &w, &weight, &mut dx);
        matmul::matmul(level, linear_dw(rows, width_in, width_out, Write::Set), &w, &x, &mut dw);
        check("linear x", &x, &dx, |x| weighted(&forward(x, &weight), &w));
        check("linear weight", &weight, &dw, |weight| weighted(&forward(&x, weight), &w));
    }
}
