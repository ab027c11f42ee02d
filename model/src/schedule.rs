//! Learning rate of the centralised baseline: linear warm-up, then cosine to a floor.

/// Warm-up and cosine decay, a pure function of the step.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest learning rate.
    pub peak: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// Step at which the cosine reaches its floor.
    pub steps: u64,
    /// The floor as a fraction of the peak.
    pub floor: f64,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        #[allow(clippy::cast_precision_loss)] // step counts stay far below 2⁵³
        let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        if step < self.warmup {
            return self.peak * ratio(step + 1, self.warmup);
        }
        let progress = ratio(step - self.warmup, self.steps.saturating_sub(self.warmup)).min(1.0);
        let cosine = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * progress));
        self.peak * (self.floor + (1.0 - self.floor) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_falls_and_stays() {
        let s = Schedule { peak: 1.0, warmup: 4, steps: 14, floor: 0.1 };
        assert_eq!([s.at(0), s.at(3), s.at(4)], [0.25, 1.0, 1.0]);
        assert!((s.at(9) - 0.55).abs() < 1e-12);
        assert!((s.at(14) - 0.1).abs() < 1e-12 && (s.at(1000) - 0.1).abs() < 1e-12);
        assert!(Schedule { peak: 1.0, warmup: 0, steps: 0, floor: 0.0 }.at(0).is_finite());
    }
}
