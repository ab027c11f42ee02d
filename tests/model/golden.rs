//! Golden values of transformers' `LlamaForCausalLM` in float64: logits, loss, every gradient and ten
//! AdamW losses, for the candle model and the engine. Every folder under `GAUNTLET_GOLDEN` (default
//! `tests/vectors/llama`) is tested; a new one needs no code.

use std::path::{Path, PathBuf};

use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use gauntlet_model::engine::{
    AdamW, Backend, Batch, Engine, EngineOptions, IGNORE, Mode, Write, cuda as gpu,
};
use gauntlet_model::{Layout, LlamaConfig, weights};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::candle::CandleModel;
use crate::{compare_tensors, cuda, difference, download, engine, upload};

/// Relative differences that are allowed.
struct Limits {
    logits: f64,
    loss: f64,
    gradient: f64,
}

/// The CPU's, and the candle model's.
const F32: Limits = Limits { logits: 5e-6, loss: 1e-6, gradient: 1e-5 };
/// A GPU's, whose products may sum in another order.
const CUDA_F32: Limits = Limits { logits: 1e-4, loss: 1e-5, gradient: 1e-4 };
/// bf16 keeps 8 bits of a value.
const CUDA_BF16: Limits = Limits { logits: 3e-2, loss: 1e-2, gradient: 5e-2 };

struct Golden {
    name: String,
    config: LlamaConfig,
    theta: Vec<f32>,
    ids: Vec<u32>,
    targets: Vec<u32>,
    batch: usize,
    seq: usize,
    logits: Vec<f32>,
    grads: Vec<f32>,
    json: Value,
}

fn folders() -> Vec<PathBuf> {
    let root = gauntlet_tests::vectors("GAUNTLET_GOLDEN", "vectors/llama");
    let entries = std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut all: Vec<_> = entries.map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    all.sort();
    assert!(!all.is_empty(), "no golden folders under {}", root.display());
    all
}

fn load(folder: &Path) -> Golden {
    let config = LlamaConfig::read(&folder.join("config.json")).unwrap();
    let layout = Layout::new(&config);
    let mut theta = vec![0.0; layout.total()];
    weights::read(&folder.join("model.safetensors"), &layout, &mut theta).unwrap();
    let bytes = std::fs::read(folder.join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f32> {
        let t = golden.tensor(name).unwrap();
        t.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let ints = |name: &str| -> Vec<i32> {
        let t = golden.tensor(name).unwrap();
        t.data().as_chunks::<4>().0.iter().map(|b| i32::from_le_bytes(*b)).collect()
    };
    let shape = golden.tensor("input_ids").unwrap().shape().to_vec();
    let (batch, seq) = (shape[0], shape[1]);
    // Labels are shifted inside the original: position t predicts label t + 1.
    let labels = ints("labels");
    let targets = (0..batch * seq)
        .map(|i| if (i + 1) % seq == 0 || labels[i + 1] < 0 { IGNORE } else { labels[i + 1] as u32 })
        .collect();
    let mut grads = vec![0.0; layout.total()];
    for p in layout.params() {
        grads[p.range()].copy_from_slice(&floats(&format!("grad.{}", p.name)));
    }
    Golden {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        json: serde_json::from_slice(&std::fs::read(folder.join("golden.json")).unwrap()).unwrap(),
        ids: ints("input_ids").into_iter().map(|id| id as u32).collect(),
        logits: floats("logits"),
        config,
        theta,
        targets,
        batch,
        seq,
        grads,
    }
}

impl Golden {
    fn batch(&self) -> Batch<'_> {
        Batch { tokens: &self.ids, targets: &self.targets, batch: self.batch, seq: self.seq }
    }

    fn counted(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORE).count()
    }

    fn number(&self, path: &str) -> f64 {
        self.json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{}: no {path}", self.name))
    }

    fn check(&self, who: &str, limits: &Limits, logits: &[f32], loss: f64, grads: &[f32]) {
        let name = format!("{} ({who})", self.name);
        let d = difference(logits, &self.logits);
        println!("{name}: logits differ by {d:.3e}");
        assert!(d <= limits.logits, "{name}: logits differ by {d:e}, allowed {:e}", limits.logits);
        let expected = self.number("/loss");
        let d = (loss - expected).abs() / expected;
        println!("{name}: loss differs by {d:.3e}");
        assert!(d <= limits.loss, "{name}: loss {loss} instead of {expected}");
        compare_tensors(
            &format!("{name}: gradients"),
            &Layout::new(&self.config),
            grads,
            &self.grads,
            limits.gradient,
        );
    }
}

#[test]
fn candle_model() {
    for g in folders().iter().map(|f| load(f)) {
        let model = CandleModel::new(&g.config, &g.theta);
        let (loss, grads) = model.loss_and_grad(&g.ids, &g.targets, g.batch, g.seq);
        g.check("candle", &F32, &model.logits(&g.ids, g.batch, g.seq), loss, &grads);
    }
}

