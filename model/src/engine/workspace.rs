//! The buffers an engine works in: sized once from model, batch and options, allocated once.

use super::backend::{Backend, Footprint};
use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};

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

/// Number of values of each kind of buffer.
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
    pub(crate) parameters: usize,
    pub(crate) footprint: Footprint,
}

impl Sizes {
    pub(crate) fn new(config: &LlamaConfig, options: EngineOptions, footprint: Footprint) -> Result<Self> {
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
            chunk: (footprint.logits / vocab / 64 * 64).clamp(64, 1 << 16).min(rows.div_ceil(2).max(1)),
            vocab,
            slots,
            inputs,
            trains,
            parameters: crate::layout::Layout::new(config).total(),
            footprint,
        })
    }

    /// Activations of one layer.
    fn slot(&self) -> usize {
        self.rows * (self.hidden + 2 * self.q + 2 * self.kv + 2 * self.ffn)
    }

    /// Bytes of the workspace on the device.
    pub(crate) fn bytes(&self) -> usize {
        let gradients =
            if self.trains { self.rows * (self.hidden * 2 + 2 * self.q + 2 * self.kv) } else { 0 };
        let activations = self.slots * self.slot()
            + self.inputs * self.rows * self.hidden
            + self.rows * (self.hidden + self.ffn)
            + gradients;
        let statistics = self.slots * self.rows * (2 + self.heads) + self.rows;
        let (logits, ids, losses) = (self.chunk * self.vocab, 2 * self.rows, self.rows);
        let rounded = if self.footprint.activation < 4 {
            self.parameters + if self.trains { logits } else { 0 }
        } else {
            0
        };
        self.footprint.activation * (activations + rounded)
            + 4 * (statistics + logits + self.rope + ids + losses)
    }
}

/// One layer's activations.
pub(crate) struct Slot<B: Backend> {
    pub(crate) rstd1: B::Buf,
    pub(crate) q: B::Act,
    pub(crate) k: B::Act,
    pub(crate) v: B::Act,
    pub(crate) attn: B::Act,
    pub(crate) lse: B::Buf,
    pub(crate) mid: B::Act,
    pub(crate) rstd2: B::Buf,
    pub(crate) gate_up: B::Act,
}

/// Gradients of activations.
pub(crate) struct Gradients<Act> {
    pub(crate) x: Act,
    pub(crate) normed: Act,
    pub(crate) attn: Act,
    pub(crate) q: Act,
    pub(crate) k: Act,
    pub(crate) v: Act,
}

/// Everything an engine writes besides parameters and their gradients.
pub(crate) struct Workspace<B: Backend> {
    pub(crate) tokens: B::Ids,
    pub(crate) targets: B::Ids,
    pub(crate) inputs: Vec<B::Act>,
    pub(crate) slots: Vec<Slot<B>>,
    pub(crate) normed: B::Act,
    pub(crate) rstd: B::Buf,
    pub(crate) act: B::Act,
    pub(crate) logits: B::Buf,
    /// Gradients of logits as products read them; empty where they read f32.
    pub(crate) dlogits: B::Act,
    pub(crate) rope: B::Buf,
    pub(crate) grads: Option<Gradients<B::Act>>,
    /// Loss of each token.
    pub(crate) losses: B::Buf,
}

