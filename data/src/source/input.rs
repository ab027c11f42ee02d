//! One file of a source: its name, format and place.

use std::path::PathBuf;
use std::sync::Arc;

use super::hub::Repository;
use crate::embedded;
use crate::error::{Error, Result};

/// One file of a source.
#[derive(Clone, Debug)]
pub struct Input {
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) bytes: u64,
    pub(super) place: Place,
}

/// Where the bytes lie.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Local(PathBuf),
    Hub(Arc<Repository>),
    Embedded(usize),
}

impl Input {
    pub(super) fn local(name: String, path: PathBuf, format: Format) -> Result<Self> {
        let bytes = std::fs::metadata(&path).map_err(Error::io(&path, "read the size"))?.len();
        Ok(Self { name, format, bytes, place: Place::Local(path) })
    }

    pub(super) fn embedded(index: usize, document: &embedded::Document) -> Self {
        let (name, bytes) = (document.name.to_owned(), document.text.len() as u64);
        Self { name, format: Format::Text, bytes, place: Place::Embedded(index) }
    }

    /// Name within the source: relative path with forward slashes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Size of the file as it is stored; 0 where the Hub does not say.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What must be unchanged for work on this input to count as done: name, size and time of the last change
    /// of a local file, the commit of a Hub file, the hash of the embedded corpus.
    ///
    /// # Errors
    /// [`Error::Io`] if the file is gone.
    pub(crate) fn identity(&self) -> Result<String> {
        let version = match &self.place {
            Place::Embedded(_) => embedded::hash_hex(),
            Place::Hub(repo) => repo.commit().to_owned(),
            Place::Local(path) => {
                let meta = std::fs::metadata(path).map_err(Error::io(path, "read the size"))?;
                let changed = meta.modified().map_err(Error::io(path, "read the time of change"))?;
                let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                format!("{} bytes, changed {}", meta.len(), since.as_nanos())
            }
        };
        Ok(format!("{}: {version}", self.name))
    }
}

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Jsonl(Compression),
    Parquet,
}

/// Compression around JSONL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Format {
    /// The format a file's name promises; none for endings that are not text.
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".jsonl", ".ndjson"]) {
            Some(Format::Jsonl(Compression::None))
        } else if ends(&[".jsonl.gz", ".ndjson.gz"]) {
            Some(Format::Jsonl(Compression::Gzip))
        } else if ends(&[".jsonl.zst", ".ndjson.zst"]) {
            Some(Format::Jsonl(Compression::Zstd))
        } else if ends(&[".parquet"]) {
            Some(Format::Parquet)
        } else if ends(&[".txt", ".text", ".md"]) {
            Some(Format::Text)
        } else {
            None
        }
    }
}
