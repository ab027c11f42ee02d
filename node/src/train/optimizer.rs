//! What turns gradients into the next θ: AdamW on their mean, or DeMo over simulated workers.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use gauntlet_demo::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use gauntlet_demo::size::Size;
use gauntlet_demo::{
    Aggregate, DemoConfig, Error, Format, Momentum, OuterStep, Recorded, Submission, outer_step,
};
use gauntlet_model::Layout;
use gauntlet_model::engine::ViewMut;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::cli::Usage;
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
    /// K workers, on the host.
    Demo(Box<Workers>),
}

/// Simulated data-parallel workers, each with its own key and momentum.
pub(crate) struct Workers {
    format: Arc<Format>,
    keys: Vec<Keypair>,
    momenta: Vec<Momentum>,
    /// Signed objects of the last step, by worker.
    sent: Vec<Vec<u8>>,
    /// State tags of the step that is open, by worker.
    tags: Vec<[u8; 32]>,
    run: [u8; 32],
    seed: u64,
    gather: usize,
    config: DemoConfig,
}

/// What a step of the workers sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sent {
    /// Mean bytes of an object.
    pub(crate) bytes: f64,
    /// Mean bits of an index.
    pub(crate) bits_per_index: f64,
}

impl<P: Place> Optimizer<P> {
    /// The optimizer of the settings, at its start, for the tensors of `layout`.
    ///
    /// # Errors
    /// Settings that no DeMo run can use; memory.
    pub(crate) fn new(settings: &Settings, layout: &Layout, place: &P) -> Result<Self> {
        if settings.optimizer == Kind::Adamw {
            return Ok(Self::AdamW([place.alloc(layout.total())?, place.alloc(layout.total())?]));
        }
        let usage = |error: Error| Usage(error.to_string());
        let config = settings.demo.config().map_err(usage)?;
        let format = settings.demo.format(layout).map_err(usage)?;
        let momentum = |_| config.momentum(Arc::clone(&format));
        Ok(Self::Demo(Box::new(Workers {
            keys: (0..settings.workers).map(|worker| key(settings.seed, worker)).collect::<Result<_>>()?,
            momenta: (0..settings.workers).map(momentum).collect::<Result<_, Error>>()?,
            sent: Vec::new(),
            tags: Vec::new(),
            run: *blake3::hash(toml::to_string(settings)?.as_bytes()).as_bytes(),
            seed: settings.seed,
            gather: if settings.demo.gather == 0 { settings.workers } else { settings.demo.gather },
            config: DemoConfig { weight_decay: settings.weight_decay.into(), ..config },
            format,
        })))
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
            Self::Demo(workers) => (0..workers.momenta.len()).map(|i| format!("worker-{i}")).collect(),
        }
    }

    /// Values of the buffer that [`Self::names`] has at `i`.
    pub(crate) fn buffer(&self, i: usize, place: &P) -> Result<Cow<'_, [f32]>> {
        let found = match self {
            Self::AdamW(moments) => moments.get(i).map(|m| place.host(m)).transpose()?,
            Self::Demo(workers) => workers.momenta.get(i).map(|m| Cow::Borrowed(m.coefficients())),
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
            }
            Self::Demo(workers) => {
                if let Some(momentum) = workers.momenta.get_mut(i) {
                    momentum.restore(values, step)?;
                }
            }
        }
        Ok(())
    }
}

impl Workers {
    /// Step `step` begins at `theta`.
    pub(crate) fn open(&mut self, theta: &[f32], step: u64) {
        // No chain, so no block opened the window.
        let tag = |key: &Keypair| gauntlet_demo::state_tag(theta, step, &[0; 32], &key.public.to_bytes());
        self.tags = self.keys.iter().map(tag).collect();
    }

