//! Training on one machine, with AdamW or DeMo: the centralised baseline, with validation, checkpoints and an exact resume.
//!
//! The data order is a pure function of seed and step, θ and the moments are saved with their hashes,
//! and the engine's results do not depend on the threads: a run that was killed and resumed ends with
//! the same bits as one that was not.

pub(crate) mod checkpoint;
pub(crate) mod demo;
mod loader;
mod measure;
mod metrics;
pub(crate) mod optimizer;
pub(crate) mod report;
pub(crate) mod settings;
#[cfg(test)]
mod several;
pub(crate) mod start;
#[cfg(test)]
mod tests;
mod workers;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use gauntlet_data::Batches;
use gauntlet_model::engine::{AdamW, Batch, Engine, EngineOptions, LossSum, View, Write};
use gauntlet_model::hash::theta_hash;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::device::{Others, Place, share};
use crate::memory::peak_rss_bytes;
use crate::output::note;
use crate::team::{Part, Team};
use crate::{files, output, progress};
use loader::Loader;
pub(crate) use measure::{bits_per_byte, measure};
use metrics::{Metric, Metrics};
use optimizer::Optimizer;
use settings::Settings;
use start::{Begun, Devices, Start};
use workers::Turn;
use writer::Writer;

/// Name of the resolved settings in a run folder.
pub(crate) const SETTINGS: &str = "train.toml";

const REPORT: &str = "report.html";

const SUMMARY: &str = "summary.json";

/// Folder of the last step's submissions in a run folder.
const SUBMISSIONS: &str = "submissions";

/// A training run in progress.
pub(crate) struct Run<P: Place> {
    out: PathBuf,
    settings: Settings,
    corpus: Corpus,
    batches: Loader,
    engine: Engine<P>,
    theta: P::Buf,
    grads: P::Buf,
    optimizer: Optimizer<P>,
    /// The other devices, where there are several.
    team: Option<Team<P>>,
    /// Steps done.
    step: u64,
    metrics: Metrics,
    writer: Writer,
    shown: Shown,
    printed: output::Lines,
}

/// Where progress goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A bar on standard error.
    Bar,
    /// Every metric as a JSON line on standard output.
    Json,
}

impl<P: Place> Run<P> {
    /// Opens the model and the corpus, and takes up the newest checkpoint when resuming.
    pub(crate) fn open(
        out: &Path,
        settings: Settings,
        resume: bool,
        (place, others): (P, Option<Others<P>>),
        shown: Shown,
    ) -> Result<Self> {
        let places = others.as_ref().map_or(&[][..], |others| &others.places);
        let devices = Devices { first: &place, others: places };
        let start = Start::read(&settings, resume.then_some(out), devices)?;
        let corpus = settings.data.open(out, place.host_threads(), settings.seq)?;
        let batches = Batches::new(&corpus.train, settings.seed, settings.batch, settings.seq)?;
        let Begun { settings, config, layout, mut theta, mut optimizer, step, mode } =
            start.begin(&corpus, devices)?;
        let mut grads = place.alloc(layout.total())?;
        let batch = share(settings.batch, devices.count())?;
        let options = EngineOptions { batch, seq: settings.seq, mode };
        let mut engine = Engine::new(place, &config, options)?;
        let first =
            Part { engine: &mut engine, theta: &mut theta, grads: &mut grads, moments: optimizer.moments() };
        let team = others.map(|others| Team::new(others, options, first)).transpose()?;
        // A step is one batch of every worker for each part it accumulates; workers come one after another.
        let next = step * (settings.workers * settings.accumulate) as u64;
        let batches = Loader::new(Arc::clone(&corpus.train), batches, next)?;
        let metrics = Metrics::open(out, step)?;
        let out = out.to_path_buf();
        let printed = output::Lines::default();
        Ok(Self {
            out,
            settings,
            corpus,
            batches,
            engine,
            theta,
            grads,
            optimizer,
            team,
            step,
            metrics,
            writer: Writer::default(),
            shown,
            printed,
        })
    }

    /// The settings, with what was chosen for this machine.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says on standard error what is about to be trained on what.
    pub(crate) fn greet(&self) {
        let (n, shape) = (self.engine.layout().total(), self.settings.shape_name());
        note(format_args!("model: {n} parameters ({shape}), {}", self.engine.backend().name()));
        if let Some(team) = &self.team {
            note(format_args!("with {}", team.name()));
        }
        let (corpus, data) = (&self.corpus, &self.corpus.train);
        note(format_args!("text: {}, {} tokens, hash {}", corpus.name, data.n_tokens(), corpus.hash));
        note(format_args!("held out: {}", corpus.held_out));
        if self.step > 0 {
            note(format_args!("resumed at step {}", self.step));
        }
    }

