//! The buffers an engine works in: sized once from model, batch and options, allocated once.

use super::backend::Backend;
use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};

/// Logits of one chunk of the loss: at most this many values exist at a time (16 MiB).
const LOGITS: usize = 4 << 20;

/// What an engine is to be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most sequences in a batch.
    pub batch: usize,
    /// Most tokens in a sequence.
    pub seq: usize,
    /// What is kept for a backward pass.
    pub mode: Mode,
}

/// What a forward pass keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: losses only, in the memory of one layer.
    Evaluate,
    /// Every layer's activations.
    Train,
    /// Every layer's input; the rest is computed again in the backward pass (a third more work, a
    /// fraction of the memory).
    TrainRecompute,
}

/// Number of f32 values of each kind of buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) rows: usize,
    pub(crate) hidden: usize,
    pub(crate) q: usize,
    pub(crate) kv: usize,
    pub(crate) ffn: usize,
    pub(crate) heads: usize,
    pub(crate) rope: usize,
    pub(crate) chunk: usize,
    pub(crate) vocab: usize,
    /// Copies of a layer's activations.
    pub(crate) slots: usize,
    /// Copies of the residual stream.
    pub(crate) inputs: usize,
    pub(crate) trains: bool,
}

impl Sizes {
    pub(crate) fn new(config: &LlamaConfig, options: EngineOptions) -> Result<Self> {
        let rows = options.batch.checked_mul(options.seq).filter(|&rows| rows > 0 && rows <= 1 << 30);
        let Some(rows) = rows else {
            let EngineOptions { batch, seq, .. } = options;
            return Err(ModelError::Batch(format!(
                "{batch} sequences of {seq} tokens are not 1 to 2^30 tokens; choose another batch"
            )));
        };
        let (slots, inputs, trains) = match options.mode {
            Mode::Evaluate => (1, 1, false),
            Mode::Train => (config.n_layers, config.n_layers + 1, true),
            Mode::TrainRecompute => (1, config.n_layers + 1, true),
        };
        let vocab = config.tokenizer_vocab_size;
        Ok(Self {
            rows,
            hidden: config.hidden_size,
            q: config.q_size(),
            kv: config.kv_size(),
            ffn: config.intermediate_size,
            heads: config.n_heads,
            rope: options.seq * config.head_dim,
            chunk: (LOGITS / vocab / 64 * 64).clamp(64, 1 << 16).min(rows.div_ceil(2).max(1)),
            vocab,
            slots,
            inputs,
            trains,
        })
    }

    /// f32 values in one layer's activations.
    fn slot(&self) -> usize {
        self.rows * (2 + self.hidden + 2 * self.q + 2 * self.kv + 2 * self.ffn + self.heads)
    }

    /// All f32 values of the workspace.
    pub(crate) fn total(&self) -> usize {
        let scratch = self.rows * (self.hidden + self.ffn) + self.chunk * self.vocab + self.rope;
        let gradients =
            if self.trains { self.rows * (self.hidden * 2 + 2 * self.q + 2 * self.kv) } else { 0 };
        self.slots * self.slot() + self.inputs * self.rows * self.hidden + scratch + gradients + self.rows * 2
    }
}

/// One layer's activations.
pub(crate) struct Slot<Buf> {
    pub(crate) rstd1: Buf,
    pub(crate) q: Buf,
    pub(crate) k: Buf,
    pub(crate) v: Buf,
    pub(crate) attn: Buf,
    pub(crate) lse: Buf,
    pub(crate) mid: Buf,
    pub(crate) rstd2: Buf,
    pub(crate) gate_up: Buf,
}

/// Gradients of activations.
pub(crate) struct Gradients<Buf> {
    pub(crate) x: Buf,
    pub(crate) normed: Buf,
    pub(crate) attn: Buf,
    pub(crate) q: Buf,
    pub(crate) k: Buf,
    pub(crate) v: Buf,
}

/// Everything an engine writes besides parameters and their gradients.
pub(crate) struct Workspace<Buf> {
    pub(crate) inputs: Vec<Buf>,
    pub(crate) slots: Vec<Slot<Buf>>,
    pub(crate) normed: Buf,
    pub(crate) rstd: Buf,
    pub(crate) act: Buf,
    pub(crate) logits: Buf,
    pub(crate) rope: Buf,
    pub(crate) grads: Option<Gradients<Buf>>,
    /// Loss of each token, on the host.
    pub(crate) losses: Vec<f32>,
}

