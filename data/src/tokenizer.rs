//! Text ↔ token ids: any `tokenizer.json`, a trained byte-level BPE ([`crate::BpeTrainer`]), or plain bytes.
//!
//! Special tokens are never read out of text: a document that contains the words `<|endoftext|>` is encoded
//! letter by letter, so the id of end of text (EOS) appears only where a document ends.
//! Invariant: `encode` gives ids below `vocab_size`; `decode(encode(text)) == text` for byte-level tokenizers.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer as Json;

use crate::bpe::EOS_NAME;
use crate::bytes;
use crate::error::{Error, Result};
use crate::manifest::Manifest;
use crate::pieces::{self, Cut};

/// Models pad their vocabulary to a multiple of this (PROTOCOL section 1).
pub const VOCAB_MULTIPLE: usize = 64;

/// End-of-text names looked for when none is given, in this order.
pub const EOS_NAMES: [&str; 6] =
    ["</s>", "<|endoftext|>", "<|end_of_text|>", "<eos>", "<|eos|>", "<|endofdoc|>"];

/// What is hashed for the byte tokenizer, which has no file.
const BYTES_IDENTITY: &str = "gauntlet byte tokenizer: ids 0..=255 are bytes, 256 is end of text";

/// A tokenizer with a known end-of-text token.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    name: String,
    kind: Kind,
    vocab_size: usize,
    eos_id: u32,
    hash: blake3::Hash,
}

#[derive(Clone, Debug)]
enum Kind {
    Bytes,
    Json { inner: Box<Json>, canonical: String, cut: Cut, lengths: Option<Vec<u32>> },
}

impl Tokenizer {
    /// One token per byte: ids 0..=255 are the bytes, 256 is EOS.
    pub fn bytes() -> Self {
        Self {
            name: "bytes".to_owned(),
            kind: Kind::Bytes,
            vocab_size: 257,
            eos_id: 256,
            hash: blake3::hash(BYTES_IDENTITY.as_bytes()),
        }
    }

