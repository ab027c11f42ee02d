//! `gauntlet generate`: continues a text.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use gauntlet_data::Tokenizer;
use gauntlet_model::generate::{Sampling, generate};
use gauntlet_model::llama::Llama;
use serde_json::json;

use crate::cli::Usage;
use crate::text_stream::TextStream;
use crate::{model_folder, output};

/// Continue a text, written to standard output as it comes.
#[derive(Args)]
pub(crate) struct GenerateArgs {
    /// Model folder, or run folder (its newest checkpoint).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text to go on from; none: the beginning of a document.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prompt: String,
    /// Tokens to add at most.
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_tokens: usize,
    /// Divides the logits; 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temperature: f64,
    /// Consider only the most likely tokens that together reach this probability.
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    top_p: f64,
    /// Seed of the draws; same seed, same text.
    #[arg(long, value_name = "S", default_value_t = 42)]
    seed: u64,
    /// tokenizer.json to use instead of the model's, or 'bytes'.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<String>,
    /// Threads; 0: one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// One JSON object at the end instead of text.
    #[arg(long)]
    json: bool,
}

/// What was generated.
struct Continuation {
    text: String,
    ids: Vec<u32>,
    stop: &'static str,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    check(args)?;
    let model = model_folder::load(&args.model)?;
    let tokenizer = model_folder::tokenizer(&model, args.tokenizer.as_deref())?;
    let mut prompt = tokenizer.encode(&args.prompt)?;
    if prompt.is_empty() {
        prompt.push(tokenizer.eos_id());
    }
    let (n, longest) = (prompt.len(), model.config.max_position_embeddings);
    if n > longest {
        bail!("the prompt has {n} tokens, the model reads {longest}; shorten it");
    }
    let llama = Llama::from_theta(&model.config, &model.theta)?;
    let pool = gauntlet_model::engine::cpu::pool(args.threads)?;
    let made = pool.install(|| extend(args, &llama, &tokenizer, &prompt))?;
    if !args.json {
        return output::text("\n");
    }
    let result = json!({
        "model": args.model.display().to_string(), "theta_hash": model.hash,
        "prompt": args.prompt, "text": made.text, "prompt_ids": prompt, "ids": made.ids, "stop": made.stop,
        "temperature": args.temperature, "top_p": args.top_p, "seed": args.seed,
    });
    output::text(&format!("{result:#}\n"))
}

fn check(args: &GenerateArgs) -> Result<()> {
    let wrong = |problem: String| Err(Usage(problem).into());
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        return wrong(format!("--temperature {}: must be 0 or more", args.temperature));
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        return wrong(format!("--top-p {}: must lie above 0 and not above 1", args.top_p));
    }
    if args.max_tokens == 0 {
        return wrong("--max-tokens: must be at least 1".into());
    }
    Ok(())
}

fn extend(args: &GenerateArgs, llama: &Llama, tokenizer: &Tokenizer, prompt: &[u32]) -> Result<Continuation> {
    let show = |piece: &str| if args.json { Ok(()) } else { output::text(piece) };
    show(&args.prompt)?;
    let mut stream = TextStream::after(tokenizer, prompt)?;
    let (mut text, mut ids, mut failed) = (String::new(), Vec::new(), None);
    let sampling = Sampling { temperature: args.temperature, top_p: args.top_p, seed: args.seed };
    generate(llama, prompt, args.max_tokens, sampling, |id| {
        // A model of unknown origin may not name its end of text; the tokenizer does.
        if id == tokenizer.eos_id() {
            return false;
        }
        ids.push(id);
        let shown = stream.push(id).and_then(|piece| {
            text.push_str(&piece);
            show(&piece)
        });
        failed = shown.err();
        failed.is_none()
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let rest = stream.finish()?;
    show(&rest)?;
    let stop = if ids.len() == args.max_tokens {
        "max-tokens"
    } else if prompt.len() + ids.len() > llama.config().max_position_embeddings {
        "context"
    } else {
        "eos"
    };
    Ok(Continuation { text: text + &rest, ids, stop })
}
