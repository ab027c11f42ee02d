//! `gauntlet data prepare|inspect|verify|merge`: text to token shards.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use gauntlet_data::{
    MAX_TOKENS_PER_SHARD, Part, PrepareOptions, Split, Summary, TRAINING_BYTES, TokenizerChoice, Validation,
    inspect, merge, prepare, verify,
};
use serde_json::json;

use crate::corpus::source_options;
use crate::{output, progress};

/// What to do with data.
#[derive(Subcommand)]
pub(crate) enum Data {
    /// Turn text into token shards; run it again to go on after a stop.
    Prepare(Box<PrepareArgs>),
    /// Say what a prepared folder holds.
    Inspect(FolderArgs),
    /// Read a prepared folder completely and compare it with its manifest.
    Verify(FolderArgs),
    /// Join the parts that were prepared with --part.
    Merge(MergeArgs),
}

/// What to prepare, and how.
#[derive(Args)]
pub(crate) struct PrepareArgs {
    /// Text file or folder, or hf:owner/name[@revision][:path]; none: the embedded corpus.
    #[arg(long, value_name = "PATH")]
    data: Option<String>,
    /// Folder of the result: new, empty, or an unfinished preparation to go on with.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// JSONL field or Parquet column that holds the text [default: text].
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
    /// tokenizer.json to use, or 'bytes' [default: bytes].
    #[arg(long, value_name = "FILE", conflicts_with = "vocab_size")]
    tokenizer: Option<String>,
    /// Train a byte-level BPE of this many tokens on the training split.
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
    /// Name of the tokenizer's end-of-text token, if it has an unusual one.
    #[arg(long, value_name = "TOKEN", requires = "tokenizer")]
    eos: Option<String>,
    /// Hold out the files that match this glob.
    #[arg(long, value_name = "GLOB", conflicts_with = "validation_fraction")]
    validation: Option<String>,
    /// Hold out this share of the documents.
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    validation_fraction: Option<f64>,
    /// Prepare part i of n (0/n to (n-1)/n), for a merge later.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    part: Part,
    /// Threads; 0: one a core. The result does not depend on it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Tokens in a full shard.
    #[arg(long, value_name = "N", default_value_t = MAX_TOKENS_PER_SHARD)]
    max_tokens_per_shard: u64,
    /// Bytes of text a tokenizer is trained on at most.
    #[arg(long, value_name = "N", default_value_t = TRAINING_BYTES)]
    training_bytes: u64,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

/// A prepared folder.
#[derive(Args)]
pub(crate) struct FolderArgs {
    /// The folder.
    folder: PathBuf,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

/// Parts and where they go together.
#[derive(Args)]
pub(crate) struct MergeArgs {
    /// Folders of the parts.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Folder of the result; may be one of the parts.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(data: Data) -> Result<()> {
    match data {
        Data::Prepare(args) => print(&with_bar(|bar| prepare(&args.options(), bar))?, args.json),
        Data::Inspect(args) => print(&inspect(&args.folder)?, args.json),
        Data::Verify(args) => check(&args),
        Data::Merge(args) => {
            let merged = with_bar(|bar| merge(&args.folders, &args.out, bar))?;
            print(&merged, args.json)
        }
    }
}

/// Runs long work under a bar; Ctrl-C ends it soon.
fn with_bar<T>(work: impl FnOnce(&progress::Preparing) -> gauntlet_data::Result<T>) -> Result<T> {
    progress::catch_signals()?;
    let bar = progress::Preparing::new();
    let done = work(&bar);
    bar.finish();
    Ok(done?)
}

impl PrepareArgs {
    fn options(&self) -> PrepareOptions {
        let tokenizer = match (self.vocab_size, self.tokenizer.as_deref()) {
            (Some(vocab_size), _) => TokenizerChoice::Train { vocab_size },
            (None, None | Some("bytes")) => TokenizerChoice::Bytes,
            (None, Some(file)) => TokenizerChoice::File { path: PathBuf::from(file), eos: self.eos.clone() },
        };
        let validation = match (&self.validation, self.validation_fraction) {
            (Some(glob), _) => Validation::Files(glob.clone()),
            (None, Some(share)) => Validation::Fraction(share),
            (None, None) => Validation::None,
        };
        PrepareOptions {
            location: self.data.clone(),
            source: source_options(self.field.as_deref()),
            out: self.out.clone(),
            tokenizer,
            validation,
            max_tokens_per_shard: self.max_tokens_per_shard,
            training_bytes: self.training_bytes,
            part: self.part,
            threads: self.threads,
        }
    }
}

fn check(args: &FolderArgs) -> Result<()> {
    let report = with_bar(|bar| verify(&args.folder, bar))?;
    let (json, folder) = (output::wants_json(args.json), args.folder.display());
    let sound = format!("{} shards, {} tokens, {} bytes", report.shards, report.tokens, report.bytes);
    output::result(json, &json!(report), &[(if report.is_sound() { "sound" } else { "read" }, sound)])?;
    for problem in &report.problems {
        output::note(problem);
    }
    match report.problems.len() {
        0 => Ok(()),
        1 => bail!("{folder}: not sound, 1 problem; copy the folder again or prepare the data again"),
        n => bail!("{folder}: not sound, {n} problems; copy the folder again or prepare the data again"),
    }
}

fn print(summary: &Summary, json: bool) -> Result<()> {
    let mut rows = vec![
        ("folder", summary.folder.clone()),
        ("source", summary.source.clone()),
        ("tokenizer", format!("{}, {} ids", summary.tokenizer, summary.vocab_size)),
        ("held out", summary.validation.clone()),
        ("data hash", summary.data_hash.clone()),
    ];
    for (split, counts) in &summary.splits {
        let name = match split {
            Split::Train => "train",
            Split::Validation => "validation",
        };
        rows.push((
            name,
            format!(
                "{} tokens in {} shards, {} documents, {} bytes, {:.3} bytes a token",
                counts.tokens, counts.shards, counts.documents, counts.bytes, counts.bytes_per_token
            ),
        ));
    }
    if let Some(part) = &summary.part {
        rows.push(("part", format!("{part}; join the parts with gauntlet data merge")));
    }
    output::result(output::wants_json(json), &json!(summary), &rows)
}
