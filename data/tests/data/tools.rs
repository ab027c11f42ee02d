//! Files and text for the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gauntlet_data::{PrepareOptions, TokenizerChoice};

/// Writes `bytes` to `folder/name`, with the folders in between.
pub(crate) fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `words` words of text that differ by `seed`; ASCII and not.
pub(crate) fn text(seed: u64, words: usize) -> String {
    const WORDS: [&str; 12] = [
        "window", "gradient", "peer", "the", "of", "über", "12,5", "it's", "漢字", "training", "\n\n",
        "e\u{301}",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    for _ in 0..words {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[usize::try_from(state % 12).unwrap()]);
        text.push(if state.is_multiple_of(31) { '\n' } else { ' ' });
    }
    text
}

/// Options for `source` to `out` with a small trained vocabulary.
pub(crate) fn options(source: &Path, out: &Path) -> PrepareOptions {
    let mut options = PrepareOptions::new(Some(source.display().to_string()), out.to_path_buf());
    options.tokenizer = TokenizerChoice::Train { vocab_size: 300 };
    options.threads = 2;
    options
}

/// Content of every file of `folder`, without those that only serve a resumed run on the same machine.
pub(crate) fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let lasting = named.filter(|(name, _)| !name.starts_with("input-") && !name.contains(".part-"));
    lasting.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}
