//! `gauntlet bench attention`: causal attention alone, forward and backward, with the batch of a training step.

use std::time::Instant;

use anyhow::Result;
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::{Heads, Order, Product, View, ViewMut, Write};
use serde_json::{Value, json};

use super::bench::{ShapeArgs, calls_in_a_row, finish, hash, median, spread};
use crate::device::{self, DeviceArgs, Place, Work};

/// Widths of heads: the 1.2B's, and the narrowest that models of its size have.
const WIDTHS: [usize; 2] = [256, 64];

/// Attention of one layer.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn attention(args: &Args) -> Result<Value> {
    let config = args.shape.config()?;
    let (choice, shape) = (args.device.device, &args.shape);
    device::run(choice, shape.threads, shape.path, Attention { shape, config })
}

struct Attention<'a> {
    shape: &'a ShapeArgs,
    config: LlamaConfig,
}

impl Work for Attention<'_> {
    type Out = Value;

    fn on<P: Place>(self, place: P) -> Result<Value> {
        let (args, c) = (self.shape, &self.config);
        let runs = (args.runs.max(1), calls_in_a_row(&place));
        let mut result = json!({ "bench": "attention", "runs": runs.0 });
        if let Value::Object(result) = &mut result {
            result.extend(place.facts());
        }
        for head_dim in WIDTHS {
            let n_heads = (c.q_size() / head_dim).max(1);
            let h = Heads { batch: args.batch, seq: args.seq, n_heads, n_kv_heads: n_heads, head_dim };
            for (pass, seconds) in ["forward", "backward"].into_iter().zip(time(&place, h, runs)?) {
                result[format!("heads_{head_dim}_{pass}")] = json!({
                    "n_heads": n_heads, "seconds": spread(&seconds),
                    "tflops": flops(h, pass) / median(&seconds) / 1e12,
                });
            }
        }
        Ok(result)
    }
}

/// Multiply-adds times two of the pairs of positions that see each other: two products forward, five backward.
#[allow(clippy::cast_precision_loss)] // counts
fn flops(h: Heads, pass: &str) -> f64 {
    let pairs = (h.batch * h.n_heads * h.seq * (h.seq + 1) / 2) as f64;
    let products = if pass == "forward" { 2.0 } else { 5.0 };
    products * 2.0 * pairs * h.head_dim as f64
}

/// Seconds of the forward and of the backward pass for each of `runs`, over so many in a row; two more warm up.
fn time<P: Place>(place: &P, h: Heads, (runs, in_a_row): (usize, usize)) -> Result<[Vec<f64>; 2]> {
    let (rows, width) = (h.batch * h.seq, h.n_heads * h.head_dim);
    let len = rows * width;
    let [q, k, v, dout] = [1, 2, 3, 4].map(|seed| activations(place, rows, width, seed));
    let (q, k, v, dout) = (q?, k?, v?, dout?);
    let lse_len = h.batch * h.n_heads * h.seq;
    let (mut out, mut lse) = (place.alloc_act(len)?, place.alloc(lse_len)?);
    let (mut dq, mut dk, mut dv) = (place.alloc_act(len)?, place.alloc_act(len)?, place.alloc_act(len)?);
    let mut marker = place.alloc(1)?;
    let mut seconds = [Vec::with_capacity(runs), Vec::with_capacity(runs)];
    for i in 0..runs + 2 {
        finish(place, &mut marker)?;
        let start = Instant::now();
        for _ in 0..in_a_row {
            place.scope(|| {
                let (out, lse) = (all_mut(&mut out, len), all_mut(&mut lse, lse_len));
                place.attention_forward(h, all(&q, len), all(&k, len), all(&v, len), out, lse);
            });
        }
        finish(place, &mut marker)?;
        let middle = start.elapsed().as_secs_f64();
        for _ in 0..in_a_row {
            place.scope(|| {
                let (q, k, v, dout) = (all(&q, len), all(&k, len), all(&v, len), all(&dout, len));
                let (dq, dk, dv) = (all_mut(&mut dq, len), all_mut(&mut dk, len), all_mut(&mut dv, len));
                let (out, lse) = (all(&out, len), all(&lse, lse_len));
                place.attention_backward(h, q, k, v, out, lse, dout, dq, dk, dv);
            });
        }
        finish(place, &mut marker)?;
        let passes = [middle, start.elapsed().as_secs_f64() - middle];
        for (seconds, pass) in seconds.iter_mut().zip(passes).filter(|_| i >= 2) {
            #[allow(clippy::cast_precision_loss)] // a count
            seconds.push(pass / in_a_row as f64);
        }
    }
    Ok(seconds)
}

/// Activations that are not zeros: a product of random values, as a layer's are.
fn activations<P: Place>(place: &P, rows: usize, width: usize, seed: u64) -> Result<P::Act> {
    const INNER: usize = 64;
    let fill = |values: &mut [f32]| -> Result<()> {
        #[allow(clippy::cast_precision_loss)] // any values that are not zeros
        let value = |i: usize| (hash(seed << 40 | i as u64) % 2000) as f32 * 2e-4 - 0.2;
        values.iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
        Ok(())
    };
    let lens = [rows * INNER, INNER * width];
    let mut rooms = [place.alloc_rounded(lens[0])?, place.alloc_rounded(lens[1])?];
    let ((a, ()), (b, ())) = (place.make(lens[0], fill)?, place.make(lens[1], fill)?);
    let [room_a, room_b] = &mut rooms;
    let (a, b) = (place.rounded(all(&a, lens[0]), room_a), place.rounded(all(&b, lens[1]), room_b));
    let p =
        Product { m: rows, n: width, k: INNER, a: Order::Normal, b: Order::Transposed, write: Write::Set };
    let mut out = place.alloc_act(rows * width)?;
    place.scope(|| place.matmul(p, a, b, all_mut(&mut out, rows * width)));
    Ok(out)
}

fn all<B>(buf: &B, len: usize) -> View<'_, B> {
    View { buf, start: 0, len }
}

fn all_mut<B>(buf: &mut B, len: usize) -> ViewMut<'_, B> {
    ViewMut { buf, start: 0, len }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_model::engine::cpu::{Cpu, Path};

    #[test]
    fn both_passes_are_measured_at_a_rate_a_machine_can_have() {
        let cpu = Cpu::new(1, Path::Best).unwrap();
        let h = Heads { batch: 2, seq: 64, n_heads: 2, n_kv_heads: 2, head_dim: 64 };
        for (pass, seconds) in ["forward", "backward"].into_iter().zip(time(&cpu, h, (3, 2)).unwrap()) {
            assert_eq!(seconds.len(), 3);
            let rate = flops(h, pass) / median(&seconds) / 1e12;
            assert!(rate > 1e-6 && rate < 10.0, "{pass}: {rate} TFLOP/s on one core");
        }
        assert_eq!(flops(h, "forward"), 2.0 * 2.0 * 64.0 * (2.0 * 2.0 * 64.0 * 65.0 / 2.0));
    }
}
