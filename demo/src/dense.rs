//! The dense baseline: every peer sends its gradient as it is, the outer step is AdamW on their mean.
//!
//! For one trusted group: nothing limits what a peer does to the mean. ḡ = Σ g_p / n, summed in f64 by hotkey;
//! m ← β₁m + (1−β₁)ḡ; v ← β₂v + (1−β₂)ḡ²; θ ← θ·(1 − αλ) − α·m̂ / (√v̂ + ε) (Loshchilov & Hutter 1711.05101).
//! Element-wise in a fixed order, so every machine gets the same bits.

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::momentum::Recorded;
use crate::object::{KIND_DEMO, KIND_DENSE};
use crate::outer_step::Applied;
use crate::schedule::Schedule;
use crate::scheme::{Outer, Payload, Scheme, Worker};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Elements of one parallel task.
const PIECE: usize = 1 << 16;

/// Settings of the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// λ.
    pub weight_decay: f64,
    /// Fewer gradients make no step.
    pub min_gather: usize,
    /// α of each step.
    pub schedule: Schedule,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            min_gather: 1,
            schedule: Schedule { peak: 4e-4, warmup: 250, t_max: 20_000, floor: 0.1 },
        }
    }
}

/// Dense gradients and AdamW.
#[derive(Debug, Clone)]
pub struct Dense {
    config: AdamW,
    layout: Layout,
}

impl Dense {
    /// Checks the settings.
    pub fn new(config: AdamW, layout: Layout) -> Result<Self> {
        let refuse = |field, reason: String| Err(Error::Config { field, reason });
        for (field, beta) in [("beta1", config.beta1), ("beta2", config.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return refuse(field, format!("{beta}: 0 to below 1"));
            }
        }
        if !(config.eps.is_finite() && config.eps > 0.0) {
            return refuse("eps", format!("{}: positive", config.eps));
        }
        if !(0.0..1.0).contains(&config.weight_decay) {
            return refuse("weight_decay", format!("{}: 0 to below 1", config.weight_decay));
        }
        if config.min_gather == 0 {
            return refuse("min_gather", "0: at least 1".into());
        }
        config.schedule.check()?;
        Ok(Self { config, layout })
    }

    fn check<'a>(&self, payload: &'a Payload) -> Result<&'a [f32]> {
        let Payload::Dense(grads) = payload else {
            return Err(Error::Kind { found: KIND_DEMO, expected: KIND_DENSE });
        };
        check_gradient(&self.layout, grads)?;
        Ok(grads)
    }
}

