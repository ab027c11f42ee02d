//! A whole run on the emulated device.
#![cfg(not(target_feature = "crt-static"))] // the emulation opens a library

use gauntlet_data::Tokenizer;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use gauntlet_model::{Layout, LlamaConfig, init, preset, weights};

use super::optimizer::Kind;
use super::*;
use crate::device::testing;
use crate::model_folder;

/// A model so small that the emulation trains it, in a folder to start from.
fn model(folder: &Path) {
    let (hidden_size, head_dim) = (32, 16);
    let base = preset("byte-1m").unwrap();
    let config = LlamaConfig {
        hidden_size,
        head_dim,
        intermediate_size: 32,
        n_layers: 1,
        n_heads: 2,
        n_kv_heads: 1,
        ..base
    };
    let layout = Layout::new(&config);
    let mut theta = vec![0.0; layout.total()];
    init::init(&layout, 3, &mut theta);
    std::fs::create_dir_all(folder).unwrap();
    let tokenizer = Tokenizer::bytes();
    model_folder::write(folder, (&config, &layout, &theta), Some(&tokenizer), weights::SHARD_BYTES).unwrap();
}

fn train<P: Place>(out: &Path, settings: &Settings, place: P, resume: bool) -> Value {
    std::fs::create_dir_all(out).unwrap();
    let mut run = Run::open(out, settings.clone(), resume, (place, None), Shown::Json).unwrap();
    run.train().unwrap()
}

fn losses(out: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(out.join(metrics::FILE)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| line["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_run_on_a_device_learns_as_on_the_cpu_and_resumes_with_the_same_bits() {
    let place = tempfile::tempdir().unwrap();
    let from = place.path().join("model");
    model(&from);
    let (steps, validate_every, checkpoint_every) = (4, 0, 2);
    let settings = Settings {
        optimizer: Kind::Demo,
        workers: 2,
        from: Some(from),
        batch: 1,
        seq: 16,
        steps,
        warmup: 1,
        validate_every,
        validation_sequences: 2,
        checkpoint_every,
        ..Settings::default()
    };
    let [device, cpu] = ["device", "cpu"].map(|name| place.path().join(name));
    let done = train(&device, &settings, testing::place(), false);
    assert_eq!((&done["finished"], &done["precision"]), (&true.into(), &"f32".into()));
    assert!(done["bits_per_index"].as_f64().is_some_and(|bits| bits > 1.0), "{done}");
    let here = train(&cpu, &settings, Cpu::new(1, CodePath::Best).unwrap(), false);
    let (found, expected) = (losses(&device), losses(&cpu));
    assert_eq!(found.len(), steps as usize + 2, "steps, and the validations before and after them");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found / expected - 1.0).abs() < 1e-2, "{found} {expected}");
    }
    assert!(found.last() < found.first(), "{found:?}");
    let bytes = |summary: &Value| summary["payload_bytes"].as_f64().unwrap();
    assert!((bytes(&done) / bytes(&here) - 1.0).abs() < 0.02, "{done} {here}");
    std::fs::remove_dir_all(device.join("checkpoints/step-0000000004")).unwrap();
    let again = train(&device, &settings, testing::place(), true);
    assert_eq!(again["theta_hash"], done["theta_hash"], "after a resume at step 2");
}
