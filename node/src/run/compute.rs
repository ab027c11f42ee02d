//! Losses and gradients of sequences at a given θ, and DeMo beside them: the one engine that all roles of a process share.

mod plan;
#[cfg(test)]
pub(crate) mod tests;
mod there;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use gauntlet::Hotkey;
use gauntlet_data::{Dataset, fill_sequences};
use gauntlet_demo::{Aggregate, Applied, DemoConfig, Format, OuterStep, Submission, outer_step};
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::cpu::{Buf, Cpu};
use gauntlet_model::engine::{
    AdamW, Backend, Batch, Engine, EngineOptions, LossSum, Mode, Write, clipped_adamw,
};

use super::context::Run;
use super::stopwatch::{Phase, Stopwatch};
use super::theta::Theta;
use crate::device::Place;
use crate::device::demo::Momentum;
pub(crate) use plan::Plan;
use there::{Copies, Owned, Room, Spot, There};

/// Tokens of a batch on the CPU at most, unless one sequence has more: caches want few.
const TOKENS: usize = 1024;

/// An engine with its buffers.
pub(crate) struct Compute {
    passes: Passes,
    /// The gradient, where it was computed or asked for.
    grads: Buf,
    /// θ after a trial step, where it is made.
    trial: Buf,
    batch: usize,
    seq: usize,
    parameters: usize,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// Time spent in forward and backward passes.
    busy: Duration,
    clock: Stopwatch,
    /// Outer steps of a device are made on the CPU too, and compared.
    checked: bool,
}

/// Where forward and backward passes are made. What nodes share is the CPU's either way.
#[cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]
enum Passes {
    /// On the CPU, in place.
    Here(Box<Engine<Cpu>>),
    /// On a device with memory of its own. Nodes that only follow share it too.
    There { cpu: Cpu, device: Mutex<Box<dyn There>> },
}

/// The θ that something is measured at.
#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    /// One that nodes share: a device keeps it.
    Node(&'a Theta),
    /// Somebody's own values.
    Values(&'a Buf),
}

impl<'a> From<&'a Arc<Theta>> for At<'a> {
    fn from(theta: &'a Arc<Theta>) -> Self {
        Self::Node(theta)
    }
}

impl<'a> From<&'a Buf> for At<'a> {
    fn from(values: &'a Buf) -> Self {
        Self::Values(values)
    }
}

impl At<'_> {
    fn values(&self) -> &Buf {
        match self {
            Self::Node(theta) => &theta.values,
            Self::Values(values) => values,
        }
    }
}

fn lock<'a>(device: &'a Mutex<Box<dyn There>>) -> MutexGuard<'a, Box<dyn There>> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own(device: &mut Mutex<Box<dyn There>>) -> &mut dyn There {
    &mut **device.get_mut().unwrap_or_else(PoisonError::into_inner)
}

impl Passes {
    fn cpu(&self) -> &Cpu {
        match self {
            Self::Here(engine) => engine.backend(),
            Self::There { cpu, .. } => cpu,
        }
    }

    /// Where what follows finds θ.
    fn bring(&mut self, at: At<'_>) -> Result<Spot> {
        let Self::There { device, .. } = self else { return Ok(Spot::Theta) };
        match at {
            At::Node(theta) => own(device).bring(theta).map(|()| Spot::Theta),
            At::Values(values) => own(device).bring_trial(values).map(|()| Spot::Trial),
        }
    }

    /// Forward, at `theta` here or `spot` there.
    fn loss(&mut self, theta: &Buf, spot: Spot, batch: Batch<'_>) -> Result<LossSum> {
        match self {
            Self::Here(engine) => Ok(engine.loss(theta, batch)?),
            Self::There { device, .. } => own(device).loss(spot, batch),
        }
    }

    /// The device, where it makes trial and outer steps.
    fn demo(&mut self) -> Option<&mut dyn There> {
        let Self::There { device, .. } = self else { return None };
        Some(own(device)).filter(|device| device.has_demo())
    }
}