fn states<B: Backend>(who: &str, limits: &Limits, backend: impl Fn() -> B) {
    for g in folders().iter().map(|f| load(f)) {
        let options = EngineOptions { batch: g.batch, seq: g.seq, mode: Mode::Train };
        let mut engine = Engine::new(backend(), &g.config, options).unwrap();
        let theta = upload(&engine, &g.theta);
        let logits = engine.logits(&theta, &g.ids, (g.batch, g.seq)).unwrap();
        let mut grads = engine.alloc_params().unwrap();
        let scale = 1.0 / g.counted() as f32;
        let loss = engine.loss_and_grad(&theta, &mut grads, g.batch(), scale, Write::Set).unwrap();
        assert_eq!(loss.count, g.counted());
        g.check(who, limits, &logits, loss.mean(), &download(&engine, &grads));
        // The same losses without gradients.
        assert_eq!(engine.loss(&theta, g.batch()).unwrap(), loss);
    }
}

#[test]
fn engine_states() {
    states("engine", &F32, || Cpu::new(2, CodePath::Best).unwrap());
}

#[test]
fn cuda_states() {
    states("cuda f32", &CUDA_F32, cuda::<gpu::F32>);
    states("cuda bf16", &CUDA_BF16, cuda::<gpu::Bf16>);
}

#[test]
fn ten_adamw_steps() {
    for g in folders().iter().map(|f| load(f)) {
        let at = |path: &str| g.number(&format!("/adamw/{path}"));
        let (lr, clip) = (at("lr") as f32, at("clip_grad_norm") as f32);
        let mut engine = engine(&g.config, g.batch, g.seq);
        let mut theta = upload(&engine, &g.theta);
        let mut grads = engine.alloc_params().unwrap();
        let (mut m, mut v) = (engine.alloc_params().unwrap(), engine.alloc_params().unwrap());
        let scale = 1.0 / g.counted() as f32;
        for i in 0..10 {
            let loss = engine.loss_and_grad(&theta, &mut grads, g.batch(), scale, Write::Set).unwrap().mean();
            let expected = at(&format!("losses/{i}"));
            println!("{}: step {i}: {loss:.7} ({expected:.7})", g.name);
            assert!(
                (loss - expected).abs() <= 1e-5 * expected + 5e-5,
                "{}: step {i}: {loss}, not {expected}",
                g.name
            );
            let step = AdamW {
                lr,
                beta1: at("betas/0") as f32,
                beta2: at("betas/1") as f32,
                eps: at("eps") as f32,
                weight_decay: at("weight_decay") as f32,
                step: i + 1,
                grad_scale: 1.0,
            };
            let norm = engine.adamw(step, Some(clip), &grads, &mut theta, (&mut m, &mut v)).unwrap();
            if i == 0 {
                let expected = at("grad_norms/0");
                assert!((norm / expected - 1.0).abs() < 1e-5, "{}: norm {norm}, not {expected}", g.name);
            }
        }
    }
}

/// The same ten losses from the candle model's gradients, with AdamW written out in f64.
#[test]
fn ten_adamw_steps_of_the_candle_model() {
    for g in folders().iter().map(|f| load(f)) {
        let at = |path: &str| g.number(&format!("/adamw/{path}"));
        let (lr, beta1, beta2) = (at("lr"), at("betas/0"), at("betas/1"));
        let (eps, decay, clip) = (at("eps"), at("weight_decay"), at("clip_grad_norm"));
        let mut theta = g.theta.clone();
        let (mut m, mut v) = (vec![0.0f64; theta.len()], vec![0.0f64; theta.len()]);
        for i in 0..10 {
            let model = CandleModel::new(&g.config, &theta);
            let (loss, grads) = model.loss_and_grad(&g.ids, &g.targets, g.batch, g.seq);
            let expected = at(&format!("losses/{i}"));
            assert!(
                (loss - expected).abs() <= 1e-5 * expected + 5e-5,
                "{}: step {i}: {loss}, not {expected}",
                g.name
            );
            let norm = grads.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let factor = (clip / (norm + 1e-6)).min(1.0);
            let (correct1, correct2) = (1.0 - beta1.powi(i + 1), 1.0 - beta2.powi(i + 1));
            for (j, t) in theta.iter_mut().enumerate() {
                let x = f64::from(grads[j]) * factor;
                m[j] = beta1 * m[j] + (1.0 - beta1) * x;
                v[j] = beta2 * v[j] + (1.0 - beta2) * x * x;
                let step = lr * (m[j] / correct1) / ((v[j] / correct2).sqrt() + eps);
                *t = (f64::from(*t) * (1.0 - lr * decay) - step) as f32;
            }
        }
    }
}
