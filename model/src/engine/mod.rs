//! The training engine: explicit forward and backward of the LLaMA over a [`Backend`].
//!
//! Unlike automatic differentiation it allocates everything once, adds gradients in place, never
//! holds the whole logits, and says for every operation what its gradient is. [`crate::llama`]
//! defines the same model on candle; golden tests hold both to the same numbers.

mod backend;
mod backward;
mod collective;
pub mod cpu;
pub mod cuda;
mod forward;
mod workspace;

use std::ops::Range;

pub use backend::{AdamW, Backend, Footprint, Heads, IGNORE, Order, Product, View, ViewMut, Write};
pub use collective::{Collective, HostSum};
pub use workspace::{EngineOptions, MemoryPlan, Mode};
use workspace::{Sizes, Workspace};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};
use crate::layout::Layout;

/// Token ids and the ids that should follow them.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `[B, T]`.
    pub tokens: &'a [u32],
    /// `[B, T]`; [`IGNORE`] counts nothing.
    pub targets: &'a [u32],
    /// B.
    pub batch: usize,
    /// T.
    pub seq: usize,
}

/// Sum of token losses and how many tokens it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum in f64 of the f32 losses (nats) of all targets that count.
    pub sum: f64,
    /// Targets that count.
    pub count: usize,
}

impl LossSum {
    /// Mean loss a token; NaN where nothing counts.
    pub fn mean(self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // a number of tokens
        let count = self.count as f64;
        self.sum / count
    }
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }
}

/// Trains and evaluates one model shape on one device. Parameters and gradients live outside, in flat
/// buffers of [`Layout`] order, so that many holders can share an engine.
pub struct Engine<B: Backend> {
    backend: B,
    config: LlamaConfig,
    layout: Layout,
    options: EngineOptions,
    sizes: Sizes,
    work: Workspace<B>,
    /// The weights as products read them, rounded anew for each pass; empty where products read f32.
    rounded: B::Act,
    /// Losses of the last batch's tokens, on the host.
    losses: Vec<f32>,
    /// Sequence length the rotary table was made for.
    rope_seq: usize,
}

impl<B: Backend> Engine<B> {
    /// An engine for `config` with buffers for `options`.
    ///
    /// # Errors
    /// When the shape is refused, the device cannot compute it, or memory is short.
    pub fn new(backend: B, config: &LlamaConfig, options: EngineOptions) -> Result<Self> {
        config.check()?;
        backend.check_heads(config.head_dim)?;
        let sizes = Sizes::new(config, options, B::FOOTPRINT)?;
        let work = Workspace::new(&backend, &sizes)?;
        let layout = Layout::new(config);
        let rounded = backend.alloc_rounded(layout.total())?;
        let (config, losses) = (config.clone(), vec![0.0; sizes.rows]);
        Ok(Self { backend, config, layout, options, sizes, work, rounded, losses, rope_seq: 0 })
    }

    /// The device.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Places of the tensors in θ.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// A zeroed buffer of the size of θ.
    ///
    /// # Errors
    /// When memory is short.
    pub fn alloc_params(&self) -> Result<B::Buf> {
        self.backend.alloc(self.layout.total())
    }

    /// Loss of each token of `batch` without keeping anything for gradients.
    ///
    /// # Errors
    /// When the batch does not fit the engine or holds ids outside the vocabulary.
    pub fn loss(&mut self, theta: &B::Buf, batch: Batch<'_>) -> Result<LossSum> {
        self.prepare(batch)?;
        let Self { backend, config, layout, sizes, work, rounded, .. } = self;
        backend.scope(|| {
            let weights = backend.rounded(read(theta, layout.total()), rounded);
            Pass { backend, config, layout, sizes, theta, weights, batch }.evaluate(work);
        });
        self.sum(batch)
    }

    /// Logits of every position of `tokens[B, T]` over the ids the tokenizer can produce:
    /// `[B, T, tokenizer_vocab_size]`. For looking at and testing; training never holds them whole.
    ///
    /// # Errors
    /// As [`Engine::loss`].
    pub fn logits(
        &mut self,
        theta: &B::Buf,
        tokens: &[u32],
        (batch, seq): (usize, usize),
    ) -> Result<Vec<f32>> {
        let targets = vec![IGNORE; tokens.len()];
        let batch = Batch { tokens, targets: &targets, batch, seq };
        self.loss(theta, batch)?;
        let (rows, vocab, chunk) = (tokens.len(), self.sizes.vocab, self.sizes.chunk);
        let mut all = vec![0.0; rows * vocab];
        let Self { backend, config, layout, sizes, work, rounded, .. } = self;
        let weights = backend.rounded(read(theta, layout.total()), rounded);
        let pass = Pass { backend, config, layout, sizes, theta, weights, batch };
        for (i, out) in all.chunks_mut(chunk * vocab).enumerate() {
            let n = out.len() / vocab;
            backend.scope(|| pass.logits(&work.normed, &mut work.logits, i * chunk, n, sizes.hidden));
            backend.download(read(&work.logits, n * vocab), out)?;
        }
        Ok(all)
    }

