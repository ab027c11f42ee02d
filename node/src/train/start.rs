//! Where a run begins: fresh weights, a model, or a checkpoint. Everything that can be refused before the text is
//! prepared is refused here.

use std::path::Path;

use anyhow::{Result, bail};
use gauntlet_model::engine::{EngineOptions, Footprint, MemoryPlan, Mode};
use gauntlet_model::{Layout, LlamaConfig, init, preset};

use super::checkpoint;
use super::optimizer::{Kind, Optimizer};
use super::settings::Settings;
use crate::cli::Usage;
use crate::corpus::Corpus;
use crate::device::Place;
use crate::device::demo::device_bytes;
use crate::{memory, model_folder};

/// The shape, and what is known of θ before the text is.
pub(crate) struct Start<P: Place> {
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
    pub(crate) config: LlamaConfig,
    pub(crate) layout: Layout,
    pub(crate) theta: P::Buf,
    pub(crate) optimizer: Optimizer<P>,
    /// Steps done.
    pub(crate) step: u64,
}

impl<P: Place> Start<P> {
    /// Reads what the settings, or the newest checkpoint under `resume`, name.
    pub(crate) fn read(settings: &Settings, resume: Option<&Path>, place: &P) -> Result<Self> {
        if let Some(folder) = resume.map(checkpoint::newest).transpose()?.flatten() {
            let config = LlamaConfig::read(&folder.join("config.json"))?;
            fits(settings, &config, place)?;
            let layout = Layout::new(&config);
            let mut optimizer = Optimizer::new(settings, &layout, place)?;
            let load = |theta: &mut [f32]| checkpoint::load(&folder, &layout, theta, &mut optimizer, place);
            let (theta, state) = place.make(layout.total(), load)?;
            let progress = Some((optimizer, state.step, state.corpus));
            return Ok(Self { config, saved: Some(Saved { theta, progress }) });
        }
        let Some(from) = &settings.from else {
            let config = preset(&settings.preset)?;
            fits(settings, &config, place)?;
            return Ok(Self { config, saved: None });
        };
        fits(settings, &model_folder::config(from)?, place)?;
        let model = model_folder::load(from)?;
        let (theta, ()) = place.make(model.layout.total(), |theta| {
            theta.copy_from_slice(&model.theta);
            Ok(())
        })?;
        Ok(Self { config: model.config, saved: Some(Saved { theta, progress: None }) })
    }

    /// Fits the shape to the tokenizer, and makes what was not read.
    pub(crate) fn begin(self, settings: &Settings, corpus: &Corpus, place: &P) -> Result<Begun<P>> {
        let tokenizer = &corpus.tokenizer;
        let Some(Saved { theta, progress }) = self.saved else {
            let config = LlamaConfig {
                vocab_size: tokenizer.padded_vocab_size(),
                tokenizer_vocab_size: tokenizer.vocab_size(),
                eos_token_id: Some(tokenizer.eos_id()),
                ..self.config
            };
            config.check()?;
            let layout = Layout::new(&config);
            let (theta, ()) = place.make(layout.total(), |theta| {
                init::init(&layout, settings.seed, theta);
                Ok(())
            })?;
            let optimizer = Optimizer::new(settings, &layout, place)?;
            return Ok(Begun { config, layout, theta, optimizer, step: 0 });
        };
        model_folder::check_vocab(tokenizer, &self.config)?;
        let layout = Layout::new(&self.config);
        let (optimizer, step) = match progress {
            Some((_, _, text)) if text != corpus.hash => {
                bail!("the run was trained on other text than {}; name the same --data", corpus.name)
            }
            Some((optimizer, step, _)) => (optimizer, step),
            None => (Optimizer::new(settings, &layout, place)?, 0),
        };
        Ok(Begun { config: self.config, layout, theta, optimizer, step })
    }
}

/// The shape that settings name, without its weights.
pub(crate) fn shape(settings: &Settings) -> Result<LlamaConfig> {
    Ok(match &settings.from {
        Some(from) => model_folder::config(from)?,
        None => preset(&settings.preset)?,
    })
}

/// What the run needs of a device's memory.
pub(crate) fn plan(settings: &Settings, config: &LlamaConfig, footprint: Footprint) -> Result<MemoryPlan> {
    let mode = if settings.recompute { Mode::TrainRecompute } else { Mode::Train };
    let options = EngineOptions { batch: settings.batch, seq: settings.seq, mode };
    let copies = match settings.optimizer {
        Kind::Adamw => 2,
        Kind::Demo => settings.workers,
    };
    let mut plan = MemoryPlan::on(footprint, config, options, copies)?;
    if settings.optimizer == Kind::Demo && footprint != Footprint::CPU {
        // Momenta lie on the device, each with what it sends, beside the gather of a step.
        let format = settings.demo.format(&Layout::new(config)).map_err(|e| Usage(e.to_string()))?;
        let demo = device_bytes(&format, settings.workers, settings.gathered());
        plan.total_bytes = plan.total_bytes - plan.optimizer_bytes + demo;
        plan.optimizer_bytes = demo;
    }
    Ok(plan)
}

/// Refuses sequences the model is not made for, and what the device has no memory for.
fn fits<P: Place>(settings: &Settings, config: &LlamaConfig, place: &P) -> Result<()> {
    let (seq, longest) = (settings.seq, config.max_position_embeddings);
    if seq > longest {
        return Err(Usage(format!("--seq {seq}: the model is made for sequences up to {longest}")).into());
    }
    let remedy = "lower --batch or --seq, add --recompute, or choose a smaller model";
    let plan = plan(settings, config, P::FOOTPRINT)?;
    match place.free()? {
        Some(free) => Ok(plan.check(free)?),
        None => memory::check(plan.total_bytes, remedy),
    }
}
