//! Whether a run fits the memories it uses, and whether activations are kept or computed again so that it does.
//!
//! A device with memory of its own holds what the engine works with; everything else lies in the machine's memory, and so
//! does all of it where the CPU computes.

use anyhow::{Context, Result};
use clap::ValueEnum;
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::{EngineOptions, Footprint, MemoryPlan, Mode};
use serde::{Deserialize, Serialize};

use crate::memory;

/// What to do where a run does not fit the machine's memory.
const REMEDY: &str = "lower --batch or --seq, or choose a smaller model";

/// Whether activations are computed again in the backward pass instead of being kept: the same bits, a third more work,
/// a fraction of the memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Recompute {
    /// Only where they do not fit.
    #[default]
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Bytes held besides weights, gradients and the engine's, by where they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Where the engine computes.
    pub(crate) device: usize,
    /// In the machine's memory, where the device has its own.
    pub(crate) host: usize,
}

/// Free bytes, where they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Free {
    /// Of a device with memory of its own.
    pub(crate) device: Option<usize>,
    /// Of the machine.
    pub(crate) host: Option<usize>,
}

/// What is to be trained where.
#[derive(Clone, Copy)]
pub(crate) struct Needs<'a> {
    pub(crate) config: &'a LlamaConfig,
    pub(crate) footprint: Footprint,
    /// Whether the device has memory of its own.
    pub(crate) own_memory: bool,
    /// Sequences and tokens of a batch on one device.
    pub(crate) batch: (usize, usize),
    pub(crate) held: Held,
}

/// How a run fits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// What is kept for the backward pass.
    pub(crate) mode: Mode,
    /// What that takes where the engine computes.
    pub(crate) plan: MemoryPlan,
}

impl From<Mode> for Recompute {
    fn from(mode: Mode) -> Self {
        if mode == Mode::TrainRecompute { Self::On } else { Self::Off }
    }
}

impl Needs<'_> {
    /// What the device needs in a mode.
    ///
    /// # Errors
    /// When the shape fits no engine.
    pub(crate) fn plan(&self, mode: Mode) -> Result<MemoryPlan> {
        let (batch, seq) = self.batch;
        let options = EngineOptions { batch, seq, mode };
        Ok(MemoryPlan::on(self.footprint, self.config, options, 0)?.with_optimizer(self.held.device))
    }

    /// Bytes of the machine's memory that a run on a device with its own takes besides.
    pub(crate) fn host_bytes(&self) -> usize {
        if self.own_memory { self.held.host } else { 0 }
    }

    /// Keeps activations where they fit, or as it was asked for, and refuses what does not fit.
    ///
    /// # Errors
    /// Which memory is short, by how much, and what to lower.
    pub(crate) fn fit(&self, asked: Recompute, free: Free) -> Result<Fit> {
        let fit = self.choose(asked, free)?;
        let checked = self.check(&fit.plan, free);
        match asked {
            Recompute::Off => checked.context("--recompute off")?,
            Recompute::Auto | Recompute::On => checked?,
        }
        Ok(fit)
    }

    /// As [`Self::fit`], also where nothing fits: what needs least.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(crate) fn choose(&self, asked: Recompute, free: Free) -> Result<Fit> {
        let kept = self.plan(Mode::Train)?;
        let again = asked == Recompute::On || (asked == Recompute::Auto && self.check(&kept, free).is_err());
        let mode = if again { Mode::TrainRecompute } else { Mode::Train };
        Ok(Fit { mode, plan: self.plan(mode)? })
    }

    /// Refuses a plan that one of the memories has no room for.
    ///
    /// # Errors
    /// As [`Self::fit`].
    pub(crate) fn check(&self, plan: &MemoryPlan, free: Free) -> Result<()> {
        if !self.own_memory {
            return memory::check_against(free.host, plan.total_bytes, REMEDY);
        }
        if let Some(free) = free.device {
            plan.check(free)?;
        }
        memory::check_against(free.host, self.host_bytes(), "choose a smaller model, or fewer --workers")
            .context("beside the GPU's memory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_model::preset;

    const BF16: Footprint = Footprint { activation: 2, ..Footprint::CPU };

    fn needs(config: &LlamaConfig, own_memory: bool, held: Held) -> Needs<'_> {
        let footprint = if own_memory { BF16 } else { Footprint::CPU };
        Needs { config, footprint, own_memory, batch: (8, 2048), held }
    }

    /// Room for what is asked for and the reserve.
    fn room(plan: &MemoryPlan) -> usize {
        plan.total_bytes + (1 << 30)
    }

    #[test]
    fn activations_are_kept_where_they_fit_and_computed_again_where_they_do_not() {
        let config = preset("1b").unwrap();
        let held = Held { device: 9 << 30, host: 9 << 30 };
        for own in [false, true] {
            let needs = needs(&config, own, held);
            let [kept, again] = [Mode::Train, Mode::TrainRecompute].map(|mode| needs.plan(mode).unwrap());
            assert!(again.total_bytes < kept.total_bytes);
            let free = |bytes| Free {
                device: own.then_some(bytes),
                host: Some(if own { usize::MAX } else { bytes }),
            };
            let mode = |asked, bytes| needs.fit(asked, free(bytes)).map(|fit| fit.mode);
            assert_eq!(mode(Recompute::Auto, room(&kept)).unwrap(), Mode::Train);
            assert_eq!(mode(Recompute::Auto, room(&again)).unwrap(), Mode::TrainRecompute);
            assert_eq!(mode(Recompute::On, room(&kept)).unwrap(), Mode::TrainRecompute);
            assert_eq!(mode(Recompute::Off, room(&kept)).unwrap(), Mode::Train);
            let refused = |asked, bytes| format!("{:#}", mode(asked, bytes).unwrap_err());
            assert!(refused(Recompute::Off, room(&again)).contains("--recompute off"));
            let message = refused(Recompute::Auto, 1 << 30);
            assert!(!message.contains("--recompute") && message.contains("smaller"), "{message}");
        }
    }

    #[test]
    fn what_is_not_known_is_no_reason_to_compute_again() {
        let config = preset("1b").unwrap();
        for own in [false, true] {
            let needs = needs(&config, own, Held { device: 1 << 30, host: 1 << 30 });
            assert_eq!(needs.fit(Recompute::Auto, Free::default()).unwrap().mode, Mode::Train);
        }
    }

    #[test]
    fn bytes_count_in_the_memory_they_lie_in() {
        let config = preset("1b").unwrap();
        let held = Held { device: 3 << 30, host: 9 << 30 };
        let (there, here) = (needs(&config, true, held), needs(&config, false, held));
        let nothing = needs(&config, true, Held::default()).plan(Mode::Train).unwrap();
        let plan = there.plan(Mode::Train).unwrap();
        assert_eq!(plan.total_bytes, nothing.total_bytes + (3 << 30));
        assert_eq!(plan.optimizer_bytes, 3 << 30);
        // On the CPU all of it is one memory, counted once.
        assert_eq!((there.host_bytes(), here.host_bytes()), (9 << 30, 0));
        let free = |host| Free { device: Some(room(&plan)), host: Some(host) };
        there.fit(Recompute::Auto, free(9 << 30)).unwrap();
        let message = format!("{:#}", there.fit(Recompute::Auto, free(8 << 30)).unwrap_err());
        assert!(message.contains("beside the GPU's") && message.contains("--workers"), "{message}");
    }
}
