//! Tokens of one split as one long array: the shards laid end to end, or memory.
//!
//! Sequence i of length T is the tokens [i·T, (i+1)·T], both ends included: T inputs and, shifted by one, T
//! targets; there are ⌊(n_tokens − 1)/T⌋ of them. A sequence may cross the border of two shards.
//! Invariants: every token handed out is below the vocabulary's size, and of a shard whose BLAKE3 is that of the
//! manifest; a shard is hashed when its first token is read, or by [`Dataset::check_shards`].

use std::path::Path;
use std::sync::OnceLock;

use memmap2::Mmap;
use rayon::prelude::*;

use crate::embedded;
use crate::error::{Error, Result};
use crate::manifest::{Dtype, Manifest, Split};
use crate::mapped;
use crate::tokenizer::Tokenizer;

/// One of this many files of the embedded corpus is held out.
const EMBEDDED_VALIDATION: usize = 10;

/// One split of prepared data, or tokens in memory, behind the same interface.
#[derive(Debug)]
pub struct Dataset {
    name: String,
    vocab_size: usize,
    n_tokens: u64,
    n_bytes: u64,
    n_documents: u64,
    tokenizer_hash: Option<String>,
    shards: Vec<Shard>,
}

/// A run of tokens and where it begins in the whole.
#[derive(Debug)]
struct Shard {
    name: String,
    start: u64,
    tokens: u64,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Mapped(Mapped),
    Memory(Vec<u32>),
}

/// A mapped file and its BLAKE3, hex: as the manifest has it, and as found once the file is read.
#[derive(Debug)]
struct Mapped {
    map: Mmap,
    dtype: Dtype,
    expected: String,
    found: OnceLock<String>,
}

