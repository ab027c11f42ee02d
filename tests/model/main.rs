//! The LLaMA against independent implementations.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // a test binary

mod candle;
mod golden;
mod gradients;
mod paths;
mod transformers;

use std::sync::{Arc, LazyLock};

use gauntlet_gpu::chosen::Chosen;
use gauntlet_model::engine::cpu::{Cpu, Path};
use gauntlet_model::engine::cuda::{Cuda, FAT_BINARY, Precision};
use gauntlet_model::engine::{Backend, Engine, EngineOptions, Mode, View, ViewMut};
use gauntlet_model::{Layout, LlamaConfig, init};

/// A CPU engine for training, on the best code path.
pub fn engine(config: &LlamaConfig, batch: usize, seq: usize) -> Engine<Cpu> {
    engine_on(Cpu::new(2, Path::Best).unwrap(), config, batch, seq, Mode::Train)
}

pub fn engine_on(cpu: Cpu, config: &LlamaConfig, batch: usize, seq: usize, mode: Mode) -> Engine<Cpu> {
    Engine::new(cpu, config, EngineOptions { batch, seq, mode }).unwrap()
}

/// One for all tests of a process: a GPU takes its time to open, and to load the kernels.
static DEVICE: LazyLock<Arc<Chosen>> = LazyLock::new(|| {
    let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/kernels");
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    Arc::new(Chosen::new(&[&kernels], &[FAT_BINARY], cache).unwrap_or_else(|e| panic!("{e}")))
});

/// The CUDA backend on the emulated device, or on the GPU that `GAUNTLET_TEST_DEVICE` names.
pub fn cuda<P: Precision>() -> Cuda<Chosen, P> {
    Cuda::new(Arc::clone(&DEVICE)).unwrap()
}

/// A buffer as long as θ, on the host.
pub fn download<B: Backend>(engine: &Engine<B>, buf: &B::Buf) -> Vec<f32> {
    let len = engine.layout().total();
    let mut values = vec![0.0; len];
    engine.backend().download(View { buf, start: 0, len }, &mut values).unwrap();
    values
}

/// θ on the engine's device.
pub fn upload<B: Backend>(engine: &Engine<B>, theta: &[f32]) -> B::Buf {
    let mut buf = engine.alloc_params().unwrap();
    let view = ViewMut { buf: &mut buf, start: 0, len: theta.len() };
    engine.backend().upload(theta, view).unwrap();
    buf
}

/// Initial weights, made `gain` times larger so that no gradient is lost in rounding.
pub fn weights(config: &LlamaConfig, seed: u64, gain: f32) -> Vec<f32> {
    let layout = Layout::new(config);
    let mut theta = vec![0.0; layout.total()];
    init::init(&layout, seed, &mut theta);
    for param in layout.params().iter().filter(|p| p.shape.len() == 2) {
        theta[param.range()].iter_mut().for_each(|v| *v *= gain);
    }
    // Norm gains that differ, so that a gain used in the wrong place shows.
    for param in layout.params().iter().filter(|p| p.shape.len() == 1) {
        theta[param.range()].iter_mut().enumerate().for_each(|(i, v)| *v = 0.8 + 0.4 * (i % 7) as f32 / 6.0);
    }
    theta
}

/// Ids and targets of a text nobody wrote; every fifth target does not count.
pub fn tokens(config: &LlamaConfig, n: usize) -> (Vec<u32>, Vec<u32>) {
    let vocab = config.tokenizer_vocab_size as u64;
    let id = |i: u64| {
        (i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33) % vocab
    };
    let ids: Vec<u32> = (0..=n as u64).map(|i| id(i * i + 3 * i) as u32).collect();
    let targets = (0..n).map(|i| if i % 5 == 4 { u32::MAX } else { ids[i + 1] }).collect();
    (ids[..n].to_vec(), targets)
}

/// ‖a − b‖ / ‖b‖.
pub fn difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let top: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let below: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    if below == 0.0 { top.sqrt() } else { (top / below).sqrt() }
}

/// Panics with every tensor whose gradients differ by more than `limit`.
pub fn compare_tensors(what: &str, layout: &Layout, a: &[f32], b: &[f32], limit: f64) {
    let mut worst = (0.0, "");
    let mut bad = Vec::new();
    for param in layout.params() {
        let d = difference(&a[param.range()], &b[param.range()]);
        if d > worst.0 {
            worst = (d, &param.name);
        }
        if d.is_nan() || d > limit {
            bad.push(format!("  {}: {d:.3e}", param.name));
        }
    }
    println!("{what}: largest difference {:.3e} in {}", worst.0, worst.1);
    assert!(bad.is_empty(), "{what}: tensors that differ by more than {limit:e}:\n{}", bad.join("\n"));
}
