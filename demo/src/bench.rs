//! The benchmark of this crate: time per parameter and bytes per submission, on synthetic training gradients.

use crate::codebook::Codebook;
use crate::config::DemoConfig;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::layout::Layout;
use crate::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use crate::outer_step::{self, OuterStep};
use crate::size::Size;
use crate::submission::Submission;
use crate::{Aggregate, synthetic};
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Learning rate of every step.
pub(crate) const RATE: f32 = 1e-3;

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

/// Bytes of memory that [`run`] takes: θ, gradient, momentum, its zeros, trial; and of every peer an object, and what is
/// in it twice.
pub fn host_bytes(setup: &Setup) -> Result<usize> {
    let format = format(setup)?.1;
    let peer = 2 * format.submission_bytes() + format.max_payload();
    Ok(20 * format.layout().len() + setup.peers * peer)
}

/// What a setup compresses, and how.
fn format(setup: &Setup) -> Result<(DemoConfig, Arc<Format>)> {
    let layout = Layout::from_shapes(synthetic::model(setup.params))?;
    let config =
        DemoConfig { topk: setup.topk, codebook: Codebook::with_bits(setup.bits)?, ..DemoConfig::default() };
    config.check(&layout)?;
    let format = config.format(layout)?;
    Ok((config, format))
}

/// Measures on rayon's current threads. `clock` is any monotonic time.
pub fn run(setup: &Setup, clock: &dyn Fn() -> Duration) -> Result<Report> {
    let (config, format) = format(setup)?;
    let mut theta = vec![0.0; format.layout().len()];
    let (encode, gathered) = time_encode(setup, &config, &format, &mut theta, clock)?;
    let apply = time_apply(setup, &config, &gathered, &mut theta, clock)?;
    let mut out = vec![0.0; theta.len()];
    let mut trial = Vec::new();
    for run in 0..setup.runs.max(1) {
        let (_, sent) = &gathered[run % gathered.len()];
        let start = clock();
        outer_step::trial(&theta, sent, RATE, 0.2, &mut out)?;
        trial.push(clock().saturating_sub(start));
    }
    let (object, sent) = &gathered[0];
    let size = Size::of(sent, object.len() - HEADER - TRAILER);
    let time = |times: Vec<Duration>| time(times, theta.len());
    Ok(Report {
        params: theta.len(),
        peers: gathered.len(),
        topk: setup.topk,
        bits: setup.bits,
        threads: rayon::current_num_threads(),
        path: format!("{:?}", format.simd().path()),
        ns_per_param: NsPerParam {
            encode: time(encode),
            decode_aggregate_apply: time(apply),
            trial: time(trial),
        },
        bytes: object.len(),
        bits_per_index: size.bits_per_index,
        bits_per_entry: size.bits_per_entry,
        theta_hash: crate::error::hex(&crate::theta_hash(format.layout(), &theta)?),
    })
}

/// An object, and the submission in it.
type Sent = (Vec<u8>, Submission);

/// Gradient to signed object, for every peer; the first `runs` peers a second time, when their momentum has a past
/// and what was sent is subtracted. `grads` is only memory.
fn time_encode(
    setup: &Setup,
    config: &DemoConfig,
    format: &Arc<Format>,
    grads: &mut [f32],
    clock: &dyn Fn() -> Duration,
) -> Result<(Vec<Duration>, Vec<Sent>)> {
    let key = keypair()?;
    let header =
        Header { kind: KIND_DEMO, run: [0; 32], window: 0, hotkey: [0; 32], count: 1, state_tag: [0; 32] };
    let mut momentum = config.momentum(Arc::clone(format))?;
    let zeros = vec![0.0; grads.len()];
    let (mut times, mut sent) = (Vec::new(), Vec::new());
    for peer in 0..setup.peers.max(1) {
        momentum.restore(&zeros, config.momentum_warmup)?;
        for window in 0..if peer < setup.runs { 2 } else { 1 } {
            synthetic::gradient(format.layout(), window, peer as u64, grads);
            let start = clock();
            let submission = momentum.step(grads, RATE)?;
            let object = object::seal(&header, &submission.encode(), &key);
            times.push(clock().saturating_sub(start));
            if window == 0 {
                sent.push((object, submission));
            }
        }
    }
    Ok((times, sent))
}

/// All signed objects to the next θ.
fn time_apply(
    setup: &Setup,
    config: &DemoConfig,
    gathered: &[Sent],
    theta: &mut [f32],
    clock: &dyn Fn() -> Duration,
) -> Result<Vec<Duration>> {
    let step = OuterStep { lr: RATE, weight_decay: 0.1, min_gather: 1 };
    let mut times = Vec::new();
    for _ in 0..setup.runs.max(1) {
        let start = clock();
        let submissions: Vec<Submission> = gathered
            .iter()
            .map(|(object, sent)| Submission::decode(sent.format(), object::open(object)?.payload))
            .collect::<Result<_>>()?;
        let mut gather = Aggregate::new(Arc::clone(gathered[0].1.format()), config.strength_cap);
        for (peer, submission) in (0..).zip(&submissions) {
            gather.add(hotkey(peer), submission)?;
        }
        outer_step::apply(theta, &gather, &step)?;
        times.push(clock().saturating_sub(start));
    }
    Ok(times)
}

pub(crate) fn time(mut times: Vec<Duration>, params: usize) -> Time {
    times.sort_unstable();
    let ns = |time: Option<&Duration>| time.map_or(0.0, |t| t.as_nanos() as f64 / params as f64);
    Time { min: ns(times.first()), median: ns(times.get(times.len() / 2)) }
}

pub(crate) fn hotkey(peer: u64) -> [u8; 32] {
    *blake3::hash(&peer.to_le_bytes()).as_bytes()
}

fn keypair() -> Result<Keypair> {
    let seed = MiniSecretKey::from_bytes(&[1; 32]).map_err(|_| Error::PublicKey)?;
    Ok(seed.expand_to_keypair(ExpansionMode::Ed25519))
}
