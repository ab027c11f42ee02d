//! Log-likelihood of a continuation given a context, in batches.
//!
//! Encoding as in lm-evaluation-harness (`lm_eval/api/model.py`, `lm_eval/models/huggingface.py`): trailing
//! white space of the context moves to the continuation; context and continuation are encoded together and
//! split where the context alone ends; an empty context becomes the end-of-text token; of the longest + 1
//! last tokens all but the last are read. log p = Σ log p(token | all before it) over the continuation.

use anyhow::{Result, bail};
use gauntlet_data::Tokenizer;
use gauntlet_model::engine::{Backend, Batch, Engine, IGNORE};

/// What stands between context and continuation, unless the context is empty or ends in white space itself.
pub(crate) const DELIMITER: &str = " ";

/// Tokens to read, of which the last `scored` predictions count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// One token more than the model reads.
    ids: Vec<u32>,
    scored: usize,
}

impl Request {
    /// Encodes a pair for a model that reads `longest` tokens at most.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        context: &str,
        continuation: &str,
        longest: usize,
    ) -> Result<Self> {
        let kept = context.trim_end();
        let moved = context.get(kept.len()..).unwrap_or_default();
        let mut ids = tokenizer.encode(&format!("{kept}{moved}{continuation}"))?;
        let scored = match kept {
            "" => {
                ids.insert(0, tokenizer.eos_id());
                ids.len() - 1
            }
            kept => ids.len().saturating_sub(tokenizer.encode(kept)?.len()),
        };
        if scored == 0 || scored > longest {
            let shown: String = continuation.chars().take(40).collect();
            bail!(
                "the choice '{shown}' has {scored} tokens after its context; the model reads 1 to {longest}"
            );
        }
        let cut = ids.len().saturating_sub(longest + 1);
        ids.drain(..cut);
        Ok(Self { ids, scored })
    }

    /// Tokens the model reads.
    pub(crate) fn len(&self) -> usize {
        self.ids.len() - 1
    }

    /// Writes inputs and targets into a row that is at least as long. Attention is causal, so what stands
    /// behind the end changes nothing.
    fn fill(&self, tokens: &mut [u32], targets: &mut [u32]) {
        let n = self.len();
        for (slot, id) in tokens.iter_mut().zip(self.ids.iter().take(n)) {
            *slot = *id;
        }
        let wanted = self.ids.iter().skip(1);
        for (slot, id) in targets.iter_mut().take(n).zip(wanted).skip(n - self.scored) {
            *slot = *id;
        }
    }
}

