//! What several tests share: golden vectors, and a small network of scripted peers.

// Each test takes the parts it needs; what one leaves out is not dead.
#![allow(dead_code, unreachable_pub)]

pub mod network;

use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Reads a golden file from `GAUNTLET_VECTORS`, or from `tests/vectors` at the root of the workspace.
pub fn vector<T: DeserializeOwned>(name: &str) -> T {
    // A relative path counts from the workspace's root, not from the folder in which tests run.
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let folder = std::env::var_os("GAUNTLET_VECTORS").unwrap_or_else(|| "tests/vectors".into());
    let path = root.join(folder).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
