//! Reads a prepared folder completely and compares it with its manifest.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::dataset::{check_range, decode};
use crate::error::{Error, Result};
use crate::manifest::{Manifest, ShardRecord};
use crate::mapped;
use crate::progress::{Advance, Phase, Progress, Totals};
use crate::tokenizer::Tokenizer;

/// Tokens looked at together.
const BLOCK: usize = 1 << 16;

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Shards read.
    pub shards: u64,
    /// Tokens in sound shards.
    pub tokens: u64,
    /// Bytes of the sound shard files.
    pub bytes: u64,
    /// One line for everything that is wrong; empty if the folder is sound.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Checks every shard of `folder`: size, BLAKE3, every token below the vocabulary, an end of text for every
/// document; and that the tokenizer is the one of the manifest. In parallel over shards.
///
/// # Errors
/// Those of [`Manifest::read`], and [`Error::Stopped`]; everything else is a line of the report.
pub fn verify(folder: &Path, progress: &impl Progress) -> Result<Report> {
    let manifest = Manifest::read(folder)?;
    let shards = || manifest.splits.values().flat_map(|record| &record.shards);
    let bytes = shards().map(|shard| shard.tokens.saturating_mul(manifest.dtype.width() as u64));
    let totals = Totals { inputs: shards().count() as u64, bytes: bytes.fold(0, u64::saturating_add) };
    progress.start(Phase::Verify, totals);
    let mut report = Report::default();
    if let Err(error) = Tokenizer::of_folder(folder) {
        report.problems.push(error.to_string());
    }
    for (split, record) in &manifest.splits {
        let found: Vec<Result<u64>> =
            record.shards.par_iter().map(|shard| check(folder, shard, &manifest, progress)).collect();
        if progress.stopped() {
            return Err(Error::Stopped);
        }
        let (mut ends, mut sound) = (0, true);
        for (shard, result) in record.shards.iter().zip(found) {
            report.shards += 1;
            match result {
                Ok(count) => {
                    ends += count;
                    report.tokens += shard.tokens;
                    report.bytes += shard.tokens * manifest.dtype.width() as u64;
                }
                Err(error) => {
                    sound = false;
                    report.problems.push(error.to_string());
                }
            }
        }
        // A tokenizer may also read end of text out of a text, so there can be more of them.
        if sound && ends < record.documents {
            report.problems.push(format!(
                "split `{split}`: {ends} ends of text for {} documents; prepare the data again",
                record.documents
            ));
        }
    }
    Ok(report)
}

/// Checks one shard; returns the number of EOS in it.
fn check(folder: &Path, shard: &ShardRecord, manifest: &Manifest, progress: &impl Progress) -> Result<u64> {
    let path = folder.join(&shard.file);
    let map = mapped::map(&path, shard.tokens * manifest.dtype.width() as u64)?;
    let (mut hasher, mut ends, mut offset) = (blake3::Hasher::new(), 0, 0);
    let mut tokens = vec![0u32; BLOCK];
    for bytes in map.chunks(BLOCK * manifest.dtype.width()) {
        if progress.stopped() {
            return Err(Error::Stopped);
        }
        progress.advance(Advance { input_bytes: bytes.len() as u64, ..Advance::default() });
        hasher.update(bytes);
        let tokens = &mut tokens[..bytes.len() / manifest.dtype.width()];
        decode(bytes, manifest.dtype, tokens);
        check_range(&path.display().to_string(), offset, tokens, manifest.tokenizer.vocab_size)?;
        ends += tokens.iter().filter(|token| **token == manifest.tokenizer.eos_id).count() as u64;
        offset += tokens.len() as u64;
    }
    let found = hasher.finalize().to_hex().to_string();
    if found != shard.blake3 {
        return Err(Error::ShardHash { path, expected: shard.blake3.clone(), found });
    }
    Ok(ends)
}
