//! Golden vectors and tests that span crates; this library only says where the vectors are.

use std::path::PathBuf;

/// The folder named by the environment variable `variable`, or `tests/<default>` of this project.
pub fn vectors(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable)
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(default), PathBuf::from)
}
