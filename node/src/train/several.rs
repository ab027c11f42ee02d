//! Runs on several devices: CPUs that sum through the host stand for GPUs that sum through NCCL.

use std::path::Path;

use gauntlet_model::engine::HostSum;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use serde_json::Value;

use super::metrics::Metric;
use super::optimizer::Kind;
use super::settings::Settings;
use super::{Run, Shown};
use crate::device::Others;

fn settings(optimizer: Kind) -> Settings {
    Settings {
        optimizer,
        lr: 2e-3,
        steps: 4,
        batch: 4,
        seq: 32,
        accumulate: 2,
        warmup: 1,
        checkpoint_every: 2,
        validate_every: 0,
        validation_sequences: 3,
        ..Settings::default()
    }
}

fn cpu() -> Cpu {
    Cpu::new(1, CodePath::Best).unwrap()
}

fn run(out: &Path, settings: &Settings, resume: bool, devices: usize) -> (Value, Vec<f64>) {
    std::fs::create_dir_all(out).unwrap();
    let others = (devices > 1)
        .then(|| Others { places: (1..devices).map(|_| cpu()).collect(), collective: Box::new(HostSum) });
    let opened = Run::open(out, settings.clone(), resume, (cpu(), others), Shown::Json);
    let mut run = opened.unwrap_or_else(|e| panic!("{e:#}"));
    let summary = run.train().unwrap();
    let losses = run.metrics.all().iter().filter_map(|metric| match metric {
        Metric::Train { loss, .. } => Some(*loss),
        Metric::Validation { .. } => None,
    });
    (summary, losses.collect())
}

#[test]
fn several_devices_train_as_one_and_resume_to_the_same_bits() {
    for optimizer in [Kind::Adamw, Kind::Demo] {
        let (folder, settings) = (tempfile::tempdir().unwrap(), settings(optimizer));
        let place = |name: &str| folder.path().join(name);
        let (one, expected) = run(&place("one"), &settings, false, 1);
        let (two, losses) = run(&place("two"), &settings, false, 2);
        assert_eq!((one.get("devices"), two.get("devices")), (None, Some(&2.into())));
        assert_eq!(losses.len(), 4);
        for (step, (loss, expected)) in losses.iter().zip(&expected).enumerate() {
            // A device that did not follow would compute half of the loss at another θ.
            assert!((loss - expected).abs() < 2e-3, "{optimizer:?}, step {step}: {loss}, {expected}");
        }
        let checkpoints = place("two/checkpoints");
        std::fs::remove_dir_all(checkpoints.join("step-0000000004")).unwrap();
        let (resumed, _) = run(&place("two"), &settings, true, 2);
        assert_eq!(resumed["theta_hash"], two["theta_hash"], "{optimizer:?}");
    }
}

#[test]
fn a_batch_that_cannot_be_shared_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let others = Others { places: vec![cpu(), cpu()], collective: Box::new(HostSum) };
    let devices = (cpu(), Some(others));
    let opened = Run::open(folder.path(), settings(Kind::Adamw), false, devices, Shown::Json);
    let message = opened.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("--batch 4") && message.contains("multiple of 3"), "{message}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
