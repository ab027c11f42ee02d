//! Shape of a LLaMA, read from and written as Hugging Face `config.json`.
//!
//! Both forms of the rotary base are read: `rope_parameters.rope_theta` (transformers 5) and the
//! older top-level `rope_theta`; both are written, so that old and new readers find theirs.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{ModelError, Result};

/// Shape of one LLaMA (pre-norm RMSNorm, RoPE, SwiGLU, no biases).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LlamaConfig {
    /// Rows of the embedding: the tokenizer's vocabulary padded to a multiple of 64.
    pub vocab_size: usize,
    /// Ids the tokenizer can produce; ids from here to `vocab_size` are padding and never predicted.
    pub tokenizer_vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the SwiGLU layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads` (1: MQA, `n_heads`: MHA, between: GQA).
    pub n_kv_heads: usize,
    /// Width of one head; `n_heads · head_dim` need not equal `hidden_size`.
    pub head_dim: usize,
    /// Longest sequence the model is meant for.
    pub max_position_embeddings: usize,
    /// RMSNorm epsilon.
    pub rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Output projection shares the embedding's weights.
    pub tie_word_embeddings: bool,
    /// End-of-sequence id, if the tokenizer has one.
    pub eos_token_id: Option<u32>,
}

impl LlamaConfig {
    /// Refuses shapes the model cannot be built from, naming the field.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the first field that is wrong.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.n_layers),
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("tokenizer_vocab_size", self.tokenizer_vocab_size),
        ];
        for (field, value) in positive {
            if value == 0 || value > 1 << 24 {
                return refuse(field, format!("{value} is not in 1..=16777216"));
            }
        }
        if self.n_layers > 4096 {
            return refuse("num_hidden_layers", format!("{} is not in 1..=4096", self.n_layers));
        }
        let per_layer =
            2 * self.q_size() as u128 + 2 * self.kv_size() as u128 + 3 * self.intermediate_size as u128;
        let rows = self.n_layers as u128 * per_layer + 2 * self.vocab_size as u128;
        if rows * self.hidden_size as u128 > 1 << 40 {
            return refuse("hidden_size", "this shape has more than 2^40 parameters");
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let (h, kv) = (self.n_heads, self.n_kv_heads);
            return refuse("num_key_value_heads", format!("{kv} does not divide num_attention_heads = {h}"));
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse("head_dim", format!("{} is odd; rotary embedding turns pairs", self.head_dim));
        }
        if self.tokenizer_vocab_size > self.vocab_size {
            let (t, v) = (self.tokenizer_vocab_size, self.vocab_size);
            return refuse("vocab_size", format!("{v} is smaller than the tokenizer's {t} ids"));
        }
        if !(self.rms_norm_eps > 0.0 && self.rms_norm_eps < 1.0) {
            return refuse("rms_norm_eps", format!("{} is not between 0 and 1", self.rms_norm_eps));
        }
        if !(self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return refuse("rope_theta", format!("{} is not a finite base of at least 1", self.rope_theta));
        }
        Ok(())
    }

    /// Width of all query heads together.
    pub fn q_size(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_size(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Reads a Hugging Face `config.json`.
    ///
    /// # Errors
    /// When the file is missing, is no JSON, lacks a field, or asks for what this model does not do
    /// (biases, RoPE scaling, another activation or architecture).
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| ModelError::io(path, e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| {
            ModelError::format(path, format!("no JSON ({e}); copy or export the model again"))
        })?;
        Self::from_hf(&value).map_err(|e| ModelError::format(path, e))
    }

    /// Takes the shape from the JSON object of a Hugging Face `config.json`.
    ///
    /// # Errors
    /// As [`LlamaConfig::read`].
    pub fn from_hf(value: &Value) -> Result<Self> {
        let Some(map) = value.as_object() else {
            return refuse("config.json", "not a JSON object");
        };
        refuse_unsupported(map)?;
        let hidden_size = size(map, "hidden_size")?;
        let n_heads = size(map, "num_attention_heads")?;
        let vocab_size = size(map, "vocab_size")?;
        let config = Self {
            vocab_size,
            tokenizer_vocab_size: size_or(map, "tokenizer_vocab_size", vocab_size)?,
            hidden_size,
            intermediate_size: size(map, "intermediate_size")?,
            n_layers: size(map, "num_hidden_layers")?,
            n_heads,
            n_kv_heads: size_or(map, "num_key_value_heads", n_heads)?,
            head_dim: size_or(map, "head_dim", hidden_size / n_heads.max(1))?,
            max_position_embeddings: size_or(map, "max_position_embeddings", 2048)?,
            #[allow(clippy::cast_possible_truncation)] // an epsilon: f32 is what the kernels use
            rms_norm_eps: number_or(map, "rms_norm_eps", 1e-6)? as f32,
            rope_theta: rope_theta(map)?,
            tie_word_embeddings: map.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false),
            eos_token_id: first_id(map.get("eos_token_id")),
        };
        config.check()?;
        Ok(config)
    }

    /// The JSON object of a Hugging Face `config.json` for this shape.
    pub fn to_hf(&self) -> Value {
        // The shortest decimal that gives the f32 back: 1e-5, not 9.999999747378752e-6.
        let eps: f64 = self.rms_norm_eps.to_string().parse().unwrap_or(f64::from(self.rms_norm_eps));
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "torch_dtype": "float32",
            "vocab_size": self.vocab_size,
            "tokenizer_vocab_size": self.tokenizer_vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": { "rope_type": "default", "rope_theta": self.rope_theta },
            "rope_scaling": null,
            "attention_bias": false,
            "mlp_bias": false,
            "initializer_range": 0.02,
            "tie_word_embeddings": self.tie_word_embeddings,
            "use_cache": true,
            "bos_token_id": null,
            "eos_token_id": self.eos_token_id,
        })
    }
}

fn refuse<T>(field: &'static str, problem: impl Into<String>) -> Result<T> {
    Err(ModelError::Config { field, problem: problem.into() })
}

fn refuse_unsupported(map: &Map<String, Value>) -> Result<()> {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    if let Some(kind) = text("model_type").filter(|kind| *kind != "llama") {
        return refuse("model_type", format!("'{kind}' is not supported; only 'llama'"));
    }
    if let Some(act) = text("hidden_act").filter(|act| *act != "silu") {
        return refuse("hidden_act", format!("'{act}' is not supported; only 'silu'"));
    }
    for field in ["attention_bias", "mlp_bias"] {
        if map.get(field).and_then(Value::as_bool) == Some(true) {
            return refuse(field, "biases are not supported; only false");
        }
    }
    let scaled = map.get("rope_scaling").is_some_and(|v| !v.is_null() && rope_type(v) != "default");
    if scaled {
        return refuse("rope_scaling", "scaled rotary embeddings are not supported; only null");
    }
    if let Some(rope) = map.get("rope_parameters").filter(|v| rope_type(v) != "default") {
        let kind = rope_type(rope);
        return refuse("rope_parameters", format!("rope_type '{kind}' is not supported; only 'default'"));
    }
    Ok(())
}

fn rope_type(value: &Value) -> &str {
    let key = |k: &str| value.get(k).and_then(Value::as_str);
    key("rope_type").or_else(|| key("type")).unwrap_or("default")
}

fn rope_theta(map: &Map<String, Value>) -> Result<f64> {
    match map.get("rope_parameters").and_then(|v| v.get("rope_theta")) {
        Some(theta) => match theta.as_f64() {
            Some(theta) => Ok(theta),
            None => refuse("rope_parameters", format!("rope_theta = {theta} is not a number")),
        },
        None => number_or(map, "rope_theta", 10_000.0),
    }
}

fn size(map: &Map<String, Value>, field: &'static str) -> Result<usize> {
    match map.get(field) {
        None | Some(Value::Null) => refuse(field, "is missing"),
        Some(value) => match value.as_u64().and_then(|v| usize::try_from(v).ok()) {
            Some(size) => Ok(size),
            None => refuse(field, format!("{value} is not a whole number")),
        },
    }
}

fn size_or(map: &Map<String, Value>, field: &'static str, default: usize) -> Result<usize> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(_) => size(map, field),
    }
}

fn number_or(map: &Map<String, Value>, field: &'static str, default: f64) -> Result<f64> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(number),
            None => refuse(field, format!("{value} is not a number")),
        },
    }
}

/// Some configs list several end-of-sequence ids; the first is the one text ends with.
fn first_id(value: Option<&Value>) -> Option<u32> {
    let value = value?;
    let id = value.as_array().and_then(|ids| ids.first()).unwrap_or(value);
    id.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets::preset;

    #[test]
    fn written_config_reads_back_equal() {
        for name in crate::presets::NAMES {
            let config = preset(name).unwrap();
            assert_eq!(LlamaConfig::from_hf(&config.to_hf()).unwrap(), config, "{name}");
        }
    }

    #[test]
    fn both_forms_of_rope_theta_are_read() {
        let mut value = preset("byte-1m").unwrap().to_hf();
        value["rope_theta"] = json!(77.0);
        value["rope_parameters"] = Value::Null;
        assert_eq!(LlamaConfig::from_hf(&value).unwrap().rope_theta, 77.0);
        value["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 500000.0});
        assert_eq!(LlamaConfig::from_hf(&value).unwrap().rope_theta, 500_000.0);
    }

    #[test]
    fn what_the_model_does_not_do_is_refused_by_name() {
        let cases = [
            ("model_type", json!("gpt2")),
            ("hidden_act", json!("gelu")),
            ("attention_bias", json!(true)),
            ("rope_scaling", json!({"rope_type": "llama3"})),
            ("hidden_size", Value::Null),
            ("hidden_size", json!("wide")),
            ("num_key_value_heads", json!(3)),
            ("head_dim", json!(7)),
            ("vocab_size", json!(1)),
            ("num_hidden_layers", json!(16_000_000)),
            ("rms_norm_eps", json!(0.0)),
        ];
        for (field, bad) in cases {
            let mut value = preset("byte-1m").unwrap().to_hf();
            value[field] = bad;
            let message = LlamaConfig::from_hf(&value).unwrap_err().to_string();
            assert!(message.contains(field), "{field}: {message}");
        }
    }
}
