//! Text to token batches: sources, tokenizers, token shards and the assignment of sequences to peers.
//!
//! Data flows one way: a [`Source`] yields documents, a [`Tokenizer`] turns them into tokens, [`prepare()`]
//! writes them as shards with a [`Manifest`], a [`Dataset`] maps those into memory, and [`Batches`] (one
//! trainer) or [`Assignment`] (many peers) say which sequences are read when.
//!
//! ```
//! use gauntlet_data::{Batches, Dataset, Split, Tokenizer};
//!
//! # fn main() -> gauntlet_data::Result<()> {
//! let tokenizer = Tokenizer::bytes();
//! let data = Dataset::embedded(&tokenizer, Split::Train)?;
//! let batches = Batches::new(&data, 42, 4, 128)?;
//! let (mut tokens, mut targets) = (vec![0; 4 * 128], vec![0; 4 * 128]);
//! batches.fill(&data, 0, &mut tokens, &mut targets)?;
//! assert_eq!(tokens[1], targets[0]);
//! # Ok(())
//! # }
//! ```

mod assignment;
mod batch;
mod bpe;
mod bytes;
mod dataset;
pub mod embedded;
mod error;
mod manifest;
mod mapped;
mod merge;
mod output;
mod part;
mod permutation;
mod pieces;
mod portion;
mod prepare;
mod progress;
mod settings;
mod shard;
mod source;
mod summary;
mod tokenizer;
mod training;
mod validation;
mod verify;
mod worker;

pub use assignment::{Assignment, Sequences};
pub use batch::{Batches, fill_sequences};
pub use bpe::{BpeTrainer, EOS_NAME};
pub use bytes::bytes_json;
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use manifest::{
    Dtype, FORMAT, MANIFEST_FILE, Manifest, ShardRecord, Split, SplitRecord, TokenizerRecord,
};
pub use merge::merge;
pub use part::Part;
pub use permutation::Permutation;
pub use prepare::{MAX_TOKENS_PER_SHARD, PrepareOptions, prepare};
pub use progress::{Advance, Phase, Progress, Silent, Totals};
pub use source::{Documents, HubOptions, Input, Source, SourceOptions};
pub use summary::{SplitSummary, Summary, inspect};
pub use tokenizer::{EOS_NAMES, Tokenizer, VOCAB_MULTIPLE};
pub use training::{TRAINING_BYTES, TokenizerChoice};
pub use validation::Validation;
pub use verify::{Report, verify};
