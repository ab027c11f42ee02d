//! Where a submission's bytes go, and what a whole model's submission takes.

use crate::codebook::Codebook;
use crate::config::DemoConfig;
use crate::error::Result;
use crate::layout::Layout;
use crate::object::{HEADER, TRAILER};
use crate::submission::{EMPTY, Submission, Values};
use crate::synthetic;
use serde::Serialize;
use std::sync::Arc;

/// Where a payload's bits go.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Size {
    /// Entries of chunks that are not empty.
    pub entries: usize,
    /// Bits an index takes.
    pub bits_per_index: f64,
    /// All bits of the payload per entry.
    pub bits_per_entry: f64,
    /// Share of entries whose code is 0.
    pub zeros: f64,
}

impl Size {
    /// Of a submission whose payload has `bytes` bytes.
    pub fn of(submission: &Submission, bytes: usize) -> Self {
        let format = submission.format();
        let (mut entries, mut indexed, mut bits) = (0, 0, 0);
        for (_, plan) in format.plans() {
            for (chunk, &exponent) in submission.exponents[plan.chunks()].iter().enumerate() {
                if exponent != EMPTY {
                    entries += plan.k;
                    if let Some(r) = plan.rice {
                        indexed += plan.k;
                        bits += crate::rice::cost(&submission.indices[plan.chunk_entries(chunk)], r);
                    }
                }
            }
        }
        let sent = submission.sent();
        Self {
            entries,
            bits_per_index: bits as f64 / indexed.max(1) as f64,
            bits_per_entry: 8.0 * bytes as f64 / entries.max(1) as f64,
            zeros: 1.0 - sent as f64 / entries.max(1) as f64,
        }
    }
}

/// Size of a whole model's submission.
#[derive(Debug, Clone, Serialize)]
pub struct ModelSize {
    /// Parameters of all tensors.
    pub params: usize,
    /// Entries a submission has where no chunk is empty.
    pub entries: usize,
    /// Bytes of the object.
    pub bytes: usize,
    /// Bits an index takes.
    pub bits_per_index: f64,
    /// Bits of the object per entry.
    pub bits_per_entry: f64,
    /// Share of entries whose code is 0.
    pub zeros: f64,
    /// ‖v − ŝq‖ / ‖v‖ over the entries that were sent: what the codes lose.
    pub loss: f64,
}

/// Measures a model given as shapes with how often each occurs, after `windows` synthetic windows, the last of them
/// after momentum warm-up. One tensor of each shape is worked out and counted as often as it occurs.
pub fn model_size(
    shapes: &[(usize, Vec<usize>)],
    topk: usize,
    codebook: &Codebook,
    windows: u64,
) -> Result<ModelSize> {
    let (mut out, mut payload, mut indexed, mut sent) = ([0_usize; 2], 0, [0.0; 2], [0.0; 2]);
    let mut loss = [0.0_f64; 2];
    for (number, (count, shape)) in shapes.iter().enumerate() {
        let layout = Layout::from_shapes([(format!("shape {number}"), shape.clone())])?;
        let config =
            DemoConfig { topk, codebook: codebook.clone(), momentum_warmup: 2, ..DemoConfig::default() };
        let format = config.format(layout)?;
        let mut momentum = config.momentum(Arc::clone(&format))?;
        let mut grads = vec![0.0; format.layout().len()];
        let mut last = Submission::empty(Arc::clone(&format));
        for window in 0..windows {
            synthetic::gradient(format.layout(), window, 0, &mut grads);
            if window + 1 == windows {
                let past = momentum.coefficients().to_vec();
                momentum.restore(&past, 0)?;
            }
            last = momentum.step(&grads, 1e-3)?;
        }
        let bytes = last.encode().len();
        let size = Size::of(&last, bytes);
        out[0] += count * format.layout().len();
        out[1] += count * format.entries();
        payload += count * bytes;
        let weight = (count * size.entries) as f64;
        indexed = [indexed[0] + weight * size.bits_per_index, indexed[1] + weight];
        sent = [sent[0] + weight * size.zeros, sent[1] + weight];
        let [error, energy] = coding_loss(&last, momentum.coefficients());
        loss = [loss[0] + *count as f64 * error, loss[1] + *count as f64 * energy];
    }
    let bytes = payload + HEADER + TRAILER;
    Ok(ModelSize {
        params: out[0],
        entries: out[1],
        bytes,
        bits_per_index: indexed[0] / indexed[1],
        bits_per_entry: 8.0 * bytes as f64 / out[1] as f64,
        zeros: sent[0] / sent[1],
        loss: (loss[0] / loss[1]).sqrt(),
    })
}

/// Squared error of the codes and squared norm of the entries of a one-tensor submission that was not subtracted,
/// each tensor scaled to unit norm.
fn coding_loss(submission: &Submission, m: &[f32]) -> [f64; 2] {
    let (mut vv, mut vq, mut qq) = (0.0, 0.0, 0.0);
    for (_, plan) in submission.format().plans() {
        for (chunk, &exponent) in submission.exponents[plan.chunks()].iter().enumerate() {
            for entry in plan.chunk_entries(chunk) {
                let v = f64::from(m[chunk * plan.grid.chunk_len() + usize::from(submission.indices[entry])]);
                let q = match submission.values() {
                    _ if exponent == EMPTY => continue,
                    Values::Levels(levels) => {
                        f64::from(levels[entry]) * libm::exp2(f64::from(exponent) - 6.0)
                    }
                    Values::Exact(values) => f64::from(values[entry]),
                };
                (vv, vq, qq) = (vv + v * v, vq + v * q, qq + q * q);
            }
        }
    }
    let n = m.len() as f64;
    [n * (1.0 - vq * vq / (vv * qq)), n]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_billion_parameters_fit_into_what_is_promised() {
        // As many parameters as the 1.2B model's matrices, each tensor of its commonest shape.
        let size =
            model_size(&[(287, vec![2048, 2048]), (33, vec![2048])], 32, &Codebook::default(), 4).unwrap();
        assert!(size.params > 1_203_000_000, "{size:?}");
        assert!(size.bits_per_index <= 8.6 && size.bytes <= 11_600_000, "{size:?}");
    }
}
