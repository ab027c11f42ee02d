//! Cuts long text where a tokenizer would split it anyway, so that encoding part by part changes nothing.
//!
//! The byte-level pre-tokenizers of GPT-2, GPT-4 / LLaMA 3 and Qwen never let a match run from a character
//! that is not white space into a following space, nor from an ASCII letter into a following newline. Cutting
//! in front of that white space is therefore exact. Other tokenizers get whole documents.

use serde_json::Value;

/// A piece ends at the first allowed place after this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Pre-tokenizer patterns for which the cuts were checked (GPT-4 / LLaMA 3, Qwen 2, and GPT-2 spelled out).
const KNOWN_PATTERNS: [&str; 3] = [
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
];

/// Where a tokenizer's text may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Between any two characters.
    Anywhere,
    /// In front of white space, as in the module header.
    BeforeSpace,
    /// Nowhere.
    Never,
}

impl Cut {
    /// The cuts allowed by the tokenizer with the canonical JSON `tree`.
    pub(crate) fn of(tree: &Value) -> Self {
        let plain_added = tree["added_tokens"].as_array().is_none_or(|tokens| {
            tokens.iter().all(|t| {
                let text = t["content"].as_str().unwrap_or_default();
                // Special tokens are not looked for in text at all.
                t["special"] == true
                    || (t["lstrip"] == false && t["rstrip"] == false && !text.contains(char::is_whitespace))
            })
        });
        let known = tree["normalizer"].is_null() && plain_added && splits_known(&tree["pre_tokenizer"]);
        if known { Cut::BeforeSpace } else { Cut::Never }
    }

    /// Iterates over the pieces of `text`; none for empty text.
    pub(crate) fn pieces(self, text: &str) -> Pieces<'_> {
        Pieces { cut: self, rest: text }
    }

    /// The first allowed cut of `text` at or after byte `from`.
    fn find(self, text: &str, from: usize) -> Option<usize> {
        match self {
            Cut::Never => None,
            Cut::Anywhere => (from..text.len()).find(|i| text.is_char_boundary(*i)),
            Cut::BeforeSpace => {
                let start = (0..=from).rev().find(|i| text.is_char_boundary(*i))?;
                let mut before = 'x';
                text[start..].char_indices().find_map(|(i, c)| {
                    let exact = i > 0
                        && ((c == ' ' && !before.is_whitespace())
                            || (c == '\n' && before.is_ascii_alphabetic()));
                    before = c;
                    exact.then_some(start + i)
                })
            }
        }
    }
}

/// Whether the pre-tokenizer is a byte-level one with a pattern for which the cuts are exact.
fn splits_known(pre: &Value) -> bool {
    let byte_level = |p: &Value, regex: bool| {
        p["type"] == "ByteLevel" && p["add_prefix_space"] == false && p["use_regex"] == regex
    };
    if byte_level(pre, true) {
        return true;
    }
    let Some(steps) = pre["pretokenizers"].as_array() else { return false };
    match steps.as_slice() {
        [split, bytes] if split["type"] == "Split" => {
            let pattern = split["pattern"]["Regex"].as_str();
            let isolated = split["behavior"] == "Isolated" && split["invert"] == false;
            isolated && pattern.is_some_and(|p| KNOWN_PATTERNS.contains(&p)) && byte_level(bytes, false)
        }
        [digits, bytes] => digits["type"] == "Digits" && byte_level(bytes, true),
        _ => false,
    }
}

/// See [`Cut::pieces`].
pub(crate) struct Pieces<'a> {
    cut: Cut,
    rest: &'a str,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let long = self.rest.len() > 2 * PIECE_BYTES;
        let at = if long { self.cut.find(self.rest, PIECE_BYTES) } else { None };
        let (piece, rest) = self.rest.split_at(at.unwrap_or(self.rest.len()));
        self.rest = rest;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokenizer;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::LazyLock;
    use tokenizers::pre_tokenizers::split::{Split as PreSplit, SplitPattern};
    use tokenizers::tokenizer::{
        OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    };

    /// The pre-tokens of `text`.
    fn split(split: &PreSplit, text: &str) -> Vec<String> {
        let mut pre = PreTokenizedString::from(text);
        split.pre_tokenize(&mut pre).unwrap();
        let parts = pre.get_splits(OffsetReferential::Original, OffsetType::Byte);
        parts.into_iter().map(|(s, _, _)| s.to_owned()).collect()
    }

    proptest! {
        #[test]
        fn cuts_are_exact(
            words in proptest::collection::vec(
                prop_oneof![
                    "[a-zA-Z']{1,5}", "[ \n\r\t]{1,4}", "[0-9]{1,4}", "[.,!?/\"-]{1,3}",
                    "[äé漢字かな한\u{301}\u{2003}\u{a0}]{1,3}",
                ],
                1..40,
            ),
        ) {
            static SPLITS: LazyLock<Vec<PreSplit>> = LazyLock::new(|| {
                let isolated = |pattern: &str| {
                    let pattern = SplitPattern::Regex(pattern.to_owned());
                    PreSplit::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap()
                };
                KNOWN_PATTERNS.map(isolated).into()
            });
            let text = words.concat();
            for pattern in SPLITS.iter() {
                let whole = split(pattern, &text);
                let mut from = 0;
                while let Some(at) = Cut::BeforeSpace.find(&text, from) {
                    let joined = [split(pattern, &text[..at]), split(pattern, &text[at..])].concat();
                    prop_assert_eq!(&joined, &whole, "cut at {} of {:?}", at, &text);
                    from = at + 1;
                }
            }
        }

        #[test]
        fn pieces_join_to_the_text(text in "[a-z \n漢]{0,300}", repeat in 1usize..2000) {
            let text = text.repeat(repeat);
            for cut in [Cut::Anywhere, Cut::BeforeSpace, Cut::Never] {
                prop_assert_eq!(cut.pieces(&text).collect::<String>(), text.as_str());
            }
        }
    }

    #[test]
    fn unknown_tokenizers_are_not_cut() {
        let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true});
        let known = json!({"normalizer": null, "added_tokens": [], "pre_tokenizer": byte_level});
        assert_eq!(Cut::of(&known), Cut::BeforeSpace);
        let mut normalised = known.clone();
        normalised["normalizer"] = json!({"type": "NFC"});
        assert_eq!(Cut::of(&normalised), Cut::Never);
        let metaspace = json!({"normalizer": null, "pre_tokenizer": {"type": "Metaspace"}});
        assert_eq!(Cut::of(&metaspace), Cut::Never);
        assert_eq!(Tokenizer::bytes().pieces(&"ä".repeat(200_000)).count(), 6);
    }
}
