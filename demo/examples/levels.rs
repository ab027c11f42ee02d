//! What each set of levels loses, and the set that loses least: `levels`, a JSON line for each number of bits.
//!
//! On synthetic momentum of a 2048 × 2048 tensor after six windows, k = 32, chunks of 64 × 64. The loss is
//! ‖v − ŝq‖ / ‖v‖ over what is sent. The search moves one level at a time from the default set, as long as that helps.
#![allow(clippy::print_stdout)] // a tool for people

use gauntlet_demo::{Codebook, DemoConfig, Layout, Values, synthetic};

/// Chosen coefficients, each with the exponent of its chunk.
fn coefficients() -> gauntlet_demo::Result<Vec<(f64, i16)>> {
    let layout = Layout::from_shapes([("a", vec![2048, 2048])])?;
    let config =
        DemoConfig { codebook: Codebook::with_bits(32)?, momentum_warmup: 5, ..DemoConfig::default() };
    let format = config.format(layout)?;
    let mut momentum = config.momentum(format.clone())?;
    let mut grads = vec![0.0; format.layout().len()];
    let mut sent = None;
    for window in 0..6 {
        synthetic::gradient(format.layout(), window, 0, &mut grads);
        sent = Some(momentum.step(&grads, 1e-3)?);
    }
    let Some(sent) = sent else { return Ok(Vec::new()) };
    let Values::Exact(values) = sent.values() else { return Ok(Vec::new()) };
    let exponents = sent.exponents().iter().flat_map(|&e| std::iter::repeat_n(e, config.topk));
    Ok(values.iter().map(|&v| f64::from(v).abs()).zip(exponents).collect())
}

/// ‖v − ŝq‖ / ‖v‖.
fn loss(coefficients: &[(f64, i16)], levels: &[i8]) -> f64 {
    let [mut vv, mut vq, mut qq] = [0.0; 3];
    for &(v, exponent) in coefficients {
        let unit = libm::exp2(f64::from(exponent) - 6.0);
        let (mut q, mut below) = (0.0, 0.0);
        for level in levels.iter().map(|&level| f64::from(level)) {
            if 2.0 * v >= (below + level) * unit || (levels.len() == 1 && level == 1.0) {
                q = level * unit;
            }
            below = level;
        }
        (vv, vq, qq) = (vv + v * v, vq + v * q, qq + q * q);
    }
    (1.0 - vq * vq / (vv * qq)).max(0.0).sqrt()
}

fn main() -> gauntlet_demo::Result<()> {
    let coefficients = coefficients()?;
    for bits in [1, 2, 3, 4, 8] {
        let default = Codebook::with_bits(bits)?.levels().to_vec();
        let at_default = loss(&coefficients, &default);
        let (mut best, mut least) = (default.clone(), at_default);
        let mut moved = (2..=4).contains(&bits);
        while moved {
            moved = false;
            for i in 0..best.len() {
                for by in [-8_i8, -3, -1, 1, 3, 8] {
                    let mut other = best.clone();
                    other[i] = other[i].saturating_add(by);
                    if other[0] < 1 || !other.is_sorted_by(|a, b| a < b) {
                        continue;
                    }
                    let found = loss(&coefficients, &other);
                    if found < least {
                        (best, least, moved) = (other, found, true);
                    }
                }
            }
        }
        let shown = if bits == 8 { "null".to_owned() } else { format!("{default:?}") };
        let found = if bits == 8 { "null".to_owned() } else { format!("{best:?}") };
        println!(
            "{{\"bits\":{bits},\"levels\":{shown},\"loss\":{at_default:.4},\"best\":{found},\"best_loss\":{least:.4}}}"
        );
    }
    Ok(())
}
