//! `gauntlet bench step|gemm|attention|demo`: how fast this machine trains, as JSON.

use anyhow::Result;
use clap::{Args, Subcommand};
use gauntlet_model::engine::cpu::Path;
use gauntlet_model::engine::{View, ViewMut};
use gauntlet_model::{LlamaConfig, preset};
use serde_json::json;

use super::{bench_attention, bench_demo, bench_gemm, bench_step};
use crate::cli::Usage;
use crate::device::Place;
use crate::output;

/// Which part to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// One training step: forward, backward, clipping, AdamW.
    Step(bench_step::Args),
    /// The matrix products of one training step, alone.
    Gemm(bench_gemm::Args),
    /// Attention of one layer, with heads of 256 and of 64, alone.
    Attention(bench_attention::Args),
    /// Submissions: encode, decode + aggregate + apply, trial.
    Demo(bench_demo::DemoArgs),
}

/// Shape of the model and the batch.
#[derive(Args)]
pub(crate) struct ShapeArgs {
    /// Start from a preset; the flags below override its fields.
    #[arg(long, default_value = "bench-34m")]
    preset: String,
    /// Width of the residual stream.
    #[arg(long)]
    hidden: Option<usize>,
    /// Blocks.
    #[arg(long)]
    layers: Option<usize>,
    /// Query heads.
    #[arg(long)]
    heads: Option<usize>,
    /// Key and value heads [default: as --heads, else the preset's].
    #[arg(long)]
    kv_heads: Option<usize>,
    /// Width of the SwiGLU layer.
    #[arg(long)]
    ffn: Option<usize>,
    /// Vocabulary.
    #[arg(long)]
    vocab: Option<usize>,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 256)]
    pub(super) seq: usize,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 4)]
    pub(super) batch: usize,
    /// Threads; 0: one a core.
    #[arg(long, default_value_t = 0)]
    pub(super) threads: usize,
    /// Measured runs, after two that warm up.
    #[arg(long, default_value_t = 7)]
    pub(super) runs: usize,
    /// Code path of our own kernels: best, avx2 or portable.
    #[arg(long, default_value = "best", value_parser = code_path)]
    pub(super) path: Path,
}

fn code_path(name: &str) -> Result<Path, String> {
    match name {
        "best" => Ok(Path::Best),
        "avx2" => Ok(Path::Avx2),
        "portable" => Ok(Path::Portable),
        _ => Err("expected best, avx2 or portable".into()),
    }
}

impl ShapeArgs {
    pub(super) fn config(&self) -> Result<LlamaConfig> {
        if self.batch == 0 || self.seq == 0 || self.batch.saturating_mul(self.seq) > 1 << 30 {
            return Err(Usage("--batch × --seq must be 1 to 2^30 tokens".into()).into());
        }
        let mut c = preset(&self.preset)?;
        c.hidden_size = self.hidden.unwrap_or(c.hidden_size);
        c.n_layers = self.layers.unwrap_or(c.n_layers);
        if let Some(heads) = self.heads {
            (c.n_heads, c.n_kv_heads) = (heads, heads);
        }
        c.n_kv_heads = self.kv_heads.unwrap_or(c.n_kv_heads);
        if self.hidden.is_some() || self.heads.is_some() {
            c.head_dim = c.hidden_size / c.n_heads.max(1);
        }
        c.intermediate_size = self.ffn.unwrap_or(c.intermediate_size);
        if let Some(vocab) = self.vocab {
            (c.vocab_size, c.tokenizer_vocab_size) = (vocab, vocab);
        }
        c.max_position_embeddings = c.max_position_embeddings.max(self.seq);
        c.check().map_err(|e| Usage(e.to_string()))?;
        Ok(c)
    }

    pub(super) fn shape(&self, c: &LlamaConfig, threads: Option<usize>) -> serde_json::Value {
        json!({
            "hidden": c.hidden_size, "layers": c.n_layers, "heads": c.n_heads, "kv_heads": c.n_kv_heads,
            "head_dim": c.head_dim, "ffn": c.intermediate_size, "vocab": c.vocab_size, "seq": self.seq, "batch": self.batch,
            "threads": threads,
        })
    }
}

pub(crate) fn run(bench: Bench) -> Result<()> {
    let result = match bench {
        Bench::Step(args) => bench_step::step(&args)?,
        Bench::Gemm(args) => bench_gemm::gemm(&args)?,
        Bench::Attention(args) => bench_attention::attention(&args)?,
        Bench::Demo(args) => bench_demo::demo(&args)?,
    };
    output::text(&format!("{result:#}\n"))
}

/// Calls in a row of one measurement: on a GPU several, so that waiting for it does not count.
pub(super) fn calls_in_a_row<P: Place>(place: &P) -> usize {
    if place.has_matrix_units() { 10 } else { 1 }
}

/// Waits for all that was asked of `place`: a device that queues is done when a value comes back. `marker` holds one.
pub(super) fn finish<P: Place>(place: &P, marker: &mut P::Buf) -> Result<()> {
    place.zero(ViewMut { buf: marker, start: 0, len: 1 });
    Ok(place.download(View { buf: marker, start: 0, len: 1 }, &mut [0.0])?)
}

pub(super) fn spread(seconds: &[f64]) -> serde_json::Value {
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = seconds.iter().copied().fold(0.0, f64::max);
    json!({ "median": median(seconds), "min": least, "max": most })
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number that looks random (SplitMix64), for tokens and matrices that are not zeros.
#[allow(clippy::cast_possible_truncation)] // the upper half is kept
pub(super) fn hash(i: u64) -> u32 {
    let z = i.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((z ^ (z >> 27)) >> 32) as u32
}
