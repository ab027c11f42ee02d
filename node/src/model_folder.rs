//! A folder with a model: `config.json`, weights and tokenizer as Hugging Face lays them out. Our
//! checkpoints and exports are such folders, and a LLaMA from elsewhere is one too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gauntlet_data::Tokenizer;
use gauntlet_model::{Layout, LlamaConfig, weights};

use crate::train::checkpoint;

/// Name of the tokenizer's file in a model folder.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Vocabulary of the byte tokenizer: a model of this size without `tokenizer.json` reads bytes.
const BYTES_VOCAB: usize = 257;

/// A model in memory.
pub(crate) struct Model {
    pub(crate) folder: PathBuf,
    pub(crate) config: LlamaConfig,
    pub(crate) layout: Layout,
    pub(crate) theta: Vec<f32>,
}

/// Loads a model folder, or the newest checkpoint of a run folder.
pub(crate) fn load(path: &Path) -> Result<Model> {
    let folder = find(path)?;
    let config = LlamaConfig::read(&folder.join("config.json"))?;
    let layout = Layout::new(&config);
    let mut theta = vec![0.0; layout.total()];
    weights::read(&folder, &layout, &mut theta)?;
    Ok(Model { folder, config, layout, theta })
}

/// `path` itself if it holds a model, else its newest checkpoint.
fn find(path: &Path) -> Result<PathBuf> {
    if path.join("config.json").exists() {
        return Ok(path.to_path_buf());
    }
    if let Some(newest) = checkpoint::newest(path)? {
        return Ok(newest);
    }
    bail!("{}: no config.json and no checkpoints; give a run folder or a model folder", path.display())
}

/// The tokenizer of a model folder, or the one given instead, checked against the model's vocabulary.
pub(crate) fn tokenizer(model: &Model, given: Option<&Path>) -> Result<Tokenizer> {
    let own = model.folder.join(TOKENIZER);
    let tokenizer = match given {
        Some(path) => Tokenizer::load(path, None)?,
        None if own.exists() => Tokenizer::load(&own, None)?,
        None if model.config.tokenizer_vocab_size == BYTES_VOCAB => Tokenizer::bytes(),
        None => bail!("{}: no {TOKENIZER}; name one with --tokenizer", model.folder.display()),
    };
    check_vocab(&tokenizer, &model.config)?;
    Ok(tokenizer)
}

/// Refuses a tokenizer whose ids the model does not have.
pub(crate) fn check_vocab(tokenizer: &Tokenizer, config: &LlamaConfig) -> Result<()> {
    let (ids, rows) = (tokenizer.vocab_size(), config.tokenizer_vocab_size);
    if ids > rows {
        bail!("tokenizer {} has {ids} ids, the model {rows}; they do not belong together", tokenizer.name());
    }
    Ok(())
}

/// Writes a model folder (which must exist): config, weights, tokenizer.
pub(crate) fn write(
    folder: &Path,
    (config, layout, theta): (&LlamaConfig, &Layout, &[f32]),
    tokenizer: Option<&Tokenizer>,
    shard_bytes: usize,
) -> Result<()> {
    let path = folder.join("config.json");
    let json = serde_json::to_string_pretty(&config.to_hf())? + "\n";
    std::fs::write(&path, json).with_context(|| format!("cannot write {}", path.display()))?;
    if let Some(tokenizer) = tokenizer.filter(|t| !t.is_bytes()) {
        tokenizer.save(&folder.join(TOKENIZER))?;
    }
    weights::write(folder, layout, theta, shard_bytes)?;
    Ok(())
}
