//! Gradients of every shape the model can take: no parameter without one, the engine against the
//! candle model, and both against differences of losses.

use gauntlet_model::engine::cpu::{Cpu, Path};
use gauntlet_model::engine::{Batch, Mode, Write};
use gauntlet_model::{Layout, LlamaConfig, preset};

use crate::candle::CandleModel;
use crate::{compare_tensors, engine, engine_on, tokens, upload, weights};

fn base() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 64,
        tokenizer_vocab_size: 50,
        hidden_size: 48,
        intermediate_size: 80,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 4,
        head_dim: 12,
        ..preset("byte-1m").unwrap()
    }
}

/// MHA, GQA and MQA, tied and untied, head widths that do not divide the hidden size, odd lengths.
fn shapes() -> Vec<(LlamaConfig, usize, usize)> {
    let gqa = LlamaConfig { n_kv_heads: 2, tie_word_embeddings: true, ..base() };
    let mqa = LlamaConfig { n_kv_heads: 1, head_dim: 20, n_layers: 1, ..base() };
    let odd = LlamaConfig { hidden_size: 37, intermediate_size: 53, head_dim: 6, ..base() };
    vec![(base(), 2, 70), (gqa, 3, 33), (mqa, 1, 129), (odd, 2, 5)]
}

#[test]
fn engine_equals_candle_model_and_every_parameter_has_a_gradient() {
    for (config, batch, seq) in shapes() {
        let theta = weights(&config, 11, 5.0);
        let (ids, targets) = tokens(&config, batch * seq);
        let (loss, expected) = CandleModel::new(&config, &theta).loss_and_grad(&ids, &targets, batch, seq);
        let mut engine = engine(&config, batch, seq);
        let device = upload(&engine, &theta);
        let mut grads = engine.alloc_params().unwrap();
        let counted = targets.iter().filter(|&&t| t != u32::MAX).count();
        let b = Batch { tokens: &ids, targets: &targets, batch, seq };
        let got = engine.loss_and_grad(&device, &mut grads, b, 1.0 / counted as f32, Write::Set).unwrap();
        assert!((got.mean() / loss - 1.0).abs() < 2e-6, "{} {loss}", got.mean());
        compare_tensors("engine against candle", &Layout::new(&config), &grads, &expected, 1e-5);
        for p in Layout::new(&config).params() {
            assert!(grads[p.range()].iter().any(|&g| g != 0.0), "{} has no gradient", p.name);
        }
    }
}

#[test]
fn accumulated_gradients_are_the_gradients_of_the_whole_batch() {
    let (config, seq) = (LlamaConfig { tie_word_embeddings: true, ..base() }, 40);
    let theta = weights(&config, 2, 5.0);
    let (ids, targets) = tokens(&config, 4 * seq);
    let mut whole = engine(&config, 4, seq);
    let device = upload(&whole, &theta);
    let (mut once, mut parts) = (whole.alloc_params().unwrap(), whole.alloc_params().unwrap());
    parts.fill(f32::NAN); // Write::Set must not read what was there
    let b = Batch { tokens: &ids, targets: &targets, batch: 4, seq };
    let sum = whole.loss_and_grad(&device, &mut once, b, 0.01, Write::Set).unwrap();
    let mut accumulated = gauntlet_model::engine::LossSum::default();
    for (i, (ids, targets)) in ids.chunks(2 * seq).zip(targets.chunks(2 * seq)).enumerate() {
        let b = Batch { tokens: ids, targets, batch: 2, seq };
        let write = if i == 0 { Write::Set } else { Write::Add };
        accumulated += whole.loss_and_grad(&device, &mut parts, b, 0.01, write).unwrap();
    }
    assert_eq!(accumulated.count, sum.count);
    assert!((accumulated.sum / sum.sum - 1.0).abs() < 1e-6);
    compare_tensors("accumulated", &Layout::new(&config), &parts, &once, 2e-6);
}

#[test]
fn recomputing_activations_gives_the_same_bits() {
    let (config, seq) = (LlamaConfig { n_layers: 3, ..base() }, 50);
    let theta = weights(&config, 4, 5.0);
    let (ids, targets) = tokens(&config, 2 * seq);
    let run = |mode| {
        let mut engine = engine_on(Cpu::new(2, Path::Best).unwrap(), &config, 2, seq, mode);
        let device = upload(&engine, &theta);
        let mut grads = engine.alloc_params().unwrap();
        let b = Batch { tokens: &ids, targets: &targets, batch: 2, seq };
        engine.loss_and_grad(&device, &mut grads, b, 0.1, Write::Set).unwrap();
        grads.to_vec()
    };
    assert_eq!(run(Mode::Train), run(Mode::TrainRecompute));
}

/// In f32 a difference of losses has about 1e-6 of noise, so θ moves along directions of a whole tensor: its gradient,
/// where the slope is large and compared to two percent, and random signs. Of a gradient g with an error e the first
/// shows what e changes of its length; the second shows e itself, whose part in a random direction is |e|/√n, so that a
/// fiftieth of |g|/√n is allowed there.
#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let mut worst = (0.0, String::new());
    for (config, batch, seq) in shapes() {
        let theta = weights(&config, 7, 5.0);
        let (ids, targets) = tokens(&config, batch * seq);
        let b = Batch { tokens: &ids, targets: &targets, batch, seq };
        let mut engine = engine(&config, batch, seq);
        let device = upload(&engine, &theta);
        let mut grads = engine.alloc_params().unwrap();
        engine.loss_and_grad(&device, &mut grads, b, 1.0, Write::Set).unwrap();
        for p in Layout::new(&config).params() {
            let gradient: Vec<f64> = grads[p.range()].iter().map(|&g| f64::from(g)).collect();
            let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            let norm = length(&gradient);
            // The slope of the loss along `direction`, of length 1, by going `distance` both ways.
            let mut slope = |direction: &[f64], distance: f64| {
                let mut loss_at = |distance: f64| {
                    let mut moved = theta.clone();
                    for (v, d) in moved[p.range()].iter_mut().zip(direction) {
                        *v += (distance * d) as f32;
                    }
                    let moved = upload(&engine, &moved);
                    engine.loss(&moved, b).unwrap().sum
                };
                (loss_at(distance) - loss_at(-distance)) / (2.0 * distance)
            };
            let steepest: Vec<f64> = gradient.iter().map(|g| g / norm).collect();
            let along = slope(&steepest, 2e-3 * p.len as f64 / 100.0_f64.max(p.len as f64));
            assert!((along / norm - 1.0).abs() < 0.02, "{}: slope {along:.5e}, gradient {norm:.5e}", p.name);

            let root = (p.len as f64).sqrt();
            for seed in 0..3 {
                let signs: Vec<f64> = (0..p.len).map(|i| sign(seed, i) / root).collect();
                let expected: f64 = gradient.iter().zip(&signs).map(|(g, s)| g * s).sum();
                let found = slope(&signs, EACH * root);
                let error = (found - expected).abs() * root / norm;
                assert!(error < 0.02, "{}, signs {seed}: slope {found:.5e}, gradient {expected:.5e}", p.name);
                if error > worst.0 {
                    worst = (error, p.name.clone());
                }
            }
        }
    }
    println!("random directions: largest error {:.1e} of |g|/√n, in {}", worst.0, worst.1);
}

/// How far each value of a tensor moves in a random direction.
const EACH: f64 = 2e-3;

/// A sign that looks random (SplitMix64).
fn sign(seed: u64, i: usize) -> f64 {
    let z = (seed << 40 | i as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    if (z ^ (z >> 27)) >> 63 == 0 { 1.0 } else { -1.0 }
}
