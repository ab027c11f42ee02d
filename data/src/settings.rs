//! `settings.json`: what a folder is being prepared from and with. Written first, so that two preparations
//! with different settings never mix in one folder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::{Dtype, FORMAT, TokenizerRecord, to_json};
use crate::source::Source;

/// File name of the settings in a folder.
pub(crate) const SETTINGS_FILE: &str = "settings.json";

/// Everything that decides the content of the shards, apart from the content of the inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) format: u32,
    pub(crate) source: String,
    pub(crate) inputs: usize,
    /// BLAKE3 of the inputs' names, hex.
    pub(crate) inputs_hash: String,
    pub(crate) field: String,
    pub(crate) validation: String,
    pub(crate) max_tokens_per_shard: u64,
    pub(crate) tokenizer: TokenizerRecord,
    /// Bytes of text the tokenizer was trained on at most; none if it was given. Two machines may train and
    /// load the same tokenizer, so this one is not compared.
    pub(crate) training_bytes: Option<u64>,
}

impl Settings {
    pub(crate) fn new(
        source: &Source,
        validation: String,
        max_tokens_per_shard: u64,
        tokenizer: TokenizerRecord,
        training_bytes: Option<u64>,
    ) -> Self {
        let mut names = blake3::Hasher::new();
        for input in source.inputs() {
            names.update(input.name().as_bytes()).update(b"\n");
        }
        Self {
            format: FORMAT,
            source: source.description().to_owned(),
            inputs: source.inputs().len(),
            inputs_hash: names.finalize().to_hex().to_string(),
            field: source.field().to_owned(),
            validation,
            max_tokens_per_shard,
            tokenizer,
            training_bytes,
        }
    }

    /// The settings of `folder`; none if it has none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(SETTINGS_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "read the settings"))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::manifest(&path, e.to_string()))
    }

    pub(crate) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        to_json(self, path)
    }

    pub(crate) fn dtype(&self) -> Dtype {
        Dtype::for_vocab(self.tokenizer.vocab_size)
    }

    /// The work on one input counts as done if its identity and this hash are as they were.
    pub(crate) fn key(&self, identity: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        for (_, value) in self.compared() {
            hasher.update(&(value.len() as u64).to_le_bytes()).update(value.as_bytes());
        }
        hasher.update(identity.as_bytes());
        hasher.finalize().to_hex().to_string()
    }

    /// Refuses `self`, wanted for `folder`, where `found` holds other values.
    pub(crate) fn check_same(&self, found: &Self, folder: &Path) -> Result<()> {
        for ((field, found), (_, wanted)) in found.compared().into_iter().zip(self.compared()) {
            if found != wanted {
                return Err(Error::Settings { path: folder.to_path_buf(), field, found, wanted });
            }
        }
        Ok(())
    }

    fn compared(&self) -> [(&'static str, String); 9] {
        [
            ("format", self.format.to_string()),
            ("source", self.source.clone()),
            ("number of inputs", self.inputs.to_string()),
            ("list of inputs", self.inputs_hash.clone()),
            ("field", self.field.clone()),
            ("validation", self.validation.clone()),
            ("max_tokens_per_shard", self.max_tokens_per_shard.to_string()),
            ("tokenizer", self.tokenizer.hash.clone()),
            ("end-of-text token", self.tokenizer.eos_id.to_string()),
        ]
    }
}
