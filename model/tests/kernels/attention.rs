//! Causal attention, forward and backward: lengths around the tiles, grouped heads, every width of heads.

use gauntlet_model::engine::cuda::{Bf16, F32, Precision};
use gauntlet_model::engine::{Backend, Heads};

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

fn check<P: Precision>(batch: usize, seq: usize, n_heads: usize, n_kv_heads: usize, head_dim: usize) {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    let h = Heads { batch, seq, n_heads, n_kv_heads, head_dim };
    let (nq, nk) = (batch * seq * n_heads * head_dim, batch * seq * n_kv_heads * head_dim);
    let (q, k, v) = (random.acts::<P>(nq, 2.0), random.acts::<P>(nk, 2.0), random.acts::<P>(nk, 1.0));
    let dout = random.acts::<P>(nq, 1.0);
    let expected = reference(h, &q, &k, &v, &dout);
    let (q, k, v, dout) = (put_act(&cuda, &q), put_act(&cuda, &k), put_act(&cuda, &v), put_act(&cuda, &dout));
    let (mut out, mut lse) = (poison_act(&cuda, nq), poison(&cuda, batch * n_heads * seq));
    cuda.attention_forward(h, all(&q), all(&k), all(&v), all_mut(&mut out), all_mut(&mut lse));
    close("out", &get_act(&cuda, &out), &expected.out, limit::<P>());
    close("lse", &get(&cuda, &lse), &expected.lse, 1e-5);
    let (mut dq, mut dk, mut dv) = (poison_act(&cuda, nq), poison_act(&cuda, nk), poison_act(&cuda, nk));
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
    close("dq", &get_act(&cuda, &dq), &expected.dq, limit::<P>());
    close("dk", &get_act(&cuda, &dk), &expected.dk, limit::<P>());
    close("dv", &get_act(&cuda, &dv), &expected.dv, limit::<P>());
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
    check::<Bf16>(1, 131, 2, 1, 128);
    check::<Bf16>(2, 64, 3, 3, 72);
}

#[test]
fn bf16_heads_up_to_256() {
    check::<Bf16>(1, 131, 2, 1, 256);
    check::<Bf16>(2, 17, 1, 1, 136);
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
