//! Export: a model folder for other programs, whole or not at all.
//!
//! The folder is written under a temporary name beside its place, flushed to the disk and renamed.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gauntlet_data::{Tokenizer, bytes_json};
use gauntlet_model::LlamaConfig;
use serde_json::{Value, json};

use crate::cli::Usage;
use crate::model_folder::{self, Model, TOKENIZER};

/// Writes `model` to `out` as Hugging Face's transformers reads it.
pub(crate) fn hugging_face(
    model: &Model,
    tokenizer: Option<&Tokenizer>,
    out: &Path,
    shard_bytes: usize,
) -> Result<()> {
    let temporary = temporary(out)?;
    refuse_full(out)?;
    // What a killed export left behind.
    remove(&temporary)?;
    let written = write(model, tokenizer, &temporary, shard_bytes).and_then(|()| place(&temporary, out));
    if written.is_err() {
        // The error that matters is the first one; the leftover only takes room.
        let _ = fs::remove_dir_all(&temporary);
    }
    let failed =
        || format!("{}: nothing was exported; free disk space or choose another --out", out.display());
    written.with_context(failed)
}

fn temporary(out: &Path) -> Result<PathBuf> {
    let Some(name) = out.file_name() else {
        return Err(Usage(format!("--out {}: name a new folder", out.display())).into());
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".export");
    Ok(out.with_file_name(hidden))
}

fn refuse_full(out: &Path) -> Result<()> {
    let Ok(kind) = fs::metadata(out) else { return Ok(()) };
    if !kind.is_dir() {
        bail!("{}: a file; choose a new folder for --out", out.display());
    }
    let mut entries = fs::read_dir(out).with_context(|| format!("cannot list {}", out.display()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => bail!("{}: not empty; choose a new folder for --out", out.display()),
    }
}

fn write(model: &Model, tokenizer: Option<&Tokenizer>, folder: &Path, shard_bytes: usize) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let parts = (&model.config, &model.layout, model.theta.as_slice());
    model_folder::write(folder, parts, tokenizer, shard_bytes)?;
    write_file(&folder.join("generation_config.json"), &pretty(&generation(&model.config)))?;
    if let Some(tokenizer) = tokenizer {
        if tokenizer.is_bytes() {
            write_file(&folder.join(TOKENIZER), &bytes_json())?;
        }
        let config = pretty(&tokenizer_config(tokenizer, &model.config));
        write_file(&folder.join("tokenizer_config.json"), &config)?;
    }
    File::open(folder)?.sync_all().with_context(|| format!("cannot write {}", folder.display()))
}

/// An empty folder in the way is replaced.
fn place(temporary: &Path, out: &Path) -> Result<()> {
    let cannot = || format!("cannot rename to {}", out.display());
    if out.exists() {
        fs::remove_dir(out).with_context(cannot)?;
    }
    fs::rename(temporary, out).with_context(cannot)?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|folder| folder.sync_all()).with_context(cannot)
}

/// The ids that only fill the vocabulary up are never trained; other programs have to be told.
fn generation(config: &LlamaConfig) -> Value {
    let padding: Vec<usize> = (config.tokenizer_vocab_size..config.vocab_size).collect();
    let mut value = json!({ "eos_token_id": config.eos_token_id, "pad_token_id": config.eos_token_id });
    if !padding.is_empty() {
        value["suppress_tokens"] = json!(padding);
    }
    value
}

fn tokenizer_config(tokenizer: &Tokenizer, config: &LlamaConfig) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.eos_name(),
        "model_max_length": config.max_position_embeddings,
        "clean_up_tokenization_spaces": false,
        "model_input_names": ["input_ids", "attention_mask"],
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let mut file = File::create(path).with_context(cannot)?;
    file.write_all(text.as_bytes()).with_context(cannot)?;
    file.sync_all().with_context(cannot)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if folder.exists() => Err(e).with_context(|| format!("cannot remove {}", folder.display())),
        _ => Ok(()),
    }
}
