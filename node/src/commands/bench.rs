//! `gauntlet bench step|gemm|demo`: how fast this machine trains, as JSON.

use std::time::Instant;

use anyhow::Result;
use clap::{Args, Subcommand};
use gauntlet_model::engine::cpu::{Cpu, Path};
use gauntlet_model::engine::{Backend, Order, Product, View, ViewMut, Write};
use gauntlet_model::{LlamaConfig, preset};
use serde_json::json;

use super::{bench_demo, bench_step};
use crate::cli::Usage;
use crate::device::DeviceArgs;
use crate::memory::peak_rss_bytes;

/// Which part to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// One training step: forward, backward, clipping, AdamW.
    Step(bench_step::Args),
    /// The matrix products of one training step, alone.
    Gemm(GemmArgs),
    /// Submissions: encode, decode + aggregate + apply, trial.
    Demo(bench_demo::DemoArgs),
}

/// The products of one step.
#[derive(Args)]
pub(crate) struct GemmArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    device: DeviceArgs,
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
    /// Code path of the element-wise kernels: best, avx2 or portable.
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
        Bench::Gemm(args) => gemm(&args)?,
        Bench::Demo(args) => bench_demo::demo(&args)?,
    };
    println!("{result:#}");
    Ok(())
}

/// The matrix products of a step in the shapes and orders the engine uses.
fn gemm(args: &GemmArgs) -> Result<serde_json::Value> {
    args.device.cpu_only("bench gemm")?;
    let args = &args.shape;
    let c = args.config()?;
    let cpu = Cpu::new(args.threads, args.path)?;
    let n = args.batch * args.seq;
    let linear = [
        ("q_proj", c.hidden_size, c.q_size()),
        ("kv_proj", c.hidden_size, c.kv_size()),
        ("o_proj", c.q_size(), c.hidden_size),
        ("gate_up_proj", c.hidden_size, 2 * c.intermediate_size),
        ("down_proj", c.intermediate_size, c.hidden_size),
        ("lm_head", c.hidden_size, c.tokenizer_vocab_size),
    ];
    let mut rows = Vec::new();
    for (name, width_in, width_out) in linear {
        for (pass, product) in products(n, width_in, width_out) {
            let seconds = time_product(&cpu, product, args.runs.max(1))?;
            #[allow(clippy::cast_precision_loss)] // counts
            let flops = 2.0 * (product.m * product.n * product.k) as f64;
            rows.push(json!({
                "product": name, "pass": pass, "m": product.m, "n": product.n, "k": product.k,
                "seconds": spread(&seconds), "gflops": flops / median(&seconds) / 1e9,
            }));
        }
    }
    Ok(json!({
        "bench": "gemm", "shape": args.shape(&c, Some(cpu.threads())), "runs": args.runs.max(1), "products": rows,
        "peak_rss_bytes": peak_rss_bytes(),
    }))
}

/// Forward, gradient of the input, gradient of the weight.
fn products(n: usize, width_in: usize, width_out: usize) -> [(&'static str, Product); 3] {
    use Order::{Normal, Transposed};
    let p = |m, n, k, a, b, write| Product { m, n, k, a, b, write };
    [
        ("forward", p(n, width_out, width_in, Normal, Transposed, Write::Set)),
        ("input gradient", p(n, width_in, width_out, Normal, Normal, Write::Set)),
        ("weight gradient", p(width_out, width_in, n, Transposed, Normal, Write::Set)),
    ]
}

fn time_product(cpu: &Cpu, p: Product, runs: usize) -> Result<Vec<f64>> {
    let fill = |len: usize| -> Result<_> {
        let mut buf = cpu.alloc(len)?;
        #[allow(clippy::cast_precision_loss)] // any values that are not zeros
        buf.iter_mut().enumerate().for_each(|(i, v)| *v = (hash(i as u64) % 2000) as f32 * 1e-3 - 1.0);
        Ok(buf)
    };
    let (a, b, mut out) = (fill(p.m * p.k)?, fill(p.k * p.n)?, cpu.alloc(p.m * p.n)?);
    let mut seconds = Vec::with_capacity(runs);
    for i in 0..runs + 2 {
        let (a, b) = (View { buf: &a, start: 0, len: p.m * p.k }, View { buf: &b, start: 0, len: p.k * p.n });
        let out = ViewMut { buf: &mut out, start: 0, len: p.m * p.n };
        let start = Instant::now();
        cpu.scope(|| cpu.matmul(p, a, b, out));
        if i >= 2 {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(seconds)
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
