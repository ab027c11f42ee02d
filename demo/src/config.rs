//! `[optimizer]` of the manifest.

use crate::aggregate::StrengthCap;
use crate::chunk::{MAX_EDGE, split};
use crate::codebook::Codebook;
use crate::dense::AdamW;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::layout::Layout;
use crate::momentum::{Momentum, Subtract};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Smallest chunk edge of a dimension above 64, unless `chunk` itself is smaller: below it every coefficient is almost its
/// own chunk, which nobody should get by a dimension's divisors without having asked for it.
const MIN_EDGE: usize = 16;

/// Which optimiser a run uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case")]
pub enum Optimizer {
    /// Compressed momentum.
    Demo(DemoConfig),
    /// Dense gradients and AdamW: the baseline, for one trusted group.
    Adamw(AdamW),
}

/// Settings of DeMo; the defaults are the paper's, with the default codebook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DemoConfig {
    /// β: share of the momentum that survives a window.
    pub decay: f32,
    /// k: coefficients kept per chunk.
    pub topk: usize,
    /// Longest chunk edge.
    pub chunk: usize,
    /// Codes of the kept coefficients.
    pub codebook: Codebook,
    /// Submissions that are not subtracted from the momentum.
    pub momentum_warmup: u64,
    /// When the others are.
    pub subtract: Subtract,
    /// Limit of one peer's strength in one chunk.
    pub strength_cap: StrengthCap,
    /// Fewer submissions make no step.
    pub min_gather: usize,
    /// λ of the outer step.
    pub weight_decay: f64,
    /// α of each step.
    pub schedule: Schedule,
}

impl Default for DemoConfig {
    fn default() -> Self {
        Self {
            decay: 0.999,
            topk: 32,
            chunk: MAX_EDGE,
            codebook: Codebook::default(),
            momentum_warmup: 5,
            subtract: Subtract::Always,
            strength_cap: StrengthCap::LowerMedian,
            min_gather: 3,
            weight_decay: 0.0,
            schedule: Schedule { peak: 4e-4, warmup: 250, t_max: 20_000, floor: 0.1 },
        }
    }
}

impl DemoConfig {
    /// Refuses values that cannot work with any layout; names the field.
    pub fn check_values(&self) -> Result<()> {
        let refuse = |field, reason: String| Err(Error::Config { field, reason });
        if !(0.0..=1.0).contains(&self.decay) {
            return refuse("decay", format!("{}: 0 to 1", self.decay));
        }
        if !(1..=MAX_EDGE).contains(&self.chunk) {
            return refuse("chunk", format!("{}: 1 to {MAX_EDGE}", self.chunk));
        }
        if !(1..=MAX_EDGE * MAX_EDGE).contains(&self.topk) {
            let all = MAX_EDGE * MAX_EDGE;
            return refuse("topk", format!("{}: 1 to {all}, all of the largest chunk", self.topk));
        }
        if self.min_gather == 0 {
            return refuse("min_gather", "0: at least 1".into());
        }
        if !(0.0..1.0).contains(&self.weight_decay) {
            return refuse("weight_decay", format!("{}: 0 to below 1", self.weight_decay));
        }
        self.schedule.check()
    }

    /// [`Self::check_values`], and refuses dimensions that cannot be cut well.
    pub fn check(&self, layout: &Layout) -> Result<()> {
        self.check_values()?;
        let (chunk, least) = (self.chunk, self.chunk.min(MIN_EDGE));
        for tensor in layout.tensors() {
            for &n in &tensor.shape {
                let edge = split(n, chunk);
                if n > MAX_EDGE && edge < least {
                    let reason = format!(
                        "chunks of dimension {n} would have edges of {edge}, its largest divisor up to optimizer.chunk \
                         {chunk}; make it a multiple of {chunk}, or choose a chunk from {least} to {MAX_EDGE} that divides it"
                    );
                    return Err(Error::Layout { tensor: tensor.name.clone(), reason });
                }
            }
        }
        Ok(())
    }

    /// What these settings imply about payloads.
    pub fn format(&self, layout: Layout) -> Result<Arc<Format>> {
        Format::new(layout, self.chunk, self.topk, self.codebook.clone())
    }

    /// A peer's momentum, at 0.
    pub fn momentum(&self, format: Arc<Format>) -> Result<Momentum> {
        Momentum::new(format, self.decay, self.momentum_warmup, self.subtract)
    }
}
