//! Files that appear whole or not at all.

use std::path::Path;

use anyhow::Result;
use gauntlet_model::{ModelError, weights};

/// Writes `text` under a temporary name, syncs it and renames it to `path`.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    weights::write_atomically(path, |temporary| {
        std::fs::write(temporary, text).map_err(|source| ModelError::Io { path: path.to_path_buf(), source })
    })?;
    Ok(())
}
