//! `timing.json`: how long each phase took, what a device's memory held. Not in `summary.json`, which is the same
//! whenever a run is repeated.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::run::stopwatch::{Seconds, Stopwatch};

/// Time, and how much of it went into forward and backward passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    pub(crate) total: Duration,
    pub(crate) passes: Duration,
}

impl Spent {
    pub(crate) fn with(self, more: Self) -> Self {
        Self { total: self.total + more.total, passes: self.passes + more.passes }
    }

    /// What is left without a part of it.
    pub(crate) fn without(self, part: Self) -> Self {
        let total = self.total.saturating_sub(part.total);
        Self { total, passes: self.passes.saturating_sub(part.passes) }
    }
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total.as_secs_f64();
        let rest = 100.0 * (1.0 - self.passes.as_secs_f64() / total.max(1e-9));
        write!(f, "{total:.1} s, {rest:.1} % of them not in forward and backward passes")
    }
}

/// Collects the times of a simulation.
pub(crate) struct Times {
    clock: Stopwatch,
    windows: Vec<Window>,
    /// Of the window that is open.
    judged: u64,
    evaluated: u64,
    device_bytes: Option<usize>,
}

/// A window.
#[derive(Clone, Copy, Debug, Serialize)]
struct Window {
    window: u64,
    /// Objects made.
    submissions: u64,
    /// Validators that judged.
    judged: u64,
    /// Peers whose losses they measured, each validator's counted.
    evaluated: u64,
    #[serde(flatten)]
    seconds: Seconds,
}

/// The file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Timing {
    /// What computed.
    pub(crate) device: String,
    pub(crate) parameters: usize,
    /// How long a window is on the chain.
    pub(crate) window_seconds: f64,
    /// Means of the windows after the first, or of it alone.
    pub(crate) submission: Part,
    pub(crate) evaluated_peer: Part,
    /// A validator's window: reading and all losses.
    pub(crate) validator: Part,
    /// A window's record and outer step, made once for all nodes of the process.
    pub(crate) closing: Part,
    /// Most of a device's memory that was taken, seen at the end of each window.
    pub(crate) device_bytes: Option<usize>,
    pub(crate) peak_rss_bytes: Option<u64>,
    windows: Vec<Window>,
}

/// One of what takes time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Part {
    /// None where there was none.
    pub(crate) seconds: Option<f64>,
    /// Of a window.
    pub(crate) share: Option<f64>,
}

impl Times {
    pub(crate) fn new(clock: Stopwatch) -> Self {
        Self { clock, windows: Vec::new(), judged: 0, evaluated: 0, device_bytes: None }
    }

    /// A validator measured so many peers.
    pub(crate) fn judged(&mut self, evaluated: usize) {
        self.judged += 1;
        self.evaluated += evaluated as u64;
    }

    /// A window ended, with so many objects made, and so much of a device's memory taken.
    pub(crate) fn close(&mut self, window: u64, submissions: u64, device_bytes: Option<usize>) {
        let (judged, evaluated) = (std::mem::take(&mut self.judged), std::mem::take(&mut self.evaluated));
        self.windows.push(Window { window, submissions, judged, evaluated, seconds: self.clock.lap() });
        self.device_bytes = self.device_bytes.max(device_bytes);
    }

    /// What it came to.
    pub(crate) fn summary(&self, device: String, parameters: usize, window_seconds: f64) -> Timing {
        let counted = if self.windows.len() > 1 { &self.windows[1..] } else { &self.windows };
        let mean = |seconds: fn(&Seconds) -> f64, of: fn(&Window) -> u64| -> Part {
            let sum: f64 = counted.iter().map(|w| seconds(&w.seconds)).sum();
            let n: u64 = counted.iter().map(of).sum();
            #[allow(clippy::cast_precision_loss)] // a count
            let seconds = (n > 0).then(|| sum / n as f64);
            Part { seconds, share: seconds.map(|seconds| seconds / window_seconds) }
        };
        Timing {
            device,
            parameters,
            window_seconds,
            submission: mean(|s| s.train + s.encode, |w| w.submissions),
            evaluated_peer: mean(|s| s.evaluate, |w| w.evaluated),
            validator: mean(|s| s.read + s.evaluate, |w| w.judged),
            closing: mean(|s| s.record + s.apply, |_| 1),
            device_bytes: self.device_bytes,
            peak_rss_bytes: crate::memory::peak_rss_bytes(),
            windows: self.windows.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_simulation_does_is_taken_from_time_and_passes() {
        let spent =
            |total, passes| Spent { total: Duration::from_secs(total), passes: Duration::from_secs(passes) };
        let (run, measured) = (spent(200, 184), spent(30, 30).with(spent(30, 30)));
        assert_eq!(run.to_string(), "200.0 s, 8.0 % of them not in forward and backward passes");
        assert_eq!(run.without(measured), spent(140, 124));
        assert_eq!(
            run.without(measured).to_string(),
            "140.0 s, 11.4 % of them not in forward and backward passes"
        );
        assert_eq!(measured.without(run), spent(0, 0));
    }

    #[test]
    fn means_leave_the_first_window_out_and_count_each_validators_peers() {
        let mut times = Times::new(Stopwatch::start());
        let window = |window, submissions, judged, evaluated, seconds| Window {
            window,
            submissions,
            judged,
            evaluated,
            seconds,
        };
        let first = Seconds { train: 1000.0, ..Seconds::default() };
        let later = Seconds { train: 6.0, encode: 2.0, read: 1.0, evaluate: 3.0, ..Seconds::default() };
        times.windows = vec![window(0, 4, 2, 4, first)];
        assert_eq!(times.summary(String::new(), 1, 80.0).submission.seconds, Some(250.0));
        times.windows.extend([window(1, 4, 2, 6, later), window(2, 4, 2, 0, Seconds::default())]);
        let timing = times.summary("cpu".into(), 1, 80.0);
        assert_eq!(timing.submission, Part { seconds: Some(1.0), share: Some(1.0 / 80.0) });
        assert_eq!(timing.evaluated_peer.seconds, Some(0.5));
        assert_eq!(timing.validator.seconds, Some(1.0));
        let json = serde_json::to_value(&timing).unwrap();
        assert_eq!(
            (&json["windows"][1]["evaluate"], &json["windows"][1]["judged"]),
            (&3.0.into(), &2.into())
        );
    }

    #[test]
    fn a_window_keeps_what_was_counted_in_it() {
        let mut times = Times::new(Stopwatch::start());
        times.judged(3);
        times.judged(2);
        times.close(0, 5, Some(7));
        times.close(1, 0, Some(4));
        let timing = times.summary("cpu".into(), 1, 84.0);
        let [first, second] = timing.windows.as_slice() else { panic!("two windows") };
        assert_eq!((first.judged, first.evaluated, first.submissions), (2, 5, 5));
        assert_eq!((second.judged, second.evaluated), (0, 0));
        assert_eq!((timing.device_bytes, timing.evaluated_peer.seconds), (Some(7), None));
    }
}
