//! The benchmark of this crate: time per parameter and bytes per submission, on synthetic training gradients.

use crate::codebook::Codebook;
use crate::config::DemoConfig;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use crate::outer_step::{self, OuterStep};
use crate::simd::Simd;
use crate::submission::{EMPTY, Submission, Values};
use crate::{Aggregate, synthetic};
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Parameters of the model, about.
    pub params: usize,
    /// Submissions in a gather.
    pub peers: usize,
    /// Coefficients kept per chunk.
    pub topk: usize,
    /// Bits of a code.
    pub bits: u32,
    /// Repetitions; the smallest time counts, the median is reported beside it.
    pub runs: usize,
}

/// Smallest and median time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Time {
    /// Smallest.
    pub min: f64,
    /// Median.
    pub median: f64,
}

/// Nanoseconds per parameter.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NsPerParam {
    /// Gradient to signed object.
    pub encode: Time,
    /// All signed objects to the next θ.
    pub decode_aggregate_apply: Time,
    /// One submission to a trial θ.
    pub trial: Time,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Parameters, exactly.
    pub params: usize,
    /// Submissions in a gather.
    pub peers: usize,
    /// Coefficients kept per chunk.
    pub topk: usize,
    /// Bits of a code.
    pub bits: u32,
    /// Threads.
    pub threads: usize,
    /// Instruction path.
    pub path: String,
    /// Times.
    pub ns_per_param: NsPerParam,
    /// Bytes of one object.
    pub bytes: usize,
    /// Bits an index takes.
    pub bits_per_index: f64,
    /// Bits of the payload per entry sent, all overhead included.
    pub bits_per_entry: f64,
    /// Hash of the last θ: equal on every machine, path and thread count.
    pub theta_hash: String,
}

/// Measures on rayon's current threads. `clock` is any monotonic time.
pub fn run(setup: &Setup, clock: &dyn Fn() -> Duration) -> Result<Report> {
    let layout = Layout::from_shapes(synthetic::model(setup.params))?;
    let config =
        DemoConfig { topk: setup.topk, codebook: Codebook::with_bits(setup.bits)?, ..DemoConfig::default() };
    config.check(&layout)?;
    let format = config.format(layout)?;
    let n = format.layout().len();
    let key = keypair()?;
    let header =
        Header { kind: KIND_DEMO, run: [0; 32], window: 0, hotkey: [0; 32], count: 1, state_tag: [0; 32] };
    let mut grads = vec![0.0; n];
    let (mut encode, mut objects, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let mut momentum = config.momentum(Arc::clone(&format))?;
    let zeros = vec![0.0; n];
    for peer in 0..setup.peers.max(1) {
        // A second step meets a momentum with a past, and subtracts.
        momentum.restore(&zeros, config.momentum_warmup)?;
        for window in 0..if peer < setup.runs { 2 } else { 1 } {
            synthetic::gradient(format.layout(), window, peer as u64, &mut grads);
            let start = clock();
            let submission = momentum.step(&grads, 1e-3)?;
            let object = object::seal(&header, &submission.encode(), &key);
            encode.push(clock().saturating_sub(start));
            if window == 0 {
                objects.push(object);
                sent.push(submission);
            }
        }
    }
    drop((momentum, zeros));

    let mut theta = grads;
    let step = OuterStep { lr: 1e-3, weight_decay: 0.1, min_gather: 1 };
    let mut apply = Vec::new();
    for _ in 0..setup.runs.max(1) {
        let start = clock();
        let submissions: Vec<Submission> = objects
            .iter()
            .map(|object| Submission::decode(&format, object::open(object)?.payload))
            .collect::<Result<_>>()?;
        let mut gather = Aggregate::new(Arc::clone(&format), config.strength_cap);
        for (peer, submission) in (0..).zip(&submissions) {
            gather.add(hotkey(peer), submission)?;
        }
        outer_step::apply(&mut theta, &gather, &step)?;
        apply.push(clock().saturating_sub(start));
    }

    let mut out = vec![0.0; n];
    let mut trial = Vec::new();
    for run in 0..setup.runs.max(1) {
        let start = clock();
        outer_step::trial(&theta, &sent[run % sent.len()], 1e-3, 0.2, &mut out)?;
        trial.push(clock().saturating_sub(start));
    }

    let size = Size::of(&sent[0], objects[0].len() - HEADER - TRAILER);
    let time = |times: Vec<Duration>| time(times, n);
    Ok(Report {
        params: n,
        peers: objects.len(),
        topk: setup.topk,
        bits: setup.bits,
        threads: rayon::current_num_threads(),
        path: format!("{:?}", Simd::path(format.simd())),
        ns_per_param: NsPerParam {
            encode: time(encode),
            decode_aggregate_apply: time(apply),
            trial: time(trial),
        },
        bytes: objects[0].len(),
        bits_per_index: size.bits_per_index,
        bits_per_entry: size.bits_per_entry,
        theta_hash: crate::error::hex(&crate::theta_hash(format.layout(), &theta)?),
    })
}

/// Where a payload's bits go.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Size {
    /// Entries of chunks that are not empty.
    pub entries: usize,
    /// Bits an index takes.
    pub bits_per_index: f64,
    /// All bits of the payload per entry.
    pub bits_per_entry: f64,
    /// Share of entries whose code is 0.
    pub zeros: f64,
}