impl Dataset {
    /// Opens `split` of the prepared folder, memory-mapped. Sizes are checked here, hashes when tokens are read.
    ///
    /// # Errors
    /// [`Error::NoSplit`], [`Error::EmptyCorpus`], [`Error::ShardSize`], and those of [`Manifest::read`].
    pub fn open(folder: &Path, split: Split) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        let name = folder.display().to_string();
        let Some(record) = manifest.splits.get(&split) else {
            let found: Vec<String> = manifest.splits.keys().map(Split::to_string).collect();
            return Err(Error::NoSplit { name, split, found: found.join(", ") });
        };
        if record.tokens == 0 {
            return Err(Error::EmptyCorpus { name, split, hint: "prepare it from files that hold text" });
        }
        let mut shards = Vec::with_capacity(record.shards.len());
        let mut start = 0;
        for shard in &record.shards {
            let path = folder.join(&shard.file);
            let map = mapped::map(&path, shard.tokens * manifest.dtype.width() as u64)?;
            let (dtype, expected) = (manifest.dtype, shard.blake3.clone());
            let store = Store::Mapped(Mapped { map, dtype, expected, found: OnceLock::new() });
            shards.push(Shard { name: path.display().to_string(), start, tokens: shard.tokens, store });
            start += shard.tokens;
        }
        Ok(Self {
            name,
            vocab_size: manifest.tokenizer.vocab_size,
            n_tokens: start,
            n_bytes: record.bytes,
            n_documents: record.documents,
            tokenizer_hash: Some(manifest.tokenizer.hash),
            shards,
        })
    }

    /// A dataset of tokens in memory, all below `vocab_size`.
    ///
    /// # Errors
    /// [`Error::TokenRange`] for a token outside the vocabulary.
    pub fn from_tokens(name: &str, tokens: Vec<u32>, vocab_size: usize) -> Result<Self> {
        check_range(name, 0, &tokens, vocab_size)?;
        let n_tokens = tokens.len() as u64;
        let shard = Shard { name: name.to_owned(), start: 0, tokens: n_tokens, store: Store::Memory(tokens) };
        Ok(Self {
            name: name.to_owned(),
            vocab_size,
            n_tokens,
            n_bytes: 0,
            n_documents: 0,
            tokenizer_hash: None,
            shards: vec![shard],
        })
    }

    /// Tokenizes `documents` into memory, EOS after each. Documents without text are left out.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn from_documents<'a>(
        name: &str,
        documents: impl IntoIterator<Item = &'a str>,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let (mut tokens, mut bytes, mut count) = (Vec::new(), 0, 0);
        for text in documents.into_iter().filter(|text| !text.is_empty()) {
            tokens.extend(tokenizer.encode(text)?);
            tokens.push(tokenizer.eos_id());
            bytes += text.len() as u64;
            count += 1;
        }
        let data = Self::from_tokens(name, tokens, tokenizer.vocab_size())?;
        Ok(Self { n_bytes: bytes, n_documents: count, tokenizer_hash: Some(tokenizer.hash_hex()), ..data })
    }

    /// The corpus inside the binary ([`crate::embedded`]), tokenized into memory. Every tenth file is held out
    /// as the validation split.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn embedded(tokenizer: &Tokenizer, split: Split) -> Result<Self> {
        let held_out = |i: usize| i % EMBEDDED_VALIDATION == EMBEDDED_VALIDATION / 2;
        let documents = embedded::documents().enumerate();
        let chosen = documents.filter(|(i, _)| held_out(*i) == (split == Split::Validation));
        Self::from_documents("embedded corpus", chosen.map(|(_, document)| document.text), tokenizer)
    }

    /// Folder or name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of ids of the tokenizer, without padding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Tokens, EOS included.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// UTF-8 bytes of the text behind the tokens; 0 where unknown ([`Dataset::from_tokens`]).
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Documents, each ended by EOS; 0 where unknown.
    pub fn n_documents(&self) -> u64 {
        self.n_documents
    }

    /// Text bytes per token: bits per byte = loss in nats / (ln 2 · bytes_per_token). 0 where unknown.
    pub fn bytes_per_token(&self) -> f64 {
        self.n_bytes as f64 / self.n_tokens.max(1) as f64
    }

    /// Bytes of the shard files; 0 in memory.
    pub fn stored_bytes(&self) -> u64 {
        let stored = |shard: &Shard| match &shard.store {
            Store::Mapped(mapped) => mapped.map.len() as u64,
            Store::Memory(_) => 0,
        };
        self.shards.iter().map(stored).sum()
    }

    /// Reads and hashes all shards, in parallel, that were not yet.
    ///
    /// # Errors
    /// [`Error::ShardHash`] for the first one that is not what its manifest says.
    pub fn check_shards(&self) -> Result<()> {
        let checked: Vec<Result<()>> = self.shards.par_iter().map(Shard::check).collect();
        checked.into_iter().collect()
    }

    /// Checks that `tokenizer` is the one the data was prepared with.
    ///
    /// # Errors
    /// [`Error::TokenizerMismatch`].
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        match &self.tokenizer_hash {
            Some(expected) if *expected != tokenizer.hash_hex() => Err(Error::TokenizerMismatch {
                folder: self.name.clone(),
                name: tokenizer.name().to_owned(),
                expected: expected.clone(),
                found: tokenizer.hash_hex(),
            }),
            _ => Ok(()),
        }
    }

    /// Number of sequences of `sequence` tokens (T), at least 1.
    ///
    /// # Errors
    /// [`Error::SequenceTooLong`] if there is not one; [`Error::ZeroLength`] for T = 0.
    pub fn n_sequences(&self, sequence: usize) -> Result<u64> {
        if sequence == 0 {
            return Err(Error::ZeroLength);
        }
        match self.n_tokens.saturating_sub(1) / sequence as u64 {
            0 => Err(Error::SequenceTooLong { sequence, tokens: self.n_tokens }),
            count => Ok(count),
        }
    }

    /// Reads sequence `index` of T = `out.len()` − 1 tokens with its last target: T + 1 tokens.
    ///
    /// # Errors
    /// [`Error::SequenceRange`], [`Error::SequenceTooLong`], and those of [`Dataset::read`].
    pub fn read_sequence(&self, index: u64, out: &mut [u32]) -> Result<()> {
        let sequence = out.len().saturating_sub(1);
        self.check_index(index, sequence)?;
        self.read(index * sequence as u64, out)
    }

    /// Reads inputs and targets of sequence `index`, both of T tokens.
    pub(crate) fn read_pair(&self, index: u64, tokens: &mut [u32], targets: &mut [u32]) -> Result<()> {
        let sequence = tokens.len();
        self.check_index(index, sequence)?;
        self.read(index * sequence as u64, tokens)?;
        self.read(index * sequence as u64 + 1, targets)
    }

    /// Copies the tokens from `start` on into `out`.
    ///
    /// # Errors
    /// [`Error::TokenSpan`] beyond the end; [`Error::ShardHash`] for a shard that was changed since it was written;
    /// [`Error::TokenRange`] for a stored token outside the vocabulary.
    pub fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let end = start.saturating_add(out.len() as u64);
        if end > self.n_tokens {
            return Err(Error::TokenSpan { start, end, tokens: self.n_tokens });
        }
        let mut shards = self.shards[self.shards.partition_point(|s| s.start + s.tokens <= start)..].iter();
        let (mut at, mut rest) = (start, out);
        while let (false, Some(shard)) = (rest.is_empty(), shards.next()) {
            let offset = at - shard.start;
            let count = usize::try_from(shard.tokens - offset).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            shard.check()?;
            shard.copy(offset, now);
            check_range(&shard.name, offset, now, self.vocab_size)?;
            (at, rest) = (at + count as u64, later);
        }
        Ok(())
    }

    fn check_index(&self, index: u64, sequence: usize) -> Result<()> {
        let count = self.n_sequences(sequence)?;
        if index < count { Ok(()) } else { Err(Error::SequenceRange { index, count }) }
    }
}

