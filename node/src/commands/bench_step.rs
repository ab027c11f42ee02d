//! `gauntlet bench step`: one training step on random tokens: forward, backward, clipping, AdamW.

use std::time::Instant;

use anyhow::Result;
use gauntlet_gpu::Counts;
use gauntlet_model::engine::{AdamW, Batch, Engine, EngineOptions, Order, Product, View, Write};
use gauntlet_model::{Layout, LlamaConfig, init};
use serde_json::{Value, json};

use super::bench::{ShapeArgs, hash, median, spread};
use super::bench_gemm::{Output, flops as flops_of, time_product};
use crate::cli::Usage;
use crate::device::{self, DevicesArgs, Others, Place, Products, Together, share};
use crate::fit::{Free, Held, Needs, Recompute};
use crate::memory;
use crate::team::{Part, Team};

/// Edge of the product that shows a GPU's peak rate.
const PEAK_EDGE: usize = 8192;

/// What is trained where.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    devices: DevicesArgs,
    /// Compute activations again in the backward pass instead of keeping them; auto: only where they do not fit.
    #[arg(long, default_value = "auto", num_args = 0..=1, default_missing_value = "on")]
    recompute: Recompute,
    /// Who multiplies on a GPU: library (cuBLASLt), own (our kernels), auto (the library where there is one).
    #[arg(long, value_enum, default_value_t)]
    products: Products,
    /// Peak rate that MFU is a share of, TFLOP/s [default: measured by one large product on a GPU; none on the CPU].
    #[arg(long, value_name = "X")]
    peak_tflops: Option<f64>,
}

pub(crate) fn step(args: &Args) -> Result<Value> {
    if args.peak_tflops.is_some_and(|peak| !(peak.is_finite() && peak > 0.0)) {
        return Err(Usage("--peak-tflops: a positive number is expected".into()).into());
    }
    let config = args.shape.config()?;
    let devices = &args.devices.devices;
    devices.share(args.shape.batch)?;
    devices.fix_order();
    let shape = &args.shape;
    device::run_together((devices, args.products), shape.threads, shape.path, Step { args, config })
}

struct Step<'a> {
    args: &'a Args,
    config: LlamaConfig,
}

impl Together for Step<'_> {
    type Out = Value;

    fn on<P: Place>(self, place: P, others: Option<Others<P>>) -> Result<Value> {
        let (args, config) = (&self.args.shape, &self.config);
        let devices = 1 + others.as_ref().map_or(0, |others| others.places.len());
        let free = Free { device: place.free()?, host: memory::free() };
        let batch = share(args.batch, devices)?;
        let theta = 4 * Layout::new(config).total();
        let needs = Needs {
            config,
            footprint: P::FOOTPRINT,
            own_memory: free.device.is_some(),
            batch: (batch, args.seq),
            // AdamW's moments; beside a device, the first weights.
            held: Held { device: 2 * theta, host: theta },
        };
        let fit = needs.fit(self.args.recompute, free)?;
        let options = EngineOptions { batch, seq: args.seq, mode: fit.mode };
        let facts = place.facts();
        let peak = match self.args.peak_tflops {
            None if place.has_matrix_units() => Some(peak_tflops(&place, PEAK_EDGE)?),
            given => given,
        };
        let mut bench = Bench::new((place, others), config, options)?;
        let (runs, mut warm) = (args.runs.max(1) as u64, None);
        for i in 0..runs + 2 {
            if i == 2 {
                warm = bench.engine.backend().counts();
            }
            bench.step(i, i >= 2)?;
        }
        let asked = bench.engine.backend().counts().zip(warm).map(|(now, warm)| now - warm);
        let each = |count: fn(Counts) -> u64| asked.map(|asked| count(asked) / runs);
        let n = args.batch * args.seq;
        let flops = flops(config, args.batch, args.seq);
        let median = median(&bench.totals);
        let threads = facts.get("threads").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        #[allow(clippy::cast_precision_loss)] // counts
        let mut result = json!({
            "bench": "step",
            "shape": args.shape(config, threads),
            "devices": devices,
            "with": bench.team.as_ref().map(Team::name),
            "parameters": bench.engine.layout().total(),
            "runs": runs,
            "seconds": spread(&bench.totals),
            "forward_backward_seconds": spread(&bench.passes),
            "clip_adamw_seconds": spread(&bench.optimizer),
            "tokens_per_s": n as f64 / median,
            "gflops": flops / median / 1e9,
            "peak_tflops": peak,
            "mfu": peak.map(|peak| flops / median / (peak * 1e12 * devices as f64)),
            "first_loss": bench.first_loss,
            "first_grad_norm": bench.first_grad_norm,
            "loss": bench.loss,
            "launches": each(|asked| asked.launches),
            "copies": each(|asked| asked.copies),
            "waits": each(|asked| asked.waits),
            "library_products": each(|asked| asked.library_products),
            "own_products": each(|asked| asked.own_products),
            "recompute": Recompute::from(fit.mode),
            "planned_bytes": fit.plan.total_bytes,
            // All buffers live from the first step on.
            "device_bytes": free.device.zip(bench.engine.backend().free()?).map(|(a, b)| a.saturating_sub(b)),
            "peak_rss_bytes": memory::peak_rss_bytes(),
        });
        if let Value::Object(result) = &mut result {
            result.extend(facts);
        }
        Ok(result)
    }
}

