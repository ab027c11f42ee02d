//! The benchmark on a GPU: [`crate::bench`] beside the least memory traffic its parts can have.

use crate::bench::{RATE, Setup, Time, hotkey, time};
use crate::codebook::Codebook;
use crate::config::DemoConfig;
use crate::error::Result;
use crate::gpu::launch::StreamKernels;
use crate::gpu::{Buffer, Gather, Momentum, Tables};
use crate::layout::Layout;
use crate::outer_step::OuterStep;
use crate::synthetic;
use gauntlet_gpu::Device;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Elements of a whole chunk.
const CHUNK: usize = 64 * 64;

/// Nanoseconds per parameter, each from the first launch until the device is done.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NsPerParam {
    /// Gradient to payload, what was sent subtracted.
    pub encode: Time,
    /// Reading gradient and momentum and writing momentum once.
    pub momentum_traffic: Time,
    /// One payload on the host to a submission on the device.
    pub read_payload: Time,
    /// All submissions on the device to the next θ.
    pub decode_aggregate_apply: Time,
    /// Reading and writing θ once.
    pub theta_traffic: Time,
    /// One submission on the device to a trial θ.
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
    /// Bytes of one payload.
    pub bytes: usize,
    /// Times.
    pub ns_per_param: NsPerParam,
    /// Encode over its traffic, medians: at most 4 is wanted.
    pub encode_over_traffic: f64,
    /// Decode, aggregate and apply over its traffic, medians: at most 2 is wanted.
    pub apply_over_traffic: f64,
    /// The same with reading every payload: host to device, checks, Rice codes.
    pub read_and_apply_over_traffic: f64,
    /// Hash of the last θ: that of [`crate::bench::run`] with the same setup.
    pub theta_hash: String,
}

/// Bytes of device memory that [`run`] takes, about: θ, gradient and momentum, the gather, and what is sent.
pub fn device_bytes(setup: &Setup) -> usize {
    let entries = setup.params.div_ceil(CHUNK).saturating_mul(setup.topk);
    // An entry is an index and a level for every peer; the sender's has its value besides, and two payloads.
    let gathered = entries.saturating_mul(3 * setup.peers.max(1) + 15);
    setup.params.saturating_mul(12).saturating_add(gathered)
}

/// Measures on a device that has [`crate::gpu::FAT_BINARY`] loaded. `clock` is any monotonic time.
pub fn run<D: Device>(device: &Arc<D>, setup: &Setup, clock: &dyn Fn() -> Duration) -> Result<Report> {
    let layout = Layout::from_shapes(synthetic::model(setup.params))?;
    let config =
        DemoConfig { topk: setup.topk, codebook: Codebook::with_bits(setup.bits)?, ..DemoConfig::default() };
    config.check(&layout)?;
    let format = config.format(layout)?;
    let bench = Bench { tables: Tables::new(Arc::clone(device), format)?, config, setup, clock };
    let (layout, peers) = (bench.tables.format.layout(), setup.peers.max(1));
    let mut gather = Gather::new(Arc::clone(&bench.tables), peers)?;
    // θ begins as the last gradient, as in the benchmark of the CPU.
    let mut theta = Buffer::zeros(device, layout.len())?;
    let encoded = bench.encode(&mut theta, &mut gather)?;
    let apply = bench.apply(&mut theta, &mut gather)?;
    let hash = crate::theta_hash(layout, &theta.to_vec()?)?;
    let trial = bench.trial(&theta, &mut gather)?;
    let theta_traffic = bench.repeat(|streams| streams.theta(&bench.tables, theta.view_mut()))?;
    let ns = |times: Vec<Duration>| time(times, layout.len());
    let ns_per_param = NsPerParam {
        encode: ns(encoded.encode),
        momentum_traffic: ns(encoded.traffic),
        read_payload: ns(encoded.read),
        decode_aggregate_apply: ns(apply),
        theta_traffic: ns(theta_traffic),
        trial: ns(trial),
    };
    Ok(Report {
        params: layout.len(),
        peers,
        topk: setup.topk,
        bits: setup.bits,
        bytes: encoded.bytes,
        encode_over_traffic: ns_per_param.encode.median / ns_per_param.momentum_traffic.median,
        apply_over_traffic: ns_per_param.decode_aggregate_apply.median / ns_per_param.theta_traffic.median,
        read_and_apply_over_traffic: (peers as f64 * ns_per_param.read_payload.median
            + ns_per_param.decode_aggregate_apply.median)
            / ns_per_param.theta_traffic.median,
        ns_per_param,
        theta_hash: crate::error::hex(&hash),
    })
}

