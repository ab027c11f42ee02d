//! The LLaMA on candle: the definition, the oracle for the engine, inference and generation.
//!
//! Pre-norm blocks: `x ← x + Wo·attention(rope(Wq·h), rope(Wk·h), Wv·h)`, `h = rms_norm(x)`, then
//! `x ← x + Wd·(silu(Wg·h) ⊙ Wu·h)`. Every operation here has a gradient (candle's fused ones do
//! not; clippy.toml bans them). Shapes: B batch, T sequence, C hidden, H heads, D head dimension.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::{rms_norm_slow, silu, softmax};
use candle_nn::rotary_emb::rope_slow;

use crate::config::LlamaConfig;
use crate::engine::rope_table;
use crate::error::Result;
use crate::layout::Layout;

/// A LLaMA whose weights are candle tensors (or variables).
pub struct Llama {
    config: LlamaConfig,
    embed: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: Tensor,
    /// `[max_position_embeddings, D/2]`
    cos: Tensor,
    sin: Tensor,
}

struct Block {
    input_norm: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    o: Tensor,
    post_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// Keys and values of the positions a generation has seen, `[B, K, T, D]` per layer.
#[derive(Default)]
pub struct KvCache {
    layers: Vec<(Tensor, Tensor)>,
    seen: usize,
}

impl KvCache {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.seen
    }

    /// Whether nothing was seen yet.
    pub fn is_empty(&self) -> bool {
        self.seen == 0
    }
}

impl Llama {
    /// Takes the weights by their Hugging Face names from `vb`.
    ///
    /// # Errors
    /// When the shape is refused, or a tensor is missing or of another shape.
    pub fn new(config: &LlamaConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        config.check()?;
        let hidden = config.hidden_size;
        let embed = vb.get((config.vocab_size, hidden), "model.embed_tokens.weight")?;
        let head = match config.tie_word_embeddings {
            true => embed.clone(),
            false => vb.get((config.vocab_size, hidden), "lm_head.weight")?,
        };
        let blocks = (0..config.n_layers)
            .map(|i| Block::new(config, &vb.pp(format!("model.layers.{i}"))))
            .collect::<Result<_>>()?;
        let positions = config.max_position_embeddings;
        let table = rope_table(config, positions);
        let half = config.head_dim / 2;
        let (cos, sin) = table.split_at(positions * half);
        Ok(Self {
            config: config.clone(),
            embed,
            blocks,
            norm: vb.get(hidden, "model.norm.weight")?,
            head,
            cos: Tensor::from_slice(cos, (positions, half), vb.device())?,
            sin: Tensor::from_slice(sin, (positions, half), vb.device())?,
        })
    }

    /// A model with the weights of a flat θ, copied.
    ///
    /// # Errors
    /// As [`Llama::new`].
    pub fn from_theta(config: &LlamaConfig, theta: &[f32]) -> Result<Self> {
        let device = Device::Cpu;
        let mut tensors = HashMap::new();
        for param in Layout::new(config).params() {
            let values = theta.get(param.range()).unwrap_or_default();
            tensors.insert(param.name.clone(), Tensor::from_slice(values, param.shape.as_slice(), &device)?);
        }
        Self::new(config, &VarBuilder::from_tensors(tensors, DType::F32, &device))
    }

    /// The model's shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Logits `[B, T, vocab_size]` of `tokens[B, T]`, which follow what `cache` has seen.
    ///
    /// # Errors
    /// When the sequence grows beyond `max_position_embeddings`, or an id is outside the vocabulary.
    pub fn forward(&self, tokens: &Tensor, mut cache: Option<&mut KvCache>) -> Result<Tensor> {
        let (batch, seq) = tokens.dims2()?;
        let seen = cache.as_ref().map_or(0, |cache| cache.seen);
        let (cos, sin) = (self.cos.narrow(0, seen, seq)?, self.sin.narrow(0, seen, seq)?);
        let mask = causal_mask(seen, seq, tokens.device())?;
        let flat = tokens.flatten_all()?;
        let mut x = self.embed.index_select(&flat, 0)?.reshape((batch, seq, self.config.hidden_size))?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(
                &self.config,
                &x,
                (&cos, &sin),
                &mask,
                cache.as_deref_mut().map(|cache| (cache, i)),
            )?;
        }
        if let Some(cache) = cache {
            cache.seen += seq;
        }
        let x = rms_norm_slow(&x.contiguous()?, &self.norm, self.config.rms_norm_eps)?;
        linear(&x, &self.head)
    }

    /// Mean cross-entropy (nats) of `targets[B, T]` given `tokens[B, T]`; padding ids are never
    /// predicted; targets of `u32::MAX` count nothing.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    pub fn loss(&self, tokens: &Tensor, targets: &[u32]) -> Result<Tensor> {
        let logits = self.forward(tokens, None)?;
        let real = self.config.tokenizer_vocab_size;
        let logits = logits.narrow(D::Minus1, 0, real)?.reshape(((), real))?;
        let counted: Vec<u32> =
            (0u32..).zip(targets).filter(|(_, t)| **t != u32::MAX).map(|(i, _)| i).collect();
        let wanted: Vec<u32> = targets.iter().copied().filter(|&t| t != u32::MAX).collect();
        let device = tokens.device();
        let n = counted.len();
        let rows = logits.index_select(&Tensor::from_vec(counted, n, device)?, 0)?;
        let log_p = candle_nn::ops::log_softmax(&rows, D::Minus1)?;
        let picked = log_p.gather(&Tensor::from_vec(wanted, (n, 1), device)?, 1)?;
        Ok(picked.mean_all()?.neg()?)
    }
}

