//! The seam between a run and its optimiser: DeMo, and the dense baseline, behind one trait.
//!
//! A peer's [`Worker`] turns gradients into payloads; every node's [`Outer`] turns accepted payloads into the next θ.
//!
//! It holds both to the same rules where they are compared, in tests; gradients and θ are slices of the host. Nodes know
//! DeMo only, and have it where their engine computes: by [`crate::Momentum`] and [`crate::outer_step`], or by
//! [`crate::gpu`].

use crate::aggregate::Aggregate;
use crate::config::DemoConfig;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::layout::Layout;
use crate::momentum::{Momentum, Recorded};
use crate::object::{KIND_DEMO, KIND_DENSE};
use crate::outer_step::{self, Applied, OuterStep};
use crate::submission::Submission;
use std::sync::Arc;

/// What one peer sends for one window.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// Compressed momentum.
    Demo(Submission),
    /// A gradient, in θ's order.
    Dense(Vec<f32>),
}

impl Payload {
    /// Kind byte of its object.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Demo(_) => KIND_DEMO,
            Self::Dense(_) => KIND_DENSE,
        }
    }
}

/// An optimiser for many peers.
pub trait Scheme: Send + Sync {
    /// Kind byte of its objects.
    fn kind(&self) -> u8;
    /// The tensors of θ.
    fn layout(&self) -> &Layout;
    /// State of one peer, at its start.
    fn worker(&self) -> Result<Box<dyn Worker>>;
    /// Consensus state beside θ, at its start.
    fn outer(&self) -> Box<dyn Outer>;
    /// A payload's bytes.
    fn encode(&self, payload: &Payload) -> Result<Vec<u8>>;
    /// Reads a payload: total, canonical, never allocating above what the layout implies.
    fn decode(&self, bytes: &[u8]) -> Result<Payload>;
    /// Bytes no payload exceeds.
    fn max_payload(&self) -> usize;
}

/// One peer's side.
pub trait Worker: Send {
    /// One window's mean gradient at rate `lr` to what is sent.
    fn step(&mut self, grads: &[f32], lr: f32) -> Result<Payload>;
    /// Whether the window's record lists the last payload.
    fn settle(&mut self, recorded: Recorded);
}

/// Every node's side.
pub trait Outer: Send {
    /// Rate of the next step; its index is the number of applied steps.
    fn lr(&self) -> f32;
    /// Steps applied.
    fn steps(&self) -> u64;
    /// Applies the accepted payloads, each with its hotkey, in any order.
    fn apply(&mut self, theta: &mut [f32], accepted: &[([u8; 32], &Payload)]) -> Result<Applied>;
    /// θ after one payload alone at `c` times the current rate, into `out`.
    fn trial(&self, theta: &[f32], payload: &Payload, c: f32, out: &mut [f32]) -> Result<()>;
}

/// DeMo.
#[derive(Debug, Clone)]
pub struct Demo {
    config: DemoConfig,
    format: Arc<Format>,
}

impl Demo {
    /// Checks the settings against the layout.
    pub fn new(config: DemoConfig, layout: Layout) -> Result<Self> {
        config.check(&layout)?;
        let format = config.format(layout)?;
        Ok(Self { config, format })
    }

    /// What payloads look like.
    pub fn format(&self) -> &Arc<Format> {
        &self.format
    }
}

impl Scheme for Demo {
    fn kind(&self) -> u8 {
        KIND_DEMO
    }

    fn layout(&self) -> &Layout {
        self.format.layout()
    }

    fn worker(&self) -> Result<Box<dyn Worker>> {
        Ok(Box::new(self.config.momentum(Arc::clone(&self.format))?))
    }

    fn outer(&self) -> Box<dyn Outer> {
        Box::new(DemoOuter { scheme: self.clone(), steps: 0 })
    }

    fn encode(&self, payload: &Payload) -> Result<Vec<u8>> {
        let submission = demo_payload(payload)?;
        self.format.check(submission.format())?;
        Ok(submission.encode())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Payload> {
        Submission::decode(&self.format, bytes).map(Payload::Demo)
    }

    fn max_payload(&self) -> usize {
        self.format.max_payload()
    }
}

impl Worker for Momentum {
    fn step(&mut self, grads: &[f32], lr: f32) -> Result<Payload> {
        Self::step(self, grads, lr).map(Payload::Demo)
    }

    fn settle(&mut self, recorded: Recorded) {
        Self::settle(self, recorded);
    }
}

struct DemoOuter {
    scheme: Demo,
    steps: u64,
}

impl Outer for DemoOuter {
    fn lr(&self) -> f32 {
        self.scheme.config.schedule.at(self.steps)
    }

    fn steps(&self) -> u64 {
        self.steps
    }

    fn apply(&mut self, theta: &mut [f32], accepted: &[([u8; 32], &Payload)]) -> Result<Applied> {
        let config = &self.scheme.config;
        let mut gather = Aggregate::new(Arc::clone(&self.scheme.format), config.strength_cap);
        for (hotkey, payload) in accepted {
            gather.add(*hotkey, demo_payload(payload)?)?;
        }
        let step =
            OuterStep { lr: self.lr(), weight_decay: config.weight_decay, min_gather: config.min_gather };
        let applied = outer_step::apply(theta, &gather, &step)?;
        self.steps += u64::from(applied == Applied::Stepped);
        Ok(applied)
    }

    fn trial(&self, theta: &[f32], payload: &Payload, c: f32, out: &mut [f32]) -> Result<()> {
        outer_step::trial(theta, demo_payload(payload)?, self.lr(), c, out)
    }
}

fn demo_payload(payload: &Payload) -> Result<&Submission> {
    match payload {
        Payload::Demo(submission) => Ok(submission),
        Payload::Dense(_) => Err(Error::Kind { found: KIND_DENSE, expected: KIND_DEMO }),
    }
}
