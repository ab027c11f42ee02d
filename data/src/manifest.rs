//! `manifest.json`: what a folder of prepared data holds. Written last, so its presence means complete.
//!
//! Invariant: the manifest depends on the inputs, the tokenizer and the settings alone; an interrupted and
//! resumed preparation ends with the same bytes as an unbroken one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Version of the folder's format; a reader refuses others.
pub const FORMAT: u32 = 1;

/// File name of the manifest in a prepared folder.
pub const MANIFEST_FILE: &str = "manifest.json";

/// A part of the data. Assignment draws from `train` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What peers train on.
    Train,
    /// Held out; has ids of its own, so no assignment reaches it.
    Validation,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Validation => "validation",
        })
    }
}

/// How a token lies in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// Two bytes, little-endian; vocabularies up to 65,536.
    U16,
    /// Four bytes, little-endian.
    U32,
}

impl Dtype {
    /// The smallest type that holds every id below `vocab_size`.
    pub fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 { Dtype::U16 } else { Dtype::U32 }
    }

    /// Bytes per token.
    pub fn width(self) -> usize {
        match self {
            Dtype::U16 => 2,
            Dtype::U32 => 4,
        }
    }
}

/// The tokenizer a folder was prepared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecord {
    /// File beside the manifest; absent for the byte tokenizer, which needs none.
    pub file: Option<String>,
    /// BLAKE3 of the canonical tokenizer, hex.
    pub hash: String,
    /// Number of ids, without padding.
    pub vocab_size: usize,
    /// The id after every document.
    pub eos_id: u32,
}

impl TokenizerRecord {
    /// The record of `tokenizer`, stored as `file`.
    pub(crate) fn of(tokenizer: &Tokenizer, file: &str) -> Self {
        Self {
            file: (!tokenizer.is_bytes()).then(|| file.to_owned()),
            hash: tokenizer.hash_hex(),
            vocab_size: tokenizer.vocab_size(),
            eos_id: tokenizer.eos_id(),
        }
    }
}

/// One file of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// File name beside the manifest.
    pub file: String,
    /// Tokens, EOS included.
    pub tokens: u64,
    /// UTF-8 bytes of the documents that end in this shard.
    pub bytes: u64,
    /// Documents that end in this shard.
    pub documents: u64,
    /// BLAKE3 of the file, hex.
    pub blake3: String,
}

/// The shards of one split, in order, and their sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitRecord {
    /// Tokens of all shards, EOS included.
    pub tokens: u64,
    /// UTF-8 bytes of the text of the split: the denominator of bits per byte.
    pub bytes: u64,
    /// Documents, each followed by one EOS.
    pub documents: u64,
    /// The files.
    pub shards: Vec<ShardRecord>,
}

impl SplitRecord {
    /// Appends `shard` and adds its counts.
    pub(crate) fn push(&mut self, shard: ShardRecord) {
        self.tokens += shard.tokens;
        self.bytes += shard.bytes;
        self.documents += shard.documents;
        self.shards.push(shard);
    }

    /// Text bytes per token, the factor between nats per token and bits per byte:
    /// bpb = loss / (ln 2 · bytes_per_token).
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }
}

/// The description of a prepared folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Where the text came from, in words (`hf:` sources carry the commit).
    pub source: String,
    /// How the validation split was chosen, in words.
    pub validation: String,
    /// The tokenizer.
    pub tokenizer: TokenizerRecord,
    /// How tokens lie in the shards.
    pub dtype: Dtype,
    /// Documents without text, which were left out.
    pub empty_documents: u64,
    /// Shards by split.
    pub splits: BTreeMap<Split, SplitRecord>,
}

impl Manifest {
    /// Reads and checks `folder/manifest.json`.
    ///
    /// # Errors
    /// [`Error::NotFound`] without the folder, [`Error::Unfinished`] without a manifest in it, [`Error::Manifest`] for one that is malformed, of another format
    /// version, or whose sums do not fit its shards.
    pub fn read(folder: &Path) -> Result<Self> {
        if !folder.exists() {
            return Err(Error::NotFound { path: folder.to_path_buf() });
        }
        let path = folder.join(MANIFEST_FILE);
        if !path.exists() {
            return Err(Error::Unfinished { path: folder.to_path_buf() });
        }
        Self::read_file(&path)
    }

    /// Reads and checks the manifest at `path`.
    pub(crate) fn read_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read the manifest"))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|e| Error::manifest(path, e.to_string()))?;
        manifest.check().map_err(|message| Error::manifest(path, message))?;
        Ok(manifest)
    }

    /// The bytes of the file.
    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        to_json(self, path)
    }

    /// BLAKE3 over tokenizer hash and, by split, the hash of every shard: two folders with equal data hash
    /// give the same tokens for every id.
    pub fn data_hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.tokenizer.hash.as_bytes());
        for (split, record) in &self.splits {
            hasher.update(split.to_string().as_bytes());
            for shard in &record.shards {
                hasher.update(&shard.tokens.to_le_bytes());
                hasher.update(shard.blake3.as_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("field `format` is {}, this version reads {FORMAT}", self.format));
        }
        if Dtype::for_vocab(self.tokenizer.vocab_size) != self.dtype {
            return Err(format!("field `dtype` does not fit a vocabulary of {}", self.tokenizer.vocab_size));
        }
        if self.tokenizer.file.as_deref().is_some_and(|file| !is_plain(file)) {
            return Err("field `tokenizer.file` is not a plain file name".to_owned());
        }
        for (split, record) in &self.splits {
            let mut sum = SplitRecord::default();
            for shard in &record.shards {
                if !is_plain(&shard.file) {
                    return Err(format!("shard `{}` is not a plain file name", shard.file));
                }
                // Far above any real shard, and far below what could overflow a sum or a file size.
                let counts = [shard.tokens, shard.bytes, shard.documents];
                if shard.tokens == 0 || counts.iter().any(|count| *count > 1 << 44) {
                    return Err(format!("shard `{}` has impossible counts", shard.file));
                }
                sum.push(shard.clone());
            }
            if sum != *record {
                return Err(format!("the counts of split `{split}` are not the sums of its shards"));
            }
        }
        Ok(())
    }
}

/// A file name without folders, so that a manifest from elsewhere cannot point outside its own folder.
pub(crate) fn is_plain(file: &str) -> bool {
    !file.is_empty() && file != "." && file != ".." && !file.contains(['/', '\\', '\0', ':'])
}

/// Pretty JSON with a final newline.
pub(crate) fn to_json<T: Serialize>(value: &T, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::manifest(path, e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}
