//! What a prepared folder holds, for people and for JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::manifest::{Dtype, Manifest, Split};
use crate::part::Part;

/// The counts of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// Tokens, EOS included.
    pub tokens: u64,
    /// UTF-8 bytes of text.
    pub bytes: u64,
    /// Documents.
    pub documents: u64,
    /// Files.
    pub shards: u64,
    /// Text bytes per token; bits per byte = loss in nats / (ln 2 · this).
    pub bytes_per_token: f64,
}

/// Result of preparing, merging and inspecting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The folder.
    pub folder: String,
    /// Where the text came from.
    pub source: String,
    /// How the validation split was chosen.
    pub validation: String,
    /// File of the tokenizer, or `bytes`.
    pub tokenizer: String,
    /// BLAKE3 of the tokenizer, hex.
    pub tokenizer_hash: String,
    /// Number of ids, without padding.
    pub vocab_size: usize,
    /// The id after every document.
    pub eos_id: u32,
    /// How tokens lie in the shards.
    pub dtype: Dtype,
    /// [`Manifest::data_hash`], hex: equal for folders that give equal tokens.
    pub data_hash: String,
    /// Counts by split.
    pub splits: BTreeMap<Split, SplitSummary>,
    /// Documents without text, left out.
    pub empty_documents: u64,
    /// `i/n` if only a part was prepared, which a merge must follow.
    pub part: Option<String>,
    /// Inputs an earlier run had finished; 0 when only inspected.
    pub kept_inputs: u64,
    /// Files of the source with an ending that is not text; 0 when only inspected.
    pub skipped_files: u64,
}

impl Summary {
    pub(crate) fn of(folder: &Path, manifest: &Manifest) -> Self {
        let splits = manifest.splits.iter().map(|(split, record)| {
            let summary = SplitSummary {
                tokens: record.tokens,
                bytes: record.bytes,
                documents: record.documents,
                shards: record.shards.len() as u64,
                bytes_per_token: record.bytes_per_token(),
            };
            (*split, summary)
        });
        let tokenizer = &manifest.tokenizer;
        Self {
            folder: folder.display().to_string(),
            source: manifest.source.clone(),
            validation: manifest.validation.clone(),
            tokenizer: tokenizer.file.clone().unwrap_or_else(|| "bytes".to_owned()),
            tokenizer_hash: tokenizer.hash.clone(),
            vocab_size: tokenizer.vocab_size,
            eos_id: tokenizer.eos_id,
            dtype: manifest.dtype,
            data_hash: blake3::Hash::from(manifest.data_hash()).to_hex().to_string(),
            splits: splits.collect(),
            empty_documents: manifest.empty_documents,
            part: None,
            kept_inputs: 0,
            skipped_files: 0,
        }
    }

    pub(crate) fn of_part(mut self, part: Part) -> Self {
        self.part = Some(part.to_string());
        self
    }

    pub(crate) fn with_run(mut self, kept_inputs: u64, skipped_files: u64) -> Self {
        (self.kept_inputs, self.skipped_files) = (kept_inputs, skipped_files);
        self
    }
}

/// What the prepared `folder` holds, from its manifest alone.
///
/// # Errors
/// Those of [`Manifest::read`].
pub fn inspect(folder: &Path) -> Result<Summary> {
    Ok(Summary::of(folder, &Manifest::read(folder)?))
}