impl Scheme for Dense {
    fn kind(&self) -> u8 {
        KIND_DENSE
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn worker(&self) -> Result<Box<dyn Worker>> {
        Ok(Box::new(DenseWorker { layout: self.layout.clone() }))
    }

    fn outer(&self) -> Box<dyn Outer> {
        let zeros = vec![0.0; self.layout.len()];
        Box::new(DenseOuter { scheme: self.clone(), m: zeros.clone(), v: zeros, steps: 0 })
    }

    fn encode(&self, payload: &Payload) -> Result<Vec<u8>> {
        Ok(self.check(payload)?.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Payload> {
        let (words, rest) = bytes.as_chunks::<4>();
        if words.len() > self.layout.len() || (words.len() == self.layout.len() && !rest.is_empty()) {
            return Err(Error::TrailingBytes { count: bytes.len() - 4 * self.layout.len() });
        }
        self.layout.check("the payload", words.len())?;
        let payload = Payload::Dense(words.iter().map(|x| f32::from_le_bytes(*x)).collect());
        self.check(&payload)?;
        Ok(payload)
    }

    fn max_payload(&self) -> usize {
        4 * self.layout.len()
    }
}

/// A dense peer has no state.
struct DenseWorker {
    layout: Layout,
}

impl Worker for DenseWorker {
    fn step(&mut self, grads: &[f32], _lr: f32) -> Result<Payload> {
        check_gradient(&self.layout, grads)?;
        Ok(Payload::Dense(grads.to_vec()))
    }

    fn settle(&mut self, _recorded: Recorded) {}
}

/// Moments of the mean gradient: consensus state, the same on every node.
struct DenseOuter {
    scheme: Dense,
    m: Vec<f32>,
    v: Vec<f32>,
    steps: u64,
}

impl Outer for DenseOuter {
    fn lr(&self) -> f32 {
        self.scheme.config.schedule.at(self.steps)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn apply(&mut self, theta: &mut [f32], accepted: &[([u8; 32], &Payload)]) -> Result<Applied> {
        self.scheme.layout.check("θ", theta.len())?;
        let mut peers = Vec::with_capacity(accepted.len());
        for (hotkey, payload) in accepted {
            peers.push((*hotkey, self.scheme.check(payload)?));
        }
        peers.sort_unstable_by_key(|(hotkey, _)| *hotkey);
        if let Some([(hotkey, _), _]) = peers.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(Error::DuplicatePeer { hotkey: *hotkey });
        }
        if peers.len() < self.scheme.config.min_gather {
            return Ok(Applied::TooFew);
        }
        let update = Update::new(&self.scheme.config, self.steps, f64::from(self.lr()));
        (theta.par_chunks_mut(PIECE), self.m.par_chunks_mut(PIECE), self.v.par_chunks_mut(PIECE))
            .into_par_iter()
            .enumerate()
            .for_each(|(piece, (theta, m, v))| {
                for (i, ((theta, m), v)) in theta.iter_mut().zip(m).zip(v).enumerate() {
                    let sum: f64 = peers.iter().map(|(_, g)| f64::from(g[piece * PIECE + i])).sum();
                    (*theta, *m, *v) = update.step(*theta, *m, *v, sum / peers.len() as f64);
                }
            });
        self.steps += 1;
        Ok(Applied::Stepped)
    }

    fn trial(&self, theta: &[f32], payload: &Payload, c: f32, out: &mut [f32]) -> Result<()> {
        self.scheme.layout.check("θ", theta.len())?;
        self.scheme.layout.check("the trial buffer", out.len())?;
        let grads = self.scheme.check(payload)?;
        let config = AdamW { weight_decay: 0.0, ..self.scheme.config.clone() };
        let update = Update::new(&config, self.steps, f64::from(c) * f64::from(self.lr()));
        (out.par_chunks_mut(PIECE), theta.par_chunks(PIECE), grads.par_chunks(PIECE))
            .into_par_iter()
            .zip((self.m.par_chunks(PIECE), self.v.par_chunks(PIECE)))
            .for_each(|((out, theta, grads), (m, v))| {
                for (i, out) in out.iter_mut().enumerate() {
                    *out = update.step(theta[i], m[i], v[i], f64::from(grads[i])).0;
                }
            });
        Ok(())
    }
}

/// The numbers of one AdamW step.
struct Update {
    betas: [f64; 2],
    corrections: [f64; 2],
    eps: f64,
    keep: f64,
    lr: f64,
}

impl Update {
    fn new(config: &AdamW, steps: u64, lr: f64) -> Self {
        let betas = [config.beta1, config.beta2];
        let corrections = betas.map(|beta| 1.0 - libm::pow(beta, (steps + 1) as f64));
        Self { betas, corrections, eps: config.eps, keep: 1.0 - lr * config.weight_decay, lr }
    }

    fn step(&self, theta: f32, m: f32, v: f32, g: f64) -> (f32, f32, f32) {
        let m = self.betas[0] * f64::from(m) + (1.0 - self.betas[0]) * g;
        let v = self.betas[1] * f64::from(v) + (1.0 - self.betas[1]) * g * g;
        let direction = (m / self.corrections[0]) / ((v / self.corrections[1]).sqrt() + self.eps);
        ((f64::from(theta) * self.keep - self.lr * direction) as f32, m as f32, v as f32)
    }
}

fn check_gradient(layout: &Layout, grads: &[f32]) -> Result<()> {
    layout.check("the gradient", grads.len())?;
    match layout.first_not_finite(grads) {
        Some(tensor) => Err(Error::NonFinite { tensor: tensor.name.clone() }),
        None => Ok(()),
    }
}
