//! Named model shapes.

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};

/// Names [`preset`] knows, smallest first.
pub const NAMES: [&str; 5] = ["byte-1m", "small-10m", "bench-34m", "150m", "1b"];

/// The shape of a named preset.
///
/// `1b` is the 1.2B model of the Gauntlet paper's run (hidden 2048, 16 layers, 8 heads of 256,
/// SwiGLU 8192, vocabulary 32,000, untied: 1,204,881,408 parameters in 147 tensors); `150m` is the
/// smaller shape of the same system. `byte-1m` fits the byte tokenizer (256 bytes and EOS, padded).
///
/// # Errors
/// [`ModelError::UnknownPreset`] with the names that exist.
pub fn preset(name: &str) -> Result<LlamaConfig> {
    let (vocab, used) = match name {
        "byte-1m" => (320, 257),
        "small-10m" => (4096, 4096),
        "bench-34m" => (8192, 8192),
        _ => (32_000, 32_000),
    };
    let (hidden_size, n_layers, n_heads, intermediate_size, context, eps) = match name {
        "byte-1m" => (128, 4, 4, 384, 512, 1e-5),
        "small-10m" => (320, 6, 5, 896, 1024, 1e-5),
        "bench-34m" => (512, 8, 8, 1408, 1024, 1e-5),
        "150m" => (1024, 12, 16, 2688, 2048, 1e-6),
        "1b" => (2048, 16, 8, 8192, 2048, 1e-6),
        _ => {
            return Err(ModelError::UnknownPreset { name: name.to_string(), known: NAMES.join(", ") });
        }
    };
    Ok(LlamaConfig {
        vocab_size: vocab,
        tokenizer_vocab_size: used,
        hidden_size,
        intermediate_size,
        n_layers,
        n_heads,
        n_kv_heads: n_heads,
        head_dim: hidden_size / n_heads,
        max_position_embeddings: context,
        rms_norm_eps: eps,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
        eos_token_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    #[test]
    fn parameter_counts() {
        let count = |name: &str| {
            let layout = Layout::new(&preset(name).unwrap());
            (layout.total(), layout.params().len())
        };
        assert_eq!(count("1b"), (1_204_881_408, 147));
        assert_eq!(count("150m").0, 214_983_680);
        assert_eq!(count("bench-34m").0, 34_087_424);
        assert_eq!(count("small-10m").0, 10_244_160);
        assert_eq!(count("byte-1m").0, 935_040);
    }

    #[test]
    fn every_preset_passes_its_own_check() {
        for name in NAMES {
            preset(name).unwrap().check().unwrap();
        }
        assert!(preset("2b").unwrap_err().to_string().contains("small-10m"));
    }
}
