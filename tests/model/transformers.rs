//! Against candle-transformers' own LLaMA, on our exported files; and the 1.2B shape.

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::llama;
use gauntlet_model::engine::{Batch, Write};
use gauntlet_model::{Layout, LlamaConfig, preset, weights as files};

use crate::candle::CandleModel;
use crate::{compare_tensors, difference, engine, tokens, upload, weights};

#[test]
fn candle_transformers_loads_our_export() {
    let gqa = LlamaConfig { n_kv_heads: 2, rope_theta: 500_000.0, ..preset("byte-1m").unwrap() };
    let tied = LlamaConfig { tie_word_embeddings: true, ..gqa.clone() };
    for config in [preset("byte-1m").unwrap(), gqa, tied] {
        let theta = weights(&config, 9, 2.0);
        let folder = tempfile::tempdir().unwrap();
        files::write(folder.path(), &Layout::new(&config), &theta, 1 << 20).unwrap();
        let json = serde_json::to_vec(&config.to_hf()).unwrap();
        let theirs: llama::LlamaConfig = serde_json::from_slice(&json).unwrap();
        let theirs = theirs.into_config(false);
        let shards: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
            .collect();
        let mut tensors = std::collections::HashMap::new();
        for shard in shards {
            tensors.extend(candle_core::safetensors::load(shard, &Device::Cpu).unwrap());
        }
        let vb = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = llama::Llama::load(vb, &theirs).unwrap();
        let (ids, _) = tokens(&config, 24);
        let ours = CandleModel::new(&config, &theta);
        // Theirs gives the logits of the last position only.
        for n in [1, 7, 24] {
            let mut cache = llama::Cache::new(false, DType::F32, &theirs, &Device::Cpu).unwrap();
            let input = Tensor::from_slice(&ids[..n], (1, n), &Device::Cpu).unwrap();
            let last = model.forward(&input, 0, &mut cache).unwrap().flatten_all().unwrap();
            let last: Vec<f32> = last.to_vec1().unwrap();
            let mine = ours.logits(&ids[..n], 1, n);
            let d = difference(&mine[(n - 1) * config.vocab_size..], &last);
            assert!(d <= 1e-5, "{n} tokens: logits differ by {d:e}");
            let mut engine = engine(&config, 1, n);
            let device = upload(&engine, &theta);
            let mine = engine.logits(&device, &ids[..n], (1, n)).unwrap();
            let ids = config.tokenizer_vocab_size;
            let d = difference(&mine[(n - 1) * ids..], &last[..ids]);
            assert!(d <= 1e-5, "{n} tokens: the engine's logits differ by {d:e}");
        }
    }
}

#[test]
fn two_layers_of_the_1b_shape() {
    let config = LlamaConfig { n_layers: 2, ..preset("1b").unwrap() };
    let theta = weights(&config, 1, 1.0);
    let seq = 24;
    let (ids, targets) = tokens(&config, seq);
    let counted = targets.iter().filter(|&&t| t != u32::MAX).count();
    let mut engine = engine(&config, 1, seq);
    let device = upload(&engine, &theta);
    let mut grads = engine.alloc_params().unwrap();
    let b = Batch { tokens: &ids, targets: &targets, batch: 1, seq };
    let got = engine.loss_and_grad(&device, &mut grads, b, 1.0 / counted as f32, Write::Set).unwrap();
    let logits = engine.logits(&device, &ids, (1, seq)).unwrap();
    drop(device);
    let model = CandleModel::new(&config, &theta);
    let d = difference(&logits, &model.logits(&ids, 1, seq));
    assert!(d <= 5e-6, "logits differ by {d:e}");
    let (loss, expected) = model.loss_and_grad(&ids, &targets, 1, seq);
    assert!((got.mean() / loss - 1.0).abs() < 1e-6, "{} {loss}", got.mean());
    compare_tensors("2 layers of 1b", &Layout::new(&config), &grads, &expected, 1e-5);
}
