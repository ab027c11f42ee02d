//! Where a run begins: fresh weights, a model, or a checkpoint. Everything that can be refused before the text is
//! prepared is refused here.

use std::path::Path;

use anyhow::{Result, bail};
use gauntlet_data::Tokenizer;
use gauntlet_model::engine::{Footprint, Mode};
use gauntlet_model::{Layout, LlamaConfig, init, preset};

use super::checkpoint;
use super::optimizer::{Kind, Optimizer};
use super::settings::Settings;
use crate::cli::Usage;
use crate::corpus::Corpus;
use crate::device::demo::device_bytes;
use crate::device::{Place, share};
use crate::fit::{Free, Held, Needs};
use crate::{memory, model_folder};

/// Where a run computes.
pub(crate) struct Devices<'a, P: Place> {
    /// Where a run begins; the others take over from there.
    pub(crate) first: &'a P,
    pub(crate) others: &'a [P],
}

impl<P: Place> Clone for Devices<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Place> Copy for Devices<'_, P> {}

impl<P: Place> Devices<'_, P> {
    /// How many.
    pub(crate) fn count(self) -> usize {
        1 + self.others.len()
    }

    /// Free bytes of the fullest device, and of the machine.
    fn free(self) -> Result<Free> {
        let mut device = self.first.free()?;
        for other in self.others {
            device = device.min(other.free()?);
        }
        Ok(Free { device, host: memory::free() })
    }
}

/// The shape, and what is known of θ before the text is.
pub(crate) struct Start<P: Place> {
    settings: Settings,
    mode: Mode,
    config: LlamaConfig,
    saved: Option<Saved<P>>,
}

struct Saved<P: Place> {
    theta: P::Buf,
    /// Of a checkpoint: the optimizer, the steps done, the hash of the text.
    progress: Option<(Optimizer<P>, u64, String)>,
}

/// θ and optimizer at the beginning of a run.
pub(crate) struct Begun<P: Place> {
    /// With what was chosen for this machine.
    pub(crate) settings: Settings,
    pub(crate) mode: Mode,
    pub(crate) config: LlamaConfig,
    pub(crate) layout: Layout,
    pub(crate) theta: P::Buf,
    pub(crate) optimizer: Optimizer<P>,
    /// Steps done.
    pub(crate) step: u64,
}

impl<P: Place> Start<P> {
    /// Reads what the settings, or the newest checkpoint under `resume`, name.
    pub(crate) fn read(settings: &Settings, resume: Option<&Path>, devices: Devices<'_, P>) -> Result<Self> {
        let place = devices.first;
        if let Some(folder) = resume.map(checkpoint::newest).transpose()?.flatten() {
            checkpoint::check_settings(&folder, settings)?;
            let config = LlamaConfig::read(&folder.join("config.json"))?;
            let (settings, mode) = fitted(settings, &config, devices)?;
            let layout = Layout::new(&config);
            let mut optimizer = Optimizer::new(&settings, &layout, place)?;
            let load = |theta: &mut [f32]| checkpoint::load(&folder, &layout, theta, &mut optimizer, place);
            let (theta, state) = place.make(layout.total(), load)?;
            let progress = Some((optimizer, state.step, state.corpus));
            return Ok(Self { settings, mode, config, saved: Some(Saved { theta, progress }) });
        }
        let Some(from) = &settings.from else {
            let config = preset(&settings.preset)?;
            // Before text is prepared; asked again when it is. The embedded text is of bytes.
            let tokenizer = settings.data.planned_tokenizer()?.unwrap_or_else(Tokenizer::bytes);
            let (_, mode) = fitted(settings, &fitting(settings, config.clone(), &tokenizer)?, devices)?;
            return Ok(Self { settings: settings.clone(), mode, config, saved: None });
        };
        let (settings, mode) = fitted(settings, &model_folder::config(from)?, devices)?;
        let model = model_folder::load(from)?;
        let (theta, ()) = place.make(model.layout.total(), |theta| {
            theta.copy_from_slice(&model.theta);
            Ok(())
        })?;
        let saved = Some(Saved { theta, progress: None });
        Ok(Self { settings, mode, config: model.config, saved })
    }

