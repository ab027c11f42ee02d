//! Whole passes of the engine on the emulated device, beside the CPU's, which golden values hold.

use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use gauntlet_model::engine::cuda::{Bf16, F32, Precision};
use gauntlet_model::engine::{
    AdamW, Backend, Batch, Collective, Engine, EngineOptions, HostSum, IGNORE, Mode, View, ViewMut, Write,
};
use gauntlet_model::{Layout, LlamaConfig, init, preset};

use super::{Random, close, cuda, get, put, wide};

const BATCH: usize = 2;
const SEQ: usize = 21;

fn config(tied: bool) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 128,
        tokenizer_vocab_size: 101,
        hidden_size: 64,
        intermediate_size: 96,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 16,
        tie_word_embeddings: tied,
        ..preset("byte-1m").unwrap()
    }
}

struct Trained {
    losses: Vec<f32>,
    grads: Vec<f32>,
    norm: f64,
    theta: Vec<f32>,
}

/// Two accumulated passes and one step of AdamW.
fn train<B: Backend>(backend: B, config: &LlamaConfig, mode: Mode, theta: &[f32], ids: &[u32]) -> Trained {
    let n = BATCH * SEQ;
    let mut engine = Engine::new(backend, config, EngineOptions { batch: BATCH, seq: SEQ, mode }).unwrap();
    let len = engine.layout().total();
    let mut params = engine.alloc_params().unwrap();
    engine.backend().upload(theta, ViewMut { buf: &mut params, start: 0, len }).unwrap();
    let [mut grads, mut m, mut v] = [(); 3].map(|()| engine.alloc_params().unwrap());
    engine.backend().upload(&vec![f32::NAN; len], ViewMut { buf: &mut grads, start: 0, len }).unwrap();
    let mut targets = ids[1..=2 * n].to_vec();
    targets[3] = IGNORE;
    let mut losses = Vec::new();
    for (i, write) in [Write::Set, Write::Add].into_iter().enumerate() {
        let (tokens, targets) = (&ids[i * n..][..n], &targets[i * n..][..n]);
        let batch = Batch { tokens, targets, batch: BATCH, seq: SEQ };
        let sum = engine.loss(&params, batch).unwrap();
        let scale = 1.0 / (2.0 * n as f32);
        assert_eq!(sum, engine.loss_and_grad(&params, &mut grads, batch, scale, write).unwrap());
        losses.extend_from_slice(engine.token_losses());
    }
    let mut out = vec![0.0; len];
    engine.backend().download(View { buf: &grads, start: 0, len }, &mut out).unwrap();
    let step =
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1, grad_scale: 1.0 };
    let norm = engine.adamw(step, Some(0.1), &grads, &mut params, (&mut m, &mut v)).unwrap();
    let mut moved = vec![0.0; len];
    engine.backend().download(View { buf: &params, start: 0, len }, &mut moved).unwrap();
    Trained { losses, grads: out, norm, theta: moved }
}

fn start(config: &LlamaConfig, random: &mut Random) -> (Vec<f32>, Vec<u32>) {
    let layout = Layout::new(config);
    let mut theta = vec![0.0; layout.total()];
    init::init(&layout, random.word(), &mut theta);
    // Larger than trained weights, so that no gradient drowns in rounding.
    for param in layout.params().iter().filter(|p| p.shape.len() == 2) {
        theta[param.range()].iter_mut().for_each(|v| *v *= 4.0);
    }
    (theta, random.ids(2 * BATCH * SEQ + 1, config.tokenizer_vocab_size as u64))
}

fn compare<P: Precision>(tied: bool, limit: f64) {
    let (config, mut random) = (config(tied), Random::fresh());
    let (theta, ids) = start(&config, &mut random);
    let cpu = train(Cpu::new(1, CodePath::Best).unwrap(), &config, Mode::Train, &theta, &ids);
    let gpu = train(cuda::<P>(), &config, Mode::Train, &theta, &ids);
    close("losses", &gpu.losses, &wide(&cpu.losses), limit);
    for param in Layout::new(&config).params() {
        close(&param.name, &gpu.grads[param.range()], &wide(&cpu.grads[param.range()]), limit);
    }
    assert!((gpu.norm / cpu.norm - 1.0).abs() < limit, "{} {}", gpu.norm, cpu.norm);
    let again = train(cuda::<P>(), &config, Mode::TrainRecompute, &theta, &ids);
    assert_eq!(again.losses, gpu.losses, "recomputed activations are the same bits");
    assert_eq!(again.grads, gpu.grads);
    assert_eq!(again.theta, gpu.theta);
}

#[test]
fn f32_as_the_cpu() {
    compare::<F32>(false, 1e-4);
}

#[test]
fn f32_with_tied_embeddings() {
    compare::<F32>(true, 1e-4);
}

#[test]
fn bf16_as_the_cpu() {
    compare::<Bf16>(false, 3e-2);
}

/// More values than a block of the sum, on three devices.
#[test]
fn devices_add_up_in_their_order_and_take_over_the_first_ones_values() {
    let (devices, mut random) = ([(); 3].map(|()| cuda::<Bf16>()), Random::fresh());
    let len = (1 << 20) + 77;
    let values: Vec<Vec<f32>> = (0..3).map(|_| random.values(len, 3.0)).collect();
    let mut bufs: Vec<_> = devices.iter().zip(&values).map(|(cuda, values)| put(cuda, values)).collect();
    let mut members: Vec<_> = devices.iter().zip(&mut bufs).collect();
    HostSum.all_reduce(&mut members, len - 1).unwrap();
    let sum: Vec<f32> = (0..len - 1).map(|i| values[0][i] + values[1][i] + values[2][i]).collect();
    for (cuda, buf) in &members {
        let held = get(cuda, buf);
        assert!(held[..len - 1] == sum);
    }
    for ((cuda, buf), values) in members.iter().zip(&values) {
        assert_eq!(get(cuda, buf)[len - 1], values[len - 1], "what lies behind is untouched");
    }
    HostSum.broadcast(&mut members, len).unwrap();
    for (cuda, buf) in &members {
        assert!(get(cuda, buf)[len - 1] == values[0][len - 1]);
    }
}
