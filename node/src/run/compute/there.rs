//! The nodes' engine on a device with memory of its own. θ is brought once and stays; gradients, momenta, trial steps and
//! the outer step are made where it lies.

use std::sync::Arc;

use anyhow::{Context, Result};
use gauntlet::Digest;
use gauntlet_demo::{Applied, DemoConfig, Format, OuterStep, StrengthCap, Submission};
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::{Batch, Engine, EngineOptions, LossSum, View, ViewMut, Write};

use crate::device::Place;
use crate::device::demo::{DeviceDemo, DeviceGather, DeviceMomentum, Momentum};
use crate::run::theta::Theta;

/// Where a pass reads θ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// The θ that nodes share.
    Theta,
    /// θ after a trial step, or somebody's own values.
    Trial,
}

/// A submission with its owner's key.
pub(super) type Owned<'a> = ([u8; 32], &'a Submission);

/// An engine on a device, whichever it is.
pub(super) trait There: Send {
    /// Lets [`Spot::Theta`] hold `theta`; nothing is copied where it does.
    fn bring(&mut self, theta: &Theta) -> Result<()>;

    /// Lets [`Spot::Trial`] hold `values`.
    fn bring_trial(&mut self, values: &[f32]) -> Result<()>;

    /// Forward and backward; the gradient stays.
    fn gradient(&mut self, at: Spot, batch: Batch<'_>, scale: f32, write: Write) -> Result<LossSum>;

    /// Forward.
    fn loss(&mut self, at: Spot, batch: Batch<'_>) -> Result<LossSum>;

    /// Copies the gradient to the host.
    fn give_gradient(&self, to: &mut [f32]) -> Result<()>;

    /// Replaces the gradient; none is 0.
    fn set_gradient(&mut self, from: Option<&[f32]>) -> Result<()>;

    /// Whether trial and outer steps are made here: for all codebooks but that of f32 values.
    fn has_demo(&self) -> bool;

    /// A momentum, at 0: here, or on the host where the device has no room for it.
    fn momentum(&self, config: &DemoConfig, format: &Arc<Format>) -> Result<Momentum>;

    /// A momentum takes up the gradient.
    fn step(&self, momentum: &mut dyn DeviceMomentum, lr: f32) -> Result<Submission>;

    /// θ after the outer step over `gathered`, and where it is: nothing moves with too few.
    fn outer_step(
        &mut self,
        theta: &Theta,
        gathered: &[Owned<'_>],
        cap: StrengthCap,
        step: &OuterStep,
    ) -> Result<Spot>;

    /// [`Spot::Trial`] becomes what `from` is after `sent` alone at `c` times the rate `lr`.
    fn trial(&mut self, from: Spot, sent: &Submission, lr: f32, c: f32) -> Result<()>;

    /// Copies [`Spot::Trial`] to the host.
    fn give_trial(&self, to: &mut [f32]) -> Result<()>;

    /// [`Spot::Trial`] is θ from here on, of this hash.
    fn adopt_trial(&mut self, hash: Digest);

    /// Bytes of its memory taken since this was made.
    fn taken(&self) -> Result<Option<usize>>;

    /// What it is, in words.
    fn name(&self) -> String;
}

/// An engine and its buffers.
pub(super) struct Copies<P: Place> {
    engine: Engine<P>,
    pub(super) theta: P::Buf,
    trial: P::Buf,
    grads: P::Buf,
    /// Hash of the θ that [`Spot::Theta`] holds.
    pub(super) holds: Option<Digest>,
    demo: Option<Demo>,
    /// Bytes that were free before.
    free: Option<usize>,
}

/// DeMo on the device.
struct Demo {
    kernels: Box<dyn DeviceDemo>,
    gather: Box<dyn DeviceGather>,
    /// Whether momenta have room too.
    momenta: bool,
}

/// What is to be computed on the device, so that it fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room<'a> {
    pub(super) config: &'a LlamaConfig,
    pub(super) options: EngineOptions,
    pub(super) format: &'a Arc<Format>,
    /// Submissions of a gather at most.
    pub(super) gathered: usize,
    pub(super) momenta: bool,
}

impl<P: Place> Copies<P> {
    pub(super) fn new(place: P, room: Room<'_>) -> Result<Self> {
        let free = place.free()?;
        let demo = match place.demo(room.format)? {
            Some(kernels) => {
                let gather = kernels.gather(room.gathered)?;
                Some(Demo { kernels, gather, momenta: room.momenta })
            }
            None => None,
        };
        let engine = Engine::new(place, room.config, room.options)?;
        let (theta, trial) = (engine.alloc_params()?, engine.alloc_params()?);
        let grads = engine.alloc_params()?;
        Ok(Self { engine, theta, trial, grads, holds: None, demo, free })
    }

    fn download(&self, from: &P::Buf, to: &mut [f32]) -> Result<()> {
        Ok(self.engine.backend().download(View { buf: from, start: 0, len: to.len() }, to)?)
    }
}

/// The submissions, gathered on the device.
fn gather<'a>(demo: &'a mut Option<Demo>, all: &[Owned<'_>]) -> Result<&'a mut dyn DeviceGather> {
    let demo = demo.as_mut().context("submissions of this codebook are decoded on the host")?;
    demo.gather.clear();
    for (hotkey, submission) in all {
        demo.gather.add(*hotkey, submission)?;
    }
    Ok(&mut *demo.gather)
}

impl<P: Place> There for Copies<P> {
    fn bring(&mut self, theta: &Theta) -> Result<()> {
        if self.holds != Some(theta.hash) {
            self.holds = None;
            let to = ViewMut { buf: &mut self.theta, start: 0, len: theta.values.len() };
            self.engine.backend().upload(&theta.values, to)?;
            self.holds = Some(theta.hash);
        }
        Ok(())
    }

    fn bring_trial(&mut self, values: &[f32]) -> Result<()> {
        let to = ViewMut { buf: &mut self.trial, start: 0, len: values.len() };
        Ok(self.engine.backend().upload(values, to)?)
    }

    fn gradient(&mut self, at: Spot, batch: Batch<'_>, scale: f32, write: Write) -> Result<LossSum> {
        let theta = if at == Spot::Theta { &self.theta } else { &self.trial };
        Ok(self.engine.loss_and_grad(theta, &mut self.grads, batch, scale, write)?)
    }

    fn loss(&mut self, at: Spot, batch: Batch<'_>) -> Result<LossSum> {
        let theta = if at == Spot::Theta { &self.theta } else { &self.trial };
        Ok(self.engine.loss(theta, batch)?)
    }

    fn give_gradient(&self, to: &mut [f32]) -> Result<()> {
        self.download(&self.grads, to)
    }

    fn set_gradient(&mut self, from: Option<&[f32]>) -> Result<()> {
        let len = self.engine.layout().total();
        let to = ViewMut { buf: &mut self.grads, start: 0, len };
        match from {
            Some(values) => self.engine.backend().upload(values, to)?,
            None => self.engine.backend().zero(to),
        }
        Ok(())
    }

    fn has_demo(&self) -> bool {
        self.demo.is_some()
    }

    fn momentum(&self, config: &DemoConfig, format: &Arc<Format>) -> Result<Momentum> {
        let here = self.demo.as_ref().filter(|demo| demo.momenta);
        Ok(Momentum::new(config, format, here.map(|demo| &*demo.kernels))?)
    }

    fn step(&self, momentum: &mut dyn DeviceMomentum, lr: f32) -> Result<Submission> {
        Ok(momentum.step(self.engine.backend().view(&self.grads)?, lr)?)
    }

    fn outer_step(
        &mut self,
        theta: &Theta,
        gathered: &[Owned<'_>],
        cap: StrengthCap,
        step: &OuterStep,
    ) -> Result<Spot> {
        self.bring(theta)?;
        let Self { engine, theta, trial, demo, .. } = self;
        let (from, to) = (engine.backend().view(theta)?, engine.backend().view_mut(trial)?);
        Ok(match gather(demo, gathered)?.apply_to(from, cap, step, to)? {
            Applied::Stepped => Spot::Trial,
            Applied::TooFew => Spot::Theta,
        })
    }

    fn trial(&mut self, from: Spot, sent: &Submission, lr: f32, c: f32) -> Result<()> {
        let Self { engine, theta, trial, demo, .. } = self;
        let (place, gather) = (engine.backend(), gather(demo, &[([0; 32], sent)])?);
        match from {
            Spot::Theta => gather.trial(place.view(theta)?, 0, lr, c, place.view_mut(trial)?)?,
            Spot::Trial => gather.trial_in_place(place.view_mut(trial)?, 0, lr, c)?,
        }
        Ok(())
    }

    fn give_trial(&self, to: &mut [f32]) -> Result<()> {
        self.download(&self.trial, to)
    }

    fn adopt_trial(&mut self, hash: Digest) {
        std::mem::swap(&mut self.theta, &mut self.trial);
        self.holds = Some(hash);
    }

    fn taken(&self) -> Result<Option<usize>> {
        let now = self.engine.backend().free()?;
        Ok(self.free.zip(now).map(|(before, now)| before.saturating_sub(now)))
    }

    fn name(&self) -> String {
        self.engine.backend().name()
    }
}