    /// Loss of each token of the last batch, `[B, T]`, 0 where the target was [`IGNORE`].
    pub fn token_losses(&self) -> &[f32] {
        &self.losses
    }

    /// Forward and backward: gradients of `scale · Σ token losses` replace or are added to `grads`.
    ///
    /// With `scale` = 1 / (targets that count in all accumulated batches) the gradients are those of
    /// the mean loss.
    ///
    /// # Errors
    /// When the batch does not fit the engine or holds ids outside the vocabulary, or when the engine
    /// was made for evaluation only.
    pub fn loss_and_grad(
        &mut self,
        theta: &B::Buf,
        grads: &mut B::Buf,
        batch: Batch<'_>,
        scale: f32,
        write: Write,
    ) -> Result<LossSum> {
        if self.options.mode == Mode::Evaluate {
            return Err(ModelError::Batch(
                "this engine was made for evaluation; gradients need a training mode".into(),
            ));
        }
        self.prepare(batch)?;
        let Self { backend, config, layout, sizes, work, rounded, .. } = self;
        backend.scope(|| {
            let weights = backend.rounded(read(theta, layout.total()), rounded);
            let pass = Pass { backend, config, layout, sizes, theta, weights, batch };
            pass.train(work, grads, scale, write);
        });
        self.sum(batch)
    }

    /// One AdamW step with the gradient clipped to `clip` (its norm before clipping is returned).
    ///
    /// # Errors
    /// When the device fails.
    pub fn adamw(
        &self,
        step: AdamW,
        clip: Option<f32>,
        grads: &B::Buf,
        theta: &mut B::Buf,
        moments: (&mut B::Buf, &mut B::Buf),
    ) -> Result<f64> {
        clipped_adamw(&self.backend, step, clip, (grads, self.layout.total()), theta, moments)
    }

    /// Brings the token losses to the host, which waits for the pass.
    fn sum(&mut self, batch: Batch<'_>) -> Result<LossSum> {
        let losses = &mut self.losses[..batch.tokens.len()];
        self.backend.download(read(&self.work.losses, losses.len()), losses)?;
        let sum = losses.iter().map(|&loss| f64::from(loss)).sum();
        Ok(LossSum { sum, count: batch.targets.iter().filter(|&&target| target != IGNORE).count() })
    }

    /// Checks the batch, brings it to the device, and makes the rotary table for its length.
    fn prepare(&mut self, batch: Batch<'_>) -> Result<()> {
        let EngineOptions { batch: most, seq, .. } = self.options;
        let n = batch.batch * batch.seq;
        if batch.batch == 0 || batch.seq == 0 || batch.seq > seq || n > self.sizes.rows {
            let (b, t) = (batch.batch, batch.seq);
            return Err(ModelError::Batch(format!(
                "{b} × {t} tokens do not fit an engine made for {most} × {seq}"
            )));
        }
        if batch.tokens.len() != n || batch.targets.len() != n {
            let (x, y) = (batch.tokens.len(), batch.targets.len());
            return Err(ModelError::Batch(format!("{n} tokens and targets expected, got {x} and {y}")));
        }
        let vocab = self.config.tokenizer_vocab_size;
        let outside = |(_, id): &(usize, &u32)| **id as usize >= vocab;
        let tokens = batch.tokens.iter().enumerate();
        let targets = batch.targets.iter().enumerate().filter(|(_, id)| **id != IGNORE);
        if let Some((position, &id)) = tokens.chain(targets).find(outside) {
            return Err(ModelError::Token { id, position, vocab });
        }
        if self.rope_seq != batch.seq {
            let table = rope_table(&self.config, batch.seq);
            let len = table.len();
            self.backend.upload(&table, ViewMut { buf: &mut self.work.rope, start: 0, len })?;
            self.rope_seq = batch.seq;
        }
        self.backend.upload_ids(batch.tokens, &mut self.work.tokens)?;
        self.backend.upload_ids(batch.targets, &mut self.work.targets)
    }
}

