//! Where text comes from: files, folders, datasets of the Hugging Face Hub, the embedded corpus.
//!
//! A [`Source`] is a sorted list of [`Input`]s; an input opens into [`Documents`], an iterator that holds one
//! document (Parquet: one batch of rows) at a time. Names of inputs are relative, with forward slashes, and
//! the same on every machine; shards, held-out patterns and parts go by them.

mod folder;
mod hub;
mod input;
mod jsonl;
mod parquet;
mod text;

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::embedded;
use crate::error::{Error, Result};
use crate::progress::Progress;

pub use hub::HubOptions;
pub use input::Input;
use input::{Compression, Format, Place};

/// How to read a source.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// JSONL field or Parquet column that holds the text.
    pub field: String,
    /// For `hf:` sources.
    pub hub: HubOptions,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self { field: "text".to_owned(), hub: HubOptions::default() }
    }
}

/// A list of inputs.
#[derive(Clone, Debug)]
pub struct Source {
    description: String,
    inputs: Vec<Input>,
    skipped: u64,
    field: String,
}

impl Source {
    /// Opens `location`: a file, a folder, or `hf:owner/name[@revision][:path]`.
    ///
    /// A file is read by its ending: `.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.parquet`, and anything else as
    /// one text document. Of a folder (and of a Hub dataset), files with those endings and `.txt`, `.text`,
    /// `.md` are taken, others counted in [`Source::skipped`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EmptySource`], [`Error::FileName`], [`Error::TooDeep`],
    /// [`Error::HubSpec`], [`Error::Hub`].
    pub fn open(location: &str, options: &SourceOptions) -> Result<Self> {
        if let Some(spec) = location.strip_prefix("hf:") {
            return hub::list(location, spec, options);
        }
        let path = Path::new(location);
        if !path.exists() {
            return Err(Error::NotFound { path: path.to_path_buf() });
        }
        let (inputs, skipped) = if path.is_dir() { folder::list(path)? } else { (folder::one(path)?, 0) };
        Self::new(last_name(path), inputs, skipped, options)
    }

    /// The corpus inside the binary, see [`crate::embedded`].
    pub fn embedded() -> Self {
        let inputs = embedded::documents().enumerate().map(|(i, d)| Input::embedded(i, &d)).collect();
        let description = format!("embedded corpus {}", embedded::hash_hex());
        Self { description, inputs, skipped: 0, field: String::new() }
    }

    fn new(
        description: String,
        mut inputs: Vec<Input>,
        skipped: u64,
        options: &SourceOptions,
    ) -> Result<Self> {
        if inputs.is_empty() {
            return Err(Error::EmptySource { source_name: description, looked_for: folder::LOOKED_FOR });
        }
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { description, inputs, skipped, field: options.field.clone() })
    }

    /// Where the text comes from, in words; `hf:` sources carry the commit.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The inputs, sorted by name.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Files of a folder that were left out because of their ending.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The field or column that holds the text.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// Opens one of [`Source::inputs`], downloading it first if it lies on the Hub; `progress` may stop the download.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Stopped`], [`Error::Hub`], [`Error::Parquet`], [`Error::ParquetColumn`].
    pub fn documents(&self, input: &Input, progress: &dyn Progress) -> Result<Documents> {
        let path = match &input.place {
            Place::Local(path) => path.clone(),
            Place::Hub(repo) => repo.fetch(input, progress)?,
            Place::Embedded(index) => {
                let text = embedded::document(*index).map(|document| document.text);
                return Ok(Documents {
                    consumed: Arc::new(AtomicU64::new(text.map_or(0, str::len) as u64)),
                    rows: Box::new(text.into_iter().map(|text| Ok(Some(text.to_owned())))),
                });
            }
        };
        Documents::open(&path, &input.name, input.format, &self.field)
    }
}

/// The last component of a path: manifests are published, and the rest of it belongs to one machine.
fn last_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    whole.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Documents of one input, in order; `Ok(None)` stands for a document without text (null).
pub struct Documents {
    rows: Box<dyn Iterator<Item = Result<Option<String>>> + Send>,
    consumed: Arc<AtomicU64>,
}

impl Documents {
    fn open(path: &Path, name: &str, format: Format, field: &str) -> Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let rows: Box<dyn Iterator<Item = Result<Option<String>>> + Send> = match format {
            Format::Text => Box::new(text::document(Counted::open(path, &consumed)?, path, name)),
            Format::Jsonl(compression) => {
                let reader = Counted::open(path, &consumed)?;
                Box::new(jsonl::Rows::open(reader, path, name, compression, field)?)
            }
            Format::Parquet => Box::new(parquet::Rows::open(path, name, field, Arc::clone(&consumed))?),
        };
        Ok(Self { rows, consumed })
    }

    /// Bytes of the stored file read so far, for progress.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}

impl Iterator for Documents {
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

/// A file that counts what is read of it.
pub(crate) struct Counted {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Counted {
    fn open(path: &Path, consumed: &Arc<AtomicU64>) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        Ok(Self { file, consumed: Arc::clone(consumed) })
    }

    fn buffered(self) -> BufReader<Self> {
        BufReader::with_capacity(1 << 18, self)
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.consumed.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
