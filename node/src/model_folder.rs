//! A folder with a model: `config.json`, weights and tokenizer as Hugging Face lays them out. Our
//! checkpoints and exports are such folders, and a LLaMA from elsewhere is one too.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use gauntlet_data::Tokenizer;
use gauntlet_model::{Layout, LlamaConfig, hash::theta_hash, weights};

use crate::files;
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
    /// θ hash, hex.
    pub(crate) hash: String,
}

/// Loads a model folder, or the newest checkpoint of a run folder; a checkpoint's weights are held
/// against their hash.
pub(crate) fn load(path: &Path) -> Result<Model> {
    let folder = find(path)?;
    let config = LlamaConfig::read(&folder.join("config.json"))?;
    let layout = Layout::new(&config);
    let theta = weights::load(&folder, &layout)?;
    let hash = theta_hash(&layout, &theta).to_hex().to_string();
    if checkpoint::recorded_theta(&folder)?.is_some_and(|recorded| recorded != hash) {
        bail!("{}: the weights are damaged (their hash differs); use another checkpoint", folder.display());
    }
    Ok(Model { folder, config, layout, theta, hash })
}

/// The shape of the model [`load`] would load.
pub(crate) fn config(path: &Path) -> Result<LlamaConfig> {
    Ok(LlamaConfig::read(&find(path)?.join("config.json"))?)
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

/// The tokenizer of a model folder, or the one given instead (a file, or `bytes`), checked against the
/// model's vocabulary.
pub(crate) fn tokenizer(model: &Model, given: Option<&str>) -> Result<Tokenizer> {
    match find_tokenizer(model, given)? {
        Some(tokenizer) => Ok(tokenizer),
        None => bail!("{}: no {TOKENIZER}; name one with --tokenizer", model.folder.display()),
    }
}

/// As [`tokenizer`]; `None` where the folder has none and none is given.
pub(crate) fn find_tokenizer(model: &Model, given: Option<&str>) -> Result<Option<Tokenizer>> {
    let own = model.folder.join(TOKENIZER);
    let tokenizer = match given {
        Some("bytes") => Tokenizer::bytes(),
        Some(file) => load_tokenizer(Path::new(file), &model.config)?,
        None if own.exists() => load_tokenizer(&own, &model.config)?,
        None if model.config.tokenizer_vocab_size == BYTES_VOCAB => Tokenizer::bytes(),
        None => return Ok(None),
    };
    check_vocab(&tokenizer, &model.config)?;
    Ok(Some(tokenizer))
}

/// The model knows the id of its end of text, whatever the token is called.
fn load_tokenizer(path: &Path, config: &LlamaConfig) -> Result<Tokenizer> {
    Ok(match config.eos_token_id {
        Some(id) => Tokenizer::load_with_eos(path, id)?,
        None => Tokenizer::load(path, None)?,
    })
}

/// Refuses a tokenizer whose ids the model does not have, and one that leaves ids of the model unused which
/// the model says are not padding.
pub(crate) fn check_vocab(tokenizer: &Tokenizer, config: &LlamaConfig) -> Result<()> {
    let (ids, rows) = (tokenizer.vocab_size(), config.tokenizer_vocab_size);
    let padding_is_known = rows < config.vocab_size;
    if ids > rows || (ids < rows && (padding_is_known || tokenizer.is_bytes())) {
        let name = tokenizer.name();
        bail!("tokenizer {name} has {ids} ids, the model {rows}; they do not belong together");
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
    files::write(&folder.join("config.json"), serde_json::to_string_pretty(&config.to_hf())? + "\n")?;
    if let Some(tokenizer) = tokenizer.filter(|t| !t.is_bytes()) {
        tokenizer.save(&folder.join(TOKENIZER))?;
    }
    weights::write(folder, layout, theta, shard_bytes)?;
    Ok(())
}
