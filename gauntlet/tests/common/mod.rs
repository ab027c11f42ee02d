//! What several tests share: golden vectors, and a small network of scripted peers.

// Each test takes the parts it needs; what one leaves out is not dead.
#![allow(dead_code, unreachable_pub)]

pub mod network;

use serde::de::DeserializeOwned;
use std::path::PathBuf;

/// Reads a golden file from `GAUNTLET_VECTORS`, or from `tests/vectors` at the root of the workspace.
pub fn vector<T: DeserializeOwned>(name: &str) -> T {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors"));
    let folder = std::env::var_os("GAUNTLET_VECTORS").map_or_else(default, PathBuf::from);
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
