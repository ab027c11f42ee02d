//! RMSNorm, RoPE, SwiGLU, embedding and cross-entropy, forward and backward.

use gauntlet_model::engine::cuda::Precision;
use gauntlet_model::engine::{Backend, IGNORE, Order, View, Write};

use super::*;

both!(rms_norm, rope, swiglu, embedding, cross_entropy, rounding);

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn rms_norm<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for (rows, width) in [(1, 8), (21, 37), (19, 264), (50, 2056), (1100, 24)] {
        let (n, eps) = (rows * width, 1e-5);
        let (x, gain) = (random.acts::<P>(n, 2.0), random.values(width, 1.5));
        let (dout, old) = (random.acts::<P>(n, 1.0), random.acts::<P>(n, 1.0));
        let old_gain = random.values(width, 1.0);
        let (mut rstd_ref, mut out_ref, mut dx_ref, mut dgain_ref) =
            (vec![0.0; rows], vec![0.0; n], vec![0.0; n], vec![0.0; width]);
        for r in 0..rows {
            let (x, d) = (wide(&x[r * width..][..width]), wide(&dout[r * width..][..width]));
            let rstd = 1.0 / (x.iter().map(|v| v * v).sum::<f64>() / width as f64 + f64::from(eps)).sqrt();
            let h: Vec<f64> = d.iter().zip(&gain).map(|(d, g)| d * f64::from(*g)).collect();
            let mean = h.iter().zip(&x).map(|(h, x)| h * x).sum::<f64>() / width as f64 * rstd * rstd;
            rstd_ref[r] = rstd;
            for i in 0..width {
                out_ref[r * width + i] = x[i] * rstd * f64::from(gain[i]);
                dx_ref[r * width + i] = f64::from(old[r * width + i]) + rstd * (h[i] - x[i] * mean);
                dgain_ref[i] += d[i] * x[i] * rstd;
            }
        }
        let (dx_in, dgain_in, ddout) = (put_act(&cuda, &x), put(&cuda, &gain), put_act(&cuda, &dout));
        let (mut rstd, mut out) = (poison(&cuda, rows), poison_act(&cuda, n));
        cuda.rms_norm_forward(all(&dx_in), all(&dgain_in), eps, all_mut(&mut rstd), all_mut(&mut out));
        close("rstd", &get(&cuda, &rstd), &rstd_ref, 1e-5);
        close("rms_norm", &get_act(&cuda, &out), &out_ref, limit::<P>());
        let mut again = poison_act(&cuda, n);
        cuda.rms_norm_again(all(&dx_in), all(&dgain_in), all(&rstd), all_mut(&mut again));
        assert_eq!(get_act(&cuda, &again), get_act(&cuda, &out));
        for write in [Write::Set, Write::Add] {
            let mut dx = put_act(&cuda, &old);
            let mut dgain = if write == Write::Add { put(&cuda, &old_gain) } else { poison(&cuda, width) };
            let (x, gain) = (all(&dx_in), all(&dgain_in));
            cuda.rms_norm_backward(
                x,
                gain,
                all(&rstd),
                all(&ddout),
                all_mut(&mut dx),
                all_mut(&mut dgain),
                write,
            );
            close("rms_norm dx", &get_act(&cuda, &dx), &dx_ref, limit::<P>());
            let expected: Vec<f64> = dgain_ref
                .iter()
                .zip(&old_gain)
                .map(|(sum, old)| if write == Write::Add { sum + f64::from(*old) } else { *sum })
                .collect();
            close("rms_norm dgain", &get(&cuda, &dgain), &expected, 1e-5);
        }
    }
}

