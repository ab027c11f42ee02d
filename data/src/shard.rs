//! Writes tokens as shard files: little-endian u16 or u32, nothing else in the file.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::manifest::{Dtype, ShardRecord};
use crate::output::{Disk, Pending};

/// Bytes gathered before a write.
const BUFFER: usize = 1 << 20;

/// The shards of one input and one split, `{stem}-0000.bin`, `{stem}-0001.bin`, …: each holds `limit` tokens,
/// the last the rest. Documents run on from shard to shard.
pub(crate) struct ShardWriter<'a> {
    disk: &'a dyn Disk,
    folder: PathBuf,
    stem: String,
    dtype: Dtype,
    limit: u64,
    open: Option<Open>,
    done: Vec<ShardRecord>,
}

/// A shard being written.
struct Open {
    file: Pending,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    record: ShardRecord,
}

impl<'a> ShardWriter<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, folder: &Path, stem: String, dtype: Dtype, limit: u64) -> Self {
        Self { disk, folder: folder.to_path_buf(), stem, dtype, limit, open: None, done: Vec::new() }
    }

    /// Appends tokens.
    pub(crate) fn push(&mut self, mut tokens: &[u32]) -> Result<()> {
        while !tokens.is_empty() {
            let (dtype, limit) = (self.dtype, self.limit);
            let open = self.current()?;
            let room = usize::try_from(limit - open.record.tokens).unwrap_or(usize::MAX);
            let (now, later) = tokens.split_at(room.min(tokens.len()));
            open.write(now, dtype)?;
            tokens = later;
        }
        Ok(())
    }

    /// Appends EOS and counts a document of `bytes` bytes of text.
    pub(crate) fn end_document(&mut self, eos_id: u32, bytes: u64) -> Result<()> {
        self.push(&[eos_id])?;
        if let Some(open) = &mut self.open {
            open.record.documents += 1;
            open.record.bytes += bytes;
        }
        Ok(())
    }

    /// Completes the last shard.
    pub(crate) fn finish(mut self) -> Result<Vec<ShardRecord>> {
        if let Some(open) = self.open.take() {
            self.done.push(open.close()?);
        }
        Ok(self.done)
    }

    /// The shard with room for a token. A full one is closed only here, so that the document whose EOS filled
    /// it is still counted in it.
    fn current(&mut self) -> Result<&mut Open> {
        if let Some(open) = self.open.take_if(|open| open.record.tokens >= self.limit) {
            self.done.push(open.close()?);
        }
        match &mut self.open {
            Some(open) => Ok(open),
            none => {
                let name = format!("{}-{:04}.bin", self.stem, self.done.len());
                let file = Pending::create(self.disk, &self.folder.join(&name), "")?;
                let record =
                    ShardRecord { file: name, tokens: 0, bytes: 0, documents: 0, blake3: String::new() };
                let buffer = Vec::with_capacity(BUFFER + 4);
                Ok(none.insert(Open { file, hasher: blake3::Hasher::new(), buffer, record }))
            }
        }
    }
}

impl Open {
    fn write(&mut self, tokens: &[u32], dtype: Dtype) -> Result<()> {
        for token in tokens {
            // Two bytes hold every id of a vocabulary for which `Dtype::for_vocab` says U16.
            self.buffer.extend_from_slice(&token.to_le_bytes()[..dtype.width()]);
            if self.buffer.len() >= BUFFER {
                self.flush()?;
            }
        }
        self.record.tokens += tokens.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.file.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn close(mut self) -> Result<ShardRecord> {
        self.flush()?;
        self.file.commit()?;
        self.record.blake3 = self.hasher.finalize().to_hex().to_string();
        Ok(self.record)
    }
}
