//! Losses and gradients of sequences at a given θ: the one engine that all roles of a process share.

use std::time::{Duration, Instant};

use anyhow::Result;
use gauntlet_data::{Dataset, fill_sequences};
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::cpu::{Buf, Cpu};
use gauntlet_model::engine::{
    AdamW, Backend, Batch, Engine, EngineOptions, LossSum, MemoryPlan, Mode, View, ViewMut, Write,
    clipped_adamw,
};

use crate::device::Place;

/// Tokens of a batch at most, unless one sequence has more.
const TOKENS: usize = 1024;

/// An engine with its buffers.
pub(crate) struct Compute {
    passes: Passes,
    grads: Buf,
    /// θ after a trial step.
    trial: Buf,
    batch: usize,
    seq: usize,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// Time spent in forward and backward passes.
    busy: Duration,
}

/// Where forward and backward passes are made. θ, gradients and DeMo are the CPU's either way, so that all nodes of a
/// process share them.
#[cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]
enum Passes {
    /// On the CPU, in place.
    Here(Box<Engine<Cpu>>),
    /// On a device with memory of its own.
    There { cpu: Cpu, device: Box<dyn Device> },
}

/// Passes at a θ that was brought to the device.
trait Device {
    /// Brings θ.
    fn take(&mut self, theta: &[f32]) -> Result<()>;