fn rope<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    // In the last each of a launch's 2,112 blocks turns more than 256 · 8 pairs.
    for (batch, seq, heads, d) in [(2, 9, 3, 10), (1, 5, 2, 64), (3, 7, 1, 16), (3, 1411, 16, 128)] {
        let (rows, half, width) = (batch * seq, d / 2, heads * d);
        let angles = random.values(seq * half, 3.0);
        let table: Vec<f32> = angles.iter().map(|a| a.cos()).chain(angles.iter().map(|a| a.sin())).collect();
        let x = random.acts::<P>(rows * width, 1.0);
        for order in [Order::Normal, Order::Transposed] {
            let mut expected = wide(&x);
            for row in 0..rows {
                for head in 0..heads {
                    for j in 0..half {
                        let at = row % seq * half + j;
                        let (c, s) = (f64::from(table[at]), f64::from(table[seq * half + at]));
                        let s = if order == Order::Normal { s } else { -s };
                        let first = row * width + head * d + j;
                        let (u, v) = (f64::from(x[first]), f64::from(x[first + half]));
                        expected[first] = u * c - v * s;
                        expected[first + half] = v * c + u * s;
                    }
                }
            }
            let (mut dx, dtable) = (put_act(&cuda, &x), put(&cuda, &table));
            cuda.rope(all_mut(&mut dx), all(&dtable), seq, (width, d), order);
            close("rope", &get_act(&cuda, &dx), &expected, limit::<P>());
        }
    }
}

fn swiglu<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    // In the last each of a launch's 2,112 blocks has more than 256 · 8 outputs.
    for (rows, width) in [(11, 29), (13, 136), (2115, 2048)] {
        let x = random.acts::<P>(rows * 2 * width, 4.0);
        let dout = random.acts::<P>(rows * width, 1.0);
        let (mut out_ref, mut dx_ref) = (vec![0.0; rows * width], vec![0.0; rows * 2 * width]);
        for i in 0..rows * width {
            let gate_at = i / width * 2 * width + i % width;
            let (g, u, d) = (f64::from(x[gate_at]), f64::from(x[gate_at + width]), f64::from(dout[i]));
            out_ref[i] = g * sigmoid(g) * u;
            dx_ref[gate_at] = d * u * sigmoid(g) * (1.0 + g * (1.0 - sigmoid(g)));
            dx_ref[gate_at + width] = d * g * sigmoid(g);
        }
        let (mut gate_up, mut out) = (put_act(&cuda, &x), poison_act(&cuda, rows * width));
        cuda.swiglu_forward(width, all(&gate_up), all_mut(&mut out));
        close("swiglu", &get_act(&cuda, &out), &out_ref, limit::<P>());
        let mut dout = put_act(&cuda, &dout);
        cuda.swiglu_backward(width, all_mut(&mut gate_up), all_mut(&mut dout));
        close("swiglu gradient", &get_act(&cuda, &gate_up), &dx_ref, limit::<P>());
        assert_eq!(get_act(&cuda, &dout), get_act(&cuda, &out), "the forward output again");
    }
}

fn embedding<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for (n, vocab, width) in [(1, 3, 5), (150, 7, 24), (67, 40, 136)] {
        let (tokens, table) = (random.ids(n, vocab as u64), random.values(vocab * width, 1.0));
        let dout = random.acts::<P>(n * width, 1.0);
        let mut ids = cuda.alloc_ids(n).unwrap();
        cuda.upload_ids(&tokens, &mut ids).unwrap();
        let ids = View { buf: &ids, start: 0, len: n };
        let (mut dtable, mut out) = (put(&cuda, &table), poison_act(&cuda, n * width));
        cuda.embedding_forward(ids, all(&dtable), all_mut(&mut out));
        let expected: Vec<f32> = tokens
            .iter()
            .flat_map(|&t| table[t as usize * width..][..width].iter().map(|&v| P::value(P::round(v))))
            .collect();
        assert_eq!(get_act(&cuda, &out), expected);
        // Sums in f32, in order of the positions: the same bits as the plain loop.
        let mut sums = table.clone();
        for (row, &token) in dout.chunks(width).zip(&tokens) {
            for (sum, v) in sums[token as usize * width..].iter_mut().zip(row) {
                *sum += v;
            }
        }
        let ddout = put_act(&cuda, &dout);
        cuda.embedding_backward(ids, all(&ddout), all_mut(&mut dtable), width);
        assert_eq!(get(&cuda, &dtable), sums);
    }
}