/// An engine, what it trains, and the times so far.
struct Bench<P: Place> {
    engine: Engine<P>,
    theta: P::Buf,
    grads: P::Buf,
    moments: [P::Buf; 2],
    /// The other devices, where there are several.
    team: Option<Team<P>>,
    ids: Vec<u32>,
    /// Sequences and tokens of a batch over all devices.
    batch: (usize, usize),
    passes: Vec<f64>,
    optimizer: Vec<f64>,
    totals: Vec<f64>,
    /// Of the initial weights.
    first_loss: f64,
    /// Before clipping, of the initial weights: with the loss, what two devices agree on.
    first_grad_norm: f64,
    /// After all steps but the last.
    loss: f64,
}

impl<P: Place> Bench<P> {
    fn new(
        (place, others): (P, Option<Others<P>>),
        config: &LlamaConfig,
        options: EngineOptions,
    ) -> Result<Self> {
        let mut engine = Engine::new(place, config, options)?;
        let (place, layout) = (engine.backend(), engine.layout());
        let (mut theta, ()) = place.make(layout.total(), |theta| {
            init::init(layout, 0, theta);
            Ok(())
        })?;
        let mut grads = engine.alloc_params()?;
        let mut moments = [engine.alloc_params()?, engine.alloc_params()?];
        let first =
            Part { engine: &mut engine, theta: &mut theta, grads: &mut grads, moments: Some(&mut moments) };
        let team = others.map(|others| Team::new(others, options, first)).transpose()?;
        let batch = (options.batch * team.as_ref().map_or(1, Team::devices), options.seq);
        let vocab = u32::try_from(config.tokenizer_vocab_size)?;
        let ids = (0..=batch.0 * batch.1).map(|i| hash(i as u64) % vocab).collect();
        let (passes, optimizer, totals) = (Vec::new(), Vec::new(), Vec::new());
        let (first_loss, first_grad_norm, loss) = (f64::NAN, f64::NAN, f64::NAN);
        Ok(Self {
            engine,
            theta,
            grads,
            moments,
            team,
            ids,
            batch,
            passes,
            optimizer,
            totals,
            first_loss,
            first_grad_norm,
            loss,
        })
    }

    /// What the first device computes with, and the others.
    fn parts(&mut self) -> (Part<'_, P>, Option<&mut Team<P>>) {
        let Self { engine, theta, grads, moments, team, .. } = self;
        (Part { engine, theta, grads, moments: Some(moments) }, team.as_mut())
    }

