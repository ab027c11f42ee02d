//! The corpus of a command without `--data`: the project's own source and documentation, packed into the
//! binary at build time, so that the first command needs no network. Its hash belongs to every result.

include!(concat!(env!("OUT_DIR"), "/corpus.rs"));

/// One file of the project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// Path from the root of the project, with forward slashes.
    pub name: &'static str,
    /// Content.
    pub text: &'static str,
}

/// Number of documents.
pub fn len() -> usize {
    CORPUS.len()
}

/// The documents, sorted by name.
pub fn documents() -> impl ExactSizeIterator<Item = Document> {
    CORPUS.iter().map(|(name, text)| Document { name, text })
}

/// The document at `index` of [`documents`].
pub fn document(index: usize) -> Option<Document> {
    documents().nth(index)
}

/// BLAKE3 over name and text of every document, each behind its length (u64, little-endian).
pub fn hash() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in CORPUS.iter().flat_map(|(name, text)| [name, text]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// [`hash`] as 64 hex digits.
pub fn hash_hex() -> String {
    blake3::Hash::from(hash()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_project() {
        let names: Vec<&str> = documents().map(|d| d.name).collect();
        assert!(names.is_sorted());
        assert!(names.iter().any(|name| name.ends_with("src/embedded.rs")));
        assert!(names.iter().all(|name| !name.contains('\\') && !name.starts_with("target/")));
        assert!(documents().all(|d| !d.text.is_empty() && !d.text.contains('\r')));
        assert_eq!(hash(), hash());
    }
}