fn cross_entropy<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for (rows, vocab) in [(5, 3), (13, 83), (4, 1300)] {
        let z = random.values(rows * vocab, 8.0);
        let mut targets = random.ids(rows, vocab as u64);
        targets[rows / 2] = IGNORE;
        let scale = 0.37f32;
        let (mut losses_ref, mut dz_ref) = (vec![0.0; rows], vec![0.0; rows * vocab]);
        for (r, &target) in targets.iter().enumerate().filter(|(_, t)| **t != IGNORE) {
            let z = wide(&z[r * vocab..][..vocab]);
            let top = z.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = z.iter().map(|v| (v - top).exp()).sum();
            losses_ref[r] = sum.ln() + top - z[target as usize];
            for i in 0..vocab {
                let hit = f64::from(u8::from(i == target as usize));
                dz_ref[r * vocab + i] = f64::from(scale) * ((z[i] - top).exp() / sum - hit);
            }
        }
        let mut ids = cuda.alloc_ids(rows).unwrap();
        cuda.upload_ids(&targets, &mut ids).unwrap();
        let ids = View { buf: &ids, start: 0, len: rows };
        let (mut logits, mut losses) = (put(&cuda, &z), poison(&cuda, rows));
        cuda.cross_entropy_forward(vocab, ids, all(&logits), all_mut(&mut losses));
        close("loss", &get(&cuda, &losses), &losses_ref, 1e-5);
        let mut losses = poison(&cuda, rows);
        cuda.cross_entropy_backward(vocab, ids, scale, all_mut(&mut logits), all_mut(&mut losses));
        close("loss again", &get(&cuda, &losses), &losses_ref, 1e-5);
        let dz = get(&cuda, &logits);
        close("dlogits", &dz, &dz_ref, 1e-5);
        assert!(dz[rows / 2 * vocab..][..vocab].iter().all(|&v| v == 0.0));
    }
    nan_logits_show(&cuda, &mut random);
}

/// One NaN among a row's logits, wherever it lies, makes the row's loss and gradient NaN, and no other's.
fn nan_logits_show<P: Precision>(cuda: &Cuda<Chosen, P>, random: &mut Random) {
    // More than a block has threads, so that some read two logits.
    let (rows, vocab) = (3, 600);
    for at in [7, vocab - 1] {
        let mut z = random.values(rows * vocab, 8.0);
        z[vocab + at] = f32::NAN;
        let mut ids = cuda.alloc_ids(rows).unwrap();
        cuda.upload_ids(&[1, 2, 3], &mut ids).unwrap();
        let ids = View { buf: &ids, start: 0, len: rows };
        let (mut logits, mut losses) = (put(cuda, &z), put(cuda, &vec![0.0; rows]));
        cuda.cross_entropy_forward(vocab, ids, all(&logits), all_mut(&mut losses));
        let shows = |losses: &[f32]| losses.iter().map(|loss| loss.is_nan()).collect::<Vec<_>>();
        assert_eq!(shows(&get(cuda, &losses)), [false, true, false], "loss, NaN at {at}");
        cuda.cross_entropy_backward(vocab, ids, 1.0, all_mut(&mut logits), all_mut(&mut losses));
        assert_eq!(shows(&get(cuda, &losses)), [false, true, false], "loss again, NaN at {at}");
        let dz = get(cuda, &logits);
        let wrong = |(i, v): (usize, &f32)| v.is_nan() != (i / vocab == 1);
        assert!(!dz.iter().enumerate().any(wrong), "gradient, NaN at {at}");
    }
}

/// f32 values as products read them: exactly the nearest, ties to even.
fn rounding<P: Precision>() {
    let (cuda, mut random) = (cuda::<P>(), Random::fresh());
    for (start, n) in [(0, 4096), (0, 13), (5, 1027)] {
        let mut values = random.values(start + n, 3.0);
        values[start] = f32::from_bits(0x3f80_8000); // a tie
        let from = put(&cuda, &values);
        let mut room = cuda.alloc_rounded(n).unwrap();
        let view = cuda.rounded(View { buf: &from, start, len: n }, &mut room);
        let mut out = vec![0.0; n];
        cuda.download_act(view, &mut out).unwrap();
        let expected: Vec<f32> = values[start..].iter().map(|&v| P::value(P::round(v))).collect();
        assert_eq!(out, expected);
    }
}