/// log p of every request, in their order; `tick` hears how many are done. `engine` holds `batch` rows of the
/// longest request.
pub(crate) fn log_likelihoods<B: Backend>(
    engine: &mut Engine<B>,
    theta: &B::Buf,
    requests: &[Request],
    batch: usize,
    mut tick: impl FnMut(u64),
) -> Result<Vec<f64>> {
    // Rows of one length together waste no work on padding; the longest first show at once if memory is short.
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(requests.get(i).map_or(0, Request::len)));
    let mut found = vec![0.0; requests.len()];
    for ids in order.chunks(batch) {
        let rows: Vec<&Request> = ids.iter().filter_map(|&i| requests.get(i)).collect();
        let seq = rows.iter().map(|row| row.len()).max().unwrap_or(1);
        let (mut tokens, mut targets) = (vec![0; rows.len() * seq], vec![IGNORE; rows.len() * seq]);
        for ((row, tokens), targets) in rows.iter().zip(tokens.chunks_mut(seq)).zip(targets.chunks_mut(seq)) {
            row.fill(tokens, targets);
        }
        engine.loss(theta, Batch { tokens: &tokens, targets: &targets, batch: rows.len(), seq })?;
        for (&i, losses) in ids.iter().zip(engine.token_losses().chunks(seq)) {
            if let Some(slot) = found.get_mut(i) {
                *slot = -losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
            }
        }
        tick(ids.len() as u64);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_model::engine::cpu::{Cpu, Path};
    use gauntlet_model::engine::{EngineOptions, Mode};
    use gauntlet_model::llama::Llama;
    use gauntlet_model::{Layout, LlamaConfig, init, preset};

    fn request(context: &str, continuation: &str, longest: usize) -> Request {
        Request::new(&Tokenizer::bytes(), context, continuation, longest).unwrap()
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    #[test]
    fn pairs_are_encoded_as_the_harness_does() {
        assert_eq!(request("ab", " c", 9), Request { ids: bytes("ab c"), scored: 2 });
        assert_eq!(request("ab \n", "c", 9), Request { ids: bytes("ab \nc"), scored: 3 });
        assert_eq!(request("", " c", 9), Request { ids: [vec![256], bytes(" c")].concat(), scored: 2 });
        assert_eq!(request(" ", "c", 9), Request { ids: [vec![256], bytes(" c")].concat(), scored: 2 });
        // Longest 4: five tokens are kept, four are read.
        assert_eq!(request("abcdef", " g", 4), Request { ids: bytes("def g"), scored: 2 });
        assert_eq!(request("abcdef", "ghij", 4), Request { ids: bytes("fghij"), scored: 4 });
        for (context, continuation) in [("a", "bcdef"), ("a", "")] {
            assert!(Request::new(&Tokenizer::bytes(), context, continuation, 4).is_err());
        }
    }

    #[test]
    fn a_merge_over_the_border_belongs_to_the_continuation_by_count() {
        // With "ab" one token, "a"+"bc" is [ab, c] and "a" is [a]: one token of context, one scored.
        let text = "ab ab ab ab c";
        let mut trainer = gauntlet_data::BpeTrainer::new(258).unwrap();
        trainer.feed([text]).unwrap();
        let tokenizer = trainer.finish().unwrap();
        assert_eq!(tokenizer.encode("ab").unwrap().len(), 1);
        let request = Request::new(&tokenizer, "a", "bc", 9).unwrap();
        assert_eq!((request.ids.len(), request.scored), (2, 1));
    }

    /// Batched, padded and scored by the engine; alone and unpadded by the candle model.
    #[test]
    fn batches_score_as_the_candle_model_does_alone() {
        let config = LlamaConfig { n_layers: 2, max_position_embeddings: 16, ..preset("byte-1m").unwrap() };
        let layout = Layout::new(&config);
        let mut start = vec![0.0; layout.total()];
        init::init(&layout, 3, &mut start);
        start.iter_mut().for_each(|v| *v *= 3.0);
        let pairs =
            [("a", " b"), ("hello", " wörld"), ("", "x"), ("0123456789abcdefgh", " xyz"), ("q ", "r")];
        let requests: Vec<Request> = pairs.iter().map(|(a, b)| request(a, b, 16)).collect();
        let options = EngineOptions { batch: 2, seq: 16, mode: Mode::Evaluate };
        let mut engine = Engine::new(Cpu::new(1, Path::Best).unwrap(), &config, options).unwrap();
        let mut theta = engine.alloc_params().unwrap();
        theta.copy_from_slice(&start);
        let mut done = 0;
        let got = log_likelihoods(&mut engine, &theta, &requests, 2, |n| done += n).unwrap();
        assert_eq!(done, 5);

        let model = Llama::from_theta(&config, &start).unwrap();
        for ((pair, request), got) in pairs.iter().zip(&requests).zip(got) {
            let want = alone(&model, request);
            assert!((got - want).abs() <= 1e-4 * want.abs(), "{pair:?}: {got} against {want}");
        }
    }

    fn alone(model: &Llama, request: &Request) -> f64 {
        let n = request.len();
        let tokens = candle_core::Tensor::from_slice(&request.ids[..n], (1, n), &candle_core::Device::Cpu);
        let mut targets = vec![u32::MAX; n];
        targets[n - request.scored..].copy_from_slice(&request.ids[n + 1 - request.scored..]);
        let mean = model.loss(&tokens.unwrap(), &targets).unwrap().to_scalar::<f32>().unwrap();
        -f64::from(mean) * request.scored as f64
    }
}