impl<B: Backend> Workspace<B> {
    pub(crate) fn new(backend: &B, s: &Sizes) -> Result<Self> {
        let act = |width: usize| backend.alloc_act(s.rows * width);
        let each = |width: usize| backend.alloc(s.rows * width);
        let slot = || -> Result<Slot<B>> {
            Ok(Slot {
                rstd1: each(1)?,
                q: act(s.q)?,
                k: act(s.kv)?,
                v: act(s.kv)?,
                attn: act(s.q)?,
                lse: each(s.heads)?,
                mid: act(s.hidden)?,
                rstd2: each(1)?,
                gate_up: act(2 * s.ffn)?,
            })
        };
        let grads = || -> Result<Gradients<B::Act>> {
            Ok(Gradients {
                x: act(s.hidden)?,
                normed: act(s.hidden)?,
                attn: act(s.q)?,
                q: act(s.q)?,
                k: act(s.kv)?,
                v: act(s.kv)?,
            })
        };
        Ok(Self {
            tokens: backend.alloc_ids(s.rows)?,
            targets: backend.alloc_ids(s.rows)?,
            inputs: (0..s.inputs).map(|_| act(s.hidden)).collect::<Result<_>>()?,
            slots: (0..s.slots).map(|_| slot()).collect::<Result<_>>()?,
            normed: act(s.hidden)?,
            rstd: each(1)?,
            act: act(s.ffn)?,
            logits: backend.alloc(s.chunk * s.vocab)?,
            dlogits: backend.alloc_rounded(if s.trains { s.chunk * s.vocab } else { 0 })?,
            rope: backend.alloc(s.rope)?,
            grads: s.trains.then(grads).transpose()?,
            losses: each(1)?,
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
    /// Activations and scratch, and where products read bf16 the weights in it.
    pub workspace_bytes: usize,
    /// All of it.
    pub total_bytes: usize,
}

impl MemoryPlan {
    /// Counts what an engine of these options on the CPU, and an optimizer of `copies` buffers as long as θ, would
    /// allocate, allocating nothing.
    ///
    /// # Errors
    /// When the options fit no engine.
    pub fn new(config: &LlamaConfig, options: EngineOptions, copies: usize) -> Result<Self> {
        Self::on(Footprint::CPU, config, options, copies)
    }

    /// As [`MemoryPlan::new`] for a device of any footprint.
    ///
    /// # Errors
    /// When the options fit no engine.
    pub fn on(
        footprint: Footprint,
        config: &LlamaConfig,
        options: EngineOptions,
        copies: usize,
    ) -> Result<Self> {
        config.check()?;
        let sizes = Sizes::new(config, options, footprint)?;
        let (parameters, workspace_bytes) = (sizes.parameters, sizes.bytes());
        let weights_bytes = 4 * parameters;
        let (gradients_bytes, optimizer_bytes) = match options.mode {
            Mode::Evaluate => (0, 0),
            Mode::Train | Mode::TrainRecompute => (weights_bytes, copies * weights_bytes),
        };
        let total_bytes = weights_bytes + gradients_bytes + optimizer_bytes + workspace_bytes;
        Ok(Self { parameters, weights_bytes, gradients_bytes, optimizer_bytes, workspace_bytes, total_bytes })
    }

    /// As it is with an optimizer that holds so many bytes there.
    #[must_use]
    pub fn with_optimizer(self, bytes: usize) -> Self {
        let rest = self.total_bytes - self.optimizer_bytes;
        Self { optimizer_bytes: bytes, total_bytes: rest.saturating_add(bytes), ..self }
    }

    /// Refuses what does not fit a device with `free` bytes, before anything is allocated.
    ///
    /// # Errors
    /// [`ModelError::Memory`] with what is needed.
    pub fn check(&self, free: usize) -> Result<()> {
        if self.total_bytes.saturating_add(RESERVE) <= free {
            return Ok(());
        }
        Err(ModelError::Memory { plan: *self, reserve: RESERVE, free })
    }
}

/// Device memory besides the plan's: the libraries' workspace, partial sums, rounding of allocations.
const RESERVE: usize = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cpu::{Cpu, Path};
    use crate::preset;

    /// 4-byte values in all buffers.
    fn held(work: &Workspace<Cpu>) -> usize {
        let Workspace {
            tokens,
            targets,
            inputs,
            slots,
            normed,
            rstd,
            act,
            logits,
            dlogits,
            rope,
            grads,
            losses,
        } = work;
        assert!(dlogits.is_empty());
        let slot = |s: &Slot<Cpu>| {
            let Slot { rstd1, q, k, v, attn, lse, mid, rstd2, gate_up } = s;
            [rstd1, q, k, v, attn, lse, mid, rstd2, gate_up].iter().map(|b| b.len()).sum::<usize>()
        };
        let grads = grads.iter().map(|g| {
            let Gradients { x, normed, attn, q, k, v } = g;
            [x, normed, attn, q, k, v].iter().map(|b| b.len()).sum::<usize>()
        });
        let single: usize = [normed, rstd, act, logits, rope, losses].iter().map(|b| b.len()).sum();
        let inputs: usize = inputs.iter().map(|b| b.len()).sum();
        inputs
            + slots.iter().map(slot).sum::<usize>()
            + grads.sum::<usize>()
            + single
            + tokens.len()
            + targets.len()
    }

    #[test]
    fn a_plan_counts_what_is_allocated() {
        let config = LlamaConfig { n_kv_heads: 2, ..preset("byte-1m").unwrap() };
        let cpu = Cpu::new(1, Path::Best).unwrap();
        for mode in [Mode::Train, Mode::TrainRecompute, Mode::Evaluate] {
            let options = EngineOptions { batch: 3, seq: 50, mode };
            let plan = MemoryPlan::new(&config, options, 2).unwrap();
            let work = Workspace::new(&cpu, &Sizes::new(&config, options, Footprint::CPU).unwrap()).unwrap();
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

    #[test]
    fn what_does_not_fit_is_refused_with_what_it_needs() {
        let bf16 = Footprint { activation: 2, ..Footprint::CPU };
        let options = EngineOptions { batch: 8, seq: 2048, mode: Mode::Train };
        let config = preset("1b").unwrap();
        let plan = MemoryPlan::on(bf16, &config, options, 2).unwrap();
        let cpu = MemoryPlan::new(&config, options, 2).unwrap();
        assert!(plan.workspace_bytes < cpu.workspace_bytes, "activations take half, weights a copy in bf16");
        assert!(plan.check(usize::MAX).is_ok());
        let other = plan.with_optimizer(7);
        assert_eq!(other.total_bytes + 8 * plan.parameters, plan.total_bytes + 7);
        let message = plan.check(24 << 30).unwrap_err().to_string();
        assert!(message.contains("24.0 GiB") && message.contains("smaller batch"), "{message}");
    }
}
