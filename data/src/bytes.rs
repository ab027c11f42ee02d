//! The byte tokenizer as a `tokenizer.json`, for programs that know only those.
//!
//! A byte-level BPE without merges: token b is the letter of byte b, 256 is end of text, and nothing splits
//! the text first, so the ids of a text are exactly its bytes.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer as Json;

use crate::bpe::{EOS_NAME, byte_letters, byte_level_json};

/// As tokenizers itself writes it, so that it can be recognised in a file.
static CANONICAL: LazyLock<Value> = LazyLock::new(|| {
    let canonical = Json::from_bytes(bytes_json()).and_then(|inner| inner.to_string(false));
    canonical.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
});

/// The `tokenizer.json` that gives the same ids as [`crate::Tokenizer::bytes`].
///
/// Other programs may read the name of end of text out of a text as its token; [`crate::Tokenizer`] never does.
pub fn bytes_json() -> String {
    let letters = byte_letters();
    let mut vocab: Map<String, Value> = (0u32..).zip(letters).map(|(id, c)| (c.into(), json!(id))).collect();
    vocab.insert(EOS_NAME.to_owned(), json!(256));
    let tokenizer = byte_level_json(vocab, json!([]), 256, false);
    format!("{tokenizer:#}\n")
}

/// Whether a canonical `tokenizer.json` is the one above. A post-processor adds special tokens, which
/// [`crate::Tokenizer`] never asks for; transformers saves one that does nothing.
pub(crate) fn is_bytes(canonical: &Value) -> bool {
    let (Some(found), Some(own)) = (canonical.as_object(), CANONICAL.as_object()) else { return false };
    let differs = |(key, value): (&String, &Value)| key != "post_processor" && found.get(key) != Some(value);
    found.len() == own.len() && !own.iter().any(differs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;

    #[test]
    fn the_file_gives_the_bytes_and_is_recognised() {
        let json = Json::from_bytes(bytes_json()).unwrap();
        let every: String = (0..0x2_0000).filter_map(char::from_u32).collect();
        for text in ["", "a", " two  words\n\n\ttab\r\n", "é€𝄞\u{0}\u{7f}", every.as_str()] {
            let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
            assert_eq!(json.encode(text, true).unwrap().get_ids(), bytes);
            assert_eq!(json.decode(&bytes, true).unwrap(), text);
        }
        assert_eq!(json.token_to_id(EOS_NAME), Some(256));
        let loaded = Tokenizer::from_json("x", bytes_json().as_bytes(), None).unwrap();
        assert!(loaded.is_bytes());
        assert_eq!(loaded.hash(), Tokenizer::bytes().hash());
        let other = bytes_json().replace("\"use_regex\": false", "\"use_regex\": true");
        assert!(!Tokenizer::from_json("x", other.as_bytes(), None).unwrap().is_bytes());
        let template = r#""post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}"#;
        let saved = bytes_json().replace("\"post_processor\": null", template);
        assert!(
            saved != bytes_json() && Tokenizer::from_json("x", saved.as_bytes(), None).unwrap().is_bytes()
        );
    }
}
