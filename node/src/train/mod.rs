//! Training on one machine, with AdamW or DeMo: the centralised baseline, with validation, checkpoints and an exact resume.
//!
//! The data order is a pure function of seed and step, θ and the moments are saved with their hashes,
//! and the engine's results do not depend on the threads: a run that was killed and resumed ends with
//! the same bits as one that was not.

pub(crate) mod checkpoint;
pub(crate) mod demo;
mod metrics;
mod optimizer;
pub(crate) mod report;
pub(crate) mod settings;
pub(crate) mod start;
#[cfg(test)]
mod tests;
mod workers;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use gauntlet_data::{Batches, Dataset, fill_sequences};
use gauntlet_model::engine::{AdamW, Backend, Batch, Engine, EngineOptions, LossSum, Mode, View, Write};
use gauntlet_model::hash::theta_hash;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::device::Place;
use crate::memory::peak_rss_bytes;
use crate::{files, progress};
use metrics::{Metric, Metrics};
use optimizer::Optimizer;
use settings::Settings;
use start::{Begun, Start};
use workers::Turn;

/// Name of the resolved settings in a run folder.
pub(crate) const SETTINGS: &str = "train.toml";

/// Folder of the last step's submissions in a run folder.
const SUBMISSIONS: &str = "submissions";

/// A training run in progress.
pub(crate) struct Run<P: Place> {
    out: PathBuf,
    settings: Settings,
    corpus: Corpus,
    batches: Batches,
    engine: Engine<P>,
    theta: P::Buf,
    grads: P::Buf,
    optimizer: Optimizer<P>,
    /// Steps done.
    step: u64,
    metrics: Metrics,
    lines: Lines,
}

/// Where progress goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// A bar on standard error.
    Bar,
    /// Every metric as a JSON line on standard output.
    Json,
}

impl<P: Place> Run<P> {
    /// Opens the model and the corpus, and takes up the newest checkpoint when resuming.
    pub(crate) fn open(out: &Path, settings: Settings, resume: bool, place: P, lines: Lines) -> Result<Self> {
        let start = Start::read(&settings, resume.then_some(out), &place)?;
        let corpus = settings.data.open(out, place.host_threads())?;
        let batches = Batches::new(&corpus.train, settings.seed, settings.batch, settings.seq)?;
        let Begun { config, layout, theta, optimizer, step } = start.begin(&settings, &corpus, &place)?;
        let grads = place.alloc(layout.total())?;
        let mode = if settings.recompute { Mode::TrainRecompute } else { Mode::Train };
        let options = EngineOptions { batch: settings.batch, seq: settings.seq, mode };
        let engine = Engine::new(place, &config, options)?;
        let metrics = Metrics::open(out, step)?;
        let out = out.to_path_buf();
        Ok(Self { out, settings, corpus, batches, engine, theta, grads, optimizer, step, metrics, lines })
    }

    /// Says on standard error what is about to be trained on what.
    pub(crate) fn greet(&self) {
        let (n, shape) = (self.engine.layout().total(), self.settings.shape_name());
        eprintln!("model: {n} parameters ({shape}), {}", self.engine.backend().name());
        let (corpus, data) = (&self.corpus, &self.corpus.train);
        eprintln!("text: {}, {} tokens, hash {}", corpus.name, data.n_tokens(), corpus.hash);
        if self.step > 0 {
            eprintln!("resumed at step {}", self.step);
        }
    }