    /// Loads a `tokenizer.json`. `eos` names its end-of-text token; without it [`EOS_NAMES`] are tried.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Tokenizer`], [`Error::NoEos`].
    pub fn load(path: &Path, eos: Option<&str>) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NotFound { path: path.to_path_buf() });
        }
        let bytes = std::fs::read(path).map_err(Error::io(path, "read the tokenizer"))?;
        Self::from_json(&path.display().to_string(), &bytes, eos)
    }

    /// Like [`Tokenizer::load`], with the end-of-text token given by its id.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Tokenizer`], also where there is no such token.
    pub fn load_with_eos(path: &Path, eos_id: u32) -> Result<Self> {
        if !path.exists() {
            return Err(Error::NotFound { path: path.to_path_buf() });
        }
        let bytes = std::fs::read(path).map_err(Error::io(path, "read the tokenizer"))?;
        let name = path.display().to_string();
        let eos = token_name(&name, &bytes, eos_id)?;
        Self::from_json(&name, &bytes, Some(&eos))
    }

    /// Like [`Tokenizer::load`], from the bytes of a `tokenizer.json` called `name` in messages.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], [`Error::NoEos`].
    pub fn from_json(name: &str, json: &[u8], eos: Option<&str>) -> Result<Self> {
        let bad = |message: String| Error::Tokenizer { name: name.to_owned(), message };
        let mut inner = Json::from_bytes(json).map_err(|e| bad(e.to_string()))?;
        // Some published files cut or pad every text; a corpus must pass through whole.
        inner.with_truncation(None).map_err(|e| bad(e.to_string()))?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        let canonical = inner.to_string(false).map_err(|e| bad(e.to_string()))?;
        let tree: Value = serde_json::from_str(&canonical).map_err(|e| bad(e.to_string()))?;
        if tree["model"]["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
            return Err(bad("field `model.dropout` makes it random; set it to null".to_owned()));
        }
        if bytes::is_bytes(&tree) {
            // An export of a byte model is a byte model: data prepared as bytes fits it.
            return Ok(Self { name: name.to_owned(), ..Self::bytes() });
        }
        let vocab = inner.get_vocab(true);
        let Some(largest) = vocab.values().max() else { return Err(bad("an empty vocabulary".to_owned())) };
        let vocab_size = *largest as usize + 1;
        let tried = eos.map_or(EOS_NAMES.to_vec(), |eos| vec![eos]);
        let Some(eos_id) = tried.iter().find_map(|name| inner.token_to_id(name)) else {
            return Err(Error::NoEos { name: name.to_owned(), tried: tried.join(", ") });
        };
        let lengths = (tree["decoder"]["type"] == "ByteLevel").then(|| byte_lengths(&inner, vocab_size));
        let cut = Cut::of(&tree);
        let hash = blake3::hash(canonical.as_bytes());
        let kind = Kind::Json { inner: Box::new(inner), canonical, cut, lengths };
        Ok(Self { name: name.to_owned(), kind, vocab_size, eos_id, hash })
    }

    /// The tokenizer a prepared folder was made with, checked against its manifest.
    ///
    /// # Errors
    /// Those of [`Manifest::read`] and [`Tokenizer::load`]; [`Error::TokenizerMismatch`].
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let record = Manifest::read(folder)?.tokenizer;
        let tokenizer = match &record.file {
            None => Self::bytes(),
            Some(file) => {
                // The folder may have been prepared with --eos, so the id of the manifest decides.
                Self::load_with_eos(&folder.join(file), record.eos_id)?
            }
        };
        if tokenizer.hash_hex() != record.hash {
            return Err(Error::TokenizerMismatch {
                folder: folder.display().to_string(),
                name: tokenizer.name.clone(),
                expected: record.hash,
                found: tokenizer.hash_hex(),
            });
        }
        Ok(tokenizer)
    }

    /// Path or name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is [`Tokenizer::bytes`].
    pub fn is_bytes(&self) -> bool {
        matches!(self.kind, Kind::Bytes)
    }

    /// Ids of `text`, without EOS.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer has no token for a part of the text and no unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 2);
        for piece in self.pieces(text) {
            self.encode_piece(piece, &mut ids)?;
        }
        Ok(ids)
    }

    /// `text` in parts whose encodings, joined, are the encoding of the whole. A tokenizer's working memory is
    /// many times its text, so long documents go through it part by part, and in parallel.
    pub(crate) fn pieces<'a>(&self, text: &'a str) -> pieces::Pieces<'a> {
        match &self.kind {
            Kind::Bytes => Cut::Anywhere.pieces(text),
            Kind::Json { cut, .. } => cut.pieces(text),
        }
    }

    /// Appends the ids of one of [`Tokenizer::pieces`].
    pub(crate) fn encode_piece(&self, piece: &str, ids: &mut Vec<u32>) -> Result<()> {
        match &self.kind {
            Kind::Bytes => ids.extend(piece.bytes().map(u32::from)),
            Kind::Json { inner, .. } => {
                let encoding = inner.encode_fast(piece, false).map_err(|e| self.bad(&e))?;
                ids.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }

    /// The text of `ids`. EOS and other special tokens, and ids outside the vocabulary, give no text; a
    /// character of which bytes are missing becomes U+FFFD.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> = ids.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::Json { inner, .. } => inner.decode(ids, true).map_err(|e| self.bad(&e)),
        }
    }

    /// UTF-8 bytes of text that `ids` stand for: exact for byte-level tokenizers even where a character is
    /// cut, else the length of the decoded text. EOS counts 0.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn text_bytes(&self, ids: &[u32]) -> Result<u64> {
        match &self.kind {
            Kind::Bytes => Ok(ids.iter().filter(|id| **id < 256).count() as u64),
            Kind::Json { lengths: Some(lengths), .. } => Ok(ids
                .iter()
                .filter(|id| **id != self.eos_id)
                .map(|id| u64::from(lengths.get(*id as usize).copied().unwrap_or(0)))
                .sum()),
            Kind::Json { lengths: None, .. } => Ok(self.decode(ids)?.len() as u64),
        }
    }

    /// Number of ids, the largest plus one, without padding.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// [`Tokenizer::vocab_size`] rounded up to a multiple of 64, the size of a model's vocabulary.
    pub fn padded_vocab_size(&self) -> usize {
        self.vocab_size.next_multiple_of(VOCAB_MULTIPLE)
    }

    /// The id after every document.
    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    /// Name of the token after every document.
    pub fn eos_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Bytes => Some(EOS_NAME.to_owned()),
            Kind::Json { inner, .. } => inner.id_to_token(self.eos_id),
        }
    }

    /// BLAKE3 of the canonical `tokenizer.json` (compact, without truncation and padding), or of a constant
    /// text for the byte tokenizer.
    pub fn hash(&self) -> [u8; 32] {
        *self.hash.as_bytes()
    }

    /// [`Tokenizer::hash`] as 64 hex digits.
    pub fn hash_hex(&self) -> String {
        self.hash.to_hex().to_string()
    }

    /// The canonical `tokenizer.json`; none for the byte tokenizer.
    pub fn json(&self) -> Option<&str> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::Json { canonical, .. } => Some(canonical),
        }
    }

    /// Writes [`Tokenizer::json`] to `path`, atomically.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for the byte tokenizer, which has no file; [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        let Some(json) = self.json() else {
            return Err(self.bad("the byte tokenizer has no file; name it `bytes` instead"));
        };
        crate::output::write_atomic(path, json.as_bytes())
    }

    fn bad(&self, message: &(impl ToString + ?Sized)) -> Error {
        Error::Tokenizer { name: self.name.clone(), message: message.to_string() }
    }
}

/// The name of token `id` in the `tokenizer.json` bytes.
fn token_name(name: &str, json: &[u8], id: u32) -> Result<String> {
    let bad = |message: String| Error::Tokenizer { name: name.to_owned(), message };
    let inner = Json::from_bytes(json).map_err(|e| bad(e.to_string()))?;
    inner.id_to_token(id).ok_or_else(|| bad(format!("no token {id}, which is to be its end of text")))
}

/// Bytes of text of every id of a byte-level tokenizer: one for each letter of its own alphabet; added tokens
/// are written as they are.
fn byte_lengths(inner: &Json, vocab_size: usize) -> Vec<u32> {
    let mut lengths = vec![0; vocab_size];
    for (token, id) in inner.get_vocab(false) {
        lengths[id as usize] = token.chars().count() as u32;
    }
    for (id, token) in inner.get_added_tokens_decoder() {
        lengths[id as usize] = token.content.len() as u32;
    }
    lengths
}