impl Compute {
    /// An engine for sequences of `seq` tokens on the CPU.
    pub(crate) fn new(cpu: Cpu, config: &LlamaConfig, seq: usize) -> Result<Self> {
        let options = EngineOptions { batch: (TOKENS / seq).max(1), seq, mode: Mode::Train };
        let total = gauntlet_model::Layout::new(config).total();
        let (grads, trial) = (cpu.alloc(total)?, cpu.alloc(total)?);
        let passes = Passes::Here(Box::new(Engine::new(cpu, config, options)?));
        Ok(Self::with(passes, (grads, trial), total, options))
    }

    /// An engine on `place` for the nodes of a run, with room for `momenta` of them. θ is kept on the CPU as well.
    ///
    /// # Errors
    /// What does not fit, before anything is allocated.
    #[cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]
    pub(crate) fn on<P: Place + 'static>(place: P, cpu: Cpu, run: &Run, momenta: usize) -> Result<Self> {
        let plan = Plan::new(P::FOOTPRINT, run, momenta, place.free()?)?;
        Self::there(place, cpu, run, &plan)
    }

    #[cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]
    fn there<P: Place + 'static>(place: P, cpu: Cpu, run: &Run, plan: &Plan) -> Result<Self> {
        let room = Room {
            config: &run.config,
            options: plan.options(),
            format: &run.format,
            gathered: run.record_limits().gather,
            momenta: plan.momenta_on_device,
        };
        let device: Mutex<Box<dyn There>> = Mutex::new(Box::new(Copies::new(place, room)?));
        let (grads, trial) = (cpu.alloc(0)?, cpu.alloc(0)?);
        let passes = Passes::There { cpu, device };
        Ok(Self::with(passes, (grads, trial), run.layout.total(), plan.options()))
    }

    fn with(passes: Passes, (grads, trial): (Buf, Buf), parameters: usize, options: EngineOptions) -> Self {
        let EngineOptions { batch, seq, .. } = options;
        let (tokens, targets) = (vec![0; batch * seq], vec![0; batch * seq]);
        let (busy, clock, checked) = (Duration::ZERO, Stopwatch::start(), false);
        Self { passes, grads, trial, batch, seq, parameters, tokens, targets, busy, clock, checked }
    }

    /// Makes every outer step of a device on the CPU too: a second pass over θ a window, and an error where they differ.
    pub(crate) fn checked(self) -> Self {
        Self { checked: true, ..self }
    }

    /// The CPU.
    pub(crate) fn cpu(&self) -> &Cpu {
        self.passes.cpu()
    }

    /// Where passes are made, in words.
    pub(crate) fn name(&self) -> String {
        match &self.passes {
            Passes::Here(engine) => engine.backend().name(),
            Passes::There { device, .. } => lock(device).name(),
        }
    }

    /// Time spent in forward and backward passes so far.
    pub(crate) fn busy(&self) -> Duration {
        self.busy
    }

    /// The clock of all that is computed here.
    pub(crate) fn clock(&self) -> &Stopwatch {
        &self.clock
    }

    /// Bytes of a device's memory taken since the engine was made; none on the CPU.
    pub(crate) fn device_bytes(&self) -> Result<Option<usize>> {
        match &self.passes {
            Passes::Here(_) => Ok(None),
            Passes::There { device, .. } => lock(device).taken(),
        }
    }

    /// A peer's momentum, at 0, where gradients are computed.
    pub(crate) fn momentum(&self, config: &DemoConfig, format: &Arc<Format>) -> Result<Momentum> {
        match &self.passes {
            Passes::Here(_) => Ok(Momentum::new(config, format, None)?),
            Passes::There { device, .. } => lock(device).momentum(config, format),
        }
    }

    /// Computes the mean gradient over the tokens of the sequences `ids`; gives their mean loss. The gradient stays where
    /// it is: for [`Self::take_up`] or [`Self::host_gradient`].
    pub(crate) fn gradient<'a>(&mut self, data: &Dataset, at: impl Into<At<'a>>, ids: &[u64]) -> Result<f64> {
        let started = Instant::now();
        let at = at.into();
        let mut loss = LossSum::default();
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let scale = 1.0 / (ids.len() * self.seq).max(1) as f32;
        let spot = self.passes.bring(at)?;
        for (i, ids) in ids.chunks(self.batch).enumerate() {
            let n = ids.len() * self.seq;
            let (tokens, targets) = (&mut self.tokens[..n], &mut self.targets[..n]);
            fill_sequences(data, ids, self.seq, tokens, targets)?;
            let batch = Batch { tokens, targets, batch: ids.len(), seq: self.seq };
            let write = if i == 0 { Write::Set } else { Write::Add };
            loss += match &mut self.passes {
                Passes::Here(engine) => {
                    engine.loss_and_grad(at.values(), &mut self.grads, batch, scale, write)?
                }
                Passes::There { device, .. } => own(device).gradient(spot, batch, scale, write)?,
            };
        }
        if ids.is_empty() {
            match &mut self.passes {
                Passes::Here(_) => self.grads.fill(0.0),
                Passes::There { device, .. } => own(device).set_gradient(None)?,
            }
        }
        self.busy += started.elapsed();
        Ok(loss.mean())
    }

    /// The gradient that was computed or set last, on the host.
    pub(crate) fn host_gradient(&mut self) -> Result<&Buf> {
        if let Passes::There { cpu, device } = &mut self.passes {
            if self.grads.is_empty() {
                self.grads = cpu.alloc(self.parameters)?;
            }
            own(device).give_gradient(&mut self.grads)?;
        }
        Ok(&self.grads)
    }

    /// Takes any gradient as if it had been computed.
    pub(crate) fn set_gradient(&mut self, grads: &[f32]) -> Result<()> {
        if grads.len() != self.parameters {
            bail!("a gradient of {} values for {} parameters", grads.len(), self.parameters);
        }
        match &mut self.passes {
            Passes::Here(_) => self.grads.copy_from_slice(grads),
            Passes::There { device, .. } => own(device).set_gradient(Some(grads))?,
        }
        Ok(())
    }

    /// A momentum takes up the gradient at rate `lr`; gives what to send.
    pub(crate) fn take_up(&mut self, momentum: &mut Momentum, lr: f32) -> Result<Submission> {
        let clock = self.clock.clone();
        clock.during(Phase::Encode, || self.step(momentum, lr))
    }

    fn step(&mut self, momentum: &mut Momentum, lr: f32) -> Result<Submission> {
        match (momentum, &self.passes) {
            (Momentum::Device(momentum), Passes::There { device, .. }) => {
                lock(device).step(&mut **momentum, lr)
            }
            (Momentum::Device(_), Passes::Here(_)) => bail!("a momentum of a device, and none to compute on"),
            (Momentum::Host(momentum), _) => {
                self.host_gradient()?;
                Ok(self.passes.cpu().scope(|| momentum.step(&self.grads, lr))?)
            }
        }
    }

    /// One AdamW step on the host, on the mean gradient over `ids`, clipped to norm 1.
    pub(crate) fn adamw(
        &mut self,
        data: &Dataset,
        theta: &mut Buf,
        moments: (&mut Buf, &mut Buf),
        ids: &[u64],
        step: AdamW,
    ) -> Result<()> {
        self.gradient(data, &*theta, ids)?;
        self.host_gradient()?;
        clipped_adamw(self.passes.cpu(), step, Some(1.0), (&self.grads, self.grads.len()), theta, moments)?;
        Ok(())
    }

    /// Mean token loss of the sequences `ids` at θ: f64 over f32 token losses (PROTOCOL 7.3).
    pub(crate) fn loss<'a>(&mut self, data: &Dataset, at: impl Into<At<'a>>, ids: &[u64]) -> Result<f64> {
        let started = Instant::now();
        let at = at.into();
        let spot = self.passes.bring(at)?;
        let buffers = (&mut self.tokens[..], &mut self.targets[..]);
        let loss = loss(&mut self.passes, (at.values(), spot), buffers, data, ids, self.batch);
        self.busy += started.elapsed();
        loss
    }

    /// Losses of each list of sequences at what θ is after `sent` alone at `c` times the rate `lr`.
    pub(crate) fn trial(
        &mut self,
        data: &Dataset,
        theta: &Arc<Theta>,
        (sent, lr, c): (&Submission, f32, f32),
        lists: &[&[u64]],
    ) -> Result<Vec<f64>> {
        if let Some(device) = self.passes.demo() {
            device.bring(theta)?;
            device.trial(Spot::Theta, sent, lr, c)?;
        } else {
            self.trial_here(&theta.values, (sent, lr, c))?;
        }
        self.losses_after(data, lists)
    }

    /// Losses of the sequences `ids` at θ moved by the outer step over `others`, and at what that is after `sent` alone
    /// at `c` times the step's rate.
    pub(crate) fn marginal(
        &mut self,
        data: &Dataset,
        theta: &Arc<Theta>,
        (others, rates): (&[(Hotkey, &Submission)], (&DemoConfig, &OuterStep)),
        (sent, c): (&Submission, f32),
        ids: &[u64],
    ) -> Result<[f64; 2]> {
        let (config, step) = rates;
        let others: Vec<Owned<'_>> = others.iter().map(|(hotkey, sent)| (hotkey.0, *sent)).collect();
        if let Some(device) = self.passes.demo() {
            let moved = device.outer_step(theta, &others, config.strength_cap, step)?;
            let before = self.loss_at(data, (&theta.values, moved), ids)?;
            if let Some(device) = self.passes.demo() {
                device.trial(moved, sent, step.lr, c)?;
            }
            return Ok([before, self.losses_after(data, &[ids])?.into_iter().sum()]);
        }
        let mut moved = upload(self.cpu(), &theta.values)?;
        self.cpu().scope(|| here(&mut moved, sent.format(), &others, config, step))?;
        let before = self.loss(data, &moved, ids)?;
        self.trial_here(&moved, (sent, step.lr, c))?;
        Ok([before, self.losses_after(data, &[ids])?.into_iter().sum()])
    }

    /// Makes a trial step on the host, and brings it to where passes are made.
    fn trial_here(&mut self, theta: &Buf, (sent, lr, c): (&Submission, f32, f32)) -> Result<()> {
        if self.trial.is_empty() {
            self.trial = self.cpu().alloc(self.parameters)?;
        }
        let trial = &mut self.trial;
        self.passes.cpu().scope(|| outer_step::trial(theta, sent, lr, c, trial))?;
        self.passes.bring(At::Values(&self.trial))?;
        Ok(())
    }

    /// Losses after the trial step.
    fn losses_after(&mut self, data: &Dataset, lists: &[&[u64]]) -> Result<Vec<f64>> {
        let started = Instant::now();
        let Self { passes, tokens, targets, trial, batch, .. } = self;
        let mut each = |ids: &&[u64]| {
            let buffers = (&mut tokens[..], &mut targets[..]);
            loss(passes, (trial, Spot::Trial), buffers, data, ids, *batch)
        };
        let losses = lists.iter().map(&mut each).collect();
        self.busy += started.elapsed();
        losses
    }

    fn loss_at(&mut self, data: &Dataset, at: (&Buf, Spot), ids: &[u64]) -> Result<f64> {
        let started = Instant::now();
        let buffers = (&mut self.tokens[..], &mut self.targets[..]);
        let loss = loss(&mut self.passes, at, buffers, data, ids, self.batch);
        self.busy += started.elapsed();
        loss
    }

    /// θ after the outer step over `accepted`.
    ///
    /// # Errors
    /// Where a device's step is checked and differs from the CPU's.
    pub(crate) fn outer_step(
        &self,
        run: &Run,
        before: &Theta,
        accepted: &[(Hotkey, &Submission)],
    ) -> Result<Theta> {
        self.clock.during(Phase::Apply, || self.apply(run, before, accepted))
    }

    fn apply(&self, run: &Run, before: &Theta, accepted: &[(Hotkey, &Submission)]) -> Result<Theta> {
        let demo = &run.demo;
        let lr = run.learning_rate(before.steps);
        let step = OuterStep { lr, weight_decay: demo.weight_decay, min_gather: demo.min_gather };
        let accepted: Vec<Owned<'_>> = accepted.iter().map(|(hotkey, sent)| (hotkey.0, *sent)).collect();
        let on_cpu = || -> Result<Theta> {
            let mut values = upload(self.cpu(), &before.values)?;
            let applied = self.cpu().scope(|| here(&mut values, &run.format, &accepted, demo, &step))?;
            Ok(Theta::new(run, values, before.steps + u64::from(applied == Applied::Stepped)))
        };
        let Passes::There { cpu, device } = &self.passes else { return on_cpu() };
        let mut device = lock(device);
        if !device.has_demo() {
            return on_cpu();
        }
        let theta = match device.outer_step(before, &accepted, demo.strength_cap, &step)? {
            Spot::Theta => Theta { values: upload(cpu, &before.values)?, ..*before },
            Spot::Trial => {
                let mut values = cpu.alloc(self.parameters)?;
                device.give_trial(&mut values)?;
                let theta = Theta::new(run, values, before.steps + 1);
                device.adopt_trial(theta.hash);
                theta
            }
        };
        if self.checked {
            let expected = self.clock.during(Phase::Check, on_cpu)?;
            if (expected.hash, expected.steps) != (theta.hash, theta.steps) {
                bail!(
                    "{}: the outer step gives θ {}, on the CPU it is {}; do not trust this device: run its memory test, \
                     and report this with the output of `gauntlet doctor` if it passes",
                    device.name(),
                    theta.hash,
                    expected.hash
                );
            }
        }
        Ok(theta)
    }
}

