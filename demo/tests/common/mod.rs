//! What several tests share: golden files, and small deterministic gathers.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod golden;
pub(crate) mod inputs;

use gauntlet_demo::{Codebook, DemoConfig, Format, Layout, Schedule, Subtract};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;

/// A golden file: from `GAUNTLET_VECTORS`, or `tests/vectors` of the workspace.
pub(crate) fn vectors(name: &str) -> Value {
    // A relative path counts from the workspace's root, not from the folder in which tests run.
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = std::env::var_os("GAUNTLET_VECTORS").unwrap_or_else(|| "tests/vectors".into());
    let path = root.join(folder).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// All numbers of a nested array, in order.
pub(crate) fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

/// The same in f32.
pub(crate) fn flat32(value: &Value) -> Vec<f32> {
    flat(value).into_iter().map(|x| x as f32).collect()
}

/// A list of sizes.
pub(crate) fn sizes(value: &Value) -> Vec<usize> {
    flat(value).into_iter().map(|x| x as usize).collect()
}

/// The innermost arrays, each a row.
pub(crate) fn rows(value: &Value) -> Vec<Vec<f64>> {
    match value {
        Value::Array(items) if items.first().is_some_and(Value::is_array) => {
            items.iter().flat_map(rows).collect()
        }
        row => vec![flat(row)],
    }
}

/// Equal within `tolerance`, absolutely.
#[track_caller]
pub(crate) fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    // A NaN is the worst of all: f64::max would pass over it.
    let worse = |worst: f64, d: f64| if d.is_nan() || d > worst { d } else { worst };
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, worse);
    assert!(worst <= tolerance, "{what}: largest difference {worst:e}");
}

/// f32 against f64.
#[track_caller]
pub(crate) fn close32(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    let found: Vec<f64> = found.iter().map(|&x| f64::from(x)).collect();
    close(&found, expected, tolerance, what);
}

/// Settings with f32 values, no warm-up of the rate, subtracting at once.
pub(crate) fn exact(decay: f64, topk: usize, chunk: usize, momentum_warmup: u64) -> DemoConfig {
    DemoConfig {
        decay: decay as f32,
        topk,
        chunk,
        codebook: Codebook::with_bits(32).unwrap(),
        momentum_warmup,
        subtract: Subtract::Always,
        min_gather: 1,
        schedule: Schedule { peak: 1.0, warmup: 0, t_max: 1, floor: 1.0 },
        ..DemoConfig::default()
    }
}

/// A format over unnamed shapes, in their order.
pub(crate) fn format(config: &DemoConfig, shapes: &[Vec<usize>]) -> Arc<Format> {
    let names = shapes.iter().enumerate().map(|(i, shape)| (format!("t{i:02}"), shape.clone()));
    config.format(Layout::from_shapes(names).unwrap()).unwrap()
}
