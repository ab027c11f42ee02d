//! What the nodes of a process compute on a device at a time, so that it fits.

use anyhow::Result;
use gauntlet_model::engine::{EngineOptions, Footprint, MemoryPlan, Mode};
use serde::Serialize;

use crate::device::demo::device_bytes;
use crate::run::context::Run;

/// Tokens of a batch on a device, unless one sequence has more: enough that reading every weight costs little.
const TOKENS: usize = 16_384;

/// A device's memory, and what it is used for.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Plan {
    /// Sequences of a batch.
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    /// Whether peers' momenta lie on the device; else on the host, and gradients come down.
    pub(crate) momenta_on_device: bool,
    /// Trial, submissions and momenta count as the optimizer's.
    pub(crate) memory: MemoryPlan,
}

impl Plan {
    /// The most that fits `free` bytes: momenta first, then longer batches. Where nothing is known of the memory, all.
    ///
    /// # Errors
    /// When nothing fits.
    pub(crate) fn new(footprint: Footprint, run: &Run, momenta: usize, free: Option<usize>) -> Result<Self> {
        let seq = run.manifest.data.seq;
        let most = (TOKENS / seq).max(1);
        let batches = || std::iter::successors(Some(most), |batch| (*batch > 1).then(|| batch / 2));
        let exact = run.format.codebook().is_exact();
        for momenta_on_device in [true, false].into_iter().filter(|there| !(*there && exact)) {
            for batch in batches() {
                let plan = Self::of(footprint, run, batch, momenta_on_device.then_some(momenta))?;
                if free.is_none_or(|free| plan.memory.check(free).is_ok()) {
                    return Ok(plan);
                }
            }
        }
        let least = Self::of(footprint, run, 1, None)?;
        Ok(free.map_or(Ok(()), |free| least.memory.check(free)).map(|()| least)?)
    }

    fn of(footprint: Footprint, run: &Run, batch: usize, momenta: Option<usize>) -> Result<Self> {
        let seq = run.manifest.data.seq;
        let options = EngineOptions { batch, seq, mode: Mode::Train };
        // θ, gradients, and θ after a trial.
        let mut memory = MemoryPlan::on(footprint, &run.config, options, 1)?;
        let demo = device_bytes(&run.format, momenta.unwrap_or(0), run.record_limits().gather);
        memory.optimizer_bytes += demo;
        memory.total_bytes += demo;
        Ok(Self { batch, seq, momenta_on_device: momenta.is_some(), memory })
    }

    /// What the engine is made for.
    pub(crate) fn options(&self) -> EngineOptions {
        EngineOptions { batch: self.batch, seq: self.seq, mode: Mode::Train }
    }
}
