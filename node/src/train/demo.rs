//! Settings of DeMo in a run on one machine.

use std::sync::Arc;

use anyhow::Result;
use clap::{Args, ValueEnum};
use gauntlet_demo::{Codebook, DemoConfig, Error, Format, StrengthCap, Subtract};
use gauntlet_model::Layout;
use serde::{Deserialize, Serialize};

use crate::cli::{Usage, kept_number};
use crate::run::manifest::demo_layout;

/// What decides the numbers of DeMo; the defaults are those of a run's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct DemoSettings {
    pub(crate) decay: f32,
    pub(crate) topk: usize,
    pub(crate) chunk: usize,
    pub(crate) bits: u32,
    /// None: the default levels of `bits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) levels: Option<Vec<i8>>,
    pub(crate) momentum_warmup: u64,
    pub(crate) subtract: Subtracted,
    pub(crate) strength_cap: bool,
    /// Submissions applied a step, drawn from all workers'; 0: all.
    pub(crate) gather: usize,
}

/// When what was sent leaves the momentum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subtracted {
    /// At once.
    Always,
    /// When it was applied.
    WhenRecorded,
}

impl Default for DemoSettings {
    fn default() -> Self {
        let DemoConfig { decay, topk, chunk, codebook, momentum_warmup, .. } = DemoConfig::default();
        let subtract = Subtracted::Always;
        let bits = codebook.bits();
        Self {
            decay,
            topk,
            chunk,
            bits,
            levels: None,
            momentum_warmup,
            subtract,
            strength_cap: true,
            gather: 0,
        }
    }
}

/// The same as flags.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "DeMo", allow_negative_numbers = true)]
pub(crate) struct DemoArgs {
    /// Share of the momentum that survives a step [default: 0.999].
    #[arg(long)]
    decay: Option<f32>,
    /// Coefficients sent of each chunk [default: 32].
    #[arg(long)]
    topk: Option<usize>,
    /// Longest edge of a chunk [default: 64].
    #[arg(long)]
    chunk: Option<usize>,
    /// Bits of a value: 1, 2, 3, 4, 8, or 32 for f32 values [default: 1].
    #[arg(long)]
    bits: Option<u32>,
    /// Positive levels of a value, ascending, up to 127, in 64ths of the power of two below its chunk's largest value
    /// [default: those of --bits].
    #[arg(long, value_delimiter = ',', value_name = "L,…", value_parser = clap::value_parser!(i8).range(1..), allow_hyphen_values = true)]
    levels: Option<Vec<i8>>,
    /// First submissions that are not subtracted from the momentum [default: 5].
    #[arg(long, value_parser = kept_number::<u64>())]
    momentum_warmup: Option<u64>,
    /// When what was sent is subtracted from the momentum [default: always].
    #[arg(long)]
    subtract: Option<Subtracted>,
    /// Whether one worker's strength in a chunk is limited [default: true].
    #[arg(long)]
    strength_cap: Option<bool>,
    /// Submissions applied a step, drawn from all workers'; 0: all [default: 0].
    #[arg(long)]
    gather: Option<usize>,
}

impl DemoSettings {
    /// Puts what was typed over these.
    pub(crate) fn override_with(&mut self, args: &DemoArgs) {
        fn over<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        over(&mut self.decay, &args.decay);
        over(&mut self.topk, &args.topk);
        over(&mut self.chunk, &args.chunk);
        // Levels are those of their bits.
        if args.bits.is_some_and(|bits| bits != self.bits) {
            self.levels = None;
        }
        over(&mut self.bits, &args.bits);
        if args.levels.is_some() {
            self.levels.clone_from(&args.levels);
        }
        over(&mut self.momentum_warmup, &args.momentum_warmup);
        over(&mut self.subtract, &args.subtract);
        over(&mut self.strength_cap, &args.strength_cap);
        over(&mut self.gather, &args.gather);
    }

    /// What submissions for a model look like.
    ///
    /// # Errors
    /// Names the field, or the tensor that cannot be cut into chunks.
    pub(crate) fn format(&self, layout: &Layout) -> Result<Arc<Format>> {
        let format = || {
            let config = self.config()?;
            let layout = demo_layout(layout)?;
            config.check(&layout)?;
            config.format(layout)
        };
        format().map_err(|error| wrong_flag(&error).into())
    }

    /// The crate's form of these.
    ///
    /// # Errors
    /// Names the field that no codebook has.
    pub(crate) fn config(&self) -> Result<DemoConfig, Error> {
        let codebook = match &self.levels {
            Some(levels) => Codebook::new(self.bits, levels.clone())?,
            None => Codebook::with_bits(self.bits)?,
        };
        Ok(DemoConfig {
            decay: self.decay,
            topk: self.topk,
            chunk: self.chunk,
            codebook,
            momentum_warmup: self.momentum_warmup,
            subtract: match self.subtract {
                Subtracted::Always => Subtract::Always,
                Subtracted::WhenRecorded => Subtract::WhenRecorded,
            },
            strength_cap: if self.strength_cap { StrengthCap::LowerMedian } else { StrengthCap::Off },
            ..DemoConfig::default()
        })
    }
}

/// What is wrong with a setting of DeMo, by the name of its flag.
pub(crate) fn wrong_flag(error: &Error) -> Usage {
    match error {
        Error::Config { field, reason } => {
            let flag = field.strip_prefix("codebook.").unwrap_or(field).replace('_', "-");
            Usage(format!("--{flag}: {reason}"))
        }
        error => Usage(error.to_string()),
    }
}
