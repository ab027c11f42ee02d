//! `gauntlet export`: a model for other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use gauntlet_model::weights::SHARD_BYTES;
use serde_json::json;

use crate::cli::Usage;
use crate::{export, model_folder, output};

/// Write a model as other programs read it (f32 safetensors, config, tokenizer).
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// Model folder, or run folder (its newest checkpoint).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Folder to write, new or empty.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// hf: what Hugging Face's LlamaForCausalLM and AutoTokenizer load.
    #[arg(long, default_value = "hf", value_parser = ["hf"])]
    format: String,
    /// tokenizer.json to use instead of the model's, or 'bytes'.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<String>,
    /// Bytes in a file of weights at most, unless one tensor alone is larger.
    #[arg(long, value_name = "N", default_value_t = SHARD_BYTES)]
    max_shard_bytes: usize,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ExportArgs) -> Result<()> {
    if args.max_shard_bytes == 0 {
        return Err(Usage("--max-shard-bytes: must be at least 1".into()).into());
    }
    let model = model_folder::load(&args.model)?;
    let tokenizer = model_folder::find_tokenizer(&model, args.tokenizer.as_deref())?;
    if tokenizer.is_none() {
        let folder = model.folder.display();
        output::note(format_args!("{folder}: no tokenizer.json, none is exported; --tokenizer names one"));
    }
    export::hugging_face(&model, tokenizer.as_ref(), &args.out, args.max_shard_bytes)?;
    let name = tokenizer.as_ref().map(|tokenizer| tokenizer.name().to_owned());
    let rows = [
        ("exported", model.folder.display().to_string()),
        ("to", args.out.display().to_string()),
        ("parameters", model.layout.total().to_string()),
        ("tokenizer", name.clone().unwrap_or_else(|| "none".into())),
        ("θ hash", model.hash.clone()),
    ];
    let result = json!({
        "model": model.folder.display().to_string(), "out": args.out.display().to_string(),
        "format": args.format, "parameters": model.layout.total(), "tokenizer": name,
        "theta_hash": model.hash,
    });
    output::result(output::wants_json(args.json), &result, &rows)
}