impl Block {
    fn new(c: &LlamaConfig, vb: &VarBuilder<'_>) -> Result<Self> {
        let (hidden, ffn, q, kv) = (c.hidden_size, c.intermediate_size, c.q_size(), c.kv_size());
        Ok(Self {
            input_norm: vb.get(hidden, "input_layernorm.weight")?,
            q: vb.get((q, hidden), "self_attn.q_proj.weight")?,
            k: vb.get((kv, hidden), "self_attn.k_proj.weight")?,
            v: vb.get((kv, hidden), "self_attn.v_proj.weight")?,
            o: vb.get((hidden, q), "self_attn.o_proj.weight")?,
            post_norm: vb.get(hidden, "post_attention_layernorm.weight")?,
            gate: vb.get((ffn, hidden), "mlp.gate_proj.weight")?,
            up: vb.get((ffn, hidden), "mlp.up_proj.weight")?,
            down: vb.get((hidden, ffn), "mlp.down_proj.weight")?,
        })
    }

    fn forward(
        &self,
        c: &LlamaConfig,
        x: &Tensor,
        (cos, sin): (&Tensor, &Tensor),
        mask: &Tensor,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Result<Tensor> {
        let (batch, seq, _) = x.dims3()?;
        let h = rms_norm_slow(x, &self.input_norm, c.rms_norm_eps)?;
        let heads = |w: &Tensor, n: usize| -> Result<Tensor> {
            let y = linear(&h, w)?.reshape((batch, seq, n, c.head_dim))?;
            Ok(y.transpose(1, 2)?.contiguous()?)
        };
        let q = rope_slow(&heads(&self.q, c.n_heads)?, cos, sin)?;
        let k = rope_slow(&heads(&self.k, c.n_kv_heads)?, cos, sin)?;
        let v = heads(&self.v, c.n_kv_heads)?;
        let (k, v) = remember(k, v, cache)?;
        let (k, v) = (repeat(&k, c)?, repeat(&v, c)?);
        #[allow(clippy::cast_precision_loss)] // a head's width
        let scale = 1.0 / (c.head_dim as f64).sqrt();
        let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?.broadcast_add(mask)?;
        let attended = softmax(&scores, D::Minus1)?.matmul(&v)?;
        let attended = attended.transpose(1, 2)?.contiguous()?.reshape((batch, seq, c.q_size()))?;
        let x = (x + linear(&attended, &self.o)?)?;
        let h = rms_norm_slow(&x, &self.post_norm, c.rms_norm_eps)?;
        let act = (silu(&linear(&h, &self.gate)?)? * linear(&h, &self.up)?)?;
        Ok((&x + linear(&act, &self.down)?)?)
    }
}

/// `x[B, T, in] · Wᵀ`.
fn linear(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (batch, seq, width) = x.dims3()?;
    let y = x.reshape((batch * seq, width))?.matmul(&w.t()?)?;
    Ok(y.reshape((batch, seq, ()))?)
}

/// 0 where a query may look, −∞ where the key lies after it: `[T, seen + T]`.
fn causal_mask(seen: usize, seq: usize, device: &Device) -> Result<Tensor> {
    let width = seen + seq;
    let mask: Vec<f32> = (0..seq * width)
        .map(|i| if i % width > seen + i / width { f32::NEG_INFINITY } else { 0.0 })
        .collect();
    Ok(Tensor::from_vec(mask, (seq, width), device)?)
}

/// Appends this step's keys and values to the cache and returns all of them.
fn remember(k: Tensor, v: Tensor, cache: Option<(&mut KvCache, usize)>) -> Result<(Tensor, Tensor)> {
    let Some((cache, layer)) = cache else { return Ok((k, v)) };
    let (k, v) = match cache.layers.get(layer) {
        Some((old_k, old_v)) => (Tensor::cat(&[old_k, &k], 2)?, Tensor::cat(&[old_v, &v], 2)?),
        None => (k, v),
    };
    match cache.layers.get_mut(layer) {
        Some(slot) => *slot = (k.clone(), v.clone()),
        None => cache.layers.push((k.clone(), v.clone())),
    }
    Ok((k, v))
}

/// Repeats each key/value head for the query heads that share it.
fn repeat(x: &Tensor, c: &LlamaConfig) -> Result<Tensor> {
    let group = c.n_heads / c.n_kv_heads;
    if group == 1 {
        return Ok(x.clone());
    }
    let (batch, heads, seq, width) = x.dims4()?;
    let x = x.unsqueeze(2)?.expand((batch, heads, group, seq, width))?;
    Ok(x.reshape((batch, heads * group, seq, width))?)
}
