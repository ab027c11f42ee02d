//! Files of a folder, recursively, sorted by name.

use std::path::{Path, PathBuf};

use super::{Format, Input};
use crate::error::{Error, Result};

/// For messages.
pub(super) const LOOKED_FOR: &str = ".txt, .text, .md, .jsonl, .jsonl.gz, .jsonl.zst and .parquet files";

/// Links may point back up; no real data nests this deep.
const MAX_DEPTH: usize = 32;

/// The single file `path`; an unknown ending is read as text.
pub(super) fn one(path: &Path) -> Result<Vec<Input>> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::FileName { path: path.to_path_buf() })?;
    let format = Format::of(name).unwrap_or(Format::Text);
    Ok(vec![Input::local(name.to_owned(), path.to_path_buf(), format)?])
}

/// Readable files below `folder`, and the number of others. Hidden files and folders are not looked at.
pub(super) fn list(folder: &Path) -> Result<(Vec<Input>, u64)> {
    let (mut inputs, mut skipped) = (Vec::new(), 0);
    let mut open: Vec<(PathBuf, String, usize)> = vec![(folder.to_path_buf(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = open.pop() {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep { path: folder, limit: MAX_DEPTH });
        }
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "list the folder"))? {
            let path = entry.map_err(Error::io(&folder, "list the folder"))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(Error::FileName { path });
            };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            if path.is_dir() {
                open.push((path, format!("{name}/"), depth + 1));
            } else if let Some(format) = Format::of(&name) {
                inputs.push(Input::local(name, path, format)?);
            } else {
                skipped += 1;
            }
        }
    }
    Ok((inputs, skipped))
}