    /// One step; its times count or warm up.
    fn step(&mut self, i: u64, counts: bool) -> Result<()> {
        let (batch, seq) = self.batch;
        let n = batch * seq;
        let ids = std::mem::take(&mut self.ids);
        let (tokens, targets) = (ids.get(..n).unwrap_or_default(), ids.get(1..).unwrap_or_default());
        let batch = Batch { tokens, targets, batch, seq };
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let scale = 1.0 / n as f32;
        let start = Instant::now();
        let loss = match self.parts() {
            (first, Some(team)) => team.loss_and_grad(first, batch, (scale, Write::Set))?,
            (Part { engine, theta, grads, .. }, None) => {
                engine.loss_and_grad(theta, grads, batch, scale, Write::Set)?
            }
        };
        self.loss = loss.mean();
        let middle = start.elapsed().as_secs_f64();
        if let (first, Some(team)) = self.parts() {
            team.sum(first)?;
        }
        let (lr, beta1, beta2, eps, weight_decay) = (3e-4, 0.9, 0.95, 1e-8, 0.1);
        let adamw = AdamW { lr, beta1, beta2, eps, weight_decay, step: i + 1, grad_scale: 1.0 };
        let norm = if let (first, Some(team)) = self.parts() {
            team.adamw(first, adamw, Some(1.0))?
        } else {
            let [m, v] = &mut self.moments;
            self.engine.adamw(adamw, Some(1.0), &self.grads, &mut self.theta, (m, v))?
        };
        if i == 0 {
            (self.first_loss, self.first_grad_norm) = (self.loss, norm);
        }
        // A device that queues is done when a value comes back.
        self.engine.backend().download(View { buf: &self.theta, start: 0, len: 1 }, &mut [0.0])?;
        self.ids = ids;
        let total = start.elapsed().as_secs_f64();
        if counts {
            self.passes.push(middle);
            self.optimizer.push(total - middle);
            self.totals.push(total);
        }
        Ok(())
    }
}

/// Multiply-adds of a step, times two: every weight that is multiplied, three times a token (forward,
/// gradient of input, gradient of weight), and causal attention.
#[allow(clippy::cast_precision_loss)] // counts
fn flops(c: &LlamaConfig, batch: usize, seq: usize) -> f64 {
    let n = (batch * seq) as f64;
    let per_layer = c.hidden_size * (2 * c.q_size() + 2 * c.kv_size() + 3 * c.intermediate_size);
    let weights = (c.n_layers * per_layer + c.hidden_size * c.tokenizer_vocab_size) as f64;
    let attention = 2.0 * (c.n_layers * c.q_size() * (seq + 1)) as f64 / 2.0;
    3.0 * 2.0 * n * (weights + attention)
}

/// The best of several products of two square matrices, in the type and by the code that a step uses.
fn peak_tflops<P: Place>(place: &P, edge: usize) -> Result<f64> {
    let product =
        Product { m: edge, n: edge, k: edge, a: Order::Normal, b: Order::Transposed, write: Write::Set };
    let seconds = time_product(place, product, Output::Activation, (5, 10))?;
    Ok(flops_of(product) / seconds.into_iter().fold(f64::INFINITY, f64::min) / 1e12)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_model::engine::cpu::{Cpu, Path};
    use gauntlet_model::preset;

    #[test]
    fn a_step_of_the_1b_is_six_flops_a_weight_and_attention() {
        let config = preset("1b").unwrap();
        let layout = gauntlet_model::Layout::new(&config);
        let embedding = config.vocab_size * config.hidden_size;
        #[allow(clippy::cast_precision_loss)] // counts
        let weights = (layout.total() - embedding) as f64;
        let (step, tokens) = (flops(&config, 8, 2048), 8.0 * 2048.0);
        let attention = step / tokens - 6.0 * weights;
        // QKᵀ and PV over half of the positions on average, forward and twice backward.
        #[allow(clippy::cast_precision_loss)] // counts
        let expected = 6.0 * 2049.0 * (config.n_layers * config.q_size()) as f64;
        assert!((attention / expected - 1.0).abs() < 0.01, "{attention} against {expected}");
    }

    #[test]
    fn the_peak_is_a_rate_a_machine_can_have() {
        let cpu = Cpu::new(1, Path::Best).unwrap();
        let peak = peak_tflops(&cpu, 256).unwrap();
        assert!(peak > 1e-5 && peak < 10.0, "{peak} TFLOP/s on one core");
    }
}