    /// Fits the shape to the tokenizer, and makes what was not read.
    pub(crate) fn begin(self, corpus: &Corpus, devices: Devices<'_, P>) -> Result<Begun<P>> {
        let (place, tokenizer) = (devices.first, &corpus.tokenizer);
        let Self { settings, mode, .. } = self;
        let Some(Saved { theta, progress }) = self.saved else {
            let config = fitting(&settings, self.config, tokenizer)?;
            let (settings, mode) = fitted(&settings, &config, devices)?;
            let layout = Layout::new(&config);
            let (theta, ()) = place.make(layout.total(), |theta| {
                init::init(&layout, settings.seed, theta);
                Ok(())
            })?;
            let optimizer = Optimizer::new(&settings, &layout, place)?;
            return Ok(Begun { settings, mode, config, layout, theta, optimizer, step: 0 });
        };
        model_folder::check_vocab(tokenizer, &self.config)?;
        let layout = Layout::new(&self.config);
        let (optimizer, step) = match progress {
            Some((_, _, text)) if text != corpus.hash => {
                bail!("the run was trained on other text than {}; name the same --data", corpus.name)
            }
            Some((optimizer, step, _)) => (optimizer, step),
            None => (Optimizer::new(&settings, &layout, place)?, 0),
        };
        Ok(Begun { settings, mode, config: self.config, layout, theta, optimizer, step })
    }
}

/// The shape with which a run starts: a preset's with the tokenizer's vocabulary, a model's as it is.
pub(crate) fn fitting(settings: &Settings, shape: LlamaConfig, tokenizer: &Tokenizer) -> Result<LlamaConfig> {
    if settings.from.is_some() {
        model_folder::check_vocab(tokenizer, &shape)?;
        return Ok(shape);
    }
    let config = LlamaConfig {
        vocab_size: tokenizer.padded_vocab_size(),
        tokenizer_vocab_size: tokenizer.vocab_size(),
        eos_token_id: Some(tokenizer.eos_id()),
        ..shape
    };
    config.check()?;
    Ok(config)
}

/// The shape that settings name, without its weights.
pub(crate) fn shape(settings: &Settings) -> Result<LlamaConfig> {
    Ok(match &settings.from {
        Some(from) => model_folder::config(from)?,
        None => preset(&settings.preset)?,
    })
}

/// What a run needs of the memories, for `batch` sequences on a device with or without its own.
pub(crate) fn needs<'a>(
    settings: &Settings,
    config: &'a LlamaConfig,
    (footprint, own_memory): (Footprint, bool),
    batch: usize,
) -> Result<Needs<'a>> {
    let theta = 4 * Layout::new(config).total();
    let held = match (settings.optimizer, own_memory) {
        // Beside a device: θ and both moments, while a checkpoint is written.
        (Kind::Adamw, _) => Held { device: 2 * theta, host: 3 * theta },
        (Kind::Demo, _) => {
            let (format, workers) = (settings.demo.format(&Layout::new(config))?, settings.workers);
            // What was sent, and what was read of it.
            let sent = workers * (format.max_payload() + format.submission_bytes());
            match own_memory.then(|| device_bytes(&format, workers, settings.gathered())) {
                None => Held { device: workers * theta + sent, host: 0 },
                // f32 values: momenta lie on the host, and θ and a gradient come there every step.
                Some(0) => Held { device: 0, host: (workers + 2) * theta + sent },
                // Beside the device: θ and all momenta, while a checkpoint is written.
                Some(device) => Held { device, host: (workers + 1) * theta + sent },
            }
        }
    };
    Ok(Needs { config, footprint, own_memory, batch: (batch, settings.seq), held })
}

/// Refuses sequences the model is not made for, and what the memory has no room for; gives the settings with what is kept
/// for the backward pass.
fn fitted<P: Place>(
    settings: &Settings,
    config: &LlamaConfig,
    devices: Devices<'_, P>,
) -> Result<(Settings, Mode)> {
    let (seq, longest) = (settings.seq, config.max_position_embeddings);
    if seq > longest {
        return Err(Usage(format!("--seq {seq}: the model is made for sequences up to {longest}")).into());
    }
    devices.first.check_heads(config.head_dim)?;
    let (free, batch) = (devices.free()?, share(settings.batch, devices.count())?);
    let needs = needs(settings, config, (P::FOOTPRINT, free.device.is_some()), batch)?;
    let mode = needs.fit(settings.recompute, free)?.mode;
    Ok((Settings { recompute: mode.into(), ..settings.clone() }, mode))
}
