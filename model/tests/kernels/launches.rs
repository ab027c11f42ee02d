//! How much a step asks of a device: bounds on launches, copies and waits, so that none of them creeps.
//!
//! A launch costs the host a few microseconds: as long as the kernels of a layer take longer than that many launches, a
//! step is not launch-bound.

use gauntlet_gpu::{Counts, Device};
use gauntlet_model::engine::cuda::{Bf16, F32, Precision};
use gauntlet_model::engine::{AdamW, Batch, Engine, EngineOptions, Mode, Write};
use gauntlet_model::{LlamaConfig, preset};

use super::cuda;

/// Forward 12, backward 23.
const LAYER: u64 = 35;
/// Forward once more, without its last product, where activations are computed again.
const LAYER_AGAIN: u64 = 11;
/// Products of a layer, by the library or our own: forward 6, backward 12; forward once more 5.
const LAYER_PRODUCTS: u64 = 18;
const LAYER_PRODUCTS_AGAIN: u64 = 5;
/// Both residual additions of a layer begin with a copy, of which one is made again.
const LAYER_COPIES: u64 = 2;
/// Token losses, and the gradient's norm.
const WAITS: u64 = 2;
/// Embedding and its gradient, final norm and its gradient (2), loss (5 a chunk of rows, here 2), rounding of weights, norm
/// of the gradient (2), AdamW.
const STEP: u64 = 19;

/// What one step asks for, after one that sets scratch up.
fn step<P: Precision>(n_layers: usize, mode: Mode) -> Counts {
    let config = LlamaConfig {
        vocab_size: 64,
        tokenizer_vocab_size: 61,
        hidden_size: 32,
        intermediate_size: 48,
        n_layers,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 16,
        ..preset("byte-1m").unwrap()
    };
    let mut engine = Engine::new(cuda::<P>(), &config, EngineOptions { batch: 2, seq: 8, mode }).unwrap();
    let [mut theta, mut grads, mut m, mut v] = [(); 4].map(|()| engine.alloc_params().unwrap());
    let ids: Vec<u32> = (0..17).collect();
    let mut counts = Counts::default();
    for i in 1..=2 {
        let before = engine.backend().device().counts();
        let batch = Batch { tokens: &ids[..16], targets: &ids[1..], batch: 2, seq: 8 };
        engine.loss_and_grad(&theta, &mut grads, batch, 1.0 / 16.0, Write::Set).unwrap();
        let (lr, beta1, beta2, eps, weight_decay) = (1e-3, 0.9, 0.95, 1e-8, 0.1);
        let adamw = AdamW { lr, beta1, beta2, eps, weight_decay, step: i, grad_scale: 1.0 };
        engine.adamw(adamw, Some(1.0), &grads, &mut theta, (&mut m, &mut v)).unwrap();
        counts = engine.backend().device().counts() - before;
    }
    counts
}

fn bounds<P: Precision>() {
    for (mode, layer) in [(Mode::Train, LAYER), (Mode::TrainRecompute, LAYER + LAYER_AGAIN)] {
        let [two, three] = [2, 3].map(|n_layers| step::<P>(n_layers, mode));
        let each = three - two;
        println!("{mode:?}: a layer {each:?}, two layers {two:?}");
        assert!(two.launches > 0 && each.launches > 0);
        assert!(each.launches <= layer, "{mode:?}: {} launches a layer, at most {layer}", each.launches);
        assert!(two.launches <= 2 * layer + STEP, "{mode:?}: {} launches, two layers", two.launches);
        let again = if mode == Mode::TrainRecompute { LAYER_PRODUCTS_AGAIN } else { 0 };
        assert_eq!(each.library_products + each.own_products, LAYER_PRODUCTS + again, "{mode:?}");
        let copies = LAYER_COPIES + u64::from(mode == Mode::TrainRecompute);
        assert!(each.copies <= copies, "{mode:?}: {} copies a layer, at most {copies}", each.copies);
        assert_eq!((three.waits, each.waits), (WAITS, 0), "{mode:?}");
    }
}

#[test]
fn a_step_in_f32_asks_for_no_more_than_it_must() {
    bounds::<F32>();
}

#[test]
fn a_step_in_bf16_asks_for_no_more_than_it_must() {
    bounds::<Bf16>();
}
