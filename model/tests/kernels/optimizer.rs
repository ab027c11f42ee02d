//! AdamW and the sum of squares.

use gauntlet_model::engine::cuda::F32;
use gauntlet_model::engine::{AdamW, Backend, View};

use super::*;

#[test]
fn adamw() {
    let (cuda, mut random) = (cuda::<F32>(), Random::fresh());
    // More than the 2,112 blocks of a launch hold.
    let n = 2112 * 256 + 1031;
    let step =
        AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 7, grad_scale: 0.5 };
    let (grads, theta) = (random.values(n, 1.0), random.values(n, 1.0));
    let (m, v) = (random.values(n, 0.1), random.values(n, 0.01).iter().map(|v| v.abs()).collect::<Vec<_>>());
    let (mut t_ref, mut m_ref, mut v_ref) = (wide(&theta), wide(&m), wide(&v));
    let [lr, beta1, beta2, eps, decay, scale] =
        [step.lr, step.beta1, step.beta2, step.eps, step.weight_decay, step.grad_scale].map(f64::from);
    for i in 0..n {
        let g = f64::from(grads[i]) * scale;
        m_ref[i] = beta1 * m_ref[i] + (1.0 - beta1) * g;
        v_ref[i] = beta2 * v_ref[i] + (1.0 - beta2) * g * g;
        let (mean, square) = (m_ref[i] / (1.0 - beta1.powi(7)), v_ref[i] / (1.0 - beta2.powi(7)));
        t_ref[i] = t_ref[i] * (1.0 - lr * decay) - lr * mean / (square.sqrt() + eps);
    }
    let (dg, mut dt, mut dm, mut dv) =
        (put(&cuda, &grads), put(&cuda, &theta), put(&cuda, &m), put(&cuda, &v));
    cuda.adamw(step, all(&dg), all_mut(&mut dt), all_mut(&mut dm), all_mut(&mut dv));
    close("m", &get(&cuda, &dm), &m_ref, 1e-6);
    close("v", &get(&cuda, &dv), &v_ref, 1e-6);
    close("theta", &get(&cuda, &dt), &t_ref, 1e-6);
}

#[test]
fn sum_of_squares() {
    let (cuda, mut random) = (cuda::<F32>(), Random::fresh());
    // More than four rounds of the fixed 262,144 threads.
    for n in [1, 1000, 262_144 * 5 + 77] {
        let x = random.values(n, 1.0);
        let buf = put(&cuda, &x);
        let sum = cuda.sum_of_squares(View { buf: &buf, start: 0, len: n }).unwrap();
        let expected: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        assert!((sum / expected - 1.0).abs() < 1e-7, "{n}: {sum} {expected}");
    }
}

#[test]
fn picked_elements_are_those_at_their_positions() {
    let (cuda, mut random) = (cuda::<F32>(), Random::fresh());
    let values = random.values(1000, 1.0);
    let buf = put(&cuda, &values);
    let positions: Vec<usize> = [0, 999, 7, 7].into_iter().chain((0..300).map(|i| 13 * i % 1000)).collect();
    let expected: Vec<f32> = positions.iter().map(|&i| values[i]).collect();
    assert_eq!(cuda.pick(&buf, &positions).unwrap(), expected);
    assert_eq!(cuda.pick(&buf, &[]).unwrap(), [0.0; 0]);
    assert!(cuda.pick(&buf, &[3, 1000]).is_err());
}
