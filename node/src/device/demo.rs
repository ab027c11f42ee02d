//! DeMo where an engine's buffers lie: on the host beside the CPU's, by kernels beside a GPU's. Submissions, momenta and θ
//! are the same bits either way ([`gauntlet_demo::gpu`]).
#![cfg_attr(target_feature = "crt-static", allow(dead_code, reason = "a static program opens no device"))]

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::Result;
use gauntlet_demo::gpu::{self, Device, Tables, View, ViewMut, gather_bytes, momentum_bytes, tables_bytes};
use gauntlet_demo::{
    Applied, DemoConfig, Error, Format, Momentum as HostMomentum, OuterStep, Pending, Recorded, StrengthCap,
    Submission,
};

use super::Place;

/// DeMo's kernels for one format on one device.
pub(crate) trait DeviceDemo: Send + Sync {
    /// A peer's momentum on the device, at 0.
    fn momentum(&self, config: &DemoConfig) -> Result<Box<dyn DeviceMomentum>, Error>;

    /// Room on the device for so many submissions.
    fn gather(&self, capacity: usize) -> Result<Box<dyn DeviceGather>, Error>;
}

/// [`gpu::Momentum`] of any device.
pub(crate) trait DeviceMomentum: Send + Sync {
    fn step(&mut self, grads: View<'_, f32>, lr: f32) -> Result<Submission, Error>;
    fn step_payload(&mut self, grads: View<'_, f32>, lr: f32) -> Result<Vec<u8>, Error>;
    fn settle(&mut self, recorded: Recorded) -> Result<(), Error>;
    fn submissions(&self) -> u64;
    fn coefficients(&self) -> Result<Vec<f32>, Error>;
    fn pending(&self) -> Result<Option<Pending>, Error>;
    fn restore(&mut self, coefficients: &[f32], submissions: u64) -> Result<(), Error>;
    fn restore_pending(&mut self, pending: &Pending) -> Result<(), Error>;
}

/// [`gpu::Gather`] of any device.
pub(crate) trait DeviceGather: Send + Sync {
    fn clear(&mut self);
    fn add(&mut self, hotkey: [u8; 32], submission: &Submission) -> Result<(), Error>;
    fn add_payload(&mut self, hotkey: [u8; 32], payload: &[u8]) -> Result<(), Error>;
    fn apply(
        &mut self,
        theta: ViewMut<'_, f32>,
        cap: StrengthCap,
        step: &OuterStep,
    ) -> Result<Applied, Error>;
    fn apply_to(
        &mut self,
        theta: View<'_, f32>,
        cap: StrengthCap,
        step: &OuterStep,
        out: ViewMut<'_, f32>,
    ) -> Result<Applied, Error>;
    fn trial(
        &mut self,
        theta: View<'_, f32>,
        place: usize,
        lr: f32,
        c: f32,
        out: ViewMut<'_, f32>,
    ) -> Result<(), Error>;
    fn trial_in_place(&mut self, theta: ViewMut<'_, f32>, place: usize, lr: f32, c: f32)
    -> Result<(), Error>;
}

impl<D: Device + 'static> DeviceDemo for Arc<Tables<D>> {
    fn momentum(&self, config: &DemoConfig) -> Result<Box<dyn DeviceMomentum>, Error> {
        let DemoConfig { decay, momentum_warmup, subtract, .. } = *config;
        Ok(Box::new(gpu::Momentum::new(Self::clone(self), decay, momentum_warmup, subtract)?))
    }

    fn gather(&self, capacity: usize) -> Result<Box<dyn DeviceGather>, Error> {
        Ok(Box::new(gpu::Gather::new(Self::clone(self), capacity)?))
    }
}

impl<D: Device> DeviceMomentum for gpu::Momentum<D> {
    fn step(&mut self, grads: View<'_, f32>, lr: f32) -> Result<Submission, Error> {
        self.step(grads, lr)
    }

    fn step_payload(&mut self, grads: View<'_, f32>, lr: f32) -> Result<Vec<u8>, Error> {
        self.step_payload(grads, lr)
    }

    fn settle(&mut self, recorded: Recorded) -> Result<(), Error> {
        self.settle(recorded)
    }

    fn submissions(&self) -> u64 {
        self.submissions()
    }

    fn coefficients(&self) -> Result<Vec<f32>, Error> {
        self.coefficients()
    }

    fn pending(&self) -> Result<Option<Pending>, Error> {
        self.pending()
    }

    fn restore(&mut self, coefficients: &[f32], submissions: u64) -> Result<(), Error> {
        self.restore(coefficients, submissions)
    }

    fn restore_pending(&mut self, pending: &Pending) -> Result<(), Error> {
        self.restore_pending(pending)
    }
}

impl<D: Device> DeviceGather for gpu::Gather<D> {
    fn clear(&mut self) {
        self.clear();
    }

    fn add(&mut self, hotkey: [u8; 32], submission: &Submission) -> Result<(), Error> {
        self.add(hotkey, submission)
    }

    fn add_payload(&mut self, hotkey: [u8; 32], payload: &[u8]) -> Result<(), Error> {
        self.add_payload(hotkey, payload)
    }

    fn apply(
        &mut self,
        theta: ViewMut<'_, f32>,
        cap: StrengthCap,
        step: &OuterStep,
    ) -> Result<Applied, Error> {
        self.apply(theta, cap, step)
    }

    fn apply_to(
        &mut self,
        theta: View<'_, f32>,
        cap: StrengthCap,
        step: &OuterStep,
        out: ViewMut<'_, f32>,
    ) -> Result<Applied, Error> {
        self.apply_to(theta, cap, step, out)
    }

    fn trial(
        &mut self,
        theta: View<'_, f32>,
        place: usize,
        lr: f32,
        c: f32,
        out: ViewMut<'_, f32>,
    ) -> Result<(), Error> {
        self.trial(theta, place, lr, c, out)
    }

    fn trial_in_place(
        &mut self,
        theta: ViewMut<'_, f32>,
        place: usize,
        lr: f32,
        c: f32,
    ) -> Result<(), Error> {
        self.trial_in_place(theta, place, lr, c)
    }
}

/// A peer's momentum, where its gradients are computed.
pub(crate) enum Momentum {
    /// On the host.
    Host(Box<HostMomentum>),
    /// On the device.
    Device(Box<dyn DeviceMomentum>),
}

impl Momentum {
    /// Momentum 0 beside the buffers of `demo`'s device, or on the host.
    pub(crate) fn new(
        config: &DemoConfig,
        format: &Arc<Format>,
        demo: Option<&dyn DeviceDemo>,
    ) -> Result<Self, Error> {
        Ok(match demo {
            Some(demo) => Self::Device(demo.momentum(config)?),
            None => Self::Host(Box::new(config.momentum(Arc::clone(format))?)),
        })
    }

    /// Takes up a gradient of `place` at rate `lr`; gives the bytes to send.
    pub(crate) fn step_payload<P: Place>(&mut self, place: &P, grads: &P::Buf, lr: f32) -> Result<Vec<u8>> {
        match self {
            Self::Host(momentum) => {
                let grads = place.host(grads)?;
                Ok(place.scope(|| momentum.step(&grads, lr).map(|sent| sent.encode()))?)
            }
            Self::Device(momentum) => Ok(momentum.step_payload(place.view(grads)?, lr)?),
        }
    }

    /// Whether the last submission was recorded.
    pub(crate) fn settle(&mut self, recorded: Recorded) -> Result<(), Error> {
        match self {
            Self::Host(momentum) => {
                momentum.settle(recorded);
                Ok(())
            }
            Self::Device(momentum) => momentum.settle(recorded),
        }
    }

    /// Submissions made so far.
    pub(crate) fn submissions(&self) -> u64 {
        match self {
            Self::Host(momentum) => momentum.submissions(),
            Self::Device(momentum) => momentum.submissions(),
        }
    }

    /// What waits for [`Self::settle`], copied only where it lies on a device.
    pub(crate) fn pending(&self) -> Result<Option<Cow<'_, Pending>>, Error> {
        Ok(match self {
            Self::Host(momentum) => momentum.pending().map(Cow::Borrowed),
            Self::Device(momentum) => momentum.pending()?.map(Cow::Owned),
        })
    }

    /// What a restart needs beside [`Self::submissions`] and [`Self::pending`], copied only where it lies on a device.
    pub(crate) fn coefficients(&self) -> Result<Cow<'_, [f32]>, Error> {
        Ok(match self {
            Self::Host(momentum) => Cow::Borrowed(momentum.coefficients()),
            Self::Device(momentum) => Cow::Owned(momentum.coefficients()?),
        })
    }

    /// Goes on from a saved state, of a momentum here or elsewhere.
    pub(crate) fn restore(&mut self, coefficients: &[f32], submissions: u64) -> Result<(), Error> {
        match self {
            Self::Host(momentum) => momentum.restore(coefficients, submissions),
            Self::Device(momentum) => momentum.restore(coefficients, submissions),
        }
    }

    /// After [`Self::restore`]: what waits for [`Self::settle`]. Errors: a submission of another model.
    pub(crate) fn restore_pending(&mut self, pending: Pending) -> Result<(), Error> {
        match self {
            Self::Host(momentum) => momentum.restore_pending(pending),
            Self::Device(momentum) => momentum.restore_pending(&pending),
        }
    }
}

/// Bytes that DeMo takes of a device: `momenta` of them, and room for `gathered` submissions. None for f32 values, whose
/// momenta stay on the host.
pub(crate) fn device_bytes(format: &Format, momenta: usize, gathered: usize) -> usize {
    if format.codebook().is_exact() {
        return 0;
    }
    tables_bytes(format) + momenta * momentum_bytes(format) + gather_bytes(format, gathered)
}
