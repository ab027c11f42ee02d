//! Losses and gradients of sequences at a given θ: the one engine that all roles of a process share.

use std::time::{Duration, Instant};

use anyhow::Result;
use gauntlet_data::{Dataset, fill_sequences};
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::cpu::{Buf, Cpu};
use gauntlet_model::engine::{AdamW, Backend, Batch, Engine, EngineOptions, LossSum, Mode, Write};

/// Tokens of a batch at most, unless one sequence has more.
const TOKENS: usize = 1024;

/// An engine with its buffers.
pub(crate) struct Compute {
    engine: Engine<Cpu>,
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

impl Compute {
    /// An engine for sequences of `seq` tokens.
    pub(crate) fn new(cpu: Cpu, config: &LlamaConfig, seq: usize) -> Result<Self> {
        let batch = (TOKENS / seq).max(1);
        let engine = Engine::new(cpu, config, EngineOptions { batch, seq, mode: Mode::Train })?;
        let (grads, trial) = (engine.alloc_params()?, engine.alloc_params()?);
        let (tokens, targets) = (vec![0; batch * seq], vec![0; batch * seq]);
        let busy = Duration::ZERO;
        Ok(Self { engine, grads, trial, batch, seq, tokens, targets, busy })
    }

    /// The device.
    pub(crate) fn cpu(&self) -> &Cpu {
        self.engine.backend()
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
        for (i, ids) in ids.chunks(self.batch).enumerate() {
            let n = ids.len() * self.seq;
            let (tokens, targets) = (&mut self.tokens[..n], &mut self.targets[..n]);
            fill_sequences(data, ids, self.seq, tokens, targets)?;
            let batch = Batch { tokens, targets, batch: ids.len(), seq: self.seq };
            let write = if i == 0 { Write::Set } else { Write::Add };
            loss += self.engine.loss_and_grad(theta, &mut self.grads, batch, scale, write)?;
        }
        if ids.is_empty() {
            self.grads.fill(0.0);
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
        self.engine.adamw(step, Some(1.0), &self.grads, theta, moments)?;
        Ok(())
    }

    /// Mean token loss of the sequences `ids` at θ: f64 over f32 token losses (PROTOCOL 7.3).
    pub(crate) fn loss(&mut self, data: &Dataset, theta: &Buf, ids: &[u64]) -> Result<f64> {
        let started = Instant::now();
        let buffers = (&mut self.tokens[..], &mut self.targets[..]);
        let loss = loss(&mut self.engine, buffers, data, theta, ids, self.batch);
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
        make(self.engine.backend(), &mut self.trial)?;
        let started = Instant::now();
        let Self { engine, tokens, targets, trial, batch, .. } = self;
        let losses = lists
            .iter()
            .map(|ids| loss(engine, (&mut tokens[..], &mut targets[..]), data, trial, ids, *batch))
            .collect();
        self.busy += started.elapsed();
        losses
    }
}

fn loss(
    engine: &mut Engine<Cpu>,
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
        loss += engine.loss(theta, Batch { tokens, targets, batch: ids.len(), seq })?;
    }
    Ok(loss.mean())
}

/// A copy of θ on the device.
pub(crate) fn upload(cpu: &Cpu, values: &[f32]) -> Result<Buf> {
    let mut buf = cpu.alloc(values.len())?;
    buf.copy_from_slice(values);
    Ok(buf)
}
