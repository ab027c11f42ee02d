//! Text generation with a key/value cache: temperature, nucleus (top-p) sampling, a fixed seed.

use candle_core::{D, Device, Tensor};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::error::{ModelError, Result};
use crate::llama::{KvCache, Llama};

/// How the next id is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely id.
    pub temperature: f64,
    /// Only the most likely ids that together reach this probability are considered (1: all).
    pub top_p: f64,
    /// Same seed, prompt and weights: same ids.
    pub seed: u64,
}

/// Continues `prompt` by up to `max_new` ids, calling `each` with every id; stops at the model's
/// end-of-sequence id, at its longest sequence, or when `each` returns `false`.
///
/// # Errors
/// On an empty prompt, one longer than the model's longest sequence, ids outside the vocabulary, or
/// weights that give no finite logits.
pub fn generate(
    model: &Llama,
    prompt: &[u32],
    max_new: usize,
    sampling: Sampling,
    mut each: impl FnMut(u32) -> bool,
) -> Result<()> {
    let config = model.config();
    let longest = config.max_position_embeddings;
    if prompt.is_empty() || prompt.len() > longest {
        let n = prompt.len();
        return Err(ModelError::Batch(format!("a prompt of {n} tokens is not in 1..={longest}")));
    }
    let vocab = config.tokenizer_vocab_size;
    if let Some((position, &id)) = prompt.iter().enumerate().find(|(_, id)| **id as usize >= vocab) {
        return Err(ModelError::Token { id, position, vocab });
    }
    let mut rng = ChaCha12Rng::seed_from_u64(sampling.seed);
    let mut cache = KvCache::default();
    let mut input = prompt.to_vec();
    for _ in 0..max_new {
        let seq = input.len();
        let logits = model.forward(&Tensor::from_vec(input, (1, seq), &Device::Cpu)?, Some(&mut cache))?;
        let last = logits.narrow(1, seq - 1, 1)?.narrow(D::Minus1, 0, vocab)?.flatten_all()?;
        let id = sample(&last.to_vec1::<f32>()?, sampling, &mut rng)?;
        if config.eos_token_id == Some(id) || !each(id) || cache.len() >= longest {
            return Ok(());
        }
        input = vec![id];
    }
    Ok(())
}

/// Draws an id from `logits`.
fn sample(logits: &[f32], sampling: Sampling, rng: &mut impl RngCore) -> Result<u32> {
    let mut ranked: Vec<(u32, f64)> = (0u32..).zip(logits).map(|(id, &z)| (id, f64::from(z))).collect();
    if ranked.iter().any(|(_, z)| !z.is_finite()) {
        return Err(ModelError::Batch(
            "the weights give logits that are not finite; the model is damaged".into(),
        ));
    }
    // Ties to the lower id, so that the order is one.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let Some(&(best, top)) = ranked.first() else {
        return Err(ModelError::Batch("the vocabulary is empty".into()));
    };
    if sampling.temperature <= 0.0 {
        return Ok(best);
    }
    for (_, z) in &mut ranked {
        *z = ((*z - top) / sampling.temperature).exp();
    }
    let total: f64 = ranked.iter().map(|(_, p)| p).sum();
    let mut reached = 0.0;
    let kept = ranked
        .iter()
        .position(|(_, p)| {
            reached += p / total;
            reached >= sampling.top_p
        })
        .map_or(ranked.len(), |last| last + 1);
    let kept = ranked.get(..kept).unwrap_or(&ranked);
    let mass: f64 = kept.iter().map(|(_, p)| p).sum();
    #[allow(clippy::cast_precision_loss)] // 53 bits fit
    let mut point = (rng.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0 * mass;
    for (id, p) in kept {
        point -= p;
        if point < 0.0 {
            return Ok(*id);
        }
    }
    Ok(kept.last().map_or(best, |(id, _)| *id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;
    use crate::presets::preset;

    fn model() -> Llama {
        let mut config = preset("byte-1m").unwrap();
        config.n_kv_heads = 2;
        config.max_position_embeddings = 24;
        let layout = Layout::new(&config);
        let mut theta = vec![0.0; layout.total()];
        crate::init::init(&layout, 5, &mut theta);
        // Larger weights give logits that differ enough to tell ids apart.
        theta.iter_mut().for_each(|v| *v *= 4.0);
        Llama::from_theta(&config, &theta).unwrap()
    }

    fn run(model: &Llama, prompt: &[u32], sampling: Sampling) -> Vec<u32> {
        let mut ids = Vec::new();
        generate(model, prompt, 100, sampling, |id| {
            ids.push(id);
            true
        })
        .unwrap();
        ids
    }

    #[test]
    fn greedy_with_cache_equals_greedy_without() {
        let model = model();
        let cached = run(&model, &[1, 2, 3], Sampling { temperature: 0.0, top_p: 1.0, seed: 0 });
        assert!(!cached.is_empty() && cached.len() <= 22);
        let mut all = vec![1u32, 2, 3];
        for id in &cached {
            let n = all.len();
            let logits =
                model.forward(&Tensor::from_vec(all.clone(), (1, n), &Device::Cpu).unwrap(), None).unwrap();
            let last = logits.narrow(1, n - 1, 1).unwrap().narrow(2, 0, 257).unwrap().flatten_all().unwrap();
            let best = last.argmax(0).unwrap().to_scalar::<u32>().unwrap();
            assert_eq!(best, *id, "position {n}");
            all.push(*id);
        }
    }

    #[test]
    fn seeds_repeat_and_top_p_narrows() {
        let model = model();
        let free = |seed| run(&model, &[9], Sampling { temperature: 1.0, top_p: 1.0, seed });
        assert_eq!(free(1), free(1));
        assert_ne!(free(1), free(2));
        let narrow = run(&model, &[9], Sampling { temperature: 1.0, top_p: 1e-9, seed: 3 });
        assert_eq!(narrow, run(&model, &[9], Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }));
    }

    #[test]
    fn bad_prompts_are_refused() {
        let model = model();
        let s = Sampling { temperature: 0.0, top_p: 1.0, seed: 0 };
        for prompt in [vec![], vec![0; 25], vec![300]] {
            assert!(generate(&model, &prompt, 1, s, |_| true).is_err());
        }
    }
}