/// One AdamW step over buffers of `len` values with the gradient clipped to `clip`; gives its norm before clipping.
///
/// # Errors
/// When the device fails.
pub fn clipped_adamw<B: Backend>(
    backend: &B,
    mut step: AdamW,
    clip: Option<f32>,
    (grads, len): (&B::Buf, usize),
    theta: &mut B::Buf,
    moments: (&mut B::Buf, &mut B::Buf),
) -> Result<f64> {
    let grads = read(grads, len);
    let all = |buf| ViewMut { buf, start: 0, len };
    backend.scope(|| {
        let norm = backend.sum_of_squares(grads)?.sqrt();
        if let Some(clip) = clip.filter(|&clip| norm > f64::from(clip)) {
            #[allow(clippy::cast_possible_truncation)] // a factor below 1
            let factor = (f64::from(clip) / (norm + 1e-6)) as f32;
            step.grad_scale *= factor;
        }
        backend.adamw(step, grads, all(theta), all(moments.0), all(moments.1));
        Ok(norm)
    })
}

/// cos then sin of `t · θ^(−2j/D)`, `[T, D/2]` each; computed in f64, rounded once.
pub(crate) fn rope_table(config: &LlamaConfig, seq: usize) -> Vec<f32> {
    let half = config.head_dim / 2;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // small integers; one rounding
    let angles = (0..seq * half).map(|i| {
        let (t, j) = ((i / half) as f64, (i % half) as f64);
        t * libm::pow(config.rope_theta, -2.0 * j / config.head_dim as f64)
    });
    #[allow(clippy::cast_possible_truncation)] // the one rounding
    let round = |f: fn(f64) -> f64| move |angle| f(angle) as f32;
    angles.clone().map(round(libm::cos)).chain(angles.map(round(libm::sin))).collect()
}

/// One pass over one batch: everything that is read, while the workspace is written.
struct Pass<'a, B: Backend> {
    backend: &'a B,
    config: &'a LlamaConfig,
    layout: &'a Layout,
    sizes: &'a Sizes,
    theta: &'a B::Buf,
    /// θ as products read it.
    weights: View<'a, B::Act>,
    batch: Batch<'a>,
}

impl<B: Backend> Pass<'_, B> {
    /// Tokens in the batch (N).
    fn rows(&self) -> usize {
        self.batch.batch * self.batch.seq
    }

    fn heads(&self) -> Heads {
        Heads {
            batch: self.batch.batch,
            seq: self.batch.seq,
            n_heads: self.config.n_heads,
            n_kv_heads: self.config.n_kv_heads,
            head_dim: self.config.head_dim,
        }
    }

    /// A matrix of θ as products read it.
    fn weight(&self, range: &Range<usize>) -> View<'_, B::Act> {
        View { buf: self.weights.buf, start: self.weights.start + range.start, len: range.len() }
    }

    /// A tensor of θ in f32.
    fn param(&self, range: &Range<usize>) -> View<'_, B::Buf> {
        View { buf: self.theta, start: range.start, len: range.len() }
    }
}

/// The first `len` elements of a buffer, to read.
fn read<Buf>(buf: &Buf, len: usize) -> View<'_, Buf> {
    View { buf, start: 0, len }
}

/// The first `len` elements of a buffer, to write.
fn write_to<Buf>(buf: &mut Buf, len: usize) -> ViewMut<'_, Buf> {
    ViewMut { buf, start: 0, len }
}

/// `y[N, out] (=|+=) x[N, in] · Wᵀ`, W stored `[out, in]`.
fn linear(rows: usize, width_in: usize, width_out: usize, write: Write) -> Product {
    Product { m: rows, n: width_out, k: width_in, a: Order::Normal, b: Order::Transposed, write }
}

/// `dx[N, in] (=|+=) dy[N, out] · W`.
fn linear_dx(rows: usize, width_in: usize, width_out: usize, write: Write) -> Product {
    Product { m: rows, n: width_in, k: width_out, a: Order::Normal, b: Order::Normal, write }
}

/// `dW[out, in] (=|+=) dyᵀ · x[N, in]`.
fn linear_dw(rows: usize, width_in: usize, width_out: usize, write: Write) -> Product {
    Product { m: width_out, n: width_in, k: rows, a: Order::Transposed, b: Order::Normal, write }
}
