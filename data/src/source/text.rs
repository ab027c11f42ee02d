//! A text file: one document.

use std::io::Read;
use std::path::Path;

use super::Counted;
use crate::error::{Error, Result};

/// The single document of the file, read when asked for.
pub(super) fn document(
    mut reader: Counted,
    path: &Path,
    name: &str,
) -> impl Iterator<Item = Result<Option<String>>> + Send + use<> {
    let (path, name) = (path.to_path_buf(), name.to_owned());
    std::iter::once_with(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(Error::io(&path, "read"))?;
        utf8(bytes, &name, 0).map(Some)
    })
}

/// `bytes`, which begin at `offset` of `file`, as text.
pub(super) fn utf8(bytes: Vec<u8>, file: &str, offset: u64) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| Error::Utf8 {
        file: file.to_owned(),
        offset: offset + e.utf8_error().valid_up_to() as u64,
    })
}