    /// Trains to the last step or until asked to stop; returns the summary, which is also written.
    pub(crate) fn train(&mut self) -> Result<Value> {
        let bar = self.bar();
        if self.step == 0 {
            self.validate(&bar)?;
        }
        let started = Instant::now();
        let first = self.step;
        while self.step < self.settings.steps && !progress::stopped() {
            if !self.step_once(&bar)? {
                break;
            }
            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let last = self.step == self.settings.steps;
            let (validate, save) = (due(self.settings.validate_every), due(self.settings.checkpoint_every));
            if validate || last {
                self.validate(&bar)?;
            }
            if save && !last {
                self.save()?;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let checkpoint = self.save()?;
        self.finish(&checkpoint, self.step - first, seconds)
    }

    fn bar(&self) -> ProgressBar {
        if self.lines == Lines::Json {
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
        for worker in 0..self.settings.workers {
            let part = self.gradients(worker)?;
            loss += part;
            let untouched = worker == 0 || matches!(self.optimizer, Optimizer::AdamW(_));
            if untouched && progress::stopped() {
                return Ok(false);
            }
            if let Optimizer::Demo(workers) = &mut self.optimizer {
                let sequences = self.settings.accumulate * self.settings.batch;
                let (place, len) = (self.engine.backend(), self.engine.layout().total());
                let all = View { buf: &self.grads, start: 0, len };
                let norm = place.scope(|| place.sum_of_squares(all))?.sqrt();
                let kept = clip.map_or(1.0, |clip| (f64::from(clip) / (norm + 1e-6)).min(1.0));
                refuse_broken(self.step, part.mean(), norm)?;
                let turn = Turn { worker, step: self.step, sequences };
                workers.submit(place, turn, (&self.theta, &self.grads), (lr, kept))?;
                norms.push(norm);
            }
        }
        let sent = match &mut self.optimizer {
            Optimizer::AdamW([m, v]) => {
                let adamw = adamw(&self.settings, lr, self.step + 1);
                norms.push(self.engine.adamw(adamw, clip, &self.grads, &mut self.theta, (m, v))?);
                None
            }
            Optimizer::Demo(workers) => {
                Some(workers.apply(self.engine.backend(), &mut self.theta, lr, self.step)?)
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
    /// are parts of one batch.
    fn gradients(&mut self, worker: usize) -> Result<LossSum> {
        let Settings { batch, seq, accumulate, workers, .. } = self.settings;
        let alone = matches!(self.optimizer, Optimizer::Demo(_));
        let rows = batch * seq;
        let (mut tokens, mut targets) = (vec![0; rows], vec![0; rows]);
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let scale = 1.0 / (rows * accumulate * if alone { 1 } else { workers }) as f32;
        let mut loss = LossSum::default();
        for i in 0..accumulate {
            let index = (self.step * workers as u64 + worker as u64) * accumulate as u64 + i as u64;
            self.batches.fill(&self.corpus.train, index, &mut tokens, &mut targets)?;
            let write = if i == 0 && (alone || worker == 0) { Write::Set } else { Write::Add };
            let batch = Batch { tokens: &tokens, targets: &targets, batch, seq };
            loss += self.engine.loss_and_grad(&self.theta, &mut self.grads, batch, scale, write)?;
        }
        Ok(loss)
    }

    /// Tokens trained on so far.
    fn tokens(&self) -> u64 {
        self.step * self.settings.tokens_per_step()
    }

    fn validate(&mut self, bar: &ProgressBar) -> Result<()> {
        let Some(data) = &self.corpus.validation else { return Ok(()) };
        let most = match self.settings.validation_sequences {
            0 => u64::MAX,
            n => n,
        };
        let (engine, theta, batch) = (&mut self.engine, &self.theta, self.settings.batch);
        let loss = mean_loss(engine, theta, data, (batch, self.settings.seq), most, |_| ())?.mean();
        let bits_per_byte = bits_per_byte(loss, data);
        let (step, tokens) = (self.step, self.tokens());
        self.report(Metric::Validation { step, tokens, loss, bits_per_byte })?;
        bar.println(format!("step {step}: validation loss {loss:.4}, {bits_per_byte:.4} bits per byte"));
        Ok(())
    }

    fn report(&mut self, metric: Metric) -> Result<()> {
        let line = self.metrics.add(metric)?;
        if self.lines == Lines::Json {
            println!("{line}");
        }
        Ok(())
    }

    fn save(&self) -> Result<PathBuf> {
        let place = self.engine.backend();
        let parts = checkpoint::Parts {
            step: self.step,
            config: self.engine.config(),
            layout: self.engine.layout(),
            theta: &place.host(&self.theta)?,
            optimizer: &self.optimizer,
            place,
            tokenizer: &self.corpus.tokenizer,
            corpus: &self.corpus.hash,
        };
        checkpoint::save(&self.out, &parts, self.settings.keep)
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
            "theta_hash": hash.to_hex().to_string(),
            "validation_loss": last.map(|l| l.0),
            "bits_per_byte": last.map(|l| l.1),
            "seconds": seconds,
            "tokens_per_s": tokens_per_s,
            "peak_rss_bytes": peak_rss_bytes(),
            "checkpoint": checkpoint.display().to_string(),
        });
        if let Value::Object(summary) = &mut summary {
            summary.extend(place.facts());
        }
        if let Optimizer::Demo(workers) = &self.optimizer {
            workers.save(&self.out.join(SUBMISSIONS))?;
        }
        files::write(&self.out.join("summary.json"), format!("{summary:#}\n"))?;
        let report = report::render(&self.settings, &summary, self.metrics.all())?;
        files::write(&self.out.join("report.html"), &report)?;
        Ok(summary)
    }
}

/// Sum of losses over the first `most` sequences of `data`; `tick` hears how many are done.
pub(crate) fn mean_loss<B: Backend>(
    engine: &mut Engine<B>,
    theta: &B::Buf,
    data: &Dataset,
    (batch, seq): (usize, usize),
    most: u64,
    mut tick: impl FnMut(u64),
) -> Result<LossSum> {
    let ids: Vec<u64> = (0..data.n_sequences(seq)?.min(most)).collect();
    if ids.is_empty() {
        bail!("{}: shorter than one sequence of {seq} tokens; lower --seq", data.name());
    }
    let mut loss = LossSum::default();
    for ids in ids.chunks(batch) {
        let rows = ids.len() * seq;
        let (mut tokens, mut targets) = (vec![0; rows], vec![0; rows]);
        fill_sequences(data, ids, seq, &mut tokens, &mut targets)?;
        let batch = Batch { tokens: &tokens, targets: &targets, batch: ids.len(), seq };
        loss += engine.loss(theta, batch)?;
        tick(ids.len() as u64);
    }
    Ok(loss)
}

/// Nats a token into bits a byte of text.
pub(crate) fn bits_per_byte(loss: f64, data: &Dataset) -> f64 {
    loss / (std::f64::consts::LN_2 * data.bytes_per_token())
}

fn refuse_broken(step: u64, loss: f64, norm: f64) -> Result<()> {
    if loss.is_finite() && norm.is_finite() {
        return Ok(());
    }
    let step = step + 1;
    bail!("step {step}: loss {loss}, gradient norm {norm}; lower --lr and resume from the last checkpoint")
}

fn adamw(s: &Settings, lr: f64, step: u64) -> AdamW {
    #[allow(clippy::cast_possible_truncation)] // a learning rate is used in f32
    let lr = lr as f32;
    let Settings { beta1, beta2, eps, weight_decay, .. } = *s;
    AdamW { lr, beta1, beta2, eps, weight_decay, step, grad_scale: 1.0 }
}
