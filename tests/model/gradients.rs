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

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    // In f32 a difference of losses has about 1e-6 of noise, so the check moves θ along a direction
    // of each tensor, where the slope is large, and compares the two to a percent.
    for (config, batch, seq) in shapes() {
        let theta = weights(&config, 7, 5.0);
        let (ids, targets) = tokens(&config, batch * seq);
        let b = Batch { tokens: &ids, targets: &targets, batch, seq };
        let mut engine = engine(&config, batch, seq);
        let device = upload(&engine, &theta);
        let mut grads = engine.alloc_params().unwrap();
        engine.loss_and_grad(&device, &mut grads, b, 1.0, Write::Set).unwrap();
        for p in Layout::new(&config).params() {
            let norm = grads[p.range()].iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
            let step = 2e-3 / norm.max(1.0) * grads[p.range()].len() as f64 / 100.0_f64.max(p.len as f64);
            let mut loss_at = |sign: f64| {
                let mut moved = theta.clone();
                for (v, g) in moved[p.range()].iter_mut().zip(&grads[p.range()]) {
                    *v += (sign * step * f64::from(*g) / norm * norm.max(1.0)) as f32;
                }
                let moved = upload(&engine, &moved);
                engine.loss(&moved, b).unwrap().sum
            };
            let distance = 2.0 * step * norm.max(1.0);
            let slope = (loss_at(1.0) - loss_at(-1.0)) / distance;
            assert!((slope / norm - 1.0).abs() < 0.02, "{}: slope {slope:.5e}, gradient {norm:.5e}", p.name);
        }
    }
}
