//! `gauntlet bench gemm`: the matrix products of a training step, alone, in the shapes, orders and types the engine uses.

use std::time::Instant;

use anyhow::Result;
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::{Order, Product, View, ViewMut, Write};
use serde_json::{Value, json};

use super::bench::{ShapeArgs, calls_in_a_row, finish, hash, median, spread};
use crate::device::{self, DeviceArgs, Place, Products, Work};
use crate::memory::peak_rss_bytes;

/// The products of one step.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Who multiplies on a GPU: library (cuBLASLt), own (our kernels), auto (the library where there is one).
    #[arg(long, value_enum, default_value_t)]
    products: Products,
}

/// Type of a product's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// That of activations.
    Activation,
    /// f32: gradients of weights, and logits.
    F32,
}

pub(crate) fn gemm(args: &Args) -> Result<Value> {
    let config = args.shape.config()?;
    let (choice, shape) = (args.device.device, &args.shape);
    device::run_with(choice, args.products, shape.threads, shape.path, Gemm { shape, config })
}

struct Gemm<'a> {
    shape: &'a ShapeArgs,
    config: LlamaConfig,
}

impl Work for Gemm<'_> {
    type Out = Value;

    fn on<P: Place>(self, place: P) -> Result<Value> {
        let (args, c) = (self.shape, &self.config);
        let (n, runs) = (args.batch * args.seq, args.runs.max(1));
        let in_a_row = calls_in_a_row(&place);
        let layers = c.n_layers;
        let linear = [
            ("q_proj", layers, c.hidden_size, c.q_size()),
            ("kv_proj", 2 * layers, c.hidden_size, c.kv_size()),
            ("o_proj", layers, c.q_size(), c.hidden_size),
            ("gate_up_proj", layers, c.hidden_size, 2 * c.intermediate_size),
            ("down_proj", layers, c.intermediate_size, c.hidden_size),
            ("lm_head", 1, c.hidden_size, c.tokenizer_vocab_size),
        ];
        let mut rows = Vec::new();
        let (mut step_flops, mut step_seconds) = (0.0, 0.0);
        let before = place.counts();
        for (name, times, width_in, width_out) in linear {
            for (pass, product) in products(n, width_in, width_out) {
                let output = match (name, pass) {
                    ("lm_head", "forward") | (_, "weight gradient") => Output::F32,
                    _ => Output::Activation,
                };
                let seconds = time_product(&place, product, output, (runs, in_a_row))?;
                rows.push(json!({
                    "product": name, "pass": pass, "m": product.m, "n": product.n, "k": product.k,
                    "times": times, "seconds": spread(&seconds), "gflops": flops(product) / median(&seconds) / 1e9,
                }));
                #[allow(clippy::cast_precision_loss)] // a count
                let times = times as f64;
                step_flops += times * flops(product);
                step_seconds += times * median(&seconds);
            }
        }
        let facts = place.facts();
        let threads = facts.get("threads").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let asked = place.counts().zip(before).map(|(now, before)| now - before);
        let mut result = json!({
            "bench": "gemm", "shape": args.shape(c, threads), "runs": runs, "products": rows,
            // All products of a step, each as often as a step makes it.
            "step_seconds": step_seconds, "step_tflops": step_flops / step_seconds / 1e12,
            "library_products": asked.map(|asked| asked.library_products),
            "own_products": asked.map(|asked| asked.own_products),
            "peak_rss_bytes": peak_rss_bytes(),
        });
        if let Value::Object(result) = &mut result {
            result.extend(facts);
        }
        Ok(result)
    }
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

/// Multiply-adds of a product, times two.
#[allow(clippy::cast_precision_loss)] // counts
pub(super) fn flops(p: Product) -> f64 {
    2.0 * (p.m * p.n * p.k) as f64
}

/// Seconds of a product in the type and by the code that a step uses, for each of `runs`, over so many in a row; two more
/// warm up.
pub(super) fn time_product<P: Place>(
    place: &P,
    p: Product,
    output: Output,
    (runs, in_a_row): (usize, usize),
) -> Result<Vec<f64>> {
    let fill = |values: &mut [f32]| -> Result<()> {
        #[allow(clippy::cast_precision_loss)] // any values that are not zeros
        values.iter_mut().enumerate().for_each(|(i, v)| *v = (hash(i as u64) % 2000) as f32 * 1e-3 - 1.0);
        Ok(())
    };
    let (lens, len) = ([p.m * p.k, p.k * p.n], p.m * p.n);
    let mut rooms = [place.alloc_rounded(lens[0])?, place.alloc_rounded(lens[1])?];
    let ((a, ()), (b, ())) = (place.make(lens[0], fill)?, place.make(lens[1], fill)?);
    let [room_a, room_b] = &mut rooms;
    let a = place.rounded(View { buf: &a, start: 0, len: lens[0] }, room_a);
    let b = place.rounded(View { buf: &b, start: 0, len: lens[1] }, room_b);
    let of = |wanted| if output == wanted { len } else { 0 };
    let (mut act, mut f32s) = (place.alloc_act(of(Output::Activation))?, place.alloc(of(Output::F32))?);
    let mut marker = place.alloc(1)?;
    let mut seconds = Vec::with_capacity(runs);
    for i in 0..runs + 2 {
        let start = Instant::now();
        for _ in 0..in_a_row {
            place.scope(|| match output {
                Output::Activation => place.matmul(p, a, b, ViewMut { buf: &mut act, start: 0, len }),
                Output::F32 => place.matmul_f32(p, a, b, ViewMut { buf: &mut f32s, start: 0, len }),
            });
        }
        finish(place, &mut marker)?;
        if i >= 2 {
            #[allow(clippy::cast_precision_loss)] // a count
            seconds.push(start.elapsed().as_secs_f64() / in_a_row as f64);
        }
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_model::engine::cpu::{Cpu, Path};

    #[test]
    fn both_outputs_are_measured_at_a_rate_a_machine_can_have() {
        let cpu = Cpu::new(1, Path::Best).unwrap();
        for (_, product) in products(256, 256, 192) {
            for output in [Output::Activation, Output::F32] {
                let seconds = time_product(&cpu, product, output, (3, 2)).unwrap();
                assert_eq!(seconds.len(), 3);
                let rate = flops(product) / median(&seconds) / 1e12;
                assert!(rate > 1e-6 && rate < 10.0, "{rate} TFLOP/s on one core");
            }
        }
    }
}
