//! Causal attention, forward and backward: lengths around the tiles, grouped heads, every width of heads.

use gauntlet_model::engine::cuda::{Bf16, F32, Precision};
use gauntlet_model::engine::{Backend, Engine, EngineOptions, Heads, Mode};
use gauntlet_model::{LlamaConfig, preset};

use super::*;

struct Reference {
    out: Vec<f64>,
    lse: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

fn reference(h: Heads, q: &[f32], k: &[f32], v: &[f32], dout: &[f32]) -> Reference {
    let (q, k, v, dout) = (wide(q), wide(k), wide(v), wide(dout));
    let (d, group) = (h.head_dim, h.n_heads / h.n_kv_heads);
    let scale = 1.0 / (d as f64).sqrt();
    let mut r = Reference {
        out: vec![0.0; q.len()],
        lse: vec![0.0; h.batch * h.n_heads * h.seq],
        dq: vec![0.0; q.len()],
        dk: vec![0.0; k.len()],
        dv: vec![0.0; v.len()],
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    for (batch, head, t) in
        (0..h.batch).flat_map(|b| (0..h.n_heads).flat_map(move |head| (0..h.seq).map(move |t| (b, head, t))))
    {
        let at = ((batch * h.seq + t) * h.n_heads + head) * d;
        let key = |j: usize| ((batch * h.seq + j) * h.n_kv_heads + head / group) * d;
        let scores: Vec<f64> = (0..=t).map(|j| dot(&q[at..at + d], &k[key(j)..key(j) + d]) * scale).collect();
        let top = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        r.lse[(batch * h.n_heads + head) * h.seq + t] = sum.ln() + top;
        let p: Vec<f64> = scores.iter().map(|s| (s - top).exp() / sum).collect();
        for (j, p) in p.iter().enumerate() {
            (0..d).for_each(|i| r.out[at + i] += p * v[key(j) + i]);
        }
        let delta = dot(&dout[at..at + d], &r.out[at..at + d]);
        for (j, p) in p.iter().enumerate() {
            let ds = p * (dot(&dout[at..at + d], &v[key(j)..key(j) + d]) - delta) * scale;
            for i in 0..d {
                r.dq[at + i] += ds * k[key(j) + i];
                r.dk[key(j) + i] += ds * q[at + i];
                r.dv[key(j) + i] += p * dout[at + i];
            }
        }
    }
    r
}

/// On a device with room for the fast kernels.
fn check<P: Precision>(batch: usize, seq: usize, n_heads: usize, n_kv_heads: usize, head_dim: usize) {
    check_on(&cuda::<P>(), Heads { batch, seq, n_heads, n_kv_heads, head_dim });
}

/// And on one without.
fn check_both(batch: usize, seq: usize, n_heads: usize, n_kv_heads: usize, head_dim: usize) {
    let h = Heads { batch, seq, n_heads, n_kv_heads, head_dim };
    check_on(&cuda::<Bf16>(), h);
    check_on(&cuda_small::<Bf16>(), h);
}

fn check_on<P: Precision>(cuda: &Cuda<Chosen, P>, h: Heads) {
    let mut random = Random::fresh();
    let Heads { batch, seq, n_heads, n_kv_heads, head_dim } = h;
    let (nq, nk) = (batch * seq * n_heads * head_dim, batch * seq * n_kv_heads * head_dim);
    let (q, k, v) = (random.acts::<P>(nq, 2.0), random.acts::<P>(nk, 2.0), random.acts::<P>(nk, 1.0));
    let dout = random.acts::<P>(nq, 1.0);
    let expected = reference(h, &q, &k, &v, &dout);
    let (q, k, v, dout) = (put_act(cuda, &q), put_act(cuda, &k), put_act(cuda, &v), put_act(cuda, &dout));
    let (mut out, mut lse) = (poison_act(cuda, nq), poison(cuda, batch * n_heads * seq));
    cuda.attention_forward(h, all(&q), all(&k), all(&v), all_mut(&mut out), all_mut(&mut lse));
    close("out", &get_act(cuda, &out), &expected.out, limit::<P>());
    close("lse", &get(cuda, &lse), &expected.lse, 1e-5);
    let (mut dq, mut dk, mut dv) = (poison_act(cuda, nq), poison_act(cuda, nk), poison_act(cuda, nk));
    cuda.attention_backward(
        h,
        all(&q),
        all(&k),
        all(&v),
        all(&out),
        all(&lse),
        all(&dout),
        all_mut(&mut dq),
        all_mut(&mut dk),
        all_mut(&mut dv),
    );
    close("dq", &get_act(cuda, &dq), &expected.dq, limit::<P>());
    close("dk", &get_act(cuda, &dk), &expected.dk, limit::<P>());
    close("dv", &get_act(cuda, &dv), &expected.dv, limit::<P>());
}

#[test]
fn f32_of_any_width() {
    check::<F32>(2, 5, 2, 2, 6);
    check::<F32>(1, 70, 3, 1, 40);
    check::<F32>(1, 33, 2, 2, 130);
    check::<F32>(1, 32, 1, 1, 256);
}

#[test]
fn bf16_heads_up_to_64() {
    check::<Bf16>(2, 5, 2, 2, 8);
    check::<Bf16>(1, 130, 4, 2, 64);
    check::<Bf16>(1, 200, 1, 1, 40);
}

#[test]
fn bf16_heads_up_to_128() {
    check_both(1, 131, 2, 1, 128);
    check_both(2, 64, 3, 3, 72);
}

#[test]
fn bf16_heads_up_to_256() {
    check_both(1, 131, 2, 1, 256);
    check_both(2, 17, 1, 1, 136);
}

/// As long as no other test: minutes on the emulated device, seconds of the reference's on a GPU.
#[test]
fn heavy_a_long_sequence() {
    check::<Bf16>(1, 1100, 2, 1, 256);
    check::<Bf16>(1, 1500, 2, 1, 64);
}

#[test]
fn widths_that_no_kernel_takes_are_refused() {
    let cuda = cuda::<Bf16>();
    let refused = |head_dim: usize| {
        let h = Heads { batch: 1, seq: 2, n_heads: 1, n_kv_heads: 1, head_dim };
        let x = put_act(&cuda, &vec![0.0; 2 * head_dim]);
        let (mut out, mut lse) = (poison_act(&cuda, 2 * head_dim), poison(&cuda, 2));
        cuda.attention_forward(h, all(&x), all(&x), all(&x), all_mut(&mut out), all_mut(&mut lse));
        cuda.download(all(&lse), &mut [0.0; 2]).unwrap_err().to_string()
    };
    assert!(refused(12).contains("multiple of 8"));
    assert!(refused(264).contains("at most 256"));
}

/// Compute capability 8.6, 8.9 and 12.0 allow a block 101,376 bytes, 8.0 166,912 and 9.0 232,448.
#[test]
fn heads_too_wide_for_the_shared_memory_are_refused_before_anything_is_allocated() {
    fn made<P: Precision>(shared: u32, head_dim: usize) -> Result<(), String> {
        let cuda = Cuda::<_, P>::new(Arc::new(open().with_shared_memory(shared))).unwrap();
        let config = LlamaConfig {
            hidden_size: 2 * head_dim,
            n_layers: 1,
            n_heads: 2,
            n_kv_heads: 2,
            head_dim,
            ..preset("byte-1m").unwrap()
        };
        let options = EngineOptions { batch: 1, seq: 8, mode: Mode::Train };
        Engine::new(cuda, &config, options).map(|_| ()).map_err(|e| e.to_string())
    }
    for shared in [101_376, 166_912, 232_448] {
        for head_dim in [64, 128, 256] {
            assert_eq!(made::<Bf16>(shared, head_dim), Ok(()));
        }
        assert_eq!(made::<F32>(shared, 128), Ok(()));
        assert_eq!(made::<F32>(shared, 256).is_ok(), shared > 101_376);
    }
    let message = made::<F32>(101_376, 256).unwrap_err();
    for part in ["256 wide", "131584", "101376"] {
        assert!(message.contains(part), "{message}");
    }
}
