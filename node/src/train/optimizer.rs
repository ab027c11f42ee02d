//! What turns gradients into the next θ: AdamW on their mean, or DeMo over simulated workers.

use std::borrow::Cow;

use anyhow::{Result, anyhow};
use clap::ValueEnum;
use gauntlet_model::Layout;
use gauntlet_model::engine::ViewMut;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use super::workers::Workers;
use crate::device::Place;

/// Names of optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// AdamW on the mean gradient of all workers: what data-parallel training is compared with.
    Adamw,
    /// DeMo: every worker sends compressed momentum, the sign of the aggregate is applied.
    Demo,
}

/// An optimizer and its state.
pub(crate) enum Optimizer<P: Place> {
    /// The first and the second moment, each as θ.
    AdamW([P::Buf; 2]),
    /// K workers.
    Demo(Box<Workers>),
}

impl<P: Place> Optimizer<P> {
    /// The optimizer of the settings, at its start, for the tensors of `layout`.
    ///
    /// # Errors
    /// Settings that no DeMo run can use; memory.
    pub(crate) fn new(settings: &Settings, layout: &Layout, place: &P) -> Result<Self> {
        Ok(match settings.optimizer {
            Kind::Adamw => Self::AdamW([place.alloc(layout.total())?, place.alloc(layout.total())?]),
            Kind::Demo => Self::Demo(Box::new(Workers::new(settings, layout, place)?)),
        })
    }

    /// AdamW's moments.
    pub(crate) fn moments(&mut self) -> Option<&mut [P::Buf; 2]> {
        match self {
            Self::AdamW(moments) => Some(moments),
            Self::Demo(_) => None,
        }
    }

    /// Names of the buffers a checkpoint keeps, each as long as θ.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::AdamW(_) => vec!["m".into(), "v".into()],
            Self::Demo(workers) => (0..workers.len()).map(|i| format!("worker-{i}")).collect(),
        }
    }

    /// Values of the buffer that [`Self::names`] has at `i`.
    pub(crate) fn buffer(&self, i: usize, place: &P) -> Result<Cow<'_, [f32]>> {
        let found = match self {
            Self::AdamW(moments) => moments.get(i).map(|m| place.host(m)).transpose()?,
            Self::Demo(workers) => workers.momentum(i)?,
        };
        found.ok_or_else(|| anyhow!("the optimizer has no buffer {i}"))
    }

    /// All buffers that a checkpoint keeps, by name: copied only where they lie elsewhere.
    pub(crate) fn buffers(&self, place: &P) -> Result<Vec<(String, Cow<'_, [f32]>)>> {
        let named = |(i, name)| Ok((name, self.buffer(i, place)?));
        self.names().into_iter().enumerate().map(named).collect()
    }

    /// Puts buffer `i` back as it was after `step` steps.
    pub(crate) fn restore(&mut self, i: usize, values: &[f32], step: u64, place: &P) -> Result<()> {
        match self {
            Self::AdamW(moments) => {
                if let Some(buf) = moments.get_mut(i) {
                    place.upload(values, ViewMut { buf, start: 0, len: values.len() })?;
                }
                Ok(())
            }
            Self::Demo(workers) => workers.restore(i, values, step),
        }
    }
}
