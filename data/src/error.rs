//! The one error type of the crate. Every message names the file, field or key and says what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::{MANIFEST_FILE, Split};
use crate::prepare::MOST_THREADS;

/// `std::result::Result` with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong between text and token batches.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The message of each variant documents it and its fields.
pub enum Error {
    // --- files ---
    #[error("{}: cannot {action}: {source}; check path, permissions and free disk space", path.display())]
    Io { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{}: no such file or folder; check the path", path.display())]
    NotFound { path: PathBuf },
    #[error("{}: a file name that is not UTF-8; rename it", path.display())]
    FileName { path: PathBuf },
    #[error("{}: folders nest deeper than {limit} levels; is there a loop of links?", path.display())]
    TooDeep { path: PathBuf, limit: usize },

    // --- sources ---
    #[error("{source_name}: nothing to read; give {looked_for}")]
    EmptySource { source_name: String, looked_for: &'static str },
    #[error("{file}: not UTF-8 at byte {offset}; convert the file to UTF-8")]
    Utf8 { file: String, offset: u64 },
    #[error("{file}, line {line}: not a JSON object: {message}; correct the line or leave it out")]
    Json { file: String, line: u64, message: String },
    #[error(
        "{file}, line {line}: no field `{field}` that holds text; choose the field of the text with --field"
    )]
    JsonField { file: String, line: u64, field: String },
    #[error("{file}: unreadable Parquet: {message}; copy the file again")]
    Parquet { file: String, message: String },
    #[error("{file}: no text column `{column}`; the text columns are {found}; choose one with --field")]
    ParquetColumn { file: String, column: String, found: String },
    #[error("{spec}: not of the form hf:owner/name[@revision][:path]; {message}")]
    HubSpec { spec: String, message: &'static str },
    #[error("{what} from the Hub at {endpoint}: {message}")]
    Hub { what: String, endpoint: String, message: String },

    // --- tokenizer ---
    #[error("{name}: not a usable tokenizer.json: {message}; copy it again or give another with --tokenizer")]
    Tokenizer { name: String, message: String },
    #[error("{name}: no end-of-text token among {tried}; name it with --eos")]
    NoEos { name: String, tried: String },
    #[error(
        "vocabulary size {wanted} is out of range; a byte-level vocabulary has {min} to {max} tokens (256 bytes, end of text, merges)"
    )]
    VocabSize { wanted: usize, min: usize, max: usize },
    #[error(
        "the corpus yields a vocabulary of only {found} tokens, {wanted} were asked for; ask for at most {found} or give more text"
    )]
    VocabTooLarge { wanted: usize, found: usize },
    #[error(
        "{folder}: prepared with tokenizer {expected}, but {name} is {found}; use the tokenizer beside the manifest"
    )]
    TokenizerMismatch { folder: String, name: String, expected: String, found: String },

    // --- prepared folders ---
    #[error("{}: {message}; prepare the data again", path.display())]
    Manifest { path: PathBuf, message: String },
    #[error("{}: no {MANIFEST_FILE}; run the preparation (or, of parts, the merge) to its end", path.display())]
    Unfinished { path: PathBuf },
    #[error("{}: another process is preparing data here; wait for it, or choose another folder", path.display())]
    Busy { path: PathBuf },
    #[error("cannot start threads: {message}; ask for fewer with --threads")]
    Threads { message: String },
    #[error("--threads {threads}: at most {MOST_THREADS}, or 0 for one a core")]
    ThreadLimit { threads: usize },
    #[error("stopped; finished files are kept, the same command goes on from there")]
    Stopped,
    #[error("--max-tokens-per-shard: must be at least 1")]
    ShardLimit,
    #[error("{}: shard has {found} bytes, its manifest says {expected}; copy it again or prepare the data again", path.display())]
    ShardSize { path: PathBuf, expected: u64, found: u64 },
    #[error("{}: content differs from the manifest (BLAKE3 {found}, expected {expected}); copy it again or prepare the data again", path.display())]
    ShardHash { path: PathBuf, expected: String, found: String },
    #[error(
        "{shard}: token {token} at offset {offset} is outside the vocabulary of {vocab_size}; copy the shard again or prepare the data again"
    )]
    TokenRange { shard: String, offset: u64, token: u32, vocab_size: usize },
    #[error(
        "{name}: no split `{split}`, it holds {found}; choose one of these, or prepare the data again with --validation"
    )]
    NoSplit { name: String, split: Split, found: String },
    #[error(
        "{}: holds data prepared with another {field} ({found}, now {wanted}); choose an empty folder for --out",
        path.display()
    )]
    Settings { path: PathBuf, field: &'static str, found: String, wanted: String },
    #[error("{}: not empty and not a folder of prepared data; choose an empty folder for --out", path.display())]
    NotOurs { path: PathBuf },
    #[error("{rule}: {message}")]
    Validation { rule: String, message: String },
    #[error("--part {part}: {message}")]
    Part { part: String, message: &'static str },
    #[error("part {missing} of {count} is missing in {folders}; prepare it with --part {missing}/{count}")]
    MissingPart { missing: u32, count: u32, folders: String },
    #[error("{name}: no text in split `{split}`; {hint}")]
    EmptyCorpus { name: String, split: Split, hint: &'static str },

    // --- drawing ---
    #[error("sequences of {sequence} tokens need {} tokens, the corpus has {tokens}; shorten the sequence or give more text", sequence + 1)]
    SequenceTooLong { sequence: usize, tokens: u64 },
    #[error("a sequence needs at least one token; set its length above zero")]
    ZeroLength,
    #[error("sequence {index} does not exist, the split has {count} of this length; use ids below {count}")]
    SequenceRange { index: u64, count: u64 },
    #[error("tokens {start}..{end} do not exist, the split has {tokens}; ask for less")]
    TokenSpan { start: u64, end: u64, tokens: u64 },
    #[error("a buffer of {found} tokens where {expected} are needed; allocate batch x sequence")]
    Buffer { expected: usize, found: usize },
    #[error("no sequences to draw from; give more text or shorten the sequence")]
    NoSequences,
}

impl Error {
    /// Shapes an I/O error into [`Error::Io`]; `action` completes "cannot …".
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    /// A [`Error::Manifest`] with a message about one file.
    pub(crate) fn manifest(path: &Path, message: impl Into<String>) -> Error {
        Error::Manifest { path: path.to_path_buf(), message: message.into() }
    }
}
