//! `gauntlet eval`: how good a model is, on text or on multiple-choice questions.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use gauntlet_data::{Split, Tokenizer};
use gauntlet_model::engine::cpu::Path as CodePath;
use gauntlet_model::engine::{Engine, EngineOptions, MemoryPlan, Mode};
use serde_json::{Value, json};

use crate::cli::Usage;
use crate::device::{self, DeviceArgs, Place, Work};
use crate::eval::accuracy::Accuracy;
use crate::eval::request::{DELIMITER, Request, log_likelihoods};
use crate::eval::task::Task;
use crate::eval::text::Text;
use crate::model_folder::{self, Model};
use crate::train::measure;
use crate::{memory, output, progress};

/// Sequence length unless told otherwise: that of `gauntlet train`, so that their losses compare.
const SEQ: usize = 128;

/// Measure a model on the text of --data, or on the questions of --task and --file.
#[derive(Args)]
pub(crate) struct EvalArgs {
    /// Model folder, or run folder (its newest checkpoint).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// tokenizer.json to use instead of the model's, or 'bytes'.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<String>,
    /// Prepared folder (of a run: DIR/data), text file or folder, or hf:owner/name; none: the embedded corpus.
    #[arg(long, value_name = "PATH", conflicts_with = "task")]
    data: Option<String>,
    /// JSONL field or Parquet column that holds the text [default: text].
    #[arg(long, value_name = "NAME", conflicts_with = "task")]
    field: Option<String>,
    /// Split to measure [default: validation where the data has one, else train].
    #[arg(long, value_parser = split, conflicts_with = "task")]
    split: Option<Split>,
    /// Tokens in a sequence [default: 128, or the model's longest if that is less].
    #[arg(long, conflicts_with = "task")]
    seq: Option<usize>,
    /// Sequences measured, from the beginning of the split; 0: all.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "task")]
    sequences: u64,
    /// Kind of questions.
    #[arg(long, requires = "file")]
    task: Option<Task>,
    /// JSONL file of questions.
    #[arg(long, value_name = "FILE.jsonl", requires = "task")]
    file: Option<PathBuf>,
    /// Sequences (or choices) in a batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Threads; 0: one a core. Results do not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

fn split(name: &str) -> Result<Split, String> {
    match name {
        "train" => Ok(Split::Train),
        "validation" => Ok(Split::Validation),
        _ => Err("expected train or validation".into()),
    }
}

pub(crate) fn run(args: &EvalArgs) -> Result<()> {
    let at_least_one = |flag: &str| Usage(format!("--{flag}: must be at least 1"));
    if args.batch == 0 {
        return Err(at_least_one("batch").into());
    }
    if args.seq == Some(0) {
        return Err(at_least_one("seq").into());
    }
    let model = model_folder::load(&args.model)?;
    let tokenizer = model_folder::tokenizer(&model, args.tokenizer.as_deref())?;
    let measure = Measure { args, model, tokenizer };
    device::run(args.device.device, args.threads, CodePath::Best, measure)
}

/// What is asked, of which model.
struct Measure<'a> {
    args: &'a EvalArgs,
    model: Model,
    tokenizer: Tokenizer,
}

impl Work for Measure<'_> {
    type Out = ();

    fn on<P: Place>(self, place: P) -> Result<()> {
        let Self { args, model, tokenizer } = self;
        match (args.task, &args.file) {
            (Some(task), Some(file)) => questions(args, task, file, model, &tokenizer, place),
            _ => language(args, model, &tokenizer, place),
        }
    }
}

