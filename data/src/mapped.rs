//! Read-only memory maps of shard files: the only unsafe code of the crate.
#![allow(unsafe_code)] // Mapping a file is unsafe because another process may change it underneath.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Maps the whole of `path`, which must have `expected` bytes.
///
/// # Errors
/// [`Error::ShardSize`] for another size, so that a truncated shard is found here and not as a fault later.
pub(crate) fn map(path: &Path, expected: u64) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "open the shard"))?;
    let found = file.metadata().map_err(Error::io(path, "read the size"))?.len();
    if found != expected {
        return Err(Error::ShardSize { path: path.to_path_buf(), expected, found });
    }
    // SAFETY: shards are written once, under a temporary name, and renamed when complete; nothing in this
    // project writes to or truncates a file that has its final name. The mapping is read-only and its bytes
    // are valid for every value.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map the shard into memory"))
}