impl<Buf> Workspace<Buf> {
    pub(crate) fn new<B: Backend<Buf = Buf>>(backend: &B, s: &Sizes) -> Result<Self> {
        let alloc = |width: usize| backend.alloc(s.rows * width);
        let slot = || -> Result<Slot<Buf>> {
            Ok(Slot {
                rstd1: alloc(1)?,
                q: alloc(s.q)?,
                k: alloc(s.kv)?,
                v: alloc(s.kv)?,
                attn: alloc(s.q)?,
                lse: alloc(s.heads)?,
                mid: alloc(s.hidden)?,
                rstd2: alloc(1)?,
                gate_up: alloc(2 * s.ffn)?,
            })
        };
        let grads = || -> Result<Gradients<Buf>> {
            Ok(Gradients {
                x: alloc(s.hidden)?,
                normed: alloc(s.hidden)?,
                attn: alloc(s.q)?,
                q: alloc(s.q)?,
                k: alloc(s.kv)?,
                v: alloc(s.kv)?,
            })
        };
        Ok(Self {
            inputs: (0..s.inputs).map(|_| alloc(s.hidden)).collect::<Result<_>>()?,
            slots: (0..s.slots).map(|_| slot()).collect::<Result<_>>()?,
            normed: alloc(s.hidden)?,
            rstd: alloc(1)?,
            act: alloc(s.ffn)?,
            logits: backend.alloc(s.chunk * s.vocab)?,
            rope: backend.alloc(s.rope)?,
            grads: s.trains.then(grads).transpose()?,
            losses: vec![0.0; s.rows],
        })
    }
}

/// Memory a training run needs, in bytes.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct MemoryPlan {
    /// Number of parameters.
    pub parameters: usize,
    /// θ.
    pub weights_bytes: usize,
    /// Gradients.
    pub gradients_bytes: usize,
    /// The optimizer's buffers: AdamW's two moments, or a momentum for each worker.
    pub optimizer_bytes: usize,
    /// Activations and scratch.
    pub workspace_bytes: usize,
    /// All of it.
    pub total_bytes: usize,
}

impl MemoryPlan {
    /// Counts what an engine of these options, and an optimizer of `copies` buffers as long as θ, would allocate,
    /// allocating nothing.
    ///
    /// # Errors
    /// When the options fit no engine.
    pub fn new(config: &LlamaConfig, options: EngineOptions, copies: usize) -> Result<Self> {
        config.check()?;
        let parameters = crate::layout::Layout::new(config).total();
        let weights_bytes = 4 * parameters;
        let workspace_bytes = 4 * Sizes::new(config, options)?.total();
        let (gradients_bytes, optimizer_bytes) = match options.mode {
            Mode::Evaluate => (0, 0),
            Mode::Train | Mode::TrainRecompute => (weights_bytes, copies * weights_bytes),
        };
        let total_bytes = weights_bytes + gradients_bytes + optimizer_bytes + workspace_bytes;
        Ok(Self { parameters, weights_bytes, gradients_bytes, optimizer_bytes, workspace_bytes, total_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::{Buf, Cpu, Path};
    use crate::preset;

    /// f32 values in all buffers.
    fn held(work: &Workspace<Buf>) -> usize {
        let Workspace { inputs, slots, normed, rstd, act, logits, rope, grads, losses } = work;
        let slot = |s: &Slot<Buf>| {
            let Slot { rstd1, q, k, v, attn, lse, mid, rstd2, gate_up } = s;
            [rstd1, q, k, v, attn, lse, mid, rstd2, gate_up].iter().map(|b| b.len()).sum::<usize>()
        };
        let grads = grads.iter().map(|g| {
            let Gradients { x, normed, attn, q, k, v } = g;
            [x, normed, attn, q, k, v].iter().map(|b| b.len()).sum::<usize>()
        });
        let single: usize = [normed, rstd, act, logits, rope].iter().map(|b| b.len()).sum();
        let inputs: usize = inputs.iter().map(|b| b.len()).sum();
        inputs + slots.iter().map(slot).sum::<usize>() + grads.sum::<usize>() + single + losses.len()
    }

    #[test]
    fn a_plan_counts_what_is_allocated() {
        let config = LlamaConfig { n_kv_heads: 2, ..preset("byte-1m").unwrap() };
        let cpu = Cpu::new(1, Path::Best).unwrap();
        for mode in [Mode::Train, Mode::TrainRecompute, Mode::Evaluate] {
            let options = EngineOptions { batch: 3, seq: 50, mode };
            let plan = MemoryPlan::new(&config, options, 2).unwrap();
            let work = Workspace::new(&cpu, &Sizes::new(&config, options).unwrap()).unwrap();
            assert_eq!(plan.workspace_bytes, 4 * held(&work), "{mode:?}");
            let trained = if mode == Mode::Evaluate { 1 } else { 4 };
            assert_eq!(plan.total_bytes, plan.workspace_bytes + trained * 4 * plan.parameters);
        }
        let of = |mode| {
            let options = EngineOptions { batch: 8, seq: 2048, mode };
            MemoryPlan::new(&preset("1b").unwrap(), options, 2).unwrap()
        };
        assert!(of(Mode::TrainRecompute).workspace_bytes < of(Mode::Train).workspace_bytes / 3);
        assert!(MemoryPlan::new(&config, EngineOptions { batch: 0, seq: 1, mode: Mode::Train }, 2).is_err());
    }
}