/// Loss on text.
fn language<P: Place>(args: &EvalArgs, model: Model, tokenizer: &Tokenizer, place: P) -> Result<()> {
    let longest = model.config.max_position_embeddings;
    let seq = args.seq.unwrap_or(SEQ.min(longest));
    if seq > longest {
        let problem = format!("--seq {seq}: the model is made for sequences up to {longest}");
        return Err(Usage(problem).into());
    }
    let text = Text::open(args.data.as_deref(), args.field.as_deref(), args.split, tokenizer)?;
    let most = if args.sequences == 0 { u64::MAX } else { args.sequences };
    let sequences =
        text.data.n_sequences(seq).with_context(|| format!("{}, {}", text.name, text.split))?.min(most);
    let hash = model.hash.clone();
    let (mut engine, theta) = engine(place, &model, args.batch, seq)?;
    let bar = progress::bar(sequences, "{bar:40} {pos}/{len} sequences ETA {eta}");
    let (data, shape) = ((&*text.data, tokenizer), (args.batch, seq));
    let measured = measure(&mut engine, &theta, data, shape, sequences, |n| bar.inc(n));
    bar.finish_and_clear();
    let Some(measured) = measured? else { bail!("stopped; nothing was measured to its end") };
    let (mean, count) = (measured.loss.mean(), measured.loss.count);
    let bits = measured.bits_per_byte();
    let rows = [
        ("loss", format!("{mean:.6} nats a token")),
        ("perplexity", format!("{:.4}", mean.exp())),
        ("bits per byte", format!("{bits:.6}")),
        ("tokens", format!("{count} in {sequences} sequences of {seq}, {}", text.split)),
        ("text", text.name.clone()),
        ("corpus hash", text.hash.clone()),
        ("θ hash", hash.clone()),
    ];
    let mut result = json!({
        "model": args.model.display().to_string(), "theta_hash": hash,
        "corpus": text.name, "corpus_hash": text.hash, "split": text.split,
        "tokenizer_hash": tokenizer.hash_hex(), "seq": seq, "sequences": sequences, "tokens": count,
        "bytes": measured.bytes,
        "loss": mean, "perplexity": mean.exp(), "bits_per_byte": bits,
    });
    extend(&mut result, engine.backend().facts().into());
    output::result(output::wants_json(args.json), &result, &rows)
}

/// Accuracy on questions.
fn questions<P: Place>(
    args: &EvalArgs,
    task: Task,
    file: &std::path::Path,
    model: Model,
    tokenizer: &Tokenizer,
    place: P,
) -> Result<()> {
    let items = task.read(file)?;
    let longest = model.config.max_position_embeddings;
    let mut requests = Vec::new();
    for (number, item) in items.iter().enumerate() {
        for choice in &item.choices {
            let request = Request::new(tokenizer, &item.context, &format!("{DELIMITER}{choice}"), longest);
            requests.push(request.with_context(|| format!("{}, question {}", file.display(), number + 1))?);
        }
    }
    let seq = requests.iter().map(Request::len).max().unwrap_or(1);
    let hash = model.hash.clone();
    let (mut engine, theta) = engine(place, &model, args.batch, seq)?;
    let bar = progress::bar(requests.len() as u64, "{bar:40} {pos}/{len} choices ETA {eta}");
    let scores = log_likelihoods(&mut engine, &theta, &requests, args.batch, |n| bar.inc(n));
    bar.finish_and_clear();
    let accuracy = Accuracy::of(&items, &scores?);
    let shown = |share: f64, error: Option<f64>| match error {
        Some(error) => format!("{share:.4} ± {error:.4}"),
        None => format!("{share:.4}"),
    };
    let rows = [
        ("acc", shown(accuracy.acc, accuracy.acc_stderr)),
        ("acc_norm", shown(accuracy.acc_norm, accuracy.acc_norm_stderr)),
        ("questions", format!("{} of {}, {}", items.len(), file.display(), task.name())),
        ("θ hash", hash.clone()),
    ];
    let mut result = json!({
        "model": args.model.display().to_string(), "theta_hash": hash, "task": task.name(),
        "file": file.display().to_string(), "file_hash": file_hash(file)?, "questions": items.len(),
        "choices": requests.len(), "tokenizer_hash": tokenizer.hash_hex(),
    });
    extend(&mut result, engine.backend().facts().into());
    extend(&mut result, json!(accuracy));
    output::result(output::wants_json(args.json), &result, &rows)
}

/// An engine that evaluates, and θ on its device.
fn engine<P: Place>(place: P, model: &Model, batch: usize, seq: usize) -> Result<(Engine<P>, P::Buf)> {
    let options = EngineOptions { batch, seq, mode: Mode::Evaluate };
    let plan = MemoryPlan::on(P::FOOTPRINT, &model.config, options, 0)?;
    match place.free()? {
        Some(free) => plan.check(free)?,
        None => memory::check(plan.total_bytes, "lower --batch or --seq")?,
    }
    let (theta, ()) = place.make(model.theta.len(), |theta| {
        theta.copy_from_slice(&model.theta);
        Ok(())
    })?;
    Ok((Engine::new(place, &model.config, options)?, theta))
}

/// Adds the fields of one object to another.
fn extend(result: &mut Value, more: Value) {
    if let (Value::Object(result), Value::Object(more)) = (result, more) {
        result.extend(more);
    }
}

fn file_hash(path: &std::path::Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    hasher.update_reader(file).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}
