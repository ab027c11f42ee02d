//! The same results on every code path and for every number of threads.

use gauntlet_model::engine::cpu::{Cpu, Path};
use gauntlet_model::engine::{AdamW, Batch, Mode, Write};
use gauntlet_model::{Layout, LlamaConfig, preset};

use crate::{compare_tensors, engine_on, tokens, upload, weights};

/// Large enough that every operation is split over threads.
fn config() -> LlamaConfig {
    LlamaConfig { n_layers: 2, n_kv_heads: 2, ..preset("byte-1m").unwrap() }
}

/// Weights after three steps on one code path and number of threads.
fn train(path: Path, threads: usize) -> Vec<f32> {
    let (config, batch, seq) = (config(), 5, 131);
    let (ids, targets) = tokens(&config, batch * seq);
    let mut engine = engine_on(Cpu::new(threads, path).unwrap(), &config, batch, seq, Mode::Train);
    let mut theta = upload(&engine, &weights(&config, 3, 2.0));
    let [mut grads, mut m, mut v] = [(); 3].map(|()| engine.alloc_params().unwrap());
    for i in 0..3 {
        let b = Batch { tokens: &ids, targets: &targets, batch, seq };
        engine.loss_and_grad(&theta, &mut grads, b, 1e-3, Write::Set).unwrap();
        let step = AdamW {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step: i + 1,
            grad_scale: 1.0,
        };
        engine.adamw(step, Some(1.0), &grads, &mut theta, (&mut m, &mut v)).unwrap();
    }
    theta.to_vec()
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for path in [Path::Best, Path::Portable] {
        let one = train(path, 1);
        for threads in [2, 3, 7] {
            assert!(train(path, threads) == one, "{path:?} with {threads} threads");
        }
    }
}

#[test]
fn portable_avx2_and_avx512_paths_agree() {
    let best = train(Path::Best, 2);
    println!("best path here: {}", Cpu::new(1, Path::Best).unwrap().simd_name());
    for path in [Path::Avx2, Path::Portable] {
        compare_tensors(&format!("{path:?}"), &Layout::new(&config()), &train(path, 2), &best, 2e-5);
    }
    // Both have fused multiply-add and add in the same order.
    if Cpu::new(1, Path::Best).unwrap().simd_name() != "avx512" {
        println!("no AVX-512 here: that AVX2 gives the same bits is not tested");
    } else {
        assert!(train(Path::Avx2, 2) == best, "AVX2 and AVX-512 give the same bits");
    }
}