    /// Shows the summary of a run that has ended and is saved.
    ///
    /// # Errors
    /// When standard output took not all of what was to be printed.
    pub(crate) fn show(mut self, summary: &Value) -> Result<()> {
        match self.shown {
            Shown::Json => self.printed.print(json!({ "kind": "summary", "summary": summary })),
            Shown::Bar => {
                self.printed.print(format_args!("{summary:#}"));
                self.printed.print(format_args!("report: {}", self.out.join(REPORT).display()));
            }
        }
        let saved = format!("the run is saved in {}", self.out.display());
        self.printed.end().context(saved)
    }

    /// Trains to the last step or until asked to stop; returns the summary, which is also written.
    pub(crate) fn train(&mut self) -> Result<Value> {
        let bar = self.bar();
        // Of step 0, or one that was broken off.
        if self.validation_due() && !self.metrics.validated(self.step) {
            self.validate(&bar)?;
        }
        let started = Instant::now();
        let first = self.step;
        while self.step < self.settings.steps && !progress::stopped() {
            if !self.step_once(&bar)? {
                break;
            }
            if self.validation_due() {
                self.validate(&bar)?;
            }
            if self.due(self.settings.checkpoint_every) && self.step < self.settings.steps {
                self.save()?;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        self.save()?;
        let checkpoint = self.writer.finish()?;
        self.finish(&checkpoint, self.step - first, seconds)
    }

    fn due(&self, every: u64) -> bool {
        every > 0 && self.step.is_multiple_of(every)
    }

    /// Whether the loss on held-out text is measured at this step.
    fn validation_due(&self) -> bool {
        self.step == 0 || self.step == self.settings.steps || self.due(self.settings.validate_every)
    }

    fn bar(&self) -> ProgressBar {
        if self.shown == Shown::Json {
            return ProgressBar::hidden();
        }
        let bar = progress::bar(self.settings.steps, "{bar:30} {pos}/{len} {msg} ETA {eta}");
        bar.set_position(self.step);
        bar.reset_eta();
        bar
    }

    /// One optimizer step; `false` when asked to stop before anything was changed by it.
    fn step_once(&mut self, bar: &ProgressBar) -> Result<bool> {
        let started = Instant::now();
        let lr = self.settings.schedule().at(self.step);
        let clip = Some(self.settings.clip).filter(|&clip| clip > 0.0);
        let (mut loss, mut norms) = (LossSum::default(), Vec::new());
        if let Optimizer::Demo(workers) = &mut self.optimizer {
            workers.open(self.engine.backend(), &self.theta, self.step)?;
        }
        for worker in 0..self.settings.workers {
            let untouched = worker == 0 || matches!(self.optimizer, Optimizer::AdamW(_));
            let Some(part) = self.gradients(worker, untouched)? else { return Ok(false) };
            loss += part;
            if let Optimizer::Demo(workers) = &mut self.optimizer {
                let sequences = self.settings.accumulate * self.settings.batch;
                let (place, len) = (self.engine.backend(), self.engine.layout().total());
                let all = View { buf: &self.grads, start: 0, len };
                let norm = place.scope(|| place.sum_of_squares(all))?.sqrt();
                let kept = clip.map_or(1.0, |clip| (f64::from(clip) / (norm + 1e-6)).min(1.0));
                refuse_broken(self.step, part.mean(), norm)?;
                let turn = Turn { worker, step: self.step, sequences };
                workers.submit(place, turn, &self.grads, (lr, kept))?;
                norms.push(norm);
            }
        }
        let sent = match &mut self.optimizer {
            Optimizer::AdamW(_) => {
                norms.push(self.adamw(lr, clip)?);
                None
            }
            Optimizer::Demo(workers) => {
                let (place, len) = (self.engine.backend(), self.engine.layout().total());
                let sent = workers.apply(place, &mut self.theta, lr, self.step)?;
                if let Some(team) = &mut self.team {
                    team.spread((place, &mut self.theta), len)?;
                }
                Some(sent)
            }
        };
        #[allow(clippy::cast_precision_loss)] // a number of workers
        let grad_norm = norms.iter().sum::<f64>() / norms.len() as f64;
        let loss = loss.mean();
        refuse_broken(self.step, loss, grad_norm)?;
        self.step += 1;
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let tokens_per_s = self.settings.tokens_per_step() as f64 / started.elapsed().as_secs_f64();
        let (step, tokens) = (self.step, self.tokens());
        let (bytes, bits_per_index) = (sent.map(|s| s.bytes), sent.and_then(|s| s.bits_per_index));
        self.report(Metric::Train {
            step,
            tokens,
            loss,
            lr,
            grad_norm,
            tokens_per_s,
            bytes,
            bits_per_index,
        })?;
        bar.set_position(step);
        bar.set_message(format!("loss {loss:.4}  {tokens_per_s:.0} tokens/s"));
        Ok(true)
    }

    /// Forward and backward of one worker's batches. With DeMo its mean gradient replaces `grads`; else the workers
    /// are parts of one batch. `None` when asked to stop and nothing has been changed by this step yet.
    fn gradients(&mut self, worker: usize, untouched: bool) -> Result<Option<LossSum>> {
        let Settings { batch, seq, accumulate, workers, .. } = self.settings;
        let alone = matches!(self.optimizer, Optimizer::Demo(_));
        let rows = batch * seq;
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let scale = 1.0 / (rows * accumulate * if alone { 1 } else { workers }) as f32;
        let mut loss = LossSum::default();
        for i in 0..accumulate {
            let ids = self.batches.take()?;
            let write = if i == 0 && (alone || worker == 0) { Write::Set } else { Write::Add };
            let batch = Batch { tokens: &ids.tokens, targets: &ids.targets, batch, seq };
            let (first, team) = self.parts();
            loss += match team {
                Some(team) => team.loss_and_grad(first, batch, (scale, write))?,
                None => first.engine.loss_and_grad(first.theta, first.grads, batch, scale, write)?,
            };
            self.batches.give_back(ids);
            if untouched && progress::stopped() {
                return Ok(None);
            }
        }
        let (first, team) = self.parts();
        if let Some(team) = team.filter(|_| alone || worker + 1 == workers) {
            team.sum(first)?;
        }
        Ok(Some(loss))
    }

    /// What the first device computes with, and the others.
    fn parts(&mut self) -> (Part<'_, P>, Option<&mut Team<P>>) {
        let Self { engine, theta, grads, optimizer, team, .. } = self;
        (Part { engine, theta, grads, moments: optimizer.moments() }, team.as_mut())
    }

    /// AdamW's step on every device; gives the norm of the gradient.
    fn adamw(&mut self, lr: f64, clip: Option<f32>) -> Result<f64> {
        let step = adamw(&self.settings, lr, self.step + 1);
        let (first, team) = self.parts();
        if let Some(team) = team {
            return team.adamw(first, step, clip);
        }
        let Part { engine, theta, grads, moments: Some([m, v]) } = first else {
            bail!("AdamW has no moments");
        };
        Ok(engine.adamw(step, clip, grads, theta, (m, v))?)
    }

    /// Tokens trained on so far.
    fn tokens(&self) -> u64 {
        self.step * self.settings.tokens_per_step()
    }

    /// Measures the loss on held-out text. What Ctrl-C breaks off is not reported.
    fn validate(&mut self, bar: &ProgressBar) -> Result<()> {
        let Some(data) = &self.corpus.validation else { return Ok(()) };
        let most = match self.settings.validation_sequences {
            0 => u64::MAX,
            n => n,
        };
        // The first device measures, which has room for its share of a batch.
        let batch = share(self.settings.batch, self.team.as_ref().map_or(1, Team::devices))?;
        let (engine, theta) = (&mut self.engine, &self.theta);
        let (shape, tokenizer) = ((batch, self.settings.seq), &self.corpus.tokenizer);
        let Some(measured) = measure(engine, theta, (data, tokenizer), shape, most, |_| ())? else {
            return Ok(());
        };
        let (loss, bits_per_byte) = (measured.loss.mean(), measured.bits_per_byte());
        let (step, tokens) = (self.step, self.tokens());
        self.report(Metric::Validation { step, tokens, loss, bits_per_byte })?;
        bar.println(format!("step {step}: validation loss {loss:.4}, {bits_per_byte:.4} bits per byte"));
        Ok(())
    }

    fn report(&mut self, metric: Metric) -> Result<()> {
        let line = self.metrics.add(metric)?;
        if self.shown == Shown::Json {
            self.printed.print(line);
        }
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        // Of one checkpoint at a time are copies on the host.
        self.writer.wait()?;
        let place = self.engine.backend();
        let parts = checkpoint::Parts {
            step: self.step,
            config: self.engine.config().clone(),
            layout: self.engine.layout().clone(),
            theta: place.host(&self.theta)?,
            optimizer: self.optimizer.buffers(place)?,
            tokenizer: self.corpus.tokenizer.clone(),
            corpus: self.corpus.hash.clone(),
            settings: self.settings.clone(),
        };
        self.writer.save(&self.out, parts, self.settings.keep)
    }

    /// The summary that lies in the folder, where it is of this θ: a run that was done already has no new speed to say.
    fn summary_of(&self, theta_hash: &str) -> Option<Value> {
        let text = std::fs::read_to_string(self.out.join(SUMMARY)).ok()?;
        let summary: Value = serde_json::from_str(&text).ok()?;
        let same = summary["theta_hash"] == theta_hash && summary["steps"] == self.step;
        (same && self.out.join(REPORT).exists()).then_some(summary)
    }

    fn finish(&self, checkpoint: &Path, steps: u64, seconds: f64) -> Result<Value> {
        let last = self.metrics.all().iter().rev().find_map(|m| match m {
            Metric::Validation { loss, bits_per_byte, .. } => Some((*loss, *bits_per_byte)),
            Metric::Train { .. } => None,
        });
        // Of the last step: the first ones send less than every chunk.
        let payload_bytes = self.metrics.all().iter().rev().find_map(|m| match m {
            Metric::Train { bytes, .. } => *bytes,
            Metric::Validation { .. } => None,
        });
        let bits_per_index = match &self.optimizer {
            Optimizer::Demo(workers) => workers.bits_per_index()?,
            Optimizer::AdamW(_) => None,
        };
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let tokens_per_s = (steps * self.settings.tokens_per_step()) as f64 / seconds.max(1e-9);
        let place = self.engine.backend();
        let hash = theta_hash(self.engine.layout(), &place.host(&self.theta)?);
        let hash = hash.to_hex().to_string();
        if steps == 0
            && let Some(summary) = self.summary_of(&hash)
        {
            return Ok(summary);
        }
        let mut summary = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "finished": self.step == self.settings.steps,
            "steps": self.step,
            "tokens": self.tokens(),
            "optimizer": self.settings.optimizer,
            "workers": self.settings.workers,
            "payload_bytes": payload_bytes,
            "bits_per_index": bits_per_index,
            "parameters": self.engine.layout().total(),
            "corpus": self.corpus.name,
            "corpus_hash": self.corpus.hash,
            "theta_hash": hash,
            "validation_loss": last.map(|l| l.0),
            "bits_per_byte": last.map(|l| l.1),
            "seconds": seconds,
            "tokens_per_s": tokens_per_s,
            "peak_rss_bytes": peak_rss_bytes(),
            "checkpoint": checkpoint.display().to_string(),
        });
        if let Value::Object(summary) = &mut summary {
            summary.extend(place.facts());
            if let Some(team) = &self.team {
                summary.insert("devices".into(), team.devices().into());
                summary.insert("with".into(), team.name().into());
            }
        }
        if let Optimizer::Demo(workers) = &self.optimizer {
            workers.save(&self.out.join(SUBMISSIONS))?;
        }
        files::write(&self.out.join(SUMMARY), format!("{summary:#}\n"))?;
        let report = report::render(&self.settings, &summary, self.metrics.all())?;
        files::write(&self.out.join(REPORT), &report)?;
        Ok(summary)
    }
}

fn refuse_broken(step: u64, loss: f64, norm: f64) -> Result<()> {
    if loss.is_finite() && norm.is_finite() {
        return Ok(());
    }
    let step = step + 1;
    let remedy =
        "start a new run with a lower --lr, from the last checkpoint with --from RUN where there is one";
    bail!("step {step}: loss {loss}, gradient norm {norm}; {remedy}")
}

fn adamw(s: &Settings, lr: f64, step: u64) -> AdamW {
    #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
    let lr = lr as f32;
    let Settings { beta1, beta2, eps, weight_decay, .. } = *s;
    AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale: 1.0 }
}
