//! Files that appear whole or not at all, and TOML files that people write.

use std::path::Path;

use anyhow::{Context, Result};
use gauntlet_model::{ModelError, weights};
use serde::de::DeserializeOwned;

use crate::cli::Usage;

/// Writes `contents` under a temporary name, syncs it and renames it to `path`.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    weights::write_atomically(path, |temporary| {
        std::fs::write(temporary, contents)
            .map_err(|source| ModelError::Io { path: path.to_path_buf(), source })
    })?;
    Ok(())
}

/// The text of a file that a person named.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Parses the text of the TOML file `path`. Errors name the line and the key.
pub(crate) fn parse_toml<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    let parsed = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text.get(..s.start).unwrap_or_default().lines().count().max(1));
        Usage(format!("{}, line {line}: {}", path.display(), e.message().replace('\n', " ")))
    });
    Ok(parsed?)
}
