//! How long to wait, and how often to try again.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::{Cause, Fault};

/// Time for one request = `base` + bytes / `rate`; a store's default of 30 s for everything fails large objects on slow
/// lines. Between tries a pause that doubles, within ±50 % at random so that peers do not return as one crowd.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patience {
    pub(crate) tries: u32,
    pub(crate) pause: Duration,
    pub(crate) base: Duration,
    /// Slowest line that is served, in bytes per second.
    pub(crate) rate: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { tries: 4, pause: Duration::from_millis(250), base: Duration::from_secs(10), rate: 256 * 1024 }
    }
}

impl Patience {
    /// One try: for a place that is known not to answer.
    pub(crate) fn none() -> Self {
        Self { tries: 1, ..Self::default() }
    }
}

const LONGEST_PAUSE: Duration = Duration::from_secs(8);

impl Patience {
    /// Time for one request that moves so many bytes.
    pub(super) fn request(&self, bytes: u64) -> Duration {
        self.base + Duration::from_secs(bytes / self.rate.max(1))
    }

    /// When all tries of a request of so many bytes must have ended.
    pub(crate) fn deadline(&self, bytes: u64) -> Instant {
        Instant::now() + (self.request(bytes) + self.base) * self.tries.max(1)
    }

    /// When objects of so many bytes that many owners have must have come: in the time of one request, however many there
    /// are. Who has a copy elsewhere, or asks again in the next block, waits no longer for one that does not answer.
    pub(crate) fn soon(&self, bytes: u64) -> Instant {
        Instant::now() + self.request(bytes)
    }

    /// How long nothing may come before another way is tried as well.
    pub(super) fn while_waiting(&self) -> Duration {
        self.base / 4
    }

    /// Tries until something certain is known, the tries are spent, or the deadline comes. `request` limits its own time.
    pub(super) async fn insist<T, F>(&self, deadline: Instant, request: impl Fn() -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut pause = self.pause;
        for left in (0..self.tries.max(1)).rev() {
            let fault = match within(deadline.saturating_duration_since(Instant::now()), request()).await {
                Err(fault) if fault.is_passing() => fault,
                certain => return certain,
            };
            let wait = pause.mul_f64(0.5 + chance());
            if left == 0 || Instant::now() + wait >= deadline {
                return Err(fault);
            }
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Err(Fault::Unknown(Cause::TimeOut))
    }
}

/// Ends a request that takes longer.
pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    timeout(limit, request).await.unwrap_or(Err(Fault::Unknown(Cause::TimeOut)))
}

/// Uniform in [0, 1); the middle where the system gives no randomness.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / 4_294_967_296.0)
}
