//! The learning rate of a window (PROTOCOL 6.3).
//!
//! With i the number of applied steps: linear from 0.1 to 1 of the peak over `warmup` steps, then a cosine to
//! `floor`·peak over the next `t_max` steps, then constant. Computed in f64 with `libm`, rounded once to f32.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// α as a function of the steps applied so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Largest rate.
    pub peak: f64,
    /// Steps from 0.1·peak to peak.
    pub warmup: u64,
    /// Steps from peak to floor·peak, after warm-up.
    pub t_max: u64,
    /// Last rate as a fraction of the peak.
    pub floor: f64,
}

impl Schedule {
    /// Refuses rates that are not finite or positive, or are not as the f32 that they become.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, reason: String| Err(Error::Config { field, reason });
        let peak = self.peak as f32;
        if !(peak.is_finite() && peak > 0.0) {
            return refuse("schedule.peak", format!("{:?}: finite and positive as an f32", self.peak));
        }
        if !(0.0..=1.0).contains(&self.floor) {
            return refuse("schedule.floor", format!("{}: 0 to 1", self.floor));
        }
        Ok(())
    }

    /// α after `steps` applied steps.
    ///
    /// ```
    /// let schedule = gauntlet_demo::Schedule { peak: 4e-4, warmup: 250, t_max: 20_000, floor: 0.1 };
    /// assert_eq!([schedule.at(0), schedule.at(250), schedule.at(20_250)], [4e-5, 4e-4, 4e-5]);
    /// ```
    pub fn at(&self, steps: u64) -> f32 {
        self.exact(steps) as f32
    }

    /// The same before it is rounded.
    pub fn exact(&self, steps: u64) -> f64 {
        if steps < self.warmup {
            return self.peak * (0.1 + 0.9 * (steps as f64 / self.warmup as f64));
        }
        let floor = self.floor * self.peak;
        let along = steps - self.warmup;
        if along >= self.t_max {
            return floor;
        }
        let cos = libm::cos(PI * along as f64 / self.t_max as f64);
        floor + (self.peak - floor) * (1.0 + cos) / 2.0
    }
}
