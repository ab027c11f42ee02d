//! What a submission says of each tensor, for people.

use crate::submission::{EMPTY, Submission, Values};
use serde::Serialize;

/// One tensor's part of a submission.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorSummary {
    /// Its name in the layout.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Height and width of a chunk.
    pub chunk: [usize; 2],
    /// Chunks.
    pub chunks: usize,
    /// Chunks that send nothing.
    pub empty: usize,
    /// Smallest and largest exponent of the others.
    pub exponents: Option<[i16; 2]>,
    /// Entries whose value is not 0.
    pub sent: usize,
}

impl Submission {
    /// Every tensor's part, in the layout's order.
    pub fn summary(&self) -> Vec<TensorSummary> {
        let tensor = |(spec, plan): (&crate::TensorSpec, &crate::format::Plan)| {
            let exponents = self.exponents[plan.chunks()].iter().copied().filter(|&e| e != EMPTY);
            let range = exponents.clone().min().zip(exponents.clone().max());
            let sent = match &self.values {
                Values::Levels(levels) => levels[plan.entries()].iter().filter(|&&level| level != 0).count(),
                Values::Exact(values) => values[plan.entries()].iter().filter(|&&value| value != 0.0).count(),
            };
            TensorSummary {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                chunk: [plan.grid.h, plan.grid.w],
                chunks: plan.grid.chunks(),
                empty: plan.grid.chunks() - exponents.count(),
                exponents: range.map(|(low, high)| [low, high]),
                sent,
            }
        };
        self.format.plans().map(tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Codebook, Format, Layout, Momentum, Subtract};
    use std::sync::Arc;

    #[test]
    fn every_tensor_is_accounted_for() {
        let layout = Layout::from_shapes([("a", vec![8, 8]), ("b", vec![6])]).unwrap();
        let format = Format::new(layout, 4, 3, Codebook::with_bits(8).unwrap()).unwrap();
        let mut momentum = Momentum::new(Arc::clone(&format), 0.5, 0, Subtract::Always).unwrap();
        let mut grads = vec![0.0; 70];
        grads[..32].iter_mut().enumerate().for_each(|(i, g)| *g = 1.0 + i as f32);
        let summary = momentum.step(&grads, 1.0).unwrap().summary();
        assert_eq!(summary.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        // The upper half of `a` has two of its four chunks.
        assert_eq!((summary[0].chunks, summary[0].empty, summary[0].chunk), (4, 2, [4, 4]));
        assert!(summary[0].sent >= 2 && summary[0].sent <= 6 && summary[0].exponents.is_some());
        assert_eq!((summary[1].empty, summary[1].exponents, summary[1].sent), (2, None, 0));
    }
}