impl Shard {
    /// Copies `out.len()` tokens from `offset`; the caller keeps inside the shard.
    fn copy(&self, offset: u64, out: &mut [u32]) {
        // Offsets are below the length of a mapped file or a Vec, so they fit usize.
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        match &self.store {
            Store::Memory(tokens) => out.copy_from_slice(&tokens[offset..offset + out.len()]),
            Store::Mapped(Mapped { map, dtype, .. }) => decode(&map[offset * dtype.width()..], *dtype, out),
        }
    }

    /// Hashes the file unless that was done.
    fn check(&self) -> Result<()> {
        let Store::Mapped(Mapped { map, expected, found, .. }) = &self.store else { return Ok(()) };
        let found = found.get_or_init(|| blake3::hash(map).to_hex().to_string());
        if found == expected {
            return Ok(());
        }
        let (path, expected) = (self.name.clone().into(), expected.clone());
        Err(Error::ShardHash { path, expected, found: found.clone() })
    }
}

/// Decodes little-endian tokens from the beginning of `bytes` until `out` is full.
pub(crate) fn decode(bytes: &[u8], dtype: Dtype, out: &mut [u32]) {
    match dtype {
        Dtype::U16 => {
            for (token, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                *token = u32::from(u16::from_le_bytes([b[0], b[1]]));
            }
        }
        Dtype::U32 => {
            for (token, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                *token = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
            }
        }
    }
}

/// All `tokens`, which begin at `offset` of `shard`, are below `vocab_size`. One vectorised maximum decides;
/// only the failure searches.
pub(crate) fn check_range(shard: &str, offset: u64, tokens: &[u32], vocab_size: usize) -> Result<()> {
    let max = tokens.iter().fold(0, |max, token| max.max(*token));
    if tokens.is_empty() || (max as usize) < vocab_size {
        return Ok(());
    }
    let at = tokens.iter().position(|token| *token as usize >= vocab_size).unwrap_or(0);
    Err(Error::TokenRange {
        shard: shard.to_owned(),
        offset: offset + at as u64,
        token: tokens[at],
        vocab_size,
    })
}