/// The outer step on the host.
fn here(
    theta: &mut [f32],
    format: &Arc<Format>,
    gathered: &[Owned<'_>],
    config: &DemoConfig,
    step: &OuterStep,
) -> gauntlet_demo::Result<Applied> {
    let mut aggregate = Aggregate::new(Arc::clone(format), config.strength_cap);
    for (hotkey, submission) in gathered {
        aggregate.add(*hotkey, submission)?;
    }
    outer_step::apply(theta, &aggregate, step)
}

fn loss(
    passes: &mut Passes,
    (theta, spot): (&Buf, Spot),
    (tokens, targets): (&mut [u32], &mut [u32]),
    data: &Dataset,
    ids: &[u64],
    batch: usize,
) -> Result<f64> {
    let seq = tokens.len() / batch;
    let mut loss = LossSum::default();
    for ids in ids.chunks(batch) {
        let n = ids.len() * seq;
        let (tokens, targets) = (&mut tokens[..n], &mut targets[..n]);
        fill_sequences(data, ids, seq, tokens, targets)?;
        loss += passes.loss(theta, spot, Batch { tokens, targets, batch: ids.len(), seq })?;
    }
    Ok(loss.mean())
}

/// A copy of θ on the device.
pub(crate) fn upload(cpu: &Cpu, values: &[f32]) -> Result<Buf> {
    let mut buf = cpu.alloc(values.len())?;
    buf.copy_from_slice(values);
    Ok(buf)
}