/// Times of the sending side.
struct Encoded {
    encode: Vec<Duration>,
    read: Vec<Duration>,
    traffic: Vec<Duration>,
    bytes: usize,
}

struct Bench<'a, D: Device> {
    tables: Arc<Tables<D>>,
    config: DemoConfig,
    setup: &'a Setup,
    clock: &'a dyn Fn() -> Duration,
}

impl<D: Device> Bench<'_, D> {
    /// Time of what `work` queues.
    fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        self.tables.device.wait()?;
        let start = (self.clock)();
        work()?;
        self.tables.device.wait()?;
        Ok((self.clock)().saturating_sub(start))
    }

    /// Times of a traffic kernel, after one that does not count.
    fn repeat(&self, mut work: impl FnMut(&StreamKernels) -> Result<()>) -> Result<Vec<Duration>> {
        let streams = StreamKernels::find(&*self.tables.device)?;
        self.timed(|| work(&streams))?;
        (0..self.setup.runs.max(1)).map(|_| self.timed(|| work(&streams))).collect()
    }

    /// Every peer's gradient to its payload, and that into the gather; the first `runs` peers encode a second time, when
    /// their momentum has a past. Then the traffic alone.
    fn encode(&self, grads: &mut Buffer<D, f32>, gather: &mut Gather<D>) -> Result<Encoded> {
        let (config, layout) = (&self.config, self.tables.format.layout());
        let tables = Arc::clone(&self.tables);
        let mut momentum = Momentum::new(tables, config.decay, config.momentum_warmup, config.subtract)?;
        let zeros = vec![0.0; layout.len()];
        let mut host = zeros.clone();
        let (mut encode, mut read, mut bytes) = (Vec::new(), Vec::new(), 0);
        let peers = self.setup.peers.max(1);
        for peer in 0..peers {
            momentum.restore(&zeros, config.momentum_warmup)?;
            for window in 0..if peer < self.setup.runs { 2 } else { 1 } {
                synthetic::gradient(layout, window, peer as u64, &mut host);
                grads.upload(0, &host)?;
                encode.push(self.timed(|| {
                    momentum.queue(grads.view(), RATE)?;
                    momentum.queue_payload()
                })?);
                if window == 0 {
                    let payload = momentum.payload()?;
                    bytes = payload.len();
                    read.push(self.timed(|| gather.add_payload(hotkey(peer as u64), &payload))?);
                }
            }
        }
        let traffic = self.repeat(|streams| momentum.stream(streams, grads.view()))?;
        Ok(Encoded { encode, read, traffic, bytes })
    }

    fn apply(&self, theta: &mut Buffer<D, f32>, gather: &mut Gather<D>) -> Result<Vec<Duration>> {
        let step = OuterStep { lr: RATE, weight_decay: 0.1, min_gather: 1 };
        (0..self.setup.runs.max(1))
            .map(|_| {
                self.timed(|| gather.apply(theta.view_mut(), self.config.strength_cap, &step).map(|_| ()))
            })
            .collect()
    }

    fn trial(&self, theta: &Buffer<D, f32>, gather: &mut Gather<D>) -> Result<Vec<Duration>> {
        let mut out = Buffer::zeros(&self.tables.device, theta.len())?;
        (0..self.setup.runs.max(1))
            .map(|run| {
                let place = run % gather.len();
                self.timed(|| gather.trial(theta.view(), place, RATE, 0.2, out.view_mut()))
            })
            .collect()
    }
}
