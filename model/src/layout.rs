//! Where each tensor lies in the one flat parameter buffer θ.
//!
//! Tensors stand in ascending order of their UTF-8 Hugging Face names, without gaps; a tied output
//! projection does not exist a second time. Gradients and optimizer states use the same offsets,
//! so that everything element-wise is one pass over one buffer.

use std::ops::Range;

use crate::config::LlamaConfig;

/// One tensor's place in θ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Hugging Face name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Shape: `[out, in]` for projections, `[n]` for norms.
    pub shape: Vec<usize>,
    /// First element in θ.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

impl Param {
    /// Elements of θ this tensor occupies.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// Places of one block's tensors.
#[derive(Clone, Debug)]
pub(crate) struct LayerParams {
    pub(crate) input_norm: Range<usize>,
    pub(crate) post_norm: Range<usize>,
    pub(crate) q: Range<usize>,
    pub(crate) k: Range<usize>,
    pub(crate) v: Range<usize>,
    pub(crate) o: Range<usize>,
    /// `gate_proj` and `up_proj` are neighbours by name: one product computes both.
    pub(crate) gate_up: Range<usize>,
    pub(crate) down: Range<usize>,
}

/// All tensors of a model in order.
#[derive(Clone, Debug)]
pub struct Layout {
    params: Vec<Param>,
    total: usize,
    pub(crate) layers: Vec<LayerParams>,
    pub(crate) embed: Range<usize>,
    pub(crate) final_norm: Range<usize>,
    /// The embedding itself when tied.
    pub(crate) head: Range<usize>,
}

impl Layout {
    /// Lays out the tensors of `config`.
    pub fn new(config: &LlamaConfig) -> Self {
        let mut named = shapes(config);
        named.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        let mut params = Vec::with_capacity(named.len());
        let mut total = 0;
        for (name, shape) in named {
            let len = shape.iter().product();
            params.push(Param { name, shape, offset: total, len });
            total += len;
        }
        let find = |name: &str| range_of(&params, name);
        let layers = (0..config.n_layers)
            .map(|i| {
                let at = |suffix: &str| find(&format!("model.layers.{i}.{suffix}.weight"));
                LayerParams {
                    input_norm: at("input_layernorm"),
                    post_norm: at("post_attention_layernorm"),
                    q: at("self_attn.q_proj"),
                    k: at("self_attn.k_proj"),
                    v: at("self_attn.v_proj"),
                    o: at("self_attn.o_proj"),
                    gate_up: at("mlp.gate_proj").start..at("mlp.up_proj").end,
                    down: at("mlp.down_proj"),
                }
            })
            .collect();
        let embed = find("model.embed_tokens.weight");
        let head = if config.tie_word_embeddings { embed.clone() } else { find("lm_head.weight") };
        Self { final_norm: find("model.norm.weight"), embed, head, layers, total, params }
    }

    /// Tensors in order of their offsets.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Number of parameters.
    pub fn total(&self) -> usize {
        self.total
    }
}

fn shapes(config: &LlamaConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, ffn) = (config.hidden_size, config.intermediate_size);
    let (q, kv) = (config.q_size(), config.kv_size());
    let mut named = vec![
        ("model.embed_tokens.weight".to_string(), vec![config.vocab_size, hidden]),
        ("model.norm.weight".to_string(), vec![hidden]),
    ];
    if !config.tie_word_embeddings {
        named.push(("lm_head.weight".to_string(), vec![config.vocab_size, hidden]));
    }
    for i in 0..config.n_layers {
        let per_layer: [(&str, Vec<usize>); 9] = [
            ("input_layernorm", vec![hidden]),
            ("post_attention_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![q, hidden]),
            ("self_attn.k_proj", vec![kv, hidden]),
            ("self_attn.v_proj", vec![kv, hidden]),
            ("self_attn.o_proj", vec![hidden, q]),
            ("mlp.gate_proj", vec![ffn, hidden]),
            ("mlp.up_proj", vec![ffn, hidden]),
            ("mlp.down_proj", vec![hidden, ffn]),
        ];
        for (suffix, shape) in per_layer {
            named.push((format!("model.layers.{i}.{suffix}.weight"), shape));
        }
    }
    named
}

/// The names are the ones [`shapes`] made, so the search always ends with a hit; an empty range
/// would show at once in every golden test.
fn range_of(params: &[Param], name: &str) -> Range<usize> {
    params.iter().find(|p| p.name == name).map_or(0..0, Param::range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::preset;

    #[test]
    fn gate_and_up_are_neighbours_and_offsets_have_no_gaps() {
        let mut config = preset("byte-1m").unwrap();
        config.n_layers = 12;
        for tied in [false, true] {
            config.tie_word_embeddings = tied;
            let layout = Layout::new(&config);
            let mut next = 0;
            for pair in layout.params().windows(2) {
                assert!(pair[0].name.as_bytes() < pair[1].name.as_bytes());
            }
            for p in layout.params() {
                assert_eq!(p.offset, next);
                next += p.len;
            }
            assert_eq!(next, layout.total());
            for layer in &layout.layers {
                assert_eq!(layer.gate_up.len(), 2 * config.intermediate_size * config.hidden_size);
            }
            assert_eq!(layout.head == layout.embed, tied);
        }
    }
}
