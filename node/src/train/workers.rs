//! DeMo over simulated workers: momenta, signed objects, and the outer step, each where the engine computes.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use gauntlet_demo::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use gauntlet_demo::size::Size;
use gauntlet_demo::{
    Aggregate, DemoConfig, Error, Format, OuterStep, Recorded, Submission, outer_step, tag_of, tag_positions,
};
use gauntlet_model::Layout;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};

use super::demo::wrong_flag;
use super::settings::Settings;
use crate::device::Place;
use crate::device::demo::{DeviceGather, Momentum};

#[cfg(test)]
mod tests;

/// Simulated data-parallel workers, each with its own key and momentum.
pub(crate) struct Workers {
    format: Arc<Format>,
    keys: Vec<Keypair>,
    momenta: Vec<Momentum>,
    /// The gather of a step; none where it is made on the host.
    gathered: Option<Box<dyn DeviceGather>>,
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
    /// Mean bits of an index; not known of what was read on a device.
    pub(crate) bits_per_index: Option<f64>,
}

/// Whose submission of which step, made from how many sequences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) worker: usize,
    pub(crate) step: u64,
    pub(crate) sequences: usize,
}

impl Workers {
    /// Workers at their start, for the tensors of `layout`.
    ///
    /// # Errors
    /// Settings that no DeMo run can use; memory.
    pub(crate) fn new<P: Place>(settings: &Settings, layout: &Layout, place: &P) -> Result<Self> {
        let config = settings.demo.config().map_err(|error| wrong_flag(&error))?;
        let format = settings.demo.format(layout)?;
        let config = DemoConfig { weight_decay: settings.weight_decay.into(), ..config };
        let gather = settings.gathered();
        let demo = place.demo(&format)?;
        let momentum = |_| Momentum::new(&config, &format, demo.as_deref());
        Ok(Self {
            keys: (0..settings.workers).map(|worker| key(settings.seed, worker)).collect::<Result<_>>()?,
            momenta: (0..settings.workers).map(momentum).collect::<Result<_, Error>>()?,
            gathered: demo.as_deref().map(|demo| demo.gather(gather)).transpose()?,
            sent: Vec::new(),
            tags: Vec::new(),
            run: settings.run_id()?,
            seed: settings.seed,
            gather,
            config,
            format,
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.momenta.len()
    }

    /// Coefficients of the momentum of `worker`.
    pub(crate) fn momentum(&self, worker: usize) -> Result<Option<Cow<'_, [f32]>>> {
        Ok(self.momenta.get(worker).map(Momentum::coefficients).transpose()?)
    }

    /// Puts the momentum of `worker` back as it was after `step` steps.
    pub(crate) fn restore(&mut self, worker: usize, coefficients: &[f32], step: u64) -> Result<()> {
        match self.momenta.get_mut(worker) {
            Some(momentum) => Ok(momentum.restore(coefficients, step)?),
            None => bail!("no worker {worker}"),
        }
    }

    /// Step `step` begins at `theta`.
    pub(crate) fn open<P: Place>(&mut self, place: &P, theta: &P::Buf, step: u64) -> Result<()> {
        let parameters = self.format.layout().len();
        let tag = |key: &Keypair| -> Result<[u8; 32]> {
            let hotkey = key.public.to_bytes();
            // No chain, so no block opened the window.
            let positions = tag_positions(parameters, &[0; 32], &hotkey);
            Ok(tag_of(&place.pick(theta, &positions)?, step, &hotkey))
        };
        self.tags = self.keys.iter().map(tag).collect::<Result<_>>()?;
        Ok(())
    }

    /// A worker takes up its mean gradient, of which `clip` is the part that is used, at rate `lr`, and signs what it
    /// sends in a step that [`Self::open`] began.
    pub(crate) fn submit<P: Place>(
        &mut self,
        place: &P,
        Turn { worker, step, sequences }: Turn,
        grads: &P::Buf,
        (lr, clip): (f64, f64),
    ) -> Result<()> {
        if worker == 0 {
            self.sent.clear();
        }
        let parts = (self.momenta.get_mut(worker), self.keys.get(worker), self.tags.get(worker));
        let (Some(momentum), Some(key), Some(tag)) = parts else { bail!("no worker {worker}") };
        #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
        let rate = (lr * clip) as f32;
        let payload = momentum.step_payload(place, grads, rate)?;
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
        #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
        let rates = OuterStep { lr: lr as f32, weight_decay: self.config.weight_decay, min_gather: 1 };
        let bits_per_index = match &mut self.gathered {
            None => {
                let move_theta = |theta: &mut [f32]| self.apply_here(theta, &accepted, &rates);
                Some(place.change(theta, |theta| Ok(place.scope(|| move_theta(theta))?))?)
            }
            Some(gathered) => {
                gathered.clear();
                for object in accepted.iter().filter_map(|&worker| self.sent.get(worker)) {
                    let object = object::open(object)?;
                    gathered.add_payload(object.header.hotkey, object.payload)?;
                }
                gathered.apply(place.view_mut(theta)?, self.config.strength_cap, &rates)?;
                None
            }
        };
        for (worker, momentum) in self.momenta.iter_mut().enumerate() {
            momentum.settle(if accepted.contains(&worker) { Recorded::Yes } else { Recorded::No })?;
        }
        let bytes = mean(self.sent.iter().map(|object| count(object.len())));
        Ok(Sent { bytes, bits_per_index })
    }

    /// The outer step on the host; gives mean bits of an index.
    fn apply_here(&self, theta: &mut [f32], accepted: &[usize], rates: &OuterStep) -> Result<f64, Error> {
        let read = self.read()?;
        let mut aggregate = Aggregate::new(Arc::clone(&self.format), self.config.strength_cap);
        for (_, (hotkey, submission)) in read.iter().enumerate().filter(|(w, _)| accepted.contains(w)) {
            aggregate.add(*hotkey, submission)?;
        }
        outer_step::apply(theta, &aggregate, rates)?;
        Ok(self.index_bits(read.iter().map(|(_, submission)| submission)))
    }

    /// What the last step sent, read as a receiver would.
    fn read(&self) -> Result<Vec<([u8; 32], Submission)>, Error> {
        let read = |object: &Vec<u8>| {
            let object = object::open(object)?;
            Ok((object.header.hotkey, Submission::decode(&self.format, object.payload)?))
        };
        self.sent.iter().map(read).collect()
    }

    fn index_bits<'a>(&self, submissions: impl Iterator<Item = &'a Submission>) -> f64 {
        let payload = |object: &Vec<u8>| object.len() - HEADER - TRAILER;
        mean(submissions.zip(&self.sent).map(|(s, object)| Size::of(s, payload(object)).bits_per_index))
    }

    /// Mean bits of an index in what the last step sent; none before the first.
    pub(crate) fn bits_per_index(&self) -> Result<Option<f64>> {
        let read = self.read()?;
        Ok((!read.is_empty()).then(|| self.index_bits(read.iter().map(|(_, submission)| submission))))
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

#[allow(clippy::cast_precision_loss)] // a number of bytes or workers
fn count(n: usize) -> f64 {
    n as f64
}

/// Mean of values, 0 of none.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    sum / count(n.max(1))
}

/// The key of a simulated worker.
fn key(seed: u64, worker: usize) -> Result<Keypair> {
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet train v1 key of a simulated worker");
    hasher.update(&seed.to_le_bytes()).update(&(worker as u64).to_le_bytes());
    let secret = MiniSecretKey::from_bytes(hasher.finalize().as_bytes()).map_err(|e| anyhow!("{e}"))?;
    Ok(secret.expand_to_keypair(ExpansionMode::Ed25519))
}
