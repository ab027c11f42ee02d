//! What the same honest data gives without a network: one machine, AdamW on the mean gradient of a window.

use anyhow::Result;
use gauntlet_model::engine::cpu::Buf;
use gauntlet_model::engine::{AdamW, Backend};

use crate::run::compute::Compute;
use crate::run::context::Run;
use crate::run::theta::Theta;

/// AdamW's rate beside a DeMo peak: the best of a search with `byte-1m` was the same for both (docs/log.md).
const RATE: f64 = 1.0;

/// A training run beside the network's.
pub(crate) struct Baseline {
    theta: Buf,
    moments: [Buf; 2],
    step: u64,
}

impl Baseline {
    /// Starts at the network's initial weights.
    pub(crate) fn new(compute: &Compute, initial: &Theta) -> Result<Self> {
        let cpu = compute.cpu();
        let n = initial.values.len();
        let theta = crate::run::compute::upload(cpu, &initial.values)?;
        Ok(Self { theta, moments: [cpu.alloc(n)?, cpu.alloc(n)?], step: 0 })
    }

    /// One step on the sequences that the honest peers trained on in a window.
    pub(crate) fn step(&mut self, run: &Run, compute: &mut Compute, ids: &[u64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
        let lr = (RATE * f64::from(run.learning_rate(self.step))) as f32;
        self.step += 1;
        let adamw = AdamW {
            lr,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step: self.step,
            grad_scale: 1.0,
        };
        let Self { theta, moments: [m, v], .. } = self;
        compute.adamw(&run.corpus.train, theta, (m, v), ids, adamw)
    }

    /// θ after the steps so far.
    pub(crate) fn theta(&self) -> &Buf {
        &self.theta
    }
}