    /// Worker `worker` takes up its mean gradient over `sequences`, of which `clip` is the part that is used, at rate
    /// `lr`, and signs what it sends in step `step`, which [`Self::open`] began.
    pub(crate) fn submit<P: Place>(
        &mut self,
        place: &P,
        (worker, step, sequences): (usize, u64, usize),
        grads: &[f32],
        (lr, clip): (f64, f64),
    ) -> Result<()> {
        if worker == 0 {
            self.sent.clear();
        }
        let parts = (self.momenta.get_mut(worker), self.keys.get(worker), self.tags.get(worker));
        let (Some(momentum), Some(key), Some(tag)) = parts else { bail!("no worker {worker}") };
        #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
        let rate = (lr * clip) as f32;
        let payload = place.scope(|| momentum.step(grads, rate).map(|sent| sent.encode()))?;
        let header = Header {
            kind: KIND_DEMO,
            run: self.run,
            window: step,
            hotkey: key.public.to_bytes(),
            count: u32::try_from(sequences).unwrap_or(u32::MAX),
            state_tag: *tag,
        };
        self.sent.push(object::seal(&header, &payload, key));
        Ok(())
    }

    /// Reads what was sent, aggregates it, moves θ, and says what travelled.
    pub(crate) fn apply<P: Place>(
        &mut self,
        place: &P,
        theta: &mut P::Buf,
        lr: f64,
        step: u64,
    ) -> Result<Sent> {
        let accepted = self.accepted(step);
        let move_theta = |theta: &mut [f32]| -> Result<Vec<Size>, Error> {
            let mut read = Vec::with_capacity(self.sent.len());
            for object in &self.sent {
                let object = object::open(object)?;
                read.push((object.header.hotkey, Submission::decode(&self.format, object.payload)?));
            }
            let mut aggregate = Aggregate::new(Arc::clone(&self.format), self.config.strength_cap);
            for (_, (hotkey, submission)) in read.iter().enumerate().filter(|(w, _)| accepted.contains(w)) {
                aggregate.add(*hotkey, submission)?;
            }
            #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
            let rates = OuterStep { lr: lr as f32, weight_decay: self.config.weight_decay, min_gather: 1 };
            outer_step::apply(theta, &aggregate, &rates)?;
            let payload = |object: &Vec<u8>| object.len() - HEADER - TRAILER;
            Ok(read.iter().zip(&self.sent).map(|((_, s), object)| Size::of(s, payload(object))).collect())
        };
        let sizes = place.change(theta, |theta| Ok(place.scope(|| move_theta(theta))?))?;
        for (worker, momentum) in self.momenta.iter_mut().enumerate() {
            momentum.settle(if accepted.contains(&worker) { Recorded::Yes } else { Recorded::No });
        }
        #[allow(clippy::cast_precision_loss)] // numbers of workers and bytes
        let mean = |sum: f64| sum / self.sent.len().max(1) as f64;
        #[allow(clippy::cast_precision_loss)]
        let bytes = mean(self.sent.iter().map(|object| object.len() as f64).sum());
        Ok(Sent { bytes, bits_per_index: mean(sizes.iter().map(|s| s.bits_per_index).sum()) })
    }

    /// Writes the objects of the last step, one a worker.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        if self.sent.is_empty() {
            return Ok(());
        }
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        for (worker, object) in self.sent.iter().enumerate() {
            let path = folder.join(format!("worker-{worker}.grad"));
            std::fs::write(&path, object).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The workers whose submissions of this step are applied: as many as asked for, drawn anew each step.
    fn accepted(&self, step: u64) -> Vec<usize> {
        let mut drawn: Vec<usize> = (0..self.momenta.len()).collect();
        drawn.sort_by_cached_key(|&worker| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.seed.to_le_bytes()).update(&step.to_le_bytes());
            *hasher.update(&(worker as u64).to_le_bytes()).finalize().as_bytes()
        });
        drawn.truncate(self.gather);
        drawn
    }
}

/// The key of a simulated worker.
fn key(seed: u64, worker: usize) -> Result<Keypair> {
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet train v1 key of a simulated worker");
    hasher.update(&seed.to_le_bytes()).update(&(worker as u64).to_le_bytes());
    let secret = MiniSecretKey::from_bytes(hasher.finalize().as_bytes()).map_err(|e| anyhow!("{e}"))?;
    Ok(secret.expand_to_keypair(ExpansionMode::Ed25519))
}