impl Size {
    /// Of a submission whose payload has `bytes` bytes.
    pub fn of(submission: &Submission, bytes: usize) -> Self {
        let format = submission.format();
        let (mut entries, mut indexed, mut bits) = (0, 0, 0);
        for (_, plan) in format.plans() {
            for (chunk, &exponent) in submission.exponents[plan.chunks()].iter().enumerate() {
                if exponent != EMPTY {
                    entries += plan.k;
                    if let Some(r) = plan.rice {
                        indexed += plan.k;
                        bits += crate::rice::cost(&submission.indices[plan.chunk_entries(chunk)], r);
                    }
                }
            }
        }
        let sent = submission.sent();
        Self {
            entries,
            bits_per_index: bits as f64 / indexed.max(1) as f64,
            bits_per_entry: 8.0 * bytes as f64 / entries.max(1) as f64,
            zeros: 1.0 - sent as f64 / entries.max(1) as f64,
        }
    }
}

/// Size of a whole model's submission.
#[derive(Debug, Clone, Serialize)]
pub struct ModelSize {
    /// Parameters of all tensors.
    pub params: usize,
    /// Entries a submission has where no chunk is empty.
    pub entries: usize,
    /// Bytes of the object.
    pub bytes: usize,
    /// Bits an index takes.
    pub bits_per_index: f64,
    /// Bits of the object per entry.
    pub bits_per_entry: f64,
    /// Share of entries whose code is 0.
    pub zeros: f64,
    /// ‖v − ŝq‖ / ‖v‖ over the entries that were sent: what the codes lose.
    pub loss: f64,
}

/// Measures a model given as shapes with how often each occurs, after `windows` synthetic windows, the last of them
/// after momentum warm-up. One tensor of each shape is worked out and counted as often as it occurs.
pub fn model_size(
    shapes: &[(usize, Vec<usize>)],
    topk: usize,
    codebook: &Codebook,
    windows: u64,
) -> Result<ModelSize> {
    let (mut out, mut payload, mut indexed, mut sent) = ([0_usize; 2], 0, [0.0; 2], [0.0; 2]);
    let mut loss = [0.0_f64; 2];
    for (number, (count, shape)) in shapes.iter().enumerate() {
        let layout = Layout::from_shapes([(format!("shape {number}"), shape.clone())])?;
        let config =
            DemoConfig { topk, codebook: codebook.clone(), momentum_warmup: 2, ..DemoConfig::default() };
        let format = config.format(layout)?;
        let mut momentum = config.momentum(Arc::clone(&format))?;
        let mut grads = vec![0.0; format.layout().len()];
        let mut last = Submission::empty(Arc::clone(&format));
        for window in 0..windows {
            synthetic::gradient(format.layout(), window, 0, &mut grads);
            if window + 1 == windows {
                let past = momentum.coefficients().to_vec();
                momentum.restore(&past, 0)?;
            }
            last = momentum.step(&grads, 1e-3)?;
        }
        let bytes = last.encode().len();
        let size = Size::of(&last, bytes);
        out[0] += count * format.layout().len();
        out[1] += count * format.entries();
        payload += count * bytes;
        let weight = (count * size.entries) as f64;
        indexed = [indexed[0] + weight * size.bits_per_index, indexed[1] + weight];
        sent = [sent[0] + weight * size.zeros, sent[1] + weight];
        let [error, energy] = coding_loss(&last, momentum.coefficients());
        loss = [loss[0] + *count as f64 * error, loss[1] + *count as f64 * energy];
    }
    let bytes = payload + HEADER + TRAILER;
    Ok(ModelSize {
        params: out[0],
        entries: out[1],
        bytes,
        bits_per_index: indexed[0] / indexed[1],
        bits_per_entry: 8.0 * bytes as f64 / out[1] as f64,
        zeros: sent[0] / sent[1],
        loss: (loss[0] / loss[1]).sqrt(),
    })
}

/// Squared error of the codes and squared norm of the entries of a one-tensor submission that was not subtracted,
/// each tensor scaled to unit norm.
fn coding_loss(submission: &Submission, m: &[f32]) -> [f64; 2] {
    let (mut vv, mut vq, mut qq) = (0.0, 0.0, 0.0);
    for (_, plan) in submission.format().plans() {
        for (chunk, &exponent) in submission.exponents[plan.chunks()].iter().enumerate() {
            for entry in plan.chunk_entries(chunk) {
                let v = f64::from(m[chunk * plan.grid.chunk_len() + usize::from(submission.indices[entry])]);
                let q = match submission.values() {
                    _ if exponent == EMPTY => continue,
                    Values::Levels(levels) => {
                        f64::from(levels[entry]) * libm::exp2(f64::from(exponent) - 6.0)
                    }
                    Values::Exact(values) => f64::from(values[entry]),
                };
                (vv, vq, qq) = (vv + v * v, vq + v * q, qq + q * q);
            }
        }
    }
    let n = m.len() as f64;
    [n * (1.0 - vq * vq / (vv * qq)), n]
}

fn time(mut times: Vec<Duration>, params: usize) -> Time {
    times.sort_unstable();
    let ns = |time: Option<&Duration>| time.map_or(0.0, |t| t.as_nanos() as f64 / params as f64);
    Time { min: ns(times.first()), median: ns(times.get(times.len() / 2)) }
}

fn hotkey(peer: u64) -> [u8; 32] {
    *blake3::hash(&peer.to_le_bytes()).as_bytes()
}

fn keypair() -> Result<Keypair> {
    let seed = MiniSecretKey::from_bytes(&[1; 32]).map_err(|_| Error::PublicKey)?;
    Ok(seed.expand_to_keypair(ExpansionMode::Ed25519))
}
