//! Golden vectors and tests that span crates; this library only says where the vectors are.

use std::path::PathBuf;

/// The folder named by the environment variable `variable`, or `tests/<default>` of this project. A relative path is
/// taken from the workspace's root, and not from the folder in which tests run.
pub fn vectors(variable: &str, default: &str) -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    match std::env::var_os(variable) {
        Some(folder) => tests.join("..").join(folder),
        None => tests.join(default),
    }
}