    /// Forward and backward; the gradients stay on the device.
    fn gradient(&mut self, batch: Batch<'_>, scale: f32, write: Write) -> Result<LossSum>;

    /// Forward.
    fn loss(&mut self, batch: Batch<'_>) -> Result<LossSum>;

    /// Brings the gradients back.
    fn give(&self, grads: &mut [f32]) -> Result<()>;

    /// What it is, in words.
    fn name(&self) -> String;
}

/// An engine, with its own copies of θ and gradients.
#[cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]
struct Copies<P: Place> {
    engine: Engine<P>,
    theta: P::Buf,
    grads: P::Buf,
}

impl<P: Place> Device for Copies<P> {
    fn take(&mut self, theta: &[f32]) -> Result<()> {
        let to = ViewMut { buf: &mut self.theta, start: 0, len: theta.len() };
        Ok(self.engine.backend().upload(theta, to)?)
    }

    fn gradient(&mut self, batch: Batch<'_>, scale: f32, write: Write) -> Result<LossSum> {
        Ok(self.engine.loss_and_grad(&self.theta, &mut self.grads, batch, scale, write)?)
    }

    fn loss(&mut self, batch: Batch<'_>) -> Result<LossSum> {
        Ok(self.engine.loss(&self.theta, batch)?)
    }

    fn give(&self, grads: &mut [f32]) -> Result<()> {
        let from = View { buf: &self.grads, start: 0, len: grads.len() };
        Ok(self.engine.backend().download(from, grads)?)
    }

    fn name(&self) -> String {
        self.engine.backend().name()
    }
}

impl Passes {
    fn cpu(&self) -> &Cpu {
        match self {
            Self::Here(engine) => engine.backend(),
            Self::There { cpu, .. } => cpu,
        }
    }

    /// What follows is at this θ.
    fn take(&mut self, theta: &Buf) -> Result<()> {
        match self {
            Self::Here(_) => Ok(()),
            Self::There { device, .. } => device.take(theta),
        }
    }

    fn loss(&mut self, theta: &Buf, batch: Batch<'_>) -> Result<LossSum> {
        match self {
            Self::Here(engine) => Ok(engine.loss(theta, batch)?),
            Self::There { device, .. } => device.loss(batch),
        }
    }
}

impl Compute {
    /// An engine for sequences of `seq` tokens on the CPU.
    pub(crate) fn new(cpu: Cpu, config: &LlamaConfig, seq: usize) -> Result<Self> {
        let options = options(seq);
        Self::with(Passes::Here(Box::new(Engine::new(cpu, config, options)?)), config, options)
    }

    /// An engine on `place`, whose θ and gradients are brought from and to the CPU.
    #[cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]
    pub(crate) fn on<P: Place + 'static>(
        place: P,
        cpu: Cpu,
        config: &LlamaConfig,
        seq: usize,
    ) -> Result<Self> {
        let options = options(seq);
        if let Some(free) = place.free()? {
            MemoryPlan::on(P::FOOTPRINT, config, options, 0)?.check(free)?;
        }
        let engine = Engine::new(place, config, options)?;
        let (theta, grads) = (engine.alloc_params()?, engine.alloc_params()?);
        let device = Box::new(Copies { engine, theta, grads });
        Self::with(Passes::There { cpu, device }, config, options)
    }

    fn with(passes: Passes, config: &LlamaConfig, options: EngineOptions) -> Result<Self> {
        let EngineOptions { batch, seq, .. } = options;
        let total = gauntlet_model::Layout::new(config).total();
        let (grads, trial) = (passes.cpu().alloc(total)?, passes.cpu().alloc(total)?);
        let (tokens, targets) = (vec![0; batch * seq], vec![0; batch * seq]);
        let busy = Duration::ZERO;
        Ok(Self { passes, grads, trial, batch, seq, tokens, targets, busy })
    }

    /// The CPU.
    pub(crate) fn cpu(&self) -> &Cpu {
        self.passes.cpu()
    }

    /// Where passes are made, in words.
    pub(crate) fn name(&self) -> String {
        match &self.passes {
            Passes::Here(engine) => engine.backend().name(),
            Passes::There { device, .. } => device.name(),
        }
    }

    /// Time spent in forward and backward passes so far.
    pub(crate) fn busy(&self) -> Duration {
        self.busy
    }

    /// Mean gradient over the tokens of the sequences `ids`, and their mean loss.
    pub(crate) fn gradient(&mut self, data: &Dataset, theta: &Buf, ids: &[u64]) -> Result<(&Buf, f64)> {
        let started = Instant::now();
        let mut loss = LossSum::default();
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let scale = 1.0 / (ids.len() * self.seq).max(1) as f32;
        self.passes.take(theta)?;
        for (i, ids) in ids.chunks(self.batch).enumerate() {
            let n = ids.len() * self.seq;
            let (tokens, targets) = (&mut self.tokens[..n], &mut self.targets[..n]);
            fill_sequences(data, ids, self.seq, tokens, targets)?;
            let batch = Batch { tokens, targets, batch: ids.len(), seq: self.seq };
            let write = if i == 0 { Write::Set } else { Write::Add };
            loss += match &mut self.passes {
                Passes::Here(engine) => engine.loss_and_grad(theta, &mut self.grads, batch, scale, write)?,
                Passes::There { device, .. } => device.gradient(batch, scale, write)?,
            };
        }
        if ids.is_empty() {
            self.grads.fill(0.0);
        } else if let Passes::There { device, .. } = &self.passes {
            device.give(&mut self.grads)?;
        }
        self.busy += started.elapsed();
        Ok((&self.grads, loss.mean()))
    }

    /// One AdamW step on the mean gradient over `ids`, clipped to norm 1.
    pub(crate) fn adamw(
        &mut self,
        data: &Dataset,
        theta: &mut Buf,
        moments: (&mut Buf, &mut Buf),
        ids: &[u64],
        step: AdamW,
    ) -> Result<()> {
        self.gradient(data, theta, ids)?;
        clipped_adamw(self.passes.cpu(), step, Some(1.0), (&self.grads, self.grads.len()), theta, moments)?;
        Ok(())
    }

    /// Mean token loss of the sequences `ids` at θ: f64 over f32 token losses (PROTOCOL 7.3).
    pub(crate) fn loss(&mut self, data: &Dataset, theta: &Buf, ids: &[u64]) -> Result<f64> {
        let started = Instant::now();
        let buffers = (&mut self.tokens[..], &mut self.targets[..]);
        self.passes.take(theta)?;
        let loss = loss(&mut self.passes, buffers, data, theta, ids, self.batch);
        self.busy += started.elapsed();
        loss
    }

    /// Writes a trial θ by `make`, and gives the losses of each list of sequences there.
    pub(crate) fn trial(
        &mut self,
        data: &Dataset,
        make: impl FnOnce(&Cpu, &mut [f32]) -> Result<()>,
        lists: &[&[u64]],
    ) -> Result<Vec<f64>> {
        make(self.passes.cpu(), &mut self.trial)?;
        let started = Instant::now();
        self.passes.take(&self.trial)?;
        let Self { passes, tokens, targets, trial, batch, .. } = self;
        let losses = lists
            .iter()
            .map(|ids| loss(passes, (&mut tokens[..], &mut targets[..]), data, trial, ids, *batch))
            .collect();
        self.busy += started.elapsed();
        losses
    }
}

fn options(seq: usize) -> EngineOptions {
    EngineOptions { batch: (TOKENS / seq).max(1), seq, mode: Mode::Train }
}

fn loss(
    passes: &mut Passes,
    (tokens, targets): (&mut [u32], &mut [u32]),
    data: &Dataset,
    theta: &Buf,
    ids: &[u64],
    batch: usize,
) -> Result<f64> {
    let seq = tokens.len() / batch;
    let mut loss = LossSum::default();
    for ids in ids.chunks(batch) {
        let n = ids.len() * seq;
        let (tokens, targets) = (&mut tokens[..n], &mut targets[..n]);
        fill_sequences(data, ids, seq, tokens, targets)?;
        loss += passes.loss(theta, Batch { tokens, targets, batch: ids.len(), seq })?;
    }
    Ok(loss.mean())
}

/// A copy of θ on the device.
pub(crate) fn upload(cpu: &Cpu, values: &[f32]) -> Result<Buf> {
    let mut buf = cpu.alloc(values.len())?;
    buf.copy_from_slice(values);
    Ok(buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::DataArgs;
    use gauntlet_model::engine::cpu::Path;
    use gauntlet_model::{Layout, init, preset};

    /// The CPU as a device with copies of its own: what travels is what is computed with.
    #[test]
    fn passes_on_a_device_are_the_same_passes() {
        let cpu = || Cpu::new(1, Path::Best).unwrap();
        let config = LlamaConfig { n_layers: 1, ..preset("byte-1m").unwrap() };
        let data = DataArgs::default().open(std::path::Path::new(""), 1, 256).unwrap().train;
        let mut here = Compute::new(cpu(), &config, 256).unwrap();
        let mut there = Compute::on(cpu(), cpu(), &config, 256).unwrap();
        let mut first = vec![0.0; Layout::new(&config).total()];
        init::init(&Layout::new(&config), 3, &mut first);
        // More than a batch of 4, and another θ after it.
        let ids = [5, 1, 9, 2, 7];
        for scale in [1.0, 2.0] {
            let values: Vec<f32> = first.iter().map(|value| value * scale).collect();
            let theta = upload(&cpu(), &values).unwrap();
            let (grads, loss) = here.gradient(&data, &theta, &ids).unwrap();
            let (copied, same) = there.gradient(&data, &theta, &ids).unwrap();
            assert!(loss == same && grads == copied && grads.iter().any(|g| *g != 0.0));
            assert_eq!(here.loss(&data, &theta, &ids).unwrap(), there.loss(&data, &theta, &ids).unwrap());
            let half = |_: &Cpu, out: &mut [f32]| -> Result<()> {
                out.iter_mut().zip(&values).for_each(|(out, value)| *out = value / 2.0);
                Ok(())
            };
            let lists: [&[u64]; 2] = [&ids[..2], &ids];
            assert_eq!(here.trial(&data, half, &lists).unwrap(), there.trial(&data, half, &lists).unwrap());
        }
        let theta = upload(&cpu(), &first).unwrap();
        let (_, loss) = there.gradient(&data, &theta, &[]).unwrap();
        assert!(loss.is_nan() && there.grads.iter().all(|g| *g == 0.0), "no sequences, no gradient");
    }
}
